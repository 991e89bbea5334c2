"""What is asked of a recorded training, whichever trainer did it."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import fmcluster as fm
from fmcluster.store import Run


@pytest.fixture
def recorder(net: nn.Module, data: list, tmp_path: Path) -> Callable[..., fm.Recorder]:
    """A function that makes a recorder of the network, whose probe is the training set."""
    return lambda **options: fm.Recorder(net, tmp_path / "run.zarr", probe=data, batch_size=4, **options)


@pytest.fixture
def recorded(tmp_path: Path, data: list, cloned: Callable) -> Callable[..., list[tuple[int, int]]]:
    """A function that checks maps against copies of the network, and returns epochs and steps of the snapshots."""

    def check(copies: Mapping[int, nn.Module]) -> list[tuple[int, int]]:
        run = fm.open_run(tmp_path / "run.zarr")
        for epoch in run.epochs:
            expected = cloned(copies[epoch], data)
            for name in run.layers:
                np.testing.assert_array_equal(run[name].read(epoch=epoch), expected[name].astype(np.float16))
        weights = [copies[epoch].conv1.weight for epoch in run.epochs]
        assert not any(torch.equal(*pair) for pair in zip(weights[1:], weights, strict=False))
        return list(zip(run.snapshots["epoch"], run.snapshots["step"], strict=True))

    return check


@pytest.fixture
def at_rest(net: nn.Module, data: list, tmp_path: Path) -> Run:
    """A run of the same epochs, of five steps, at learning rate 0: only statistics of normalizations move."""
    still = deepcopy(net)
    with fm.Recorder(still, tmp_path / "rest.zarr", probe=data, batch_size=4) as recorder:
        for epoch in range(5):
            recorder.snapshot(epoch=epoch, step=5 * epoch)
            still.train()
            for start in range(0, len(data), 2):
                still(torch.stack([image for image, _ in data[start : start + 2]]))
            still.eval()
    return fm.open_run(tmp_path / "rest.zarr")


@pytest.fixture
def as_new(net: nn.Module) -> Callable[[], None]:
    """A function that makes the network what it was at first: nothing of it is frozen."""
    state = deepcopy(net.state_dict())

    def restore() -> None:
        net.load_state_dict(state)
        net.requires_grad_(True)
        for module in net.modules():
            module.__dict__.pop("train", None)
        net.train()

    return restore


@pytest.fixture
def metrics(tmp_path: Path) -> Callable[[str], list[float]]:
    """A function that returns the values of a metric, by snapshot."""
    return lambda name: fm.open_run(tmp_path / "run.zarr").metrics[name].tolist()


@pytest.fixture
def left_behind(net: nn.Module, no_hooks_left: Callable) -> Callable:
    """A context manager after which nothing is left of a recorder: no hook, no count, no lock."""

    @contextmanager
    def checked(recorder: fm.Recorder, again: Callable[..., fm.Recorder]) -> Iterator[None]:
        with no_hooks_left(net):
            yield
        before = recorder.step
        net(torch.rand(2, 3, 12, 12)).sum().backward()
        torch.optim.SGD(net.parameters(), lr=0.0).step()
        assert recorder.step == before
        with again(mode="a"):
            pass

    return checked
