"""Batches that are taken back while the disk is behind."""

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import fmcluster as fm
from fmcluster.store import RunWriter


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
