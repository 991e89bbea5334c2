"""The benchmark of fine-tuning runs, and each of its contenders is measured beside the bare epoch of its question."""

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent.parent / "benchmarks" / "training.py"


@pytest.mark.slow
def test_recording_is_measured_beside_epochs_that_record_nothing(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "FMCLUSTER_DATA"}
    environment["OMP_NUM_THREADS"] = "1"
    command = [sys.executable, str(SCRIPT), "--quick", "--rounds", "1", "--output", str(tmp_path)]
    result = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert result.returncode == 0, result.stdout + result.stderr
    (file,) = tmp_path.glob("training-*.json")
    told = json.loads(file.read_text())
    assert (told["images"], told["probe"], told["batch_size"], told["pixels"]) == (8, 4, 4, 32)
    assert told["goals"] == {"probe": 1.03, "batches": 1.1}
    rows = {row["contender"]: row for row in told["rows"]}
    kinds = {"probe": {"bare", "fmcluster", "clones + np.save", "TorchLens + np.save"}}
    kinds["batches"] = {"bare", "fmcluster", "clones + np.save"}
    assert set(rows) == {f"{question}: {kind}" for question, names in kinds.items() for kind in names}
    missing = {name for name, row in rows.items() if not row.get("installed", True)}
    assert missing == (set() if find_spec("torchlens") else {"probe: TorchLens + np.save"})
    for name in set(rows) - missing:
        bare = rows[f"{rows[name]['question']}: bare"]
        assert rows[name]["ratio"] == [a / b for a, b in zip(rows[name]["seconds"], bare["seconds"], strict=True)]
        assert len(rows[name]["seconds"]) == 1
        assert (rows[name]["bytes"] > 0) == (not name.endswith("bare"))
    largest = 4 * 2 * (3 * 64 * 16**2 + 2 * 64 * 8**2)  # of conv1, bn1, relu, maxpool and layer1 for the probe
    assert rows["probe: clones + np.save"]["bytes"] > largest
