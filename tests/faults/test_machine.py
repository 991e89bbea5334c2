"""Recorder, BatchRecorder and Run in any order of calls, against a model of them in memory."""

import copy
import errno
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from torch import nn

import fmcluster as fm
from fmcluster.store import Run, open_run, verify

from .conftest import Tally, rounds
from .small_runs import LAYERS, N_SAMPLES, Net, Pictures, trained

DATA = Pictures(0)
LABELS = torch.tensor(DATA.targets)
STATISTICS: dict[str, Callable[..., Any]] = {
    "mean": np.mean,
    "std": np.std,
    "min": np.min,
    "max": np.max,
    "zeros": lambda values, axis: (values == 0).mean(axis),
}
Parts = Sequence[Sequence[int]]


def loss(scores: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return nn.functional.cross_entropy(scores, labels)


@dataclass(frozen=True)
class Taken:
    """What a snapshot has to hold: as tensors say it that were kept in the forward pass of a copy of the model."""

    epoch: int
    step: int
    metrics: dict[str, float]
    outputs: dict[str, np.ndarray]
    gradients: dict[str, np.ndarray]
    weights: dict[str, np.ndarray]


def taken(model: nn.Module, parts: Parts, *, epoch: int, step: int, metrics: dict[str, float]) -> Taken:
    """Show parts of the data to a copy of a model, and keep all, by sample."""
    kept: dict[str, list[torch.Tensor]] = {name: [] for name in LAYERS}
    model = copy.deepcopy(model)
    for name, each in kept.items():
        model.get_submodule(name).register_forward_hook(lambda _m, _i, out, each=each: (each.append(out), None)[1])
    for part in parts:
        before = {name: len(each) for name, each in kept.items()}
        scores = model(DATA.images[list(part)])
        for name, each in kept.items():
            assert len(each) == before[name] + 1
            each[-1].retain_grad()
        loss(scores, LABELS[list(part)]).backward()
    order = np.argsort([sample for part in parts for sample in part])
    outputs = {name: torch.cat(each).detach().numpy()[order] for name, each in kept.items()}
    gradients = {name: torch.cat([out.grad for out in each]).numpy()[order] for name, each in kept.items()}
    weights = {name: values.detach().numpy().copy() for name, values in model.state_dict().items()}
    return Taken(epoch, step, metrics, outputs, gradients, weights)


class Recordings(RuleBasedStateMachine):
    """What is true of both recorders: a list of snapshots, to which one is added or nothing is; and what is missing."""

    tally: ClassVar[Tally]

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.model = Net()
        self.expected: list[Taken] = []
        self.missing: list[tuple[int, int]] = []
        self.recorder: Any = None
        self.epoch, self.step = 0, 0
        self.warned = False

    @initialize(live=st.booleans(), gradient=st.booleans(), weight=st.booleans(), warns=st.booleans())
    def begin(self, live: bool, gradient: bool, weight: bool, warns: bool) -> None:
        self.live, self.gradient, self.weight = live, gradient, weight
        self.enter(warns)

    def enter(self, warns: bool) -> None:
        self.warns, self.warned = warns, False
        record = ["activation"] + ["gradient"] * self.gradient + ["weight"] * self.weight
        kept = {"layers": LAYERS, "dtype": "float32", "mode": "a", "record": record}
        path, on_error = self.folder / "run.zarr", "warn" if warns else "raise"
        if self.live:
            self.recorder = fm.BatchRecorder(self.model, path, dataset=DATA, on_error=on_error, **kept)
        else:
            self.recorder = fm.Recorder(self.model, path, probe=DATA, batch_size=4, on_error=on_error, **kept)
        self.recorder.__enter__()
        last = (self.expected[-1].epoch, self.expected[-1].step) if self.expected else (-1, -1)
        assert self.recorder.last == last

    @contextmanager
    def expecting(self, fault: str, *, epoch: int) -> Iterator[None]:
        """Expect what the recorder does about a fault: raise, warn once, or what the caller's own error does."""
        own = fault == "model" and (self.live or not self.warns)
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            if own:
                with pytest.raises(ZeroDivisionError):
                    yield
            elif fault != "none" and not self.warns:
                with pytest.raises(fm.StoreError, match="No space left on device"):
                    yield
            else:
                yield
        told = [str(each.message) for each in seen]
        assert len(told) == (fault != "none" and not own and self.warns and not self.warned), told
        assert all(f"epoch {epoch}" in each and "Training goes on" in each for each in told)
        self.warned = self.warned or bool(told)
        if fault != "none" and not own:
            self.missing.append((epoch, self.step))

    @precondition(lambda self: self.recorder is not None)
    @rule(
        seed=st.integers(0, 5),
        order=st.permutations(range(N_SAMPLES)),
        fault=st.sampled_from(["none", "none", "none", "model", "write", "commit"]),
        more=st.tuples(st.integers(0, 2), st.integers(0, 3)),
        says_step=st.booleans(),
        metric=st.none() | st.floats(-1e9, 1e9),
    )
    def take(
        self,
        seed: int,
        order: list[int],
        fault: str,
        more: tuple[int, int],
        says_step: bool,
        metric: float | None,
    ) -> None:
        """Take a snapshot, or fail to: in the model, in the writing of feature maps, or in the commit."""
        before = self.expected[-1] if self.expected else None
        epoch = self.epoch + more[0]
        if before is not None and epoch <= before.epoch:
            epoch = before.epoch + 1
        step = self.step + more[1] if says_step else self.step
        self.model.load_state_dict(trained(seed, 0).state_dict())
        parts = (order[:4], order[4:]) if self.live else (range(4), range(4, N_SAMPLES))
        truth = taken(self.model, parts, epoch=epoch, step=step, metrics={} if metric is None else {"loss": metric})
        self.epoch, self.step = epoch, step
        said = {"step": step} if says_step else {}
        with self.expecting(fault, epoch=epoch), self.failing(fault):
            if self.live:
                with self.recorder.epoch(epoch, **said) as metrics:
                    metrics.update(truth.metrics)
                    for part in parts:
                        with self.recorder.batch(part):
                            loss(self.model(DATA.images[list(part)]), LABELS[list(part)]).backward()
            else:
                self.recorder.snapshot(epoch=epoch, metrics=truth.metrics, loss=loss if self.gradient else None, **said)
            self.recorder.flush()
        if fault == "none":
            self.warned = False
            self.expected.append(truth)
            self.missing = [each for each in self.missing if each[0] != epoch or not (self.live or each[1] == step)]
        else:
            self.step = self.recorder.step

    @contextmanager
    def failing(self, fault: str) -> Iterator[None]:
        """Have something fail once."""
        with pytest.MonkeyPatch.context() as patch:
            if fault == "model":
                handle = self.model.fc.register_forward_pre_hook(lambda *_: 1 / 0)
            elif fault != "none":
                patch.setattr(f"fmcluster.store.writing._run_writer.RunWriter.{fault}", self.full)
            try:
                yield
            finally:
                if fault == "model":
                    handle.remove()

    @staticmethod
    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    @precondition(lambda self: self.recorder is not None and self.expected)
    @rule(back=st.integers(1, 2))
    def refuse_what_does_not_come_after(self, back: int) -> None:
        """An epoch before the last one, or a step: an argument that cannot be meant, and nothing is recorded of it."""
        last, count = self.expected[-1], self.recorder.step
        again = {"epoch": last.epoch, "step": last.step}
        wrong = {"epoch": last.epoch - back} if last.epoch >= back else again
        at_the_end = self.live and self.warns and wrong is again  # of the epoch, when the training is done
        refused = pytest.raises(ValueError, match=r"comes after epoch|was recorded already")
        with warnings.catch_warnings(record=True) as seen, nullcontext() if at_the_end else refused:
            warnings.simplefilter("always")
            if self.live:
                with self.recorder.epoch(**wrong), self.recorder.batch(range(4)):
                    loss(self.model(DATA.images[:4]), LABELS[:4]).backward()
            else:
                self.recorder.snapshot(loss=loss if self.gradient else None, **wrong)
        assert len(seen) == (at_the_end and not self.warned)
        self.warned = self.warned or bool(seen)
        assert self.recorder.step == count

    @precondition(lambda self: self.recorder is not None)
    @rule()
    def flush(self) -> None:
        self.recorder.flush()
        self.look()

    @precondition(lambda self: self.recorder is not None)
    @rule()
    def close(self) -> None:
        self.recorder.__exit__(None, None, None)
        self.recorder = None

    @precondition(lambda self: self.recorder is None)
    @rule(warns=st.booleans())
    def resume(self, warns: bool) -> None:
        self.enter(warns)
        self.step = self.recorder.step
        assert self.step == (self.expected[-1].step if self.expected else 0)

    @precondition(lambda self: self.recorder is not None)
    @rule()
    def refuse_a_second_writer(self) -> None:
        with pytest.raises(fm.StoreError, match="is being written by another"):
            fm.Recorder(Net(), self.folder / "run.zarr", probe=DATA, mode="a").__enter__()

    @invariant()
    def hooks_are_gone(self) -> None:
        assert not any(module._forward_hooks or module._backward_hooks for module in self.model.modules())

    def look(self) -> None:
        """Compare all that can be read with what was kept."""
        if not self.expected:
            return
        run = open_run(self.folder / "run.zarr")
        assert verify(run) == []
        assert run.snapshots[["epoch", "step"]].to_numpy().tolist() == [[it.epoch, it.step] for it in self.expected]
        for snapshot, it in enumerate(self.expected):
            for name in LAYERS:
                self.look_at(run[name], snapshot, it.outputs[name])
                if self.gradient:
                    self.look_at(run[name].gradient, snapshot, it.gradients[name])
            if self.weight:
                weights = run.read_weights(snapshot=snapshot)
                assert weights.keys() == it.weights.keys()
                assert all(np.array_equal(weights[name], values) for name, values in it.weights.items())
            found = run.metrics.iloc[snapshot].get("loss", np.nan)
            np.testing.assert_equal(float(found), it.metrics.get("loss", np.nan))
            assert sorted(run.sample_ids(snapshot)) == list(range(N_SAMPLES))
        self.look_at_missing(run)

    @staticmethod
    def look_at(layer: Any, snapshot: int, values: np.ndarray) -> None:
        found = layer.read(snapshot=snapshot, samples=range(N_SAMPLES))
        np.testing.assert_allclose(found, values, rtol=1e-5, atol=1e-6)  # batches of another size
        table = layer.statistics.query("snapshot == @snapshot")
        axes = (0, *range(2, values.ndim))
        for name, count in STATISTICS.items():
            np.testing.assert_allclose(table[name], count(values.astype(float), axis=axes), rtol=1e-4, atol=1e-6)
        assert not table["nonfinite"].any()

    def look_at_missing(self, run: Run) -> None:
        """Compare what the run says is missing; it may say so from its next commit on, or when it is let go of."""
        said = [(each["epoch"], each["step"]) for it in run.provenance for each in it.get("missing", ())]
        if self.live:  # whose steps are known at the end of an epoch
            assert {epoch for epoch, _ in said} <= {epoch for epoch, _ in self.missing}
        else:
            assert set(said) <= set(self.missing)
        if self.recorder is None:
            assert {epoch for epoch, _ in self.missing} == {epoch for epoch, _ in said}

    def teardown(self) -> None:
        if self.recorder is not None:
            self.recorder.__exit__(None, None, None)
            self.recorder = None
        try:
            self.look()
        finally:
            shutil.rmtree(self.folder)
        self.tally["calls in any order", "BatchRecorder" if self.live else "Recorder", "found"] += 1


@pytest.fixture(autouse=True)
def counted(tally: Tally) -> None:
    """Let the state machine count its runs."""
    Recordings.tally = tally


TestRecordings = Recordings.TestCase
TestRecordings.settings = settings(
    max_examples=rounds(12), stateful_step_count=14, deadline=None, derandomize=True, database=None
)
TestRecordings = pytest.mark.slow(TestRecordings)
