"""Two ranks of a job record one run: what is in it, and what each says where something is wrong."""

import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

import fmcluster as fm
from fmcluster.capture.ranks._team import Layout, check_ranks, lay_out
from fmcluster.store import verify
from tests.capture import rank_process as job

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {**os.environ, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "tests.capture.rank_process"]
    processes = [
        subprocess.Popen([*command, str(rank), folder], cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True)
        for rank in range(2)
    ]
    try:
        errors = [process.communicate(timeout=400)[1] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0, 3], errors
    return SimpleNamespace(
        folder=folder, said=[json.loads((folder / f"said{rank}.json").read_text()) for rank in range(2)]
    )


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The same batches and updates in one process: its gradients are those of the mean of both ranks' losses."""
    path = tmp_path_factory.mktemp("alone") / "alone.zarr"
    model, (images, labels) = job.make_model(), job.make_images().tensors
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    torch.set_num_threads(1)
    with fm.BatchRecorder(
        model,
        path,
        layers=["0", "1", "4"],
        dataset=job.make_images(),
        samples_per_shard=8,
        record=("activation", "gradient", "weight"),
    ) as recorder:
        for epoch in range(job.EPOCHS):
            with recorder.epoch(epoch):
                for batches in job.steps_of(epoch):
                    for indices in batches:
                        with recorder.batch(indices, loss_scale=0.5):
                            (nn.functional.cross_entropy(model(images[indices]), labels[indices]) / 2).backward()
                    optimizer.step()
                    optimizer.zero_grad()
    return fm.open_run(path)


@pytest.mark.slow
class TestTwoRanks:
    def test_together_they_record_what_one_process_does(self, ranks, alone):
        both = fm.open_run(ranks.folder / "both.zarr")
        assert verify(both) == []
        assert both.epochs == alone.epochs == [0, 1]
        assert list(both.metrics["loss"]) == [0.5, 1.5]
        assert list(both.snapshots["step"]) == list(alone.snapshots["step"]) == [3, 6]
        assert list(both.samples["label"]) == [k % 3 for k in range(job.N)]
        everyone = list(range(job.N))
        for name in alone.layers:
            for epoch in alone.epochs:
                np.testing.assert_array_equal(
                    both[name].read(epoch=epoch, samples=everyone), alone[name].read(epoch=epoch, samples=everyone)
                )
                np.testing.assert_array_equal(
                    both[name].gradient.read(epoch=epoch, samples=everyone),
                    2 * alone[name].gradient.read(epoch=epoch, samples=everyone),  # of each rank's own loss
                )
            np.testing.assert_allclose(
                both[name].statistics["mean"], alone[name].statistics["mean"], rtol=1e-12, atol=1e-15
            )
        for name, values in alone.read_weights(epoch=1).items():
            if not name.startswith(("1.running", "1.num")):  # of the batches that rank 0 saw
                np.testing.assert_array_equal(both.read_weights(epoch=1)[name], values)
        there, here = both.normalization_inputs("1"), alone.normalization_inputs("1")
        np.testing.assert_allclose(there.to_numpy(), here.to_numpy(), rtol=1e-12)

    def test_each_rank_has_its_own_slots_in_whole_shards(self, ranks):
        both = fm.open_run(ranks.folder / "both.zarr")
        first, second = (list(both.sample_ids(0)[half]) for half in (slice(0, 12), slice(12, 24)))
        assert both.shard_samples == 8
        assert both.n_samples == 32  # 12 samples of a rank are two shards of 8
        shown = [[index for batches in job.steps_of(0) for index in batches[rank]] for rank in (0, 1)]
        assert [first, second] == shown

    def test_every_rank_knows_where_a_run_ends(self, ranks):
        assert [said["last 0"] for said in ranks.said] == [[-1, -1]] * 2
        assert [said["last 1"] for said in ranks.said] == [[0, 3]] * 2

    @pytest.mark.parametrize(
        ("what", "sentence"),
        [
            ("exists", "FileExistsError: .*both.zarr already holds a run"),
            (
                "batches",
                "CaptureError: .*different numbers of batches in epoch 1: rank 0 3, rank 1 2. The epoch was left",
            ),
            (
                "epochs",
                "CaptureError: rank 1 records something else than rank 0: of its epochs, it has 2, and rank 0 1",
            ),
            (
                "model",
                r"CaptureError: rank 1 .* of its model, it has 0.weight of shape \(6, 3, 3, 3\), and rank 0 0.weight",
            ),
            ("options", "CaptureError: rank 1 .* of its dtype, it has float32, and rank 0 float16"),
        ],
    )
    def test_what_is_wrong_is_one_sentence_on_every_rank(self, ranks, what, sentence):
        first, second = (said[what] for said in ranks.said)
        assert first == second
        assert re.match(sentence, first)

    def test_a_rank_that_raises_leaves_whole_epochs_and_the_job_may_go_on(self, ranks):
        assert ranks.said[1]["raises"] == "ValueError: no such picture"
        assert ranks.said[0]["raises"] == "CaptureError: rank 1 of 2 failed: ValueError: no such picture"
        run = fm.open_run(ranks.folder / "raises.zarr")
        assert run.epochs == [0, 1]
        assert verify(run) == []
        assert not (ranks.folder / "model.zarr").exists()

    def test_where_the_disk_takes_no_run_on_entry_every_rank_goes_on_and_begins_later(self, ranks):
        first, second = (said["late"] for said in ranks.said)
        assert first == second
        assert len(first) == 1
        assert "Every snapshot tries again. Training goes on" in first[0]
        run = fm.open_run(ranks.folder / "blocked" / "deeper" / "late.zarr")
        assert run.epochs == [1]
        assert verify(run) == []
        assert [each["epoch"] for each in run.provenance[0]["missing"]] == [0]

    def test_a_rank_that_dies_leaves_whole_epochs_and_no_hang(self, ranks):
        assert ranks.said[0]["dies"].startswith("CaptureError: rank 0 of 2 failed: rank 1 did not come to")
        run = fm.open_run(ranks.folder / "dies.zarr")
        assert run.epochs == [0]
        assert verify(run) == []

    def test_of_a_probe_rank_0_alone_records(self, ranks):
        first, second = (said["probe"] for said in ranks.said)
        assert first == ""
        assert second.startswith("RuntimeError: last is known to rank 0 alone")
        run = fm.open_run(ranks.folder / "probe.zarr")
        assert run.epochs == [0]
        assert verify(run) == []


def test_slots_of_ranks_are_whole_shards():
    assert lay_out(24, n_ranks=2, shard_samples=8, stored=None) == Layout(8, 16, 32)
    assert lay_out(25, n_ranks=2, shard_samples=32, stored=None) == Layout(13, 13, 26)
    assert lay_out(25, n_ranks=1, shard_samples=8, stored=None) == Layout(8, 25, 25)


def test_a_run_of_another_number_of_ranks_is_taken_where_there_is_room():
    stored = SimpleNamespace(shard_samples=8, n_samples=32)
    assert lay_out(32, n_ranks=2, shard_samples=4, stored=stored) == Layout(8, 16, 32)
    assert lay_out(24, n_ranks=3, shard_samples=4, stored=stored) == Layout(8, 8, 32)
    assert lay_out(30, n_ranks=3, shard_samples=4, stored=stored) == Layout(8, 16, 48)  # which resuming refuses


def test_what_is_no_way_to_share():
    with pytest.raises(ValueError, match="ranks is 'first'; expected 'all'"):
        check_ranks("first", timeout=1.0)
    with pytest.raises(ValueError, match="rank_timeout is 0; expected a positive number of seconds"):
        check_ranks("all", timeout=0)
