"""Pictures as files: whole, or an error that the command line shows in a line, and nothing is left."""

import errno
import subprocess
from pathlib import Path

import pytest
from matplotlib import pyplot as plt
from matplotlib.animation import FuncAnimation
from matplotlib.figure import Figure
from PIL import Image

from fmcluster.cli._save_picture import save_animation, save_still


@pytest.fixture
def figure() -> Figure:
    figure = plt.figure(figsize=(1, 1))
    figure.subplots().plot([0, 1])
    plt.close(figure)
    return figure


@pytest.mark.parametrize(("name", "begins"), [("a.png", b"\x89PNG"), ("a.PDF", b"%PDF"), ("a.svg", b"<?xml")])
def test_the_names_ending_is_the_format(name: str, begins: bytes, figure: Figure, tmp_path: Path) -> None:
    save_still(figure, tmp_path / name, dpi=50)
    assert (tmp_path / name).read_bytes().startswith(begins)
    assert [each.name for each in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("name", ["a.png", "a.pdf", "a.svg"])
def test_names_in_any_script_are_drawn_without_a_warning(name: str, figure: Figure, tmp_path: Path) -> None:
    figure.axes[0].set_title("蜜蜂 🐝 مرحبا")
    save_still(figure, tmp_path / name, dpi=50)
    assert (tmp_path / name).stat().st_size


def test_without_being_cut_a_picture_has_the_figures_size(figure: Figure, tmp_path: Path) -> None:
    save_still(figure, tmp_path / "a.png", dpi=50, tight=False)
    with Image.open(tmp_path / "a.png") as image:
        assert image.size == (50, 50)


@pytest.mark.parametrize("name", ["a.png", "a.pdf", "a.svg"])
def test_a_full_disk_is_one_error_whatever_the_format(
    name: str, figure: Figure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a PDF, matplotlib itself raises an AttributeError."""
    (tmp_path / name).write_text("old")
    write = Path.write_bytes

    def full(path: Path, content: bytes) -> int:
        write(path, bytes(content[:10]))
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match=f"written to .*{name}: the system says 'no space left on device' of the folder"):
        save_still(figure, tmp_path / name, dpi=50)
    assert (tmp_path / name).read_text() == "old"
    assert [each.name for each in tmp_path.iterdir()] == [name]


def test_ffmpegs_reason_is_told(figure: Figure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise subprocess.CalledProcessError(1, "ffmpeg", b"", b"No space left on device\nmore\n")

    animation = FuncAnimation(figure, lambda _: [], frames=2)
    animation._draw_was_started = True
    monkeypatch.setattr(FuncAnimation, "save", fail)
    with pytest.raises(OSError, match=r"a.mp4 cannot be written: ffmpeg ended with 1, and says: No space left on dev"):
        save_animation(animation, tmp_path / "a.mp4", dpi=50)
    assert list(tmp_path.iterdir()) == []
