"""A disk that takes no run on entry, where training is to go on: what is recorded once it does, and what is missing."""

import errno
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import fmcluster as fm
from fmcluster.capture import _recording
from fmcluster.capture.trainers._schedule import Schedule
from fmcluster.store import RunWriter, verify

Data = list[tuple[torch.Tensor, int]]


class Disk:
    """A disk that may take nothing: no lock, as a read-only one, or no run, as a full one."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.fault = ""
        create, opened = RunWriter.create, _recording.RunWriter

        def creates(writer: RunWriter, *args: Any, **kwargs: Any) -> None:
            if self.fault:
                raise OSError(errno.ENOSPC, "No space left on device")
            create(writer, *args, **kwargs)

        def opens(*args: Any, **kwargs: Any) -> RunWriter:
            if self.fault == "read-only":
                raise OSError(errno.EROFS, "Read-only file system")
            return opened(*args, **kwargs)

        patch.setattr(RunWriter, "create", creates)
        patch.setattr(_recording, "RunWriter", opens)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    return Disk(monkeypatch)


@pytest.fixture(params=["probe", "live"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def recorder(net: nn.Module, data: Data, tmp_path: Path, kind: str) -> Callable[..., Any]:
    def make(**options: Any) -> Any:
        options = {"layers": ["conv1"], "on_error": "warn", **options}
        if kind == "probe":
            return fm.Recorder(net, tmp_path / "run.zarr", probe=data, **options)
        return fm.BatchRecorder(net, tmp_path / "run.zarr", n_samples=10, **options)

    return make


@pytest.fixture
def train(net: nn.Module, data: Data) -> Callable[..., None]:
    """A function that trains and records epochs of one step each."""
    images = torch.stack([image for image, _ in data])
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-3)

    def step() -> None:
        net(images).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()

    def train(recording: Any, *epochs: int) -> None:
        for epoch in epochs:
            if isinstance(recording, fm.Recorder):
                step()
                recording.snapshot(epoch=epoch)
            else:
                with recording.epoch(epoch) as metrics, recording.batch(range(len(images))):
                    step()
                    metrics["loss"] = 1.0
            recording.flush()

    return train


@contextmanager
def warned(*, times: int) -> Iterator[list[str]]:
    said: list[str] = []
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        yield said
    said += [str(each.message) for each in seen]
    assert len(said) == times, said


def recorded(path: Path) -> tuple[list[int], list[int], list[int]]:
    """Return the epochs and steps of a run's snapshots, and the epochs that are missing."""
    run = fm.open_run(path)
    assert verify(run) == []
    missing = [each["epoch"] for session in run.provenance for each in session.get("missing", [])]
    return run.epochs, run.snapshots["step"].tolist(), missing


@pytest.mark.parametrize("fault", ["full", "read-only"])
def test_recording_begins_when_it_can(
    fault: str, recorder: Callable, train: Callable, tmp_path: Path, disk: Disk
) -> None:
    disk.fault = fault
    with warned(times=1) as said, recorder() as recording:
        assert recording.last == (-1, -1)
        train(recording, 1, 2)
        disk.fault = ""
        train(recording, 3, 4)
    assert "run.zarr failed: OSError" in said[0]
    assert "tries again. Training goes on" in said[0]
    assert recorded(tmp_path / "run.zarr") == ([3, 4], [3, 4], [1, 2])


def test_a_disk_that_never_takes_it_ends_nothing(recorder: Callable, train: Callable, disk: Disk) -> None:
    disk.fault = "read-only"
    with warned(times=1), recorder() as recording:
        train(recording, 1, 2)
        assert recording.step == 2
    with (
        pytest.raises(fm.StoreError, match="Once the file system can be written to, record again"),
        recorder(on_error="raise"),
    ):
        pass


def test_a_run_that_is_resumed_late_goes_on_after_its_last_snapshot(
    recorder: Callable, train: Callable, tmp_path: Path, disk: Disk
) -> None:
    with recorder() as recording:
        train(recording, 1, 2)
    disk.fault = "read-only"
    with warned(times=1), recorder(mode="a") as recording:
        assert recording.last == (2, 2)
        train(recording, 3)
        disk.fault = ""
        train(recording, 4)
    assert recorded(tmp_path / "run.zarr") == ([1, 2, 4], [1, 2, 4], [3])


@pytest.mark.slow
def test_of_a_run_that_could_not_be_read_on_entry_nothing_is_recorded_twice(
    recorder: Callable, train: Callable, tmp_path: Path, disk: Disk
) -> None:
    with recorder() as recording:
        train(recording, 1, 2)
    (tmp_path / "run.zarr").rename(tmp_path / "away.zarr")
    disk.fault = "read-only"
    with warned(times=2) as said, recorder(mode="a") as recording:
        assert recording.last == (-1, -1)
        train(recording, 1)
        (tmp_path / "away.zarr").rename(tmp_path / "run.zarr")
        disk.fault = ""
        train(recording, 2, 3)  # the first of them is in the run
    assert recorded(tmp_path / "run.zarr") == ([1, 2, 3], [1, 2, 5], [])
    assert "so that these steps do not count twice" in said[1]


def test_what_comes_before_a_run_that_could_not_be_read_on_entry_ends_no_training(
    recorder: Callable, kind: str, data: Data, tmp_path: Path, disk: Disk
) -> None:
    """The training counted from zero, as it was told of no run; epochs that are there are not missing, others are."""

    def train(recording: Any, epoch: int, step: int) -> None:
        if kind == "probe":
            recording.snapshot(epoch=epoch, step=step)
            return
        with recording.epoch(epoch, step=step), recording.batch(range(10)), torch.no_grad():
            recording.model(torch.stack([image for image, _ in data]))

    with recorder() as recording:
        for epoch in (1, 2):
            train(recording, epoch, 10 * epoch)
    (tmp_path / "run.zarr").rename(tmp_path / "away.zarr")
    disk.fault = "read-only"
    with warned(times=2) as said, recorder(mode="a") as recording:
        (tmp_path / "away.zarr").rename(tmp_path / "run.zarr")
        disk.fault = ""
        for epoch, step in enumerate((0, 5, 10, 15, 20, 25)):
            train(recording, epoch, step)
        with pytest.raises(ValueError, match="epoch 4 comes after epoch 5"):
            train(recording, 4, 30)
    assert recorded(tmp_path / "run.zarr") == ([1, 2, 4, 5], [10, 20, 20, 25], [3])
    assert "step is 15; expected an integer from 20 on" in said[1]


def test_bad_arguments_raise_all_the_same(recorder: Callable, train: Callable, disk: Disk) -> None:
    disk.fault = "full" if not isinstance(recorder(), fm.BatchRecorder) else "read-only"
    with warned(times=1), recorder() as recording, pytest.raises(ValueError, match="epoch is -1"):
        train(recording, -1)
    with warned(times=1), recorder(layers=["conv1"]) as recording, pytest.raises(ZeroDivisionError):
        if isinstance(recording, fm.Recorder):
            1 / 0  # noqa: B018
        with recording.epoch(0):
            1 / 0  # noqa: B018


@pytest.mark.parametrize("kind", ["probe"])
def test_a_trainers_adapter_goes_on_too(recorder: Callable, tmp_path: Path, disk: Disk) -> None:
    called: list[int] = []
    schedule = Schedule(recorder(), every=1, then=lambda: called.append(1))
    disk.fault = "full"
    with warned(times=1):
        schedule.enter()
        schedule.offer(0, metrics={"loss": 2.0}, step=0)
        schedule.offer(1, metrics={"loss": 1.0}, step=10)
        disk.fault = ""
        schedule.offer(2, metrics={"loss": 0.5}, step=20)
        schedule.leave()
    assert recorded(tmp_path / "run.zarr") == ([2], [20], [0, 1])
    assert fm.open_run(tmp_path / "run.zarr").metrics["loss"].tolist() == [0.5]
