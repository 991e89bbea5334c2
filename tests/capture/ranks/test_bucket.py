"""Two ranks that torchrun starts record into a bucket: the objects are the files of a run in a folder."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import fmcluster as fm
from fmcluster.store import verify

pytest.importorskip("obstore")
pytest.importorskip("moto")

from tests.store.bucket import environment_of, files_of, keys_of, objects_of, s3_server

ROOT = Path(__file__).parents[3]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning"),
]


class Broken(list):
    """Faults of the server: while the second epoch is recorded, no map of the second rank's slots gets through."""

    def __init__(self, epoch: Path) -> None:
        super().__init__()
        self.epoch = epoch

    def __iter__(self):
        if self.epoch.exists() and self.epoch.read_text() == "1":
            yield ("PUT", "broken.zarr/layers/0/activation/c.1.2", 503)

    def remove(self, fault) -> None:
        """It stays."""


def test_the_objects_are_the_files_of_the_same_job_in_a_folder(tmp_path, monkeypatch):
    with s3_server() as server:
        server.plan = Broken(tmp_path / "epoch")
        for name, value in environment_of(server).items():
            monkeypatch.setenv(name, value)
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
        command += ["-m", "tests.capture.ranks.bucket_rank", str(tmp_path), "s3://bucket/job/run.zarr"]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        done = subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600, check=False
        )
        assert done.returncode == 0, done.stderr[-3000:]
        said = [json.loads((tmp_path / f"said{rank}.json").read_text()) for rank in range(2)]
        here, there = files_of(tmp_path / "here.zarr"), objects_of(server, "job/run.zarr")
        assert there == here
        assert [each["folder"] + each["bucket"] for each in said] == [[], []]
        for each in said:  # on both ranks, whose upload broke
            (warned,) = each["broken"]
            assert "writing the activation of layer '0' of epoch 1, step 6 to s3://bucket/job/broken.zarr" in warned
            assert "503" in warned
            assert "Training goes on" in warned
        run = fm.open_run("s3://bucket/job/run.zarr")
        assert verify(run) == []
        assert run.epochs == [0, 1, 2]
        broken = fm.open_run("s3://bucket/job/broken.zarr")
        assert verify(broken) == []
        assert broken.epochs == [0, 2]
        assert [name for name in keys_of(server, "job") if name.endswith(".lock")] == []
        np.testing.assert_array_equal(broken["0"].read(epoch=2), run["0"].read(epoch=2))
