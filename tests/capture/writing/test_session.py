"""A writer that fails: the error arrives with layer and epoch, and what was whole stays whole."""

import errno
import re
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import nn

import fmcluster as fm
from fmcluster.store import RunWriter, verify


class FullDisk:
    """Makes one method of the writer fail, from its n-th call on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, method: str, error: OSError) -> None:
        self.calls_left: int | None = None
        original = getattr(RunWriter, method)

        def attempt(writer: RunWriter, *args: Any, **kwargs: Any) -> Any:
            if self.calls_left is not None:
                self.calls_left -= 1
                if self.calls_left < 0:
                    raise error
            return original(writer, *args, **kwargs)

        monkeypatch.setattr(RunWriter, method, attempt)


@pytest.fixture
def full(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], FullDisk]:
    return lambda method: FullDisk(monkeypatch, method, OSError(errno.ENOSPC, "No space left on device"))


def check(path: Path, epochs: list[int], **counts: int) -> None:
    run = fm.open_run(path)
    assert run.snapshots["epoch"].tolist() == epochs
    assert verify(run) == []
    assert len(run.samples) == (10 if epochs else 0)


def record(model: nn.Module, path: Path, data: list, *, mode: str = "x") -> fm.Recorder:
    return fm.Recorder(model, path, probe=data, batch_size=4, mode=mode)


@pytest.mark.slow
def test_the_error_arrives_at_the_next_call(net: nn.Module, data: list, tmp_path: Path, full: Callable) -> None:
    path = tmp_path / "run.zarr"
    disk = full("write")
    with record(net, path, data) as recorder:
        recorder.snapshot(epoch=0)
        recorder.flush()
        disk.calls_left = 3
        try:
            recorder.snapshot(epoch=1)
        except fm.StoreError as error:
            caught = error
        else:
            recorder._session.wait()  # until it has come to pass
            with pytest.raises(fm.StoreError) as raised:
                recorder.snapshot(epoch=2)
            caught = raised.value
        for part in ("writing", "epoch 1, step 0", str(path), "No space left", 'mode="a"'):
            assert part in str(caught)
        assert re.search(r"writing the activation of layer '(conv1|bn1|relu|layer1|dropout|pool|fc)' of", str(caught))
        assert isinstance(caught.__cause__, OSError)
        check(path, [0])
        disk.calls_left = None
        recorder.snapshot(epoch=1)  # there is room again
    check(path, [0, 1])
    with record(net, path, data, mode="a") as recorder:
        recorder.snapshot(epoch=2)
    check(path, [0, 1, 2])


@pytest.mark.slow
@pytest.mark.parametrize("method", ["write", "add_static", "commit", "_flush_snapshot", "replace_root"])
@pytest.mark.parametrize("calls", [0, 1])
def test_the_error_arrives_on_exit(
    method: str, calls: int, net: nn.Module, data: list, tmp_path: Path, full: Callable
) -> None:
    path = tmp_path / "run.zarr"
    disk = full(method)
    with (
        pytest.raises(fm.StoreError, match=r"epoch 0, step 0 to .* failed: OSError.*No space left"),
        record(net, path, data) as recorder,
    ):
        disk.calls_left = calls if method in ("write", "add_static") else 0
        recorder.snapshot(epoch=0)
    disk.calls_left = None
    check(path, [])
    with record(net, path, data, mode="a") as recorder:
        recorder.snapshot(epoch=0)
    check(path, [0])


@pytest.mark.slow
@pytest.mark.parametrize("method", ["write", "add_static", "commit"])
def test_a_run_whose_first_snapshot_failed_still_gets_its_samples(
    method: str, net: nn.Module, data: list, tmp_path: Path, full: Callable
) -> None:
    path = tmp_path / "run.zarr"
    disk = full(method)
    with record(net, path, data) as recorder:
        disk.calls_left = 0
        with pytest.raises(fm.StoreError, match="epoch 0"):
            recorder.snapshot(epoch=0)
            recorder.flush()
        disk.calls_left = None
        recorder.snapshot(epoch=0)
        recorder.snapshot(epoch=1)
    check(path, [0, 1])
    assert fm.open_run(path).display(3) is not None


@pytest.mark.slow
def test_snapshots_taken_before_the_failure_was_told_are_left_out_too(
    net: nn.Module, data: list, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The writer is slow: two more snapshots are taken before the first one fails."""
    path, may_write = tmp_path / "run.zarr", threading.Event()
    write = RunWriter.write
    fail = True

    def slow(writer: RunWriter, layer: str, **kwargs: Any) -> None:
        may_write.wait(10)
        if fail:
            raise OSError(errno.ENOSPC, "No space left on device")
        write(writer, layer, **kwargs)

    monkeypatch.setattr(RunWriter, "write", slow)
    with record(net, path, data) as recorder:
        for epoch in range(3):
            recorder.snapshot(epoch=epoch)
        may_write.set()
        with pytest.raises(fm.StoreError, match=r"epoch 0, .*so was any snapshot since"):
            recorder.flush()
        check(path, [])
        fail = False
        recorder.snapshot(epoch=0)
    check(path, [0])


@pytest.mark.slow
def test_the_users_own_exception_comes_first(net: nn.Module, data: list, tmp_path: Path, full: Callable) -> None:
    disk = full("commit")
    with pytest.raises(ZeroDivisionError) as caught, record(net, tmp_path / "run.zarr", data) as recorder:
        disk.calls_left = 0
        recorder.snapshot(epoch=0)
        _ = 1 // 0
    assert any("not recorded to its end" in note and "epoch 0" in note for note in caught.value.__notes__)


def test_the_users_exception_alone_has_no_note_and_keeps_the_snapshots(
    net: nn.Module, data: list, tmp_path: Path
) -> None:
    with pytest.raises(ZeroDivisionError) as caught, record(net, tmp_path / "run.zarr", data) as recorder:
        recorder.snapshot(epoch=0)
        _ = 1 // 0
    assert not hasattr(caught.value, "__notes__")
    check(tmp_path / "run.zarr", [0])


@pytest.mark.slow
def test_an_error_that_was_told_is_not_told_again(net: nn.Module, data: list, tmp_path: Path, full: Callable) -> None:
    disk = full("commit")
    with pytest.raises(fm.StoreError) as caught, record(net, tmp_path / "run.zarr", data) as recorder:
        disk.calls_left = 0
        recorder.snapshot(epoch=0)
        recorder.flush()
    assert not hasattr(caught.value, "__notes__")


@pytest.mark.slow
def test_a_metric_of_a_failed_commit_does_not_reach_the_next(
    net: nn.Module, data: list, tmp_path: Path, full: Callable
) -> None:
    path = tmp_path / "run.zarr"
    disk = full("replace_root")
    with record(net, path, data) as recorder:
        recorder.snapshot(epoch=0, metrics={"loss": 1})
        recorder.flush()
        disk.calls_left = 0
        recorder.snapshot(epoch=1, metrics={"loss": 2})
        with pytest.raises(fm.StoreError, match="its commit of epoch 1"):
            recorder.flush()
        disk.calls_left = None
        recorder.snapshot(epoch=2)
    check(path, [0, 2])
    np.testing.assert_array_equal(fm.open_run(path).metrics["loss"], [1, np.nan])


@pytest.mark.parametrize("what", ["write", "enter"])
def test_without_permission(
    what: str, net: nn.Module, data: list, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    error = PermissionError(errno.EACCES, "Permission denied", "run.zarr")
    if what == "write":
        disk = FullDisk(monkeypatch, "write", error)
        message = r"writing the activation of layer '(conv1|bn1|relu|layer1)' of epoch 0.*Permission denied"
        with pytest.raises(fm.StoreError, match=message), record(net, tmp_path / "run.zarr", data) as recorder:
            disk.calls_left = 0
            recorder.snapshot(epoch=0)
    else:
        disk = FullDisk(monkeypatch, "create", error)
        disk.calls_left = 0
        with pytest.raises(fm.StoreError, match=r"Permission denied.*Nothing was recorded. Once there is"):
            record(net, tmp_path / "run.zarr", data).__enter__()
        disk.calls_left = None
        record(net, tmp_path / "run.zarr", data).__enter__().__exit__(None, None, None)


class TestARunThatHoldsNothing:
    def fail(self, net: nn.Module, data: list, path: Path, **options: Any) -> None:
        def refuse(*_: Any) -> None:
            raise RuntimeError("no memory left")

        with pytest.raises(RuntimeError), fm.Recorder(net, path, probe=data, **options) as recorder:
            handle = net.fc.register_forward_pre_hook(refuse)
            try:
                recorder.snapshot(epoch=recorder.last_epoch + 1)
            finally:
                handle.remove()

    def test_goes_where_the_first_snapshot_failed(self, net: nn.Module, data: list, tmp_path: Path) -> None:
        self.fail(net, data, tmp_path / "deep" / "run.zarr")
        assert list(tmp_path.iterdir()) == [], "neither the run nor its lock, nor the folder that was made for them"

    def test_stays_where_it_was_there_before(self, net: nn.Module, data: list, tmp_path: Path) -> None:
        path = tmp_path / "run.zarr"
        with fm.Recorder(net, path, probe=data):
            pass
        self.fail(net, data, path, mode="a")
        assert fm.open_run(path).epochs == []

    def test_stays_where_it_says_what_is_missing(self, net: nn.Module, data: list, tmp_path: Path) -> None:
        path = tmp_path / "run.zarr"
        with pytest.raises(KeyboardInterrupt), fm.Recorder(net, path, probe=data, on_error="warn") as recorder:
            net.fc.register_forward_pre_hook(lambda *_: {}["no memory left"])
            with pytest.warns(UserWarning, match="no memory left"):
                recorder.snapshot(epoch=0)
            raise KeyboardInterrupt
        assert fm.open_run(path).provenance[-1]["missing"][0]["epoch"] == 0

    def test_stays_with_the_first_whole_snapshot(self, net: nn.Module, data: list, tmp_path: Path) -> None:
        path = tmp_path / "run.zarr"
        with pytest.raises(KeyboardInterrupt), fm.Recorder(net, path, probe=data) as recorder:
            recorder.snapshot(epoch=0)
            raise KeyboardInterrupt
        assert fm.open_run(path).epochs == [0]


def test_a_file_in_the_place_of_a_folder_is_said_to_be_one(net: nn.Module, data: list, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(fm.StoreError, match="no file stands in the place of a folder, record again"):
        fm.Recorder(net, tmp_path / "file" / "run.zarr", probe=data).__enter__()
