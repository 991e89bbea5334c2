"""What the adapters have in common."""

import importlib
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

import fmcluster as fm
from fmcluster.capture.trainers._schedule import Schedule


@pytest.mark.parametrize("every", [0, -1, 1.5, True, "2"])
def test_every_has_to_be_a_number_of_epochs(every: object, recorder: Callable) -> None:
    with pytest.raises(ValueError, match=rf"every is {every!r}; expected a number of epochs"):
        Schedule(recorder(), every=every)


@pytest.mark.slow
def test_only_numbers_are_kept(recorder: Callable, metrics: Callable) -> None:
    schedule = Schedule(recorder(), every=1)
    schedule.enter()
    logged = {
        "python": 1,
        "numpy": np.float32(0.5),
        "tensor": torch.tensor([2.0], requires_grad=True),
        "rates": torch.tensor([1.0, 2.0]),
        "matrix": np.eye(2),
        "name": "run",
        "none": None,
    }
    schedule.offer(0, metrics=logged)
    schedule.leave()
    kept = {name: metrics(name) for name in logged if name in {"python", "numpy", "tensor"}}
    assert kept == {"python": [1.0], "numpy": [0.5], "tensor": [2.0]}
    for name in logged.keys() - kept.keys():
        with pytest.raises(KeyError):
            metrics(name)


@pytest.mark.slow
def test_a_trainer_that_counts_from_zero_on_a_run_that_is_ahead_does_not_fail(
    recorder: Callable, tmp_path: Path
) -> None:
    with recorder() as taken:
        taken.snapshot(epoch=2, step=100)
    schedule = Schedule(recorder(mode="a"), every=1)
    schedule.enter()
    for epoch in range(5):
        schedule.offer(epoch, metrics={}, step=30 * epoch)
    schedule.leave()
    snapshots = fm.open_run(tmp_path / "run.zarr").snapshots
    assert list(zip(snapshots["epoch"], snapshots["step"], strict=True)) == [(2, 100), (3, 100), (4, 120)]


def test_nothing_is_offered_before_entering_or_after_leaving(recorder: Callable, tmp_path: Path) -> None:
    schedule = Schedule(recorder(), every=1)
    schedule.offer(0, metrics={})
    schedule.leave()
    schedule.leave(ValueError())
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("extra", ["lightning", "huggingface", "ignite"])
def test_without_the_library_the_error_names_the_extra(extra: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("lightning.pytorch", "transformers", "ignite.distributed", "ignite.engine"):
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.delitem(sys.modules, f"fmcluster.capture.trainers.{extra}", raising=False)
    with pytest.raises(ImportError, match=rf"cannot be imported.*pip install 'fmcluster\[{extra}\]'"):
        importlib.import_module(f"fmcluster.capture.trainers.{extra}")


@pytest.mark.slow
def test_what_follows_a_snapshot_is_called_after_each_and_when_a_run_is_resumed(recorder: Callable) -> None:
    for mode, expected in (("x", [0, 2]), ("a", [2, 4])):
        seen: list[int] = []
        taken = recorder(mode=mode)
        schedule = Schedule(taken, every=2, then=lambda taken=taken, seen=seen: seen.append(taken.last_epoch))
        schedule.enter()
        for epoch in range(5) if mode == "a" else range(3):
            schedule.offer(epoch, metrics={})
        schedule.leave()
        assert seen == expected
