"""Rows of a batch that is withdrawn while the disk is behind, and moments that count once."""

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import fmcluster as fm
from fmcluster.capture.transfer import Moments
from fmcluster.capture.writing import PendingSnapshot, Rows, Session, ShardBuffer
from fmcluster.store import LayerSpec, RunWriter


def test_rows_before_a_batch_that_is_taken_back_survive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written, may_write, write = threading.Event(), threading.Event(), RunWriter.write

    def slow(writer: RunWriter, layer: str, *, offset: int, **what: Any) -> None:
        if (layer, offset) == ("1", 8):
            may_write.wait(10)
        write(writer, layer, offset=offset, **what)
        if (layer, offset) == ("0", 8):
            written.set()

    monkeypatch.setattr(RunWriter, "write", slow)
    model, images = nn.Sequential(nn.Conv2d(3, 2, 1), nn.Conv2d(2, 2, 1)), torch.rand(16, 3, 4, 4)
    with (
        fm.BatchRecorder(model, tmp_path / "run.zarr", n_samples=16, samples_per_shard=8) as recorder,
        recorder.epoch(0),
    ):
        with recorder.batch(range(8)):  # a shard
            model(images[:8])
        with recorder.batch(range(8, 12)):  # half a shard
            model(images[8:12])
        with pytest.raises(KeyError), recorder.batch(range(12, 16)):
            model(-images[12:])
            raise KeyError
        assert written.wait(10)
        with recorder.batch(range(12, 16)):
            model(images[12:])
        may_write.set()
    run = fm.open_run(tmp_path / "run.zarr")
    with torch.no_grad():
        np.testing.assert_array_equal(run["0"].read(epoch=0), model[0](images).half().numpy())


@pytest.mark.slow
def test_a_value_beyond_float16_in_a_batch_that_is_taken_back_fails_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    may_write, write = threading.Event(), RunWriter.write

    def slow(writer: RunWriter, layer: str, **what: Any) -> None:
        may_write.wait(1)
        write(writer, layer, **what)

    monkeypatch.setattr(RunWriter, "write", slow)
    model, images = nn.Sequential(nn.Conv2d(3, 2, 1)), torch.rand(16, 3, 4, 4)
    with (
        fm.BatchRecorder(model, tmp_path / "run.zarr", n_samples=16, samples_per_shard=8) as recorder,
        recorder.epoch(0),
    ):
        with recorder.batch(range(8)):
            model(images[:8])
        with pytest.raises(KeyError), recorder.batch(range(8, 16)):
            model(images[8:] * 1e6)
            raise KeyError
    assert len(fm.open_run(tmp_path / "run.zarr")) == 1


class CountedCopy:
    """A copy of four rows that has arrived already, or not yet; counts what is asked of it."""

    def __init__(self, *, has_arrived: bool) -> None:
        self.has_arrived = has_arrived
        self.n_released = 0

    def result(self) -> tuple[np.ndarray, Moments]:
        sums = np.array([[4.0], [4.0], [4.0], [1.0], [1.0], [0.0], [0.0]])
        return np.ones((4, 1), np.float32), Moments(sums)

    def release(self) -> None:
        self.n_released += 1


@pytest.mark.parametrize("has_arrived", [True, False])
@pytest.mark.parametrize("withdrawn", [True, False])
def test_moments_of_rows_count_once_and_not_at_all_where_they_are_withdrawn(
    has_arrived: bool, withdrawn: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    added = []
    add = PendingSnapshot.add
    monkeypatch.setattr(PendingSnapshot, "add", lambda *args, **named: (added.append(named), add(*args, **named)))
    written, copy = [], CountedCopy(has_arrived=has_arrived)
    spec = LayerSpec("fc", (1,), "float32", "Linear")
    buffer = ShardBuffer(
        lambda layer, **what: written.append((layer, what["offset"], what["values"].tolist())),
        specs={"fc": spec},
        n_samples=4,
        shard_samples=4,
    )
    snapshot = PendingSnapshot(epoch=0, step=0, metrics={})
    session = Session(RunWriter(tmp_path / "run.zarr"), provenance={}, refuses_overflow=True)
    try:
        if withdrawn:
            snapshot.withdraw(7, slot=0)
        session.put_rows(Rows(snapshot, buffer, "fc", "activation", 0, 4, copy, 7))
        session.wait()
    finally:
        session.close()
    assert session.take_failure() is None
    assert len(added) == 1
    assert copy.n_released == 1
    assert written == [("fc", 0, [[1.0]] * 4)]
    total = snapshot.total("fc", "activation")
    assert (total is None) == withdrawn
    assert total is None or total.values[0].tolist() == [4.0]
