"""What Weights & Biases has of an export: its transaction log, read back record by record."""

import json
import os
import shutil
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import wandb
from PIL import Image
from wandb.proto.wandb_internal_pb2 import Record

from fmcluster import StoreError, diagnose, plot
from fmcluster.export import to_wandb
from fmcluster.export._collect import table_of
from fmcluster.export._entries import Scalar, SnapshotStep
from fmcluster.export._rasterize import pixels_of
from fmcluster.export._wandb import _rows
from fmcluster.report.content._layer_content import Settings, make_layer_content
from fmcluster.store import Run, open_run
from tests.export.exported_run import HOSTILE_LAYER

pytestmark = pytest.mark.slow

BLOCK = 32768
ARGUMENTS: dict[str, Any] = {"layers": [HOSTILE_LAYER], "samples": [2], "n_clusters": 3}


def records(folder: Path) -> Iterator[Record]:
    """Read wandb's transaction log: records in LevelDB's format of logs, after seven bytes that say so."""
    (file,) = folder.glob("*.wandb")
    content, at, parts = file.read_bytes(), 7, b""
    assert content.startswith(b":W&B")
    while at + 7 <= len(content):
        if BLOCK - at % BLOCK < 7:  # no header fits: the rest of the block is filled up
            at += BLOCK - at % BLOCK
            continue
        _, length, kind = struct.unpack_from("<IHB", content, at)
        if at + 7 + length > len(content):
            return  # is being written
        parts += content[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # a whole record, or the last part of one
            yield Record.FromString(parts)
            parts = b""


@dataclass
class Logged:
    folder: Path
    history: list[dict[str, Any]] = field(default_factory=list)
    summary: dict[str, Any] = field(default_factory=dict)
    steps: dict[str, str] = field(default_factory=dict)
    run: Any = None
    finished: bool = False

    def values(self, key: str) -> list[tuple[int, Any]]:
        return [(row["snapshot/step"], row[key]) for row in self.history if key in row]


def values_of(items: Any) -> dict[str, Any]:
    """Put together what wandb took apart: the fields of an image lie one by one."""
    found: dict[str, Any] = {}
    for item in items:
        *outer, last = item.nested_key or [item.key]
        inside = found
        for key in outer:
            inside = inside.setdefault(key, {})
        inside[last] = json.loads(item.value_json)
    return found


def read(folder: Path) -> Logged:
    """Read a finished run; wandb's process writes the end of it shortly after `finish` has returned."""
    deadline = time.monotonic() + 20
    while not (logged := read_now(folder)).finished:
        assert time.monotonic() < deadline, f"{folder} was never finished"
        time.sleep(0.02)
    return logged


def read_now(folder: Path) -> Logged:
    logged = Logged(folder)
    for record in records(folder):
        kind = record.WhichOneof("record_type")
        if kind == "history":
            logged.history.append(values_of(record.history.item))
        elif kind == "summary":
            logged.summary |= values_of(record.summary.update)
        elif kind == "metric":
            logged.steps[record.metric.name] = record.metric.step_metric
        elif kind == "run":
            logged.run = record.run
        elif kind == "exit":
            logged.finished = True
    return logged


@pytest.fixture(scope="module", autouse=True)
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep wandb's files out of the home folder, and end its process with these tests."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("WANDB_")]:
            patch.delenv(name)
        for name in ("DATA", "CACHE", "CONFIG", "ARTIFACT"):
            patch.setenv(f"WANDB_{name}_DIR", str(tmp_path_factory.mktemp(name)))
        yield
        wandb.teardown()


@pytest.fixture(scope="module")
def logged(run: Run, tmp_path_factory: pytest.TempPathFactory, service: None) -> Logged:
    folder = tmp_path_factory.mktemp("exports") / "new"
    written = to_wandb(run, folder, project="ants", **ARGUMENTS)
    assert written.parent == folder / "wandb"
    assert written.name.startswith("offline-run-")
    return read(written)


def test_it_is_a_finished_offline_run_under_its_name(logged, run):
    assert logged.finished
    assert (logged.run.project, logged.run.display_name) == ("ants", "run")
    config = values_of(logged.run.config.update)
    assert config["run"] == run.path
    assert config["layers"] == [HOSTILE_LAYER]


def test_metrics_are_logged_over_the_optimizer_steps(logged):
    assert logged.values("metrics/val_accuracy") == [(0, 0.25), (4, 0.5), (10, 0.75)]
    assert logged.values("metrics/loss") == [(4, 1.0), (10, 0.5)]
    assert logged.values("snapshot/epoch") == [(0, 0), (4, 1), (10, 1)]
    assert logged.steps["metrics/val_accuracy"] == "snapshot/step"
    own = set().union(*logged.history) - {"snapshot/step", "_step", "_runtime", "_timestamp"}
    assert own - logged.steps.keys() <= {key for key in own if "*" in key}


def test_numbers_and_histograms_of_a_layer_are_those_of_the_store(logged, run):
    by_step = run[HOSTILE_LAYER].statistics.groupby("step")
    for name in ("mean", "std", "zeros"):
        steps, values = zip(*logged.values(f"{HOSTILE_LAYER}/{name}"), strict=True)
        assert steps == (0, 4, 10)
        np.testing.assert_allclose(values, by_step[name].mean())
        for step, histogram in logged.values(f"{HOSTILE_LAYER}/{name} of channels"):
            channels = by_step.get_group(step)[name]
            assert sum(histogram["values"]) == len(channels)
            assert histogram["bins"][0] <= channels.min() <= channels.max() <= histogram["bins"][-1]


def test_images_are_the_figures_with_a_caption(logged, run):
    images = logged.values(f"{HOSTILE_LAYER}/channels on sample 2")
    assert [step for step, _ in images] == [0, 4, 10]
    _, image = images[1]
    assert image["_type"] == "image-file"
    assert image["caption"].startswith(f"12 of 12 channels of {HOSTILE_LAYER} on sample 2")
    figure = plot.channel_grid(run[HOSTILE_LAYER], snapshot=1, sample=2)
    with Image.open(logged.folder / "files" / image["path"]) as opened:
        np.testing.assert_array_equal(np.asarray(opened), pixels_of(figure))
    for name in ("evolution on sample 2", "statistics", "embeddings", "trajectories", "flow", "churn of clusters"):
        assert [step for step, _ in logged.values(f"{HOSTILE_LAYER}/{name}")] == [10]


def test_the_map_is_a_table_with_a_line_for_each_row(logged, run):
    ((step, table),) = logged.values(f"{HOSTILE_LAYER}/rows")
    assert (step, table["nrows"]) == (10, 36)
    content = json.loads((logged.folder / "files" / table["path"]).read_text())
    assert content["columns"] == ["snapshot", "epoch", "step", "channel", "x", "y", "cluster"]
    assert [row[:4] for row in content["data"]] == [
        [snapshot, (snapshot + 1) // 2, step, channel]
        for snapshot, step in enumerate((0, 4, 10))
        for channel in range(12)
    ]


def test_what_diagnose_says_is_in_the_summary_and_a_table(logged, run):
    findings = diagnose(run)
    assert logged.summary["diagnosis/findings"] == str(findings)
    ((_, table),) = logged.values("diagnosis/advice")
    content = json.loads((logged.folder / "files" / table["path"]).read_text())
    assert [row[2] for row in content["data"]] == [each.text for each in findings.advice]


def test_of_a_very_long_run_a_table_has_the_rows_of_some_snapshots(run, monkeypatch):
    layer = run["fc"]
    settings = Settings(view="sample", n_clusters=2, reducer=None, random_state=0, max_bytes=1 << 30)
    found = make_layer_content(layer, settings, announce=lambda _: None, cache=None)
    whole = table_of(found)
    assert whole["class_name"].tolist() == layer.samples["class_name"].tolist() * 3
    monkeypatch.setattr("fmcluster.export._collect.MOST_ROWS", 35)
    few = table_of(found)
    assert few["snapshot"].unique().tolist() == [0, 2]
    assert len(few) == 24


def test_two_values_of_a_name_and_moment_are_two_steps_of_wandb():
    at = SnapshotStep(snapshot=1, epoch=1, at=4)
    entries = [Scalar("metrics/mean", at, 1.0), Scalar("a", at, 2.0), Scalar("metrics/mean", at, 3.0)]
    first, second = _rows(None, entries)
    assert first == {"snapshot/step": 4, "metrics/mean": 1.0, "a": 2.0}
    assert second == {"snapshot/step": 4, "metrics/mean": 3.0}


def quick(run: Run, target: Any, **others: Any) -> Path:
    return to_wandb(run, target, layers=["fc"], samples=[], view="sample", diagnosis=False, **others)


def test_a_run_of_the_callers_is_added_to_and_goes_on(short, tmp_path):
    with wandb.init(mode="offline", dir=tmp_path, settings=wandb.Settings(silent=True, console="off")) as mine:
        mine.log({"epoch": 7}, step=100)
        written = quick(short, mine)
        mine.log({"epoch": 8})
    found = read(written)
    assert [row["epoch"] for row in found.history if "epoch" in row] == [7, 8]
    assert found.values("metrics/val_accuracy") == [(0, 0.25)]
    assert len(list((tmp_path / "wandb").glob("offline-run-*"))) == 1


def test_a_new_run_leaves_one_of_the_callers_alone(short, tmp_path):
    with wandb.init(mode="offline", dir=tmp_path, settings=wandb.Settings(silent=True, console="off")) as mine:
        written = quick(short, tmp_path / "export", name="another")
        mine.log({"still": 1})
        theirs = Path(mine.dir).parent
    assert read(written).run.display_name == "another"
    assert [row["still"] for row in read(theirs).history if "still" in row] == [1]


def test_an_export_that_fails_leaves_no_half_of_a_run(short, tmp_path, capsys):
    copy = Path(shutil.copytree(short.path, tmp_path / "copy.zarr"))
    (copy / "layers/fc/activation/c.0.0.0").unlink()
    with pytest.raises(StoreError):
        to_wandb(
            open_run(copy), tmp_path / "logs", layers=["fc"], samples=[], view="sample", diagnosis=False, cache=None
        )
    assert not (tmp_path / "logs").exists()
    assert "Traceback" not in capsys.readouterr().err


def test_bad_input_is_refused_before_anything_is_written(run, tmp_path):
    with pytest.raises(ValueError, match="mode is 'disabled'"):
        quick(run, tmp_path / "export", mode="disabled")
    with pytest.raises(TypeError, match="target is a int"):
        quick(run, 3)
    with pytest.raises(KeyError, match="did you mean conv1"):
        to_wandb(run, tmp_path / "export", layers=["conv9"])
    assert not list(tmp_path.iterdir())
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError, match="is a file"):
        quick(run, tmp_path / "file")


def test_the_process_says_nothing_ends_and_leaves_the_current_folder_alone(run, tmp_path):
    script = (
        "import fmcluster as fm, sys; from fmcluster.export import to_wandb;"
        "to_wandb(fm.open_run(sys.argv[1]), sys.argv[2], layers=['fc'], samples=[], view='sample', diagnosis=False)"
    )
    (tmp_path / "here").mkdir()
    done = subprocess.run(
        [sys.executable, "-c", script, run.path, str(tmp_path / "export")],
        cwd=tmp_path / "here",
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert (done.stdout, done.stderr) == ("", "")
    assert not list((tmp_path / "here").iterdir())
    assert list((tmp_path / "export" / "wandb").glob("offline-run-*"))
