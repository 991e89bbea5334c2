"""The compare command: a page or a picture of two runs, and what it says of bad input."""

import sys
from pathlib import Path

import pytest
from PIL import Image

from fmcluster.cli import main
from tests.cli.small_cli_run import write_run


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("compared")
    return write_run(folder / "a.zarr", channels=6), write_run(folder / "b.zarr", channels=6)


def compare(*arguments: str | Path, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(sys, "argv", ["fmcluster", "compare", *map(str, arguments)])
    with pytest.raises(SystemExit) as exit_:
        main()
    return int(exit_.value.code or 0)


@pytest.mark.slow
def test_a_page_or_a_picture_is_written(runs, tmp_path, capsys, monkeypatch):
    page, picture = tmp_path / "both.html", tmp_path / "both.png"
    assert compare(*runs, "-o", page, monkeypatch=monkeypatch) == 0
    assert "a.zarr and b.zarr compared" in page.read_text()
    assert "The comparison of 2 runs is in" in capsys.readouterr().out
    assert compare(*runs, "--layer", "conv*", "-o", picture, monkeypatch=monkeypatch) == 0
    with Image.open(picture) as image:
        assert image.width > 500


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("-o", "both.docx"), "cannot write both.docx; expected a file that ends in .html, .png, .svg, .pdf"),
        (("-o", "no/both.html"), "there is no folder no"),
        (("--layer", "conv9"), "conv9"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(arguments, said, runs, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert compare(*runs, *arguments, monkeypatch=monkeypatch) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert not any(tmp_path.iterdir())


def test_a_run_that_is_not_there(runs, tmp_path, capsys, monkeypatch):
    assert compare(runs[0], tmp_path / "none.zarr", monkeypatch=monkeypatch) == 2
    assert "none.zarr" in capsys.readouterr().err
