"""A rank that is killed in mid-epoch leaves whole epochs, and the job that torchrun starts again goes on after them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import fmcluster as fm
from fmcluster.store import verify

pytest.importorskip("obstore")
pytest.importorskip("moto")

from tests.store.bucket import environment_of, keys_of, s3_server

ROOT = Path(__file__).parents[3]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning"),
]


def run_job(path, folder, *, victim, restarts, environment):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command += ["--max-restarts", str(restarts), "-m", "tests.capture.ranks.killed_rank", str(path), str(folder)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), **environment}
    return subprocess.run(
        [*command, str(victim)], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300, check=False
    )


def test_in_a_folder_the_epochs_before_stay_and_the_next_job_adds_to_them(tmp_path):
    path = tmp_path / "run.zarr"
    assert run_job(path, tmp_path, victim=1, restarts=0, environment={}).returncode != 0
    run = fm.open_run(path)
    assert run.epochs == [0]
    assert verify(run) == []
    done = run_job(path, tmp_path, victim=1, restarts=0, environment={})
    assert done.returncode == 0, done.stderr[-3000:]
    run = fm.open_run(path)
    assert run.epochs == [0, 1, 2]
    assert verify(run) == []


def test_in_a_bucket_ranks_that_are_started_again_go_on(tmp_path, monkeypatch):
    """The one that was killed held the lock."""
    with s3_server() as server:
        # a store of its own for each attempt: gloo's addresses of the one before would be tried else
        environment = {**environment_of(server), "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}
        url = "s3://bucket/killed/run.zarr"  # what others wrote, the server of one process has still
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        done = run_job(url, tmp_path, victim=0, restarts=1, environment=environment)
        assert done.returncode == 0, done.stderr[-3000:]
        assert (tmp_path / "killed").exists(), done.stderr[-3000:]
        run = fm.open_run(url)
        assert run.epochs == [0, 1, 2]
        assert verify(run) == []
        assert [name for name in keys_of(server, "killed") if name.endswith(".lock")] == []
