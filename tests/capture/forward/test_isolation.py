"""After a snapshot the model and the random generators are bit for bit what they were, whatever happened in it."""

import copy
import io
import pickle
import random
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

import fmcluster as fm
from fmcluster.capture.forward._held_state import same_bits
from fmcluster.capture.forward._isolation import isolated


class Restless(nn.Module):
    """Changes all it can in every forward pass, in evaluation mode too."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.bn = nn.BatchNorm2d(4)
        self.fc = nn.Linear(4, 2)
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))
        self.register_buffer("moving", torch.zeros(4))
        self.register_buffer("replaced", torch.zeros(4))
        self.register_buffer("mask", torch.tensor([True, False, True]))
        self.register_buffer("signed", torch.tensor([0.0, float("nan"), float("inf"), 1.0]))
        self.register_buffer("brain", torch.ones(3, dtype=torch.bfloat16))
        self.register_buffer("complex", torch.ones(3, dtype=torch.complex64))
        self.register_buffer("empty", torch.zeros(0))
        self.register_buffer("later", None)
        self.register_buffer("scratch", torch.zeros(2), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.bn(self.conv(x))
        self.count += 1
        self.moving.mul_(0.9).add_(x.mean((0, 2, 3)))
        self.replaced = self.replaced * 0.9 + x.mean((0, 2, 3))
        self.mask.logical_not_()
        self.signed.copy_(torch.tensor([-0.0, 1.0, 3.4028234663852886e38, float("nan")]))
        self.brain.add_(1)
        self.complex.mul_(2)
        self.later = torch.ones(5)
        self.register_buffer("new", torch.ones(1))
        random.random()
        np.random.rand()  # noqa: NPY002
        noise = nn.functional.dropout(x, 0.5, training=True)
        return self.fc(noise.mean((2, 3)))


def state_of(model: nn.Module) -> dict[str, object]:
    """Everything, as bytes."""
    named = {f"parameter {k}": v for k, v in model.named_parameters()}
    named |= {f"grad {k}": v.grad for k, v in model.named_parameters()}
    named |= {f"buffer {n}.{k}": v for n, m in model.named_modules() for k, v in m._buffers.items()}
    raw = {
        k: None if v is None else (v.dtype, v.shape, v.detach().reshape(-1).view(torch.uint8).numpy().tobytes())
        for k, v in named.items()
    }
    objects = {f"object {k}": id(v) for k, v in named.items() if v is not None}
    flags = {f"training {k}": m.training for k, m in model.named_modules()}
    needed = {f"requires_grad {k}": v.requires_grad for k, v in model.named_parameters()}
    generators = {
        "python": random.getstate(),
        "numpy": pickle.dumps(np.random.get_state()),  # noqa: NPY002
        "torch": torch.get_rng_state().numpy().tobytes(),
    }
    modes = {"grad mode": torch.is_grad_enabled(), "autocast": torch.is_autocast_enabled("cpu")}
    return raw | objects | flags | needed | generators | modes


@pytest.fixture
def restless() -> nn.Module:
    torch.manual_seed(3)
    model = Restless()
    model.train()
    model.bn.eval()
    model.fc.training = False
    model.conv.weight.requires_grad_(False)
    model.fc(torch.rand(3, 4)).sum().backward()
    model.fc.weight.grad[0, 0] = float("nan")
    return model


@pytest.fixture
def images() -> list[torch.Tensor]:
    return list(torch.rand(5, 3, 8, 8, generator=torch.Generator().manual_seed(1)))


def test_after_a_snapshot(restless: nn.Module, images: list, tmp_path: Path, no_hooks_left: Callable) -> None:
    before = state_of(restless)
    with no_hooks_left(restless), fm.Recorder(restless, tmp_path / "run.zarr", probe=images, batch_size=2) as recorder:
        assert state_of(restless) == before
        for epoch in range(2):
            recorder.snapshot(epoch=epoch)
            assert state_of(restless) == before
    assert state_of(restless) == before


class Interrupting(nn.Module):
    def __init__(self, error: BaseException | None) -> None:
        super().__init__()
        self.error = error
        self.calls_left = 10**9

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls_left -= 1
        if self.calls_left < 0 and self.error is not None:
            raise self.error
        return x * 1


@pytest.mark.parametrize("error", [RuntimeError("boom"), KeyboardInterrupt(), SystemExit(3)], ids=repr)
@pytest.mark.parametrize("calls", [0, 1])
def test_after_an_error_in_the_forward_pass(
    error: BaseException, calls: int, restless: nn.Module, images: list, tmp_path: Path, no_hooks_left: Callable
) -> None:
    model = nn.Sequential(restless, Interrupting(error))
    model.eval()
    model[0].bn.train()
    with fm.Recorder(model, tmp_path / "run.zarr", layers="leaves", probe=images, batch_size=2) as recorder:
        recorder.snapshot(epoch=0)
        before = state_of(model)
        model[1].calls_left = calls
        with no_hooks_left(model), pytest.raises(type(error)) as caught:
            recorder.snapshot(epoch=1)
        assert caught.value is error
        assert state_of(model) == before
        model[1].calls_left = 10**9
        recorder.snapshot(epoch=1)
    assert fm.open_run(tmp_path / "run.zarr").epochs == [0, 1]


class BadItem(list):
    broken = False

    def __getitem__(self, i: int) -> torch.Tensor:
        torch.rand(1), random.random(), np.random.rand()  # noqa: NPY002
        if self.broken and i == 3:
            raise OSError("cannot identify image file")
        return super().__getitem__(i)


@pytest.mark.slow
def test_after_an_error_in_the_probe(
    restless: nn.Module, images: list, tmp_path: Path, no_hooks_left: Callable
) -> None:
    probe = BadItem(images)
    with fm.Recorder(restless, tmp_path / "run.zarr", probe=probe, batch_size=2) as recorder:
        recorder.snapshot(epoch=0)
        before = state_of(restless)
        probe.broken = True
        with no_hooks_left(restless), pytest.raises(OSError, match="cannot identify"):
            recorder.snapshot(epoch=1)
        assert state_of(restless) == before
        probe.broken = False
        recorder.snapshot(epoch=2)
    assert fm.open_run(tmp_path / "run.zarr").epochs == [0, 2]


def test_after_an_error_on_entry(restless: nn.Module, tmp_path: Path, no_hooks_left: Callable) -> None:
    probe, misfit = BadItem(torch.rand(5, 3, 8, 8)), [torch.rand(4, 8, 8)]
    before = state_of(restless)
    with no_hooks_left(restless), pytest.raises(RuntimeError):
        fm.Recorder(restless, tmp_path / "run.zarr", probe=misfit).__enter__()
    assert state_of(restless) == before
    assert not (tmp_path / "run.zarr").exists()
    with fm.Recorder(restless, tmp_path / "run.zarr", probe=probe):
        assert state_of(restless) == before


BUFFERS = {
    "single": torch.tensor([0.0, float("nan"), 1.0]),
    "double": torch.rand(3, dtype=torch.float64),
    "half": torch.ones(3, dtype=torch.float16),
    "brain": torch.ones(3, dtype=torch.bfloat16),
    "integer": torch.arange(3),
    "short": torch.arange(3, dtype=torch.int16),
    "complex": torch.ones(3, dtype=torch.complex64),
    "negated": torch.full((3,), 1 + 2j, dtype=torch.complex64).conj().imag,
    "scalar": torch.tensor(2.0),
    "transposed": torch.rand(3, 4).T,
    "large": torch.rand(70_000),
    "needs gradient": torch.zeros(2, requires_grad=True),
}


@pytest.mark.parametrize("way", ["in place", "its data"])
@pytest.mark.parametrize("kind", BUFFERS)
def test_a_buffer_of_any_kind_is_put_back(kind: str, way: str) -> None:
    buffer = BUFFERS[kind]
    model = nn.Linear(2, 2)
    model.register_buffer("held", buffer)
    before = buffer.detach().resolve_neg().clone()
    with pytest.raises(ZeroDivisionError), isolated(model):
        if way == "in place":
            model.held.add_(1)
        else:
            model.held.data = before + 1
        assert not torch.equal(model.held.reshape(-1), before.reshape(-1))
        raise ZeroDivisionError
    assert model.held is buffer
    assert same_bits(buffer, before)


def test_a_buffer_that_did_not_change_is_not_touched() -> None:
    """Its version counter stays, or a backward pass that is under way would be refused."""
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    model.eval()
    x = torch.rand(2, 3, 8, 8, requires_grad=True)
    loss = model(x).sum()
    versions = [buffer._version for buffer in model.buffers()]
    with isolated(model):
        model(x)
    assert [buffer._version for buffer in model.buffers()] == versions
    loss.backward()


def test_a_backward_pass_may_be_under_way(net: nn.Module, data: list, tmp_path: Path) -> None:
    images, labels = torch.stack([d[0] for d in data]), torch.tensor([d[1] for d in data])
    other = copy.deepcopy(net)
    gradients = []
    for model, snapshots in ((net, True), (other, False)):
        torch.manual_seed(5)
        loss = nn.functional.cross_entropy(model(images), labels)
        if snapshots:
            with fm.Recorder(model, tmp_path / "run.zarr", probe=data) as recorder:
                recorder.snapshot(epoch=0)
        loss.backward()
        gradients.append([parameter.grad for parameter in model.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))


@pytest.mark.slow
def test_training_is_the_same_with_and_without_a_recorder(net: nn.Module, data: list, tmp_path: Path) -> None:
    images, labels = torch.stack([d[0] for d in data]), torch.tensor([d[1] for d in data])
    other = copy.deepcopy(net)

    def step(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(images), labels).backward()
        optimizer.step()

    torch.manual_seed(9)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    with fm.Recorder(net, tmp_path / "run.zarr", layers="leaves", probe=data, batch_size=3) as recorder:
        for epoch in range(4):
            recorder.snapshot(epoch=epoch)
            step(net, optimizer)
    torch.manual_seed(9)
    optimizer = torch.optim.SGD(other.parameters(), lr=0.1, momentum=0.9)
    for _ in range(4):
        step(other, optimizer)
    ours, plain = net.state_dict(), other.state_dict()
    assert all(torch.equal(ours[name], plain[name]) for name in plain)


def test_between_snapshots_the_model_is_the_callers_own(net: nn.Module, data: list, tmp_path: Path) -> None:
    with fm.Recorder(net, tmp_path / "run.zarr", probe=data) as recorder:
        for epoch in range(2):
            recorder.snapshot(epoch=epoch)
            twin = pickle.loads(pickle.dumps(net))
            copied = copy.deepcopy(net)
            averaged = AveragedModel(net)
            averaged.update_parameters(net)
            buffer = io.BytesIO()
            torch.save(net, buffer)
            for other in (twin, copied, averaged.module):
                assert [m._forward_hooks for m in other.modules()] == [m._forward_hooks for m in net.modules()]
                assert not any(m._forward_hooks for m in other.modules())


GENERATOR = np.random.default_rng(5)


class Slotted:
    __slots__ = ("random",)


def holders_of_generators() -> dict[str, tuple[Any, Any]]:
    """What holds a generator, and what draws from it."""
    rng = {name: random.Random(3) for name in ("entry", "closure", "bound", "partial", "slot", "deep", "collate")}
    slotted, deep = Slotted(), SimpleNamespace(a=SimpleNamespace(b=[{"c": SimpleNamespace(d=(rng["deep"],))}]))
    slotted.random = rng["slot"]
    return {
        "entry": (SimpleNamespace(options={"rng": rng["entry"]}), rng["entry"].random),
        "closure": (SimpleNamespace(draw=lambda: rng["closure"].random()), rng["closure"].random),
        "bound": (SimpleNamespace(draw=rng["bound"].random), rng["bound"].random),
        "partial": (SimpleNamespace(draw=partial(random.Random.random, rng["partial"])), rng["partial"].random),
        "slot": (slotted, rng["slot"].random),
        "deep": (deep, rng["deep"].random),
        "global": (SimpleNamespace(draw=lambda: GENERATOR.random()), GENERATOR.random),
    }


@pytest.mark.parametrize("name", sorted(holders_of_generators()))
def test_generators_are_put_back_wherever_they_are_held(name: str) -> None:
    holder, draw = holders_of_generators()[name]
    with isolated(torch.nn.Linear(2, 2), reads=(holder,)):
        inside = [draw() for _ in range(3)]
    assert [draw() for _ in range(3)] == inside
