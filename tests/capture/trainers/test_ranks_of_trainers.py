"""Two ranks that a trainer runs: rank 0 records the probe, both record batches, and training is what it was."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import fmcluster as fm
from fmcluster.store import verify
from tests.capture.trainers import rank_process as job

ROOT = Path(__file__).parents[3]
pytestmark = pytest.mark.slow


def train(name: str, folder: Path) -> list[dict[int, dict[str, torch.Tensor]]]:
    """Train with both ranks, and return the weights that each had at the beginning and after each epoch."""
    pytest.importorskip(name)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command += ["-m", "tests.capture.trainers.rank_process", name, str(folder)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    states = [torch.load(folder / f"{name}{rank}.pt", weights_only=True) for rank in range(2)]
    for epoch in range(job.EPOCHS + 1):
        for key, value in states[0][epoch].items():
            torch.testing.assert_close(states[1][epoch][key], value, rtol=0, atol=0)
    assert not torch.equal(states[0][0]["0.weight"], states[0][job.EPOCHS]["0.weight"])
    return states


def maps_of(states: dict[str, torch.Tensor], images: torch.Tensor) -> np.ndarray:
    net = job.make_net()
    net.load_state_dict(states)
    with torch.no_grad():
        return torch.cat([net[0](part) for part in images.split(8)]).numpy().astype(np.float16)


@pytest.mark.parametrize("name", list(job.TRAINERS))
def test_the_probe_is_recorded_once_and_as_every_rank_has_it(name: str, tmp_path: Path) -> None:
    states = train(name, tmp_path)
    run = fm.open_run(tmp_path / f"{name}.zarr")
    assert verify(run) == []
    assert run.epochs == list(range(job.EPOCHS + 1))
    steps = job.N // job.BATCH // 2
    assert run.snapshots["step"].tolist() == [epoch * steps for epoch in run.epochs]
    images = job.make_images().tensors[0]
    for epoch in run.epochs:
        np.testing.assert_array_equal(run["0"].read(epoch=epoch), maps_of(states[0][epoch], images))
    if name != "accelerate":
        return
    batches = fm.open_run(tmp_path / "batches.zarr")
    assert verify(batches) == []
    assert batches.epochs == list(range(job.EPOCHS))
    first = batches["0"].read(epoch=0, samples=range(job.BATCH))  # in each epoch's first step, the weights are known
    np.testing.assert_array_equal(first, maps_of(states[0][0], images)[: job.BATCH])
    assert sorted(batches.samples.index) == list(range(job.N))
    for epoch in batches.epochs:
        assert np.isfinite(batches["0"].read(epoch=epoch).astype(np.float32)).all()
