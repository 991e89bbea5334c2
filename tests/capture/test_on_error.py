"""Training that goes on where the capture fails: what is warned of, what is left out, what the run says is missing."""

import errno
import re
import shutil
import warnings
from contextlib import ExitStack, nullcontext
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import fmcluster as fm
from fmcluster.store import RunWriter, verify

Data = list[tuple[torch.Tensor, int]]


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> dict[str, bool]:
    """A disk that is full while it is said to be."""
    state = {"full": False}
    write = RunWriter.write

    def attempt(writer: RunWriter, *args: Any, **kwargs: Any) -> None:
        if state["full"]:
            raise OSError(errno.ENOSPC, "No space left on device")
        write(writer, *args, **kwargs)

    monkeypatch.setattr(RunWriter, "write", attempt)
    return state


def missing(path: Path) -> list[tuple[int, str]]:
    run = fm.open_run(path)
    assert verify(run) == []
    return [(each["epoch"], each["reason"]) for session in run.provenance for each in session.get("missing", [])]


def take(recorder: fm.Recorder, *epochs: int) -> None:
    for epoch in epochs:
        recorder.snapshot(epoch=epoch)
        recorder.flush()


def test_what_the_system_refuses_while_the_session_is_described_is_a_failure_to_begin(
    net: nn.Module, data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The versions of packages are read from files, of which a process may be allowed no more."""

    def refuse(name: str) -> str:
        raise OSError(errno.EMFILE, "Too many open files", f"{name}/METADATA")

    path = tmp_path / "run.zarr"
    with ExitStack() as stack, monkeypatch.context() as patch:
        patch.setattr("fmcluster.capture._provenance.version", refuse)
        with pytest.raises(fm.StoreError, match=r"open files.*Nothing was recorded.*\(ulimit -n\), record again"):
            fm.Recorder(net, path, probe=data).__enter__()
        assert not path.exists()
        with pytest.warns(UserWarning, match="Nothing was recorded. Every snapshot tries again"):
            recorder = stack.enter_context(fm.Recorder(net, path, probe=data, on_error="warn"))
        patch.undo()
        recorder.snapshot(epoch=0)
    assert fm.open_run(path).epochs == [0]


class TestOfAProbe:
    @pytest.mark.slow
    def test_a_full_disk_is_warned_of_once_and_the_next_snapshot_is_tried(
        self, net: nn.Module, data: Data, tmp_path: Path, disk: dict[str, bool]
    ) -> None:
        path = tmp_path / "run.zarr"
        with fm.Recorder(net, path, probe=data, on_error="warn") as recorder:
            recorder.snapshot(epoch=0)
            recorder.flush()
            disk["full"] = True
            with pytest.warns(UserWarning, match=r"of epoch 1, step 0 .*No space left.*Training goes on") as seen:
                take(recorder, 1, 2, 3)
            assert len(seen) == 1
            disk["full"] = False
            recorder.snapshot(epoch=4)
        assert fm.open_run(path).epochs == [0, 4]
        assert [epoch for epoch, _ in missing(path)] == [1, 2, 3]
        assert "No space left on device" in missing(path)[0][1]

    def test_overflow_is_said_with_the_layer_and_training_goes_on(
        self, net: nn.Module, data: Data, tmp_path: Path
    ) -> None:
        path = tmp_path / "run.zarr"
        weight = net.conv1.weight.detach().clone()
        with fm.Recorder(net, path, probe=data, layers=["conv1"], on_error="warn") as recorder:
            recorder.snapshot(epoch=0)
            with torch.no_grad():
                net.conv1.weight.fill_(1e6)
            with pytest.warns(UserWarning, match=r"conv1.*epoch 1"):
                recorder.snapshot(epoch=1)
            with torch.no_grad():
                net.conv1.weight.copy_(weight)
            recorder.snapshot(epoch=2)
        run = fm.open_run(path)
        assert run.epochs == [0, 2]
        np.testing.assert_array_equal(run["conv1"].read(epoch=2), run["conv1"].read(epoch=0))
        assert [epoch for epoch, _ in missing(path)] == [1]
        assert "conv1" in missing(path)[0][1]

    def test_a_model_that_fails_on_the_probe_is_left_alone(self, net: nn.Module, data: Data, tmp_path: Path) -> None:
        path = tmp_path / "run.zarr"
        with fm.Recorder(net, path, probe=data, on_error="warn") as recorder:

            def fail(*_: Any) -> None:
                raise RuntimeError("out of memory")

            handle = net.fc.register_forward_pre_hook(fail)
            with pytest.warns(UserWarning, match="out of memory"):
                recorder.snapshot(epoch=0)
            handle.remove()
            recorder.snapshot(epoch=1)
        assert fm.open_run(path).epochs == [1]
        assert missing(path) == [(0, "RuntimeError: out of memory")]

    @pytest.mark.slow
    def test_a_first_snapshot_that_fails_leaves_its_reason_and_the_way_on(
        self, net: nn.Module, data: Data, tmp_path: Path
    ) -> None:
        path, full = tmp_path / "run.zarr", RuntimeError("out of memory")
        with fm.Recorder(net, path, probe=data, on_error="warn") as recorder:
            handle = net.fc.register_forward_pre_hook(lambda *_: (_ for _ in ()).throw(full))
            with pytest.warns(UserWarning, match="out of memory"):
                recorder.snapshot(epoch=0)
            handle.remove()
        said = r'without a whole snapshot: epoch 0 was not recorded \(RuntimeError: out of memory\)\. Pass mode="a"'
        with pytest.raises(FileExistsError, match=said):
            fm.Recorder(net, path, probe=data).__enter__()
        with fm.Recorder(net, path, probe=data, mode="a") as recorder:
            recorder.snapshot(epoch=0)
        assert fm.open_run(path).epochs == [0]
        assert missing(path) == []

    def test_what_is_missing_is_said_even_where_nothing_comes_after(
        self, net: nn.Module, data: Data, tmp_path: Path, disk: dict[str, bool]
    ) -> None:
        path = tmp_path / "run.zarr"
        recorder = fm.Recorder(net, path, probe=data, on_error="warn").__enter__()
        take(recorder, 0)
        disk["full"] = True
        with pytest.warns(UserWarning, match="No space left"):
            take(recorder, 1)
        recorder.__exit__(None, None, None)
        assert [epoch for epoch, _ in missing(path)] == [1]

    @pytest.mark.slow
    def test_what_is_recorded_later_is_not_missing_any_more(
        self, net: nn.Module, data: Data, tmp_path: Path, disk: dict[str, bool]
    ) -> None:
        path = tmp_path / "run.zarr"
        with pytest.raises(fm.StoreError), fm.Recorder(net, path, probe=data) as recorder:
            recorder.snapshot(epoch=0)
            recorder.flush()
            disk["full"] = True
            recorder.snapshot(epoch=1)
        assert [epoch for epoch, _ in missing(path)] == [1]
        disk["full"] = False
        with fm.Recorder(net, path, probe=data, mode="a") as recorder:
            recorder.snapshot(epoch=1)
        assert missing(path) == []
        assert fm.open_run(path).epochs == [0, 1]

    @pytest.mark.parametrize("bad", [{"epoch": -1}, {"epoch": 0, "metrics": {"loss": "low"}}])
    def test_bad_arguments_always_raise(self, bad: dict, net: nn.Module, data: Data, tmp_path: Path) -> None:
        with (
            pytest.raises((ValueError, TypeError)),
            fm.Recorder(net, tmp_path / "run.zarr", probe=data, on_error="warn") as recorder,
        ):
            recorder.snapshot(**bad)

    def test_of_a_run_that_is_gone_nothing_is_said_to_be_whole(
        self, net: nn.Module, data: Data, tmp_path: Path
    ) -> None:
        path = tmp_path / "run.zarr"
        with (
            pytest.raises(fm.StoreError, match="the run is gone") as error,
            fm.Recorder(net, path, probe=data) as recorder,
        ):
            take(recorder, 0)
            shutil.rmtree(path)
            take(recorder, 1)
        assert "whole" not in str(error.value)

    def test_advice_fits_the_fault(
        self, net: nn.Module, data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(*_: Any, **__: Any) -> None:
            raise TypeError("values are of no dtype")

        with (
            pytest.raises(fm.StoreError, match="no dtype") as error,
            fm.Recorder(net, tmp_path / "run.zarr", probe=data) as recorder,
        ):
            monkeypatch.setattr(RunWriter, "write", fail)
            take(recorder, 0)
        assert "room" not in str(error.value)
        assert "there is none before it" in str(error.value)

    def test_an_unknown_choice_is_refused(self, net: nn.Module, data: Data, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match=r"mode is 'w\+'; expected 'x' \(new\), 'a' \(resume\) or 'w' \(replace\)"):
            fm.Recorder(net, tmp_path / "run.zarr", probe=data, mode="w+")
        with pytest.raises(TypeError, match="to_inputs is a int; expected a function of a batch"):
            fm.Recorder(net, tmp_path / "run.zarr", probe=data, to_inputs=5)
        with pytest.raises(ValueError, match="on_error is 'ignore'; expected 'raise' or 'warn'"):
            fm.Recorder(net, tmp_path / "run.zarr", probe=data, on_error="ignore")  # type: ignore[arg-type]


class TestOfBatches:
    def train(self, net: nn.Module, recorder: fm.BatchRecorder, epoch: int, images: torch.Tensor) -> None:
        optimizer = torch.optim.SGD(net.parameters(), lr=1e-3)
        with recorder.epoch(epoch):
            for at in (0, 5):
                with recorder.batch(range(at, at + 5)):
                    net(images[at : at + 5]).square().sum().backward()
                optimizer.step()
                optimizer.zero_grad()

    def test_a_layer_that_changes_does_not_end_the_training(self, net: nn.Module, data: Data, tmp_path: Path) -> None:
        path, images = tmp_path / "run.zarr", torch.stack([image for image, _ in data])
        with fm.BatchRecorder(net, path, n_samples=10, layers=["conv1"], on_error="warn") as recorder:
            self.train(net, recorder, 0, images)
            before = [parameter.detach().clone() for parameter in net.parameters()]
            with pytest.warns(UserWarning, match=r"layer 'conv1' changed.*Training goes on") as seen:
                self.train(net, recorder, 1, images[..., :8])
            assert len(seen) == 1
            assert any(not torch.equal(one, two) for one, two in zip(before, net.parameters(), strict=True))
            self.train(net, recorder, 2, images)
        run = fm.open_run(path)
        assert run.epochs == [0, 2]
        assert run.snapshots["step"].tolist() == [2, 6]
        assert [epoch for epoch, _ in missing(path)] == [1]

    def test_a_full_disk_neither(self, net: nn.Module, data: Data, tmp_path: Path, disk: dict[str, bool]) -> None:
        path, images = tmp_path / "run.zarr", torch.stack([image for image, _ in data])
        both = ("activation", "gradient")
        with fm.BatchRecorder(net, path, n_samples=10, layers=["conv1"], record=both, on_error="warn") as recorder:
            self.train(net, recorder, 0, images)
            recorder.flush()
            disk["full"] = True
            with pytest.warns(UserWarning, match="No space left"):
                self.train(net, recorder, 1, images)
            recorder.flush()
            disk["full"] = False
            self.train(net, recorder, 2, images)
        assert fm.open_run(path).epochs == [0, 2]
        assert [epoch for epoch, _ in missing(path)] == [1]

    @pytest.mark.slow
    def test_an_epoch_that_is_recorded_later_is_not_missing_any_more(
        self, net: nn.Module, data: Data, tmp_path: Path, disk: dict[str, bool]
    ) -> None:
        path, images = tmp_path / "run.zarr", torch.stack([image for image, _ in data])
        recorder = fm.BatchRecorder(net, path, n_samples=10)
        with pytest.raises(fm.StoreError, match="No space left"), recorder:
            self.train(net, recorder, 0, images)
            recorder.flush()
            disk["full"] = True
            self.train(net, recorder, 1, images)
        assert [epoch for epoch, _ in missing(path)] == [1]
        disk["full"] = False
        with fm.BatchRecorder(net, path, n_samples=10, mode="a") as recorder:
            self.train(net, recorder, 1, images)
        assert missing(path) == []
        assert fm.open_run(path).epochs == [0, 1]

    def test_the_users_own_errors_always_raise(self, net: nn.Module, data: Data, tmp_path: Path) -> None:
        images = torch.stack([image for image, _ in data])
        with (
            pytest.raises(ZeroDivisionError),
            fm.BatchRecorder(net, tmp_path / "run.zarr", n_samples=10, on_error="warn") as recorder,
            recorder.epoch(0),
            recorder.batch(range(10)),
        ):
            net(images)
            1 / 0  # noqa: B018

    def test_an_epoch_whose_end_fails_in_any_way_is_listed(
        self, net: nn.Module, data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = tmp_path / "run.zarr"
        with fm.BatchRecorder(net, path, layers=["conv1"], n_samples=4, on_error="warn") as recorder:
            for epoch in range(3):
                with monkeypatch.context() as patch:
                    if epoch == 1:
                        patch.setattr(recorder._session, "commit", lambda *_, **__: 1 / 0)
                        expected = pytest.warns(
                            UserWarning, match="epoch 1: ZeroDivisionError: division by zero. Training goes on"
                        )
                    else:
                        expected = nullcontext()
                    with expected, recorder.epoch(epoch), recorder.batch([0, 1]):
                        net(torch.stack([data[0][0], data[1][0]]))
        assert fm.open_run(path).epochs == [0, 2]
        assert missing(path) == [(1, "ZeroDivisionError: division by zero")]

    @pytest.mark.slow
    def test_epoch_after_epoch_that_cannot_be_written_is_warned_of_once(
        self, net: nn.Module, data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """An epoch has ended, and looks whole, before its writer fails."""
        images, warned, ended, write = torch.stack([image for image, _ in data]), [], Event(), RunWriter.write

        def attempt(writer: RunWriter, *args: Any, **kwargs: Any) -> None:
            if full:
                assert ended.wait(60)
                raise OSError(errno.ENOSPC, "No space left on device")
            write(writer, *args, **kwargs)

        monkeypatch.setattr(RunWriter, "write", attempt)
        with fm.BatchRecorder(net, tmp_path / "run.zarr", n_samples=10, on_error="warn") as recorder:
            for epoch in range(6):
                full = epoch in (1, 2, 3, 5)
                ended.clear()
                with warnings.catch_warnings(record=True) as seen:
                    warnings.simplefilter("always")
                    self.train(net, recorder, epoch, images)
                    ended.set()
                    recorder.flush()
                warned += [epoch] * len(seen)
        assert warned == [1, 5]
        assert [epoch for epoch, _ in missing(tmp_path / "run.zarr")] == [1, 2, 3, 5]

    def test_a_disk_that_is_full_before_the_first_epoch_is_told_of_as_later(
        self, net: nn.Module, data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def full(*_: Any, **__: Any) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        images = torch.stack([image for image, _ in data])
        said = r"writing to .*run.zarr failed: OSError: .*No space left on device. Nothing was recorded. Once there is"
        with monkeypatch.context() as patch:
            patch.setattr(RunWriter, "create", full)
            with (
                pytest.raises(fm.StoreError, match=said),
                fm.BatchRecorder(net, tmp_path / "run.zarr", n_samples=10) as recorder,
            ):
                self.train(net, recorder, 0, images)
        with fm.BatchRecorder(net, tmp_path / "other.zarr", n_samples=10, on_error="warn") as recorder:
            with monkeypatch.context() as patch:
                patch.setattr(RunWriter, "create", full)
                with pytest.warns(UserWarning, match=r"epoch 0: writing to .*Training goes on"):
                    self.train(net, recorder, 0, images)
            self.train(net, recorder, 1, images)
        assert [epoch for epoch, _ in missing(tmp_path / "other.zarr")] == [0]


class TestStepsOfAResumedRun:
    def record(self, net: nn.Module, data: Data, path: Path, epochs: range, **options: Any) -> None:
        optimizer = torch.optim.SGD(net.parameters(), lr=1e-4)
        images = torch.stack([image for image, _ in data])
        with fm.Recorder(net, path, probe=data, **options) as recorder:
            for epoch in epochs:
                for _ in range(5):
                    net(images).sum().backward()
                    optimizer.step()
                if epoch > recorder.last_epoch:
                    recorder.snapshot(epoch=epoch)

    @pytest.mark.slow
    def test_retrained_epochs_do_not_count_twice_without_a_word(
        self, net: nn.Module, data: Data, tmp_path: Path
    ) -> None:
        path = tmp_path / "run.zarr"
        self.record(net, data, path, range(1, 4))
        with pytest.warns(UserWarning, match=re.escape("such as step=20")):
            self.record(net, data, path, range(1, 5), mode="a")
        assert fm.open_run(path).snapshots["step"].tolist() == [5, 10, 15, 35]

    @pytest.mark.slow
    def test_a_training_that_goes_on_is_not_warned_of(self, net: nn.Module, data: Data, tmp_path: Path) -> None:
        path = tmp_path / "run.zarr"
        self.record(net, data, path, range(1, 4))
        self.record(net, data, path, range(4, 6), mode="a")
        assert fm.open_run(path).snapshots["step"].tolist() == [5, 10, 15, 20, 25]

    def test_an_epoch_of_batches_can_be_told_the_step(self, net: nn.Module, data: Data, tmp_path: Path) -> None:
        path, images = tmp_path / "run.zarr", torch.stack([image for image, _ in data])
        batches = TestOfBatches()
        with fm.BatchRecorder(net, path, n_samples=10) as recorder:
            batches.train(net, recorder, 0, images)
        optimizer = torch.optim.SGD(net.parameters(), lr=1e-3)
        more = fm.BatchRecorder(net, path, n_samples=10, mode="a")
        with more as recorder, recorder.epoch(3, step=100), recorder.batch(range(10)):
            net(images).sum().backward()
            optimizer.step()
        assert fm.open_run(path).snapshots["step"].tolist() == [2, 101]
