"""Recorder, BatchRecorder and Run in any order of calls, against a model of them in memory."""

import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, precondition, rule
from torch import nn

import fmcluster as fm
from fmcluster.store import open_run, verify

from .conftest import rounds
from .small_runs import LAYERS, N_SAMPLES, Net, Pictures, trained

DATA = Pictures(0)


def outputs(model: nn.Module, images: torch.Tensor) -> dict[str, np.ndarray]:
    """Return what the layers return, as hooks that clone see it."""
    kept: dict[str, np.ndarray] = {}
    handles = [
        module.register_forward_hook(lambda _m, _i, out, name=name: kept.update({name: out.detach().clone().numpy()}))
        for name, module in model.named_modules()
        if name in LAYERS
    ]
    with torch.no_grad():
        model(images)
    for handle in handles:
        handle.remove()
    return kept


class Recordings(RuleBasedStateMachine):
    """What is true of both recorders: a list of snapshots, to which one is added or nothing is."""

    snapshots = Bundle("snapshots")

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.model = Net()
        self.expected: list[tuple[int, dict[str, np.ndarray]]] = []
        self.recorder: fm.Recorder | fm.BatchRecorder | None = None
        self.epoch = -1
        self.live = False

    @initialize(live=st.booleans())
    def begin(self, live: bool) -> None:
        self.live = live
        self.enter()

    def enter(self) -> None:
        mode, path = "a" if self.expected else "w", self.folder / "run.zarr"
        if self.live:
            kept = {"layers": LAYERS, "dtype": "float32", "mode": mode}
            self.recorder = fm.BatchRecorder(self.model, path, dataset=DATA, **kept)
        else:
            self.recorder = fm.Recorder(
                self.model, path, layers=LAYERS, dtype="float32", probe=DATA, mode=mode, batch_size=4
            )
        self.recorder.__enter__()

    @precondition(lambda self: self.recorder is not None)
    @rule(seed=st.integers(0, 5), order=st.permutations(range(N_SAMPLES)), fails=st.booleans(), skip=st.integers(1, 2))
    def take(self, seed: int, order: list[int], fails: bool, skip: int) -> None:
        self.epoch += skip
        self.model.load_state_dict(trained(seed, 0).state_dict())
        truth = outputs(self.model, DATA.images)
        if fails:
            handle = self.model.fc.register_forward_pre_hook(lambda *_: 1 / 0)
        try:
            if self.live:
                with self.recorder.epoch(self.epoch):
                    for part in (order[:4], order[4:]):
                        with self.recorder.batch(part), torch.no_grad():
                            self.model(DATA.images[list(part)])
            else:
                self.recorder.snapshot(epoch=self.epoch, step=self.epoch)
        except ZeroDivisionError:
            assert fails
        else:
            assert not fails
            self.expected.append((self.epoch, truth))
        finally:
            if fails:
                handle.remove()

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
    @rule()
    def resume(self) -> None:
        self.enter()

    @precondition(lambda self: self.recorder is not None)
    @rule()
    def refuse_a_second_writer(self) -> None:
        with pytest.raises(fm.StoreError, match="is being written by another"):
            fm.Recorder(Net(), self.folder / "run.zarr", probe=DATA, mode="a").__enter__()

    @invariant()
    def hooks_are_gone(self) -> None:
        assert not any(module._forward_hooks for module in self.model.modules())

    def look(self) -> None:
        if not self.expected:
            return
        run = open_run(self.folder / "run.zarr")
        assert run.epochs == [epoch for epoch, _ in self.expected]
        assert verify(run) == []
        for snapshot, (_, truth) in enumerate(self.expected):
            for name, values in truth.items():
                found = run[name].read(snapshot=snapshot, samples=range(N_SAMPLES))
                np.testing.assert_allclose(found, values, rtol=1e-6, atol=1e-7)  # batches of another size
        if self.live:
            assert all(sorted(run.sample_ids(k)) == list(range(N_SAMPLES)) for k in range(len(run)))

    def teardown(self) -> None:
        if self.recorder is not None:
            self.recorder.__exit__(None, None, None)
        self.look()
        shutil.rmtree(self.folder)


TestRecordings = Recordings.TestCase
TestRecordings.settings = settings(
    max_examples=rounds(12), stateful_step_count=14, deadline=None, derandomize=True, database=None
)
TestRecordings = pytest.mark.slow(TestRecordings)
