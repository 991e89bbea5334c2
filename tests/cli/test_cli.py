"""The command line, as a stranger meets it: what it says, where it says it, and how it exits."""

import json
import re
import sys
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

import fmcluster as fm
from fmcluster import open_run
from fmcluster.capture import RecordingSeconds
from fmcluster.capture.estimating._timed_batch import TimedBatch
from fmcluster.cli import main
from fmcluster.store import LayerSpec, RunWriter
from tests.analysis.shifted_runs import images, make_network, record, trained
from tests.cli.small_cli_run import write_run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("cli") / "run.zarr", channels=6)


def call(*arguments: str | Path, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(sys, "argv", ["fmcluster", *map(str, arguments)])
    with pytest.raises(SystemExit) as exit_:
        main()
    return int(exit_.value.code or 0)


def test_info_prints_layers_shapes_and_snapshots(run, capsys, monkeypatch):
    assert call("info", run, monkeypatch=monkeypatch) == 0
    out = capsys.readouterr().out
    assert "(6, 5, 4)" in out
    assert "(2,)" in out
    assert "val_accuracy" in out
    assert "Nothing is missing." in out


def test_the_list_of_commands_cuts_no_sentence(capsys, monkeypatch):
    assert call("--help", monkeypatch=monkeypatch) == 0
    listed = capsys.readouterr().out.split("Commands:")[1].splitlines()[1:]
    assert len(listed) == 14
    assert [line for line in listed if not line.endswith(".") or line.endswith("...")] == []


def test_info_as_json_is_complete(run, capsys, monkeypatch):
    assert call("info", run, "--json", monkeypatch=monkeypatch) == 0
    told = json.loads(capsys.readouterr().out)
    assert [layer["shape"] for layer in told["layers"]] == [[3, 8, 6, 5, 4], [3, 8, 2]]
    assert [s["epoch"] for s in told["snapshots"]] == [0, 1, 2]
    assert told["missing"] == []


def test_info_says_what_is_missing(run, tmp_path, capsys, monkeypatch):
    import shutil

    copy = shutil.copytree(run, tmp_path / "copy.zarr")
    (copy / "layers/conv1/activation/c.1.0.0.0.0").unlink()
    assert call("info", copy, monkeypatch=monkeypatch) == 0
    assert "layers/conv1/activation/c.1.0.0.0.0" in capsys.readouterr().out


def test_info_as_json_says_what_json_has_no_numbers_for(tmp_path, capsys, monkeypatch):
    metrics = [{"loss": float("inf"), "accuracy": float("nan")}, {"loss": -float("inf")}, {"loss": 0.5}]
    lossy = record_small(tmp_path / "run.zarr", metrics=metrics)
    assert call("info", lossy, "--json", monkeypatch=monkeypatch) == 0
    told = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    assert [snapshot["loss"] for snapshot in told["snapshots"]] == ["inf", "-inf", 0.5]
    assert told["snapshots"][0]["accuracy"] is None


def test_info_shows_the_snapshots_beside_a_metric_with_a_long_name(tmp_path, capsys, monkeypatch):
    path = record_small(tmp_path / "run.zarr", metrics=[{"loss": 0.5, "m" * 300: 1.0}])
    assert call("info", path, monkeypatch=monkeypatch) == 0
    assert re.search(r"snapshot ┃ epoch ┃ step ┃ +loss ┃ +m+…", capsys.readouterr().out)


@pytest.mark.slow
def test_info_and_the_report_say_what_was_not_recorded_and_why(tmp_path, capsys, monkeypatch):
    path = record_small(tmp_path / "run.zarr", metrics=[{}, {}], layers="children", fails=1)
    assert call("info", path, monkeypatch=monkeypatch) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "not recorded: epoch 7, step 0: RuntimeError: the probe is odd" in said
    assert "left out: layer aside: it was not called, or returned no tensor" in said
    fm.write_report(open_run(path), tmp_path / "page.html", n_clusters=2)
    page = (tmp_path / "page.html").read_text()
    assert "epoch 7, step 0: RuntimeError: the probe is odd" in page
    assert "layer aside: it was not called" in page


def record_small(path, *, metrics, layers="leaves", fails=0):
    """Record a small network; `fails` times, at epoch 7, its forward pass does."""
    torch.manual_seed(0)
    model = nn.Sequential(OrderedDict(conv=nn.Conv2d(3, 6, 3), relu=nn.ReLU()))
    if layers == "children":
        model.aside = nn.Linear(2, 2)
        model.forward = lambda x: model.relu(model.conv(x))
    probe = [(torch.rand(3, 6, 6), 0) for _ in range(8)]

    def fail(*_):
        raise RuntimeError("the probe is odd")

    with fm.Recorder(model, path, probe=probe, layers=layers, on_error="warn") as recorder:
        for epoch, numbers in enumerate(metrics):
            recorder.snapshot(epoch=epoch, metrics=numbers)
            with torch.no_grad():
                model.conv.weight += 0.1 * torch.randn_like(model.conv.weight)
        for _ in range(fails):
            handle = model.conv.register_forward_pre_hook(fail)
            with pytest.warns(UserWarning, match="the probe is odd"):
                recorder.snapshot(epoch=7)
            handle.remove()
    return path


def test_verify_tells_whole_from_damaged(run, tmp_path, capsys, monkeypatch):
    import shutil

    assert call("verify", run, monkeypatch=monkeypatch) == 0
    assert "every checksum is right" in capsys.readouterr().out
    copy = shutil.copytree(run, tmp_path / "copy.zarr")
    chunk = copy / "layers/conv1/activation/c.2.1.0.0.0"
    content = bytearray(chunk.read_bytes())
    content[10] ^= 1
    chunk.write_bytes(content)
    assert call("verify", copy, monkeypatch=monkeypatch) == 1
    out = capsys.readouterr().out
    assert "c.2.1.0.0.0" in out
    assert "1 of the run's files" in out


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["info", "nowhere.zarr"], "no run at nowhere.zarr"),
        (["verify", "nowhere.zarr"], "no run at nowhere.zarr"),
        (["analyze", "RUN", "--layer", "conv2"], "did you mean conv1?"),
        (["analyze", "RUN", "--layer", "conv1", "--view", "chanel"], "did you mean 'channel'?"),
        (["analyze", "RUN", "--layer", "conv1", "--clusters", "0"], "--clusters is 0"),
        (["plot", "RUN", "grid", "-o", "a.png"], "pass --layer with one of conv1, fc"),
        (["plot", "RUN", "grid", "--layer", "conv1", "-o", "a.txt"], ".png, .svg or .pdf"),
        (["plot", "RUN", "grid", "--layer", "conv1", "--epoch", "9", "-o", "a.png"], "9"),
        (["plot", "RUN", "grid", "--layer", "conv1", "--channels", "a-b", "-o", "a.png"], "cannot read the channels"),
        (["plot", "RUN", "grid", "--layer", "conv1", "--sample", "99", "-o", "a.png"], "99"),
        (["plot", "RUN", "top_images", "--layer", "conv1", "-o", "a.png"], "a run without pictures of its inputs"),
        (["report", "RUN", "--layer", "conv9"], "did you mean conv1?"),
        (["report", "RUN", "--view", "chanel"], "did you mean 'channel'?"),
        (["report", "RUN", "--sample", "99"], "sample=99"),
        (["analyze", "RUN"], "analyze needs a layer: pass --layer with one of conv1, fc"),
        (["train", "nowhere"], "nowhere"),
        (["plot", "RUN", "grid", "--layer", "conv1", "-o", "nodir/a.png"], "there is no folder nodir"),
        (["analyze", "RUN", "--layer", "conv1", "-o", "file.txt"], "file.txt is a file"),
        (["demo", "-o", "file.txt"], "file.txt is a file"),
        (["info", "unknown://nowhere/run.zarr"], "fmcluster[s3]"),
        (["train", "nowhere", "-o", "https://host/run.zarr"], "path is the URL https://host/run.zarr"),
        (["demo", "-o", "s3://bucket/demo"], "path is the URL s3://bucket/demo"),
        (["analyze", "RUN", "--layer", "conv1", "-o", "s3://bucket/tables"], "path is the URL s3://bucket/tables"),
        (["diagnose", "RUN", "-o", "s3://bucket/tables"], "path is the URL s3://bucket/tables"),
        (["export", "RUN", "tensorboard", "-o", "s3://bucket/logs"], "path is the URL s3://bucket/logs"),
        (["plan", "RUN", "-o", "s3://bucket/plan.yaml"], "path is the URL s3://bucket/plan.yaml"),
        (["plan", "RUN", "-o", "no/plan.yaml"], "there is no folder no"),
        (["estimate", "--model", "resnet5"], "such as resnet50"),
        (["estimate", "--epochs", "0"], "at least 1"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(arguments, expected, run, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    Path("file.txt").touch()
    code = call(*(run if word == "RUN" else word for word in arguments), monkeypatch=monkeypatch)
    told = capsys.readouterr().err
    assert code == 2
    assert expected in told
    assert told.startswith("error: ")
    assert "Traceback" not in told
    assert len(told.strip().splitlines()) == 1


def test_an_empty_run_and_a_newer_format_are_one_line(run, tmp_path, capsys, monkeypatch):
    empty = tmp_path / "empty.zarr"
    with RunWriter(empty) as writer:
        writer.create([LayerSpec("fc", (2,), "float16", "Linear")], n_samples=2, shard_samples=2, kind="probe")
    assert call("info", empty, monkeypatch=monkeypatch) == 0
    assert "No whole snapshot yet." in capsys.readouterr().out
    drawn = ["grid", "channel_evolution", "flow", "metrics"]
    for command in (
        ["analyze", empty, "--layer", "fc"],
        ["report", empty, "-o", tmp_path / "r.html"],
        *(["plot", empty, picture, "--layer", "fc", "-o", tmp_path / "p.png"] for picture in drawn),
    ):
        assert call(*command, monkeypatch=monkeypatch) == 2
        assert "holds no whole snapshot yet" in capsys.readouterr().err
    root = empty / "zarr.json"
    root.write_text(root.read_text().replace('"format": 1', '"format": 99'))
    assert call("info", empty, monkeypatch=monkeypatch) == 2
    assert "of format 99" in capsys.readouterr().err


def test_a_recording_that_has_begun_is_one_line_and_not_said_to_be_interrupted(tmp_path, capsys, monkeypatch):
    path = tmp_path / "begun.zarr"
    with RunWriter(path) as writer:
        for command in (["info", path], ["verify", path], ["analyze", path, "--layer", "fc"], ["report", path]):
            assert call(*command, monkeypatch=monkeypatch) == 2
            told = capsys.readouterr().err
            assert f"{path} holds no whole snapshot yet: its recording has begun and goes on." in told
            assert len(told.strip().splitlines()) == 1
        writer.create([LayerSpec("fc", (2,), "float16", "Linear")], n_samples=2, shard_samples=2, kind="probe")
        assert call("info", path, monkeypatch=monkeypatch) == 0
        assert "No whole snapshot yet; its recording goes on." in capsys.readouterr().out
        assert call("report", path, monkeypatch=monkeypatch) == 2
        assert "its recording has begun and goes on" in capsys.readouterr().err


def test_train_never_replaces_what_it_was_not_told_to(run, capsys, monkeypatch):
    assert call("train", run.parent, "-o", run, monkeypatch=monkeypatch) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert len(open_run(run)) == 3


@pytest.mark.slow
def test_weights_are_told_and_counted(tmp_path, capsys, monkeypatch):
    model = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3))
    probe = [torch.zeros(4), torch.ones(4)]
    with fm.Recorder(model, tmp_path / "run.zarr", probe=probe, record=("activation", "weight")) as recorder:
        recorder.snapshot(epoch=0)
    assert call("info", tmp_path / "run.zarr", monkeypatch=monkeypatch) == 0
    assert "116 bytes of weights: 7 parameters and buffers a snapshot." in capsys.readouterr().out
    assert call("info", tmp_path / "run.zarr", "--json", monkeypatch=monkeypatch) == 0
    assert json.loads(capsys.readouterr().out)["weights"] == {"count": 7, "bytes": 116}
    arguments = ("estimate", "--samples", "2", "--epochs", "1", "--pixels", "32", "--batch-size", "1", "--with-weights")
    assert call(*arguments, monkeypatch=monkeypatch) == 0
    assert "Weights take 93.6 MB of the total" in capsys.readouterr().out


def test_estimate_tells_bytes_before_the_run(capsys, monkeypatch):
    arguments = ("estimate", "--model", "resnet18", "--samples", "10", "--epochs", "2", "--pixels", "32")
    assert call(*arguments, "--batch-size", "2", monkeypatch=monkeypatch) == 0
    out = capsys.readouterr().out
    assert "resnet18, 10 samples, 3 snapshots" in out
    per_sample = 3 * 64 * 16**2 + 2 * 64 * 8**2 + 128 * 4**2 + 256 * 2**2 + 2 * 512 + 1000
    assert f"In total {30 * 2 * per_sample / 1e6:.1f} MB" in out


def test_estimate_tells_what_bounds_the_run_and_what_max_size_would_change(tmp_path, capsys, monkeypatch):
    parts = RecordingSeconds(2.0, 0.5, 0.25, 1.5, ("forward", "copy", "encode"))
    measured = iter([parts, RecordingSeconds(2.0, 0.25, 0.0, 0.5, parts.in_turn)])
    times = lambda _model, _modules, plans, **_: {  # noqa: E731
        size: TimedBatch(next(measured), {layer.spec.name: 100 for layer in plan.values()})
        for size, plan in plans.items()
    }
    monkeypatch.setattr("fmcluster.capture.estimating._estimate.time_batch", times)
    arguments = (
        "estimate",
        "--layer",
        "layer3",
        "--pixels",
        "224",
        "--samples",
        "2",
        "--batch-size",
        "1",
        "--epochs",
        "1",
    )
    assert call(*arguments, "-o", tmp_path / "run.zarr", monkeypatch=monkeypatch) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "takes about 11 s, without training. The forward pass bounds the run. What takes turns" in out
    assert "(the forward pass 8 s, the copy 2 s, the encoder 1 s) adds up to 11 s; beside it: the disk 6 s." in out
    assert f"│ 7 │ {4 * 256 * 49 * 2 / 1e3:.1f} kB │ 400 bytes │ 9 │ forward │" in out
    assert call(*arguments, "-o", "https://host/run.zarr", monkeypatch=monkeypatch) == 2


def test_the_version(capsys, monkeypatch):
    assert call("--version", monkeypatch=monkeypatch) == 0
    assert capsys.readouterr().out.startswith("fmcluster 0.")


def test_a_wrong_option_exits_with_2(run, monkeypatch):
    assert call("analyze", run, "--layer", "fc", "--random-state", "-1", monkeypatch=monkeypatch) == 2
    assert call("plot", run, "grid", "--layer", "fc", "--dpi", "0", "-o", "a.png", monkeypatch=monkeypatch) == 2
    assert call("info", run, "--nonsense", monkeypatch=monkeypatch) == 2
    assert call("plot", run, "pie", "-o", "a.png", monkeypatch=monkeypatch) == 2


def test_a_picture_that_is_not_there_is_answered_with_one_that_is(run, tmp_path, capsys, monkeypatch):
    assert call("plot", run, "flwo", "-o", tmp_path / "a.png", monkeypatch=monkeypatch) == 2
    assert "'flwo' is not a picture; did you mean flow?" in " ".join(capsys.readouterr().err.split())


def test_help_is_no_wider_than_a_terminal_of_80_columns(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    for command in ("train", "report", "plot", "analyze", "compare", "explore", "plan", "diagnose"):
        assert call(command, "--help", monkeypatch=monkeypatch) == 0
        assert max(map(len, capsys.readouterr().out.splitlines())) <= 80, command


def test_our_own_mistakes_keep_their_traceback(run, monkeypatch):
    def broken(_path: str) -> None:
        return [].pop()

    monkeypatch.setattr("fmcluster.store.open_run", broken)
    monkeypatch.setattr(sys, "argv", ["fmcluster", "info", str(run)])
    with pytest.raises(IndexError):
        main()


@pytest.mark.parametrize(
    "picture",
    [
        "grid",
        "channel_grid",
        "channel_evolution",
        "explained_variance",
        "statistics",
        "drift",
        "position_clusters",
        "quality",
        "lifelines",
        "similarity",
    ],
)
def test_plot_writes_a_picture(picture, run, tmp_path, monkeypatch):
    out = tmp_path / f"{picture}.png"
    assert call("plot", run, picture, "--layer", "conv1", "-o", out, monkeypatch=monkeypatch) == 0
    assert out.read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
@pytest.mark.parametrize("picture", ["similarity", "convergence", "channels_per_layer"])
def test_what_is_of_the_whole_run_needs_no_layer(picture, run, tmp_path, monkeypatch):
    out = tmp_path / f"{picture}.png"
    assert call("plot", run, picture, "-o", out, monkeypatch=monkeypatch) == 0
    assert out.read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_plot_metrics_needs_no_layer(run, tmp_path, capsys, monkeypatch):
    out = tmp_path / "metrics.svg"
    assert call("plot", run, "metrics", "-o", out, monkeypatch=monkeypatch) == 0
    assert "<svg" in out.read_text()
    assert call("plot", run, "metrics", "--metric", "val_accuracy", "-o", out, monkeypatch=monkeypatch) == 0
    assert call("plot", run, "metrics", "--metric", "loss", "-o", out, monkeypatch=monkeypatch) == 2
    assert (
        "received the column 'loss'; expected a metric with values: choose one of 'val_accuracy'"
        in capsys.readouterr().err
    )


def test_analyze_saves_beside_the_run_what_the_api_gives(run, capsys, monkeypatch):
    before = sorted(path.stat().st_mtime_ns for path in run.rglob("*"))
    assert call("analyze", run, "--layer", "conv1", "--clusters", "3", monkeypatch=monkeypatch) == 0
    assert sorted(path.stat().st_mtime_ns for path in run.rglob("*")) == before, "analysis wrote to the run"
    (folder,) = run.with_name("run.zarr.results").glob("conv1-channel-*/")
    rows = pd.read_csv(folder / "rows.csv")
    assert list(rows.columns) == ["snapshot", "epoch", "step", "channel", "x", "y", "cluster"]
    assert len(rows) == 3 * 6

    from sklearn.cluster import KMeans

    from fmcluster import cluster, pca

    expected = cluster(pca(open_run(run)["conv1"].vectors("channel")), KMeans(3, random_state=0, n_init=4))
    np.testing.assert_array_equal(rows["cluster"], expected.labels)
    assert json.loads((folder / "parameters.json").read_text())["layer"] == "conv1"
    assert "exact, gram" in capsys.readouterr().out


def test_analyze_says_that_there_are_fewer_clusters_than_were_asked_for(run, tmp_path, capsys, monkeypatch):
    out = tmp_path / "out"
    assert call("analyze", run, "--layer", "conv1", "--clusters", "1000", "-o", out, monkeypatch=monkeypatch) == 0
    count = pd.read_csv(next(out.rglob("rows.csv")))["cluster"].nunique()
    said = " ".join(capsys.readouterr().out.split())
    assert f"conv1: {count} clusters rather than 1,000; there are not enough different rows for more." in said


def test_analyze_takes_several_layers_by_pattern(run, tmp_path, capsys, monkeypatch):
    assert call("analyze", run, "--layer", "*", "--clusters", "2", "-o", tmp_path / "out", monkeypatch=monkeypatch) == 0
    layers = open_run(run).layers
    assert len(layers) > 1
    assert sorted(folder.name for folder in (tmp_path / "out").iterdir()) == sorted(layers)
    said = " ".join(capsys.readouterr().out.split())
    for layer in layers:
        assert json.loads((tmp_path / "out" / layer / "parameters.json").read_text())["layer"] == layer
        assert f"{layer}, channel view:" in said


def test_diagnose_prints_what_the_api_finds_and_saves_tables(run, tmp_path, capsys, monkeypatch):
    from fmcluster import diagnose

    assert call("diagnose", run, "--layer", "conv?", "-o", tmp_path / "out", monkeypatch=monkeypatch) == 0
    findings = diagnose(open_run(run), layers=["conv1"])
    said = " ".join(capsys.readouterr().out.split())
    assert " ".join(str(findings).split()) in said
    assert "conv1" in said
    for name, table in (("frame", findings.frame), ("channels", findings.channels), ("layers", findings.layers)):
        saved = pd.read_csv(tmp_path / "out" / f"{name}.csv")
        assert (list(saved.columns), len(saved)) == (list(table.columns), len(table))


def test_diagnose_says_where_to_tune_beside_a_run_of_known_images(tmp_path, capsys, monkeypatch):
    network = make_network()
    clean = record(tmp_path / "known.zarr", images(seed=1), network)
    run = record(tmp_path / "run.zarr", images(seed=2, shift=5.0), network, trained(network))
    assert call("diagnose", run.path, "--clean", clean.path, monkeypatch=monkeypatch) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "Tune the network up to bn1, and its head; freeze the weights behind it" in said
    assert " ".join(str(fm.diagnose(run, clean=clean)).split()) in said
    assert call("diagnose", run.path, "--clean", tmp_path / "nothing.zarr", monkeypatch=monkeypatch) == 2
    assert "nothing.zarr" in capsys.readouterr().err


@pytest.fixture
def live_run(tmp_path: Path) -> Path:
    """A live run of a layer of which a part is kept, with gradients, and of a plain one."""
    whole = {"output": (8, 12, 12), "channels": (6, 1), "crop": ((0, 10), (2, 12)), "gradient": True}
    specs = [LayerSpec("conv1", (2, 5, 5), "float16", "Conv2d", **whole), LayerSpec("fc", (3,), "float16", "Linear")]
    path = tmp_path / "live.zarr"
    with RunWriter(path) as writer:
        writer.create(specs, n_samples=4, shard_samples=4, kind="live")
        for spec in specs:
            for quantity in spec.quantities:
                values = np.zeros((3, *spec.shape), spec.dtype_of(quantity))
                writer.write(spec.name, offset=0, values=values, quantity=quantity)
        writer.commit(epoch=0, step=1, index=np.array([9, 4, 9, -1]), statistics={}, metrics={}, clipped={})
    return path


def test_info_tells_kind_gradients_and_what_is_kept(live_run, capsys, monkeypatch):
    assert call("info", live_run, monkeypatch=monkeypatch) == 0
    out = capsys.readouterr().out
    assert "live run, up to 4 samples in every snapshot" in out
    assert "2 of 8 channels; rows 0:10, columns 2:12; averaged to 5 x 5" in out
    assert re.search(r"conv1 .* 400 bytes .* 800 bytes", out)
    assert "Nothing is missing." in out


def test_info_as_json_tells_kind_gradients_and_what_is_kept(live_run, capsys, monkeypatch):
    (live_run / "layers/conv1/gradient/c.0.0.0.0.0").unlink()
    assert call("info", live_run, "--json", monkeypatch=monkeypatch) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["kind"] == "live"
    conv1, fc = told["layers"]
    assert conv1["gradient"] == {"dtype": "float32", "bytes": 800}
    assert (conv1["output"], conv1["channels"], conv1["crop"]) == ([8, 12, 12], [6, 1], [[0, 10], [2, 12]])
    assert conv1["average_pooled"] is True
    assert (fc["gradient"], fc["channels"], fc["crop"], fc["average_pooled"]) == (
        None,
        [0, 1, 2],
        None,
        False,
    )
    assert told["bytes"] == conv1["bytes"] + 800 + fc["bytes"]
    assert told["missing"] == ["layers/conv1/gradient/c.0.0.0.0.0"]


def test_of_very_many_clusters_the_largest_are_listed(run, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("fmcluster.cli._analyze.MOST_COLUMNS", 2)
    output = tmp_path / "tables"
    assert call("analyze", run, "--layer", "conv1", "--clusters", "4", "-o", output, monkeypatch=monkeypatch) == 0
    said = capsys.readouterr().out
    assert "Of 4 clusters the 2 largest are listed; the tables have all." in said


def test_a_picture_that_cannot_be_written_is_told_by_the_name_that_was_asked_for(run, capsys, monkeypatch):
    assert call("plot", run, "metrics", "-o", "/proc/x.png", monkeypatch=monkeypatch) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "the picture cannot be written to /proc/x.png: the system says" in said
    assert ".fmcluster" not in said
