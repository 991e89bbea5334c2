"""The benchmarks that the documentation's numbers come from still run, and see what they should see."""

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow

CAPTURE = Path(__file__).parent.parent / "benchmarks" / "capture.py"
ALWAYS = {"bare", "fmcluster", "recipe's dict", "dict of clones", "clones + np.save", "torch.save"}
FEW = ("--images", "4", "--batch-size", "2")
OPTIONAL = {"TorchLens + np.save": "torchlens", "Captum AV": "captum", "h5py": "h5py"}


def measured(folder: Path, *options: str, hidden: Path | None = None) -> dict[str, Any]:
    """Run `capture.py` on noise; return what it wrote."""
    environment = {name: value for name, value in os.environ.items() if name != "FMCLUSTER_DATA"}
    if hidden is not None:
        environment["PYTHONPATH"] = str(hidden)
    command = [sys.executable, str(CAPTURE), "--quick", "--output", str(folder), *options]
    result = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert result.returncode == 0, result.stdout + result.stderr
    (file,) = folder.glob("*.json")
    return json.loads(file.read_text())


def test_every_installed_contender_keeps_the_layers_and_only_the_copying_ones_keep_them_right(tmp_path):
    told = measured(tmp_path, *FEW)
    rows = {row["contender"]: row for row in told["rows"]}
    assert set(rows) == {*ALWAYS, "torchvision + np.save", *OPTIONAL, "limit"}
    installed = {name for name, row in rows.items() if row.get("installed", True)}
    assert installed & set(OPTIONAL) == {name for name, module in OPTIONAL.items() if find_spec(module)}
    for name in installed:
        assert len(rows[name]["seconds"]) == len(rows[name]["ratio"]) == 2
        assert min(rows[name]["seconds"]) > 0
    assert rows["bare"]["ratio"] == [1, 1]
    assert rows["bare"]["wrong"] is None
    assert rows["recipe's dict"]["wrong"] == rows["torchvision + np.save"]["wrong"] == ["bn1"]
    uncompressed = 4 * 2 * (2 * 64 * 112**2 + 64 * 112**2 + 2 * 64 * 56**2 + 128 * 28**2 + 256 * 14**2 + 512 * 50 + 2)
    assert told["stored_bytes"] == uncompressed
    for name in installed - {"bare", "limit", "recipe's dict", "torchvision + np.save"}:
        assert rows[name]["wrong"] == [], name
    assert 0.5 * uncompressed < rows["fmcluster"]["bytes"] < uncompressed
    assert rows["torch.save"]["bytes"] >= uncompressed
    assert len(told["fmcluster_over_limit"]) == 2
    assert all(row["limit"] >= max(row["forward"], row["disk"]) > 0 for row in rows["limit"]["parts"])


def test_a_library_that_is_not_installed_is_left_out_and_said(tmp_path):
    hidden = tmp_path / "hidden"
    hidden.mkdir()
    (hidden / "h5py.py").write_text("raise ImportError('hidden')")
    told = measured(tmp_path, *FEW, "--only", "h5py", hidden=hidden)
    assert [row["contender"] for row in told["rows"]] == ["bare", "h5py"]
    assert told["rows"][1] == {"contender": "h5py", "installed": False, "why": "hidden"}


def test_maps_are_averaged_by_each_who_can_and_the_results_are_named_after_it(tmp_path):
    told = measured(tmp_path, *FEW, "--max-size", "14", "--only", "recipe's dict", "fmcluster", "clones + np.save")
    assert [file.name.endswith("-14px.json") for file in tmp_path.glob("*.json")] == [True]
    rows = {row["contender"]: row for row in told["rows"]}
    assert set(rows) == {"bare", "fmcluster", "clones + np.save", "limit"}
    assert rows["fmcluster"]["wrong"] == rows["clones + np.save"]["wrong"] == []
    averaged = 4 * 2 * ((3 * 64 + 2 * 64 + 128 + 256) * 14**2 + 512 * 50 + 2)
    assert told["stored_bytes"] == averaged


@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
def test_memory_is_told_per_snapshot_beside_what_the_recorder_may_take(tmp_path):
    contenders = ("fmcluster 64 MiB", "dict of clones")
    options = ("--memory", "--snapshots", "3", "--images", "8", "--batch-size", "4")
    told = measured(tmp_path, *options, "--only", *contenders)
    rows = {row["contender"]: row for row in told["rows"]}
    row, clones = (rows[name] for name in contenders)
    assert row["max_pending_bytes"] == 64 << 20
    assert len(row["above_bare"]) == 3
    assert 0 < row["peak_pending_bytes"] <= row["max_pending_bytes"]
    assert row["allowed"] == row["max_pending_bytes"] + (64 << 20)
    kept = 4 * told["images"] * (3 * 64 * 112**2)  # of float32 clones; the model's own peak may take up some of it
    assert 0.5 * kept < min(clones["above_bare"]) < 4 * kept


@pytest.mark.skipif(sys.platform != "linux", reason="the threads' times are read from /proc")
def test_the_processor_time_of_a_pass_is_told_by_what_threads_do(tmp_path):
    told = measured(tmp_path, "--profile", "--images", "16", "--batch-size", "8")
    assert [file.name for file in tmp_path.glob("*.json")] == ["capture-profile-cpu.json"]
    bare, recorded = told["rows"]["bare"], told["rows"]["recorded"]
    assert set(recorded) == {"wall clock", "forward pass and hooks", "cast and sums", "encoding, writing, commit"}
    assert bare["forward pass and hooks"] > 0
    assert "cast and sums" not in bare
    assert sum(recorded.values()) - recorded["wall clock"] <= os.cpu_count() * recorded["wall clock"] + 0.1


def test_the_analysis_is_measured_beside_its_parts_and_a_script(tmp_path):
    command = [sys.executable, str(CAPTURE.with_name("analysis.py")), "--small", "--full", "--rounds", "1"]
    options = ["--folder", str(tmp_path / "runs"), "--output", str(tmp_path / "out")]
    result = subprocess.run([*command, *options], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    told = json.loads((tmp_path / "out" / "analysis.json").read_text())
    assert told["beside"]["shape"] == [3 * 64, 6 * 32 * 32]
    beside = told["beside"]
    assert {name: len(values) for name, values in beside["seconds"].items()} == {
        "pca": 1, "read": 1, "maps": 1, "products": 1, "script": 1, "full": 1,
    }  # fmt: skip
    assert min(min(values) for values in beside["seconds"].values()) > 0
    assert min(beside["peak"].values()) > 0
    assert beside["over"] == [
        pca / max(read, products)
        for pca, read, products in zip(*(beside["seconds"][name] for name in ("pca", "read", "products")), strict=True)
    ]
    assert told["moved"] > 0.01
    assert len(told["flat"]["gigabytes"]) == 2
    assert told["flat"]["verdict"] in ("flat", "falls", "GROWS")
    assert {row["method"] for row in told["budgets"]} >= {"gram", "covariance"}
    assert {(row["verb"], row["max_bytes"]) for row in told["verbs"]} == {
        (verb, 1 << 28) for verb in ("similarity", "diagnose", "top_images")
    }
    assert all(row["within"] for row in (*told["budgets"], *told["verbs"]))
