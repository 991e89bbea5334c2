"""The plot command: what it writes, and what it says of what it cannot write."""

import sys
from pathlib import Path

import matplotlib as mpl
import pytest
from PIL import Image

from fmcluster.cli import main
from tests.cli.small_cli_run import write_run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("drawing") / "run.zarr", channels=20)


def plot(*arguments: str | Path, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(sys, "argv", ["fmcluster", "plot", *map(str, arguments)])
    with pytest.raises(SystemExit) as exit_:
        main()
    return int(exit_.value.code or 0)


@pytest.mark.slow
@pytest.mark.parametrize("picture", ["embedding", "grid"])
def test_a_gif_moves(picture, run, tmp_path, capsys, monkeypatch):
    out = tmp_path / f"{picture}.gif"
    arguments = (run, picture, "--layer", "conv1", "--clusters", "3", "--dpi", "30", "-o", out)
    assert plot(*arguments, monkeypatch=monkeypatch) == 0
    assert f"Drawn in {out}" in capsys.readouterr().out.replace("\n", "")
    with Image.open(out) as image:
        assert image.format == "GIF"
        assert image.n_frames == 3 if picture == "grid" else image.n_frames > 3


@pytest.mark.slow
def test_an_mp4_moves_where_ffmpeg_is_there(run, tmp_path, monkeypatch):
    from matplotlib.animation import writers

    if not writers.is_available("ffmpeg"):
        pytest.skip("ffmpeg is not installed")
    out = tmp_path / "grid.mp4"
    assert plot(run, "grid", "--layer", "conv1", "--dpi", "40", "-o", out, monkeypatch=monkeypatch) == 0
    assert out.read_bytes()[4:8] == b"ftyp"


def test_an_mp4_without_ffmpeg_is_one_line_that_names_it(run, tmp_path, capsys, monkeypatch):
    out = tmp_path / "grid.mp4"
    with mpl.rc_context({"animation.ffmpeg_path": str(tmp_path / "no-such-program")}):
        assert plot(run, "grid", "--layer", "conv1", "-o", out, monkeypatch=monkeypatch) == 2
    said = capsys.readouterr().err.strip()
    assert said == "error: cannot write grid.mp4 without ffmpeg: install ffmpeg, or write a .gif"
    assert not out.exists()


def test_a_picture_that_does_not_move_says_what_it_can_be_written_to(run, tmp_path, capsys, monkeypatch):
    assert plot(run, "flow", "--layer", "conv1", "-o", tmp_path / "flow.gif", monkeypatch=monkeypatch) == 2
    said = capsys.readouterr().err.strip()
    assert said == (
        "error: cannot write flow.gif; expected a file that ends in .png, .svg or .pdf: flow cannot be animated, as "
        "embedding and channel_grid can"
    )
    assert plot(run, "grid", "--layer", "conv1", "-o", tmp_path / "grid.bmp", monkeypatch=monkeypatch) == 2
    assert "ends in .png, .svg or .pdf, or, as an animation, in .gif or .mp4" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("grid", "--epoch", "1"), "an animation shows all epochs: leave out --epoch"),
        (("grid", "--order", "cluster"), "pass index or activity"),
    ],
)
def test_what_makes_no_sense_of_an_animation_is_refused(arguments, said, run, tmp_path, capsys, monkeypatch):
    out = tmp_path / "grid.gif"
    assert plot(run, *arguments, "--layer", "conv1", "-o", out, monkeypatch=monkeypatch) == 2
    assert said in capsys.readouterr().err


@pytest.mark.slow
def test_a_grid_by_cluster_frames_the_representatives(run, tmp_path, monkeypatch):
    out = tmp_path / "grid.svg"
    arguments = (run, "grid", "--layer", "conv1", "--order", "cluster", "--clusters", "3", "-o", out)
    with mpl.rc_context({"svg.fonttype": "none"}):
        assert plot(*arguments, monkeypatch=monkeypatch) == 0
    written = out.read_text()
    assert written.count('id="representative') == 2 * 3
    assert "cluster 2: " in written
    assert "Framed: the representative of its cluster" in written


@pytest.mark.slow
def test_trajectories_of_channels_that_drifted_farther_than_a_floor(run, tmp_path, capsys, monkeypatch):
    from fmcluster import diagnose, open_run

    farthest = diagnose(open_run(run), layers=["conv1"]).channels.groupby("channel")["drift"].max()
    floor = round(min(1.0, float(farthest.median())), 4)
    out = tmp_path / "paths.svg"
    arguments = ("trajectories", "--layer", "conv1", "--clusters", "3", "--min-drift", str(floor), "-o", out)
    with mpl.rc_context({"svg.fonttype": "none"}):
        assert plot(run, *arguments, monkeypatch=monkeypatch) == 0
    assert f"{(farthest > floor).sum()} of 20 rows with" in out.read_text()
    arguments = ("trajectories", "--layer", "conv1", "--view", "sample", "--min-drift", "0.1", "-o", out)
    assert plot(run, *arguments, monkeypatch=monkeypatch) == 2
    assert "an embedding of the sample view of 'conv1'; expected findings of its channels" in capsys.readouterr().err


def test_one_epoch_of_an_embedding_is_one_map(run, tmp_path, monkeypatch):
    out = tmp_path / "map.svg"
    arguments = (run, "embedding", "--layer", "conv1", "--epoch", "1", "--clusters", "3", "-o", out)
    with mpl.rc_context({"svg.fonttype": "none"}):
        assert plot(*arguments, monkeypatch=monkeypatch) == 0
    assert "conv1: channel view, epoch 1" in out.read_text()


@pytest.mark.slow
def test_churn_stands_between_its_null_and_its_floor(run, tmp_path, monkeypatch):
    out = tmp_path / "churn.svg"
    for view, told in (("channel", True), ("feature_map", False)):
        arguments = (run, "churn", "--layer", "conv1", "--view", view, "--clusters", "3", "-o", out)
        with mpl.rc_context({"svg.fonttype": "none"}):
            assert plot(*arguments, monkeypatch=monkeypatch) == 0
        assert "null: labels with nothing in common" in out.read_text()
        assert ("halves of the samples" in out.read_text()) == told


@pytest.mark.parametrize("picture", ["trajectories", "flow"])
def test_pictures_of_a_study_are_written(picture, run, tmp_path, monkeypatch):
    out = tmp_path / f"{picture}.png"
    assert plot(run, picture, "--layer", "conv1", "--clusters", "3", "-o", out, monkeypatch=monkeypatch) == 0
    assert out.read_bytes().startswith(b"\x89PNG")


def test_every_function_that_draws_has_a_form_on_the_command_line():
    """The `plot` command calls each function of `plot` by its name; `compare`, of several runs, is its own command."""
    import inspect

    from fmcluster import plot as drawing
    from fmcluster.cli import _compare, _pictures

    source = inspect.getsource(_pictures)
    assert "plot.compare(" in inspect.getsource(_compare)
    drawn = set(drawing.__all__) - {"cluster_palette", "compare"}
    assert {name for name in drawn if f"pictures.{name}" in source} == drawn


def test_images_by_relevance_need_gradients(run, tmp_path, capsys, monkeypatch):
    out = tmp_path / "top.png"
    arguments = (run, "top_images", "--layer", "conv1", "--by", "relevance", "-o", out)
    assert plot(*arguments, monkeypatch=monkeypatch) == 2
    assert "holds no gradients of layer 'conv1'" in capsys.readouterr().err.replace("\n", " ")
    assert not out.exists()
