"""A small network with all that makes hooks go wrong, and images to show it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import fmcluster as fm
from fmcluster.store import Run
from tests.capture.small_net import SmallNet

Data = list[tuple[torch.Tensor, int]]


@pytest.fixture(autouse=True)
def seed() -> None:
    """Weights are random; the tests are not."""
    torch.manual_seed(0)


@pytest.fixture
def net() -> nn.Module:
    """A network whose BatchNorms have seen data, in train mode."""
    torch.manual_seed(0)
    model = SmallNet()
    with torch.no_grad():
        for _ in range(3):
            model(torch.rand(8, 3, 12, 12))
    return model


@pytest.fixture
def data() -> Data:
    """Ten images and their labels."""
    generator = torch.Generator().manual_seed(1)
    return [(torch.rand(3, 12, 12, generator=generator), i % 4) for i in range(10)]


def outputs(model: nn.Module, data: Data, *, batch_size: int = 4) -> dict[str, np.ndarray]:
    """What every module returns in evaluation mode, cloned at once; named as the package names it."""
    seen: dict[str, list[list[torch.Tensor]]] = {}

    def keep(name: str) -> Callable[..., None]:
        return lambda _module, _inputs, out: seen[name][-1].append(out.detach().clone())

    modes = [(module, module.training) for module in model.modules()]
    handles = [module.register_forward_hook(keep(name)) for name, module in model.named_modules() if name]
    seen.update({name: [] for name, _ in model.named_modules() if name})
    model.eval()
    with torch.no_grad():
        for at in range(0, len(data), batch_size):
            for batches in seen.values():
                batches.append([])
            model(torch.stack([image for image, _ in data[at : at + batch_size]]))
    for handle in handles:
        handle.remove()
    for module, training in modes:
        module.training = training
    out = {}
    for name, batches in seen.items():
        for call in range(len(batches[0])):
            key = name if len(batches[0]) == 1 else f"{name}.call{call}"
            out[key] = torch.cat([batch[call] for batch in batches]).contiguous().cpu().numpy()
    return out


@pytest.fixture
def cloned() -> Callable[..., dict[str, np.ndarray]]:
    """A function that takes outputs with cloning hooks of its own."""
    return outputs


@pytest.fixture
def take(tmp_path: Path) -> Callable[..., Run]:
    """A function that records snapshots of a model into a new run, and opens it."""

    def record(model: nn.Module, data: object, *, name: str = "run.zarr", snapshots: int = 1, **options: object) -> Run:
        options = {"batch_size": 4, **options}
        with fm.Recorder(model, tmp_path / name, probe=data, **options) as recorder:
            for epoch in range(snapshots):
                recorder.snapshot(epoch=epoch)
        return fm.open_run(tmp_path / name)

    return record


def n_hooks(model: nn.Module) -> int:
    return sum(
        len(getattr(module, kind))
        for module in model.modules()
        for kind in ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    )


@pytest.fixture
def no_hooks_left() -> Callable[..., object]:
    """A context manager after which the model has as many hooks as before."""

    @contextmanager
    def checked(model: nn.Module) -> Iterator[None]:
        before = n_hooks(model)
        try:
            yield
        finally:
            assert n_hooks(model) == before

    return checked
