"""Residual streams: whose outputs are added to one another, by modules of several styles."""

import re
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional

import fmcluster as fm
from tests.capture.small_net import SmallNet


def streams_of(model: nn.Module, path: Path, **options: object) -> dict[str, str | None]:
    probe = list(torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0)))
    with fm.Recorder(model, path, probe=probe, **options) as recorder:
        recorder.snapshot(epoch=0)
    run = fm.open_run(path)
    return {name: run[name].stream for name in run.layers}


def members(found: dict[str, str | None]) -> dict[str, list[str]]:
    out: dict[str, list[str]] = {}
    for name, stream in found.items():
        if stream is not None:
            out.setdefault(stream, []).append(name)
    return out


@pytest.mark.slow
def test_what_is_added_in_place_is_tied_to_what_the_sum_goes_through(tmp_path: Path) -> None:
    found = members(streams_of(SmallNet().eval(), tmp_path / "run.zarr", layers=re.compile(".*")))
    (stream,) = found.values()
    block = ["bn.call1", "relu.call1"]
    inside = [f"layer1.{number}.{name}" for number in (0, 1) for name in block]
    # what the stem's rectifier makes of bn1 is added to the first block; the last block is also what layer1 returns
    assert set(stream) >= {"relu", *inside, "layer1.0", "layer1.1", "layer1"}
    assert not set(stream) & {"conv1", "pool", "fc", "layer1.0.conv.call0", "layer1.0.relu.call0", "layer1.1.bn.call0"}


def test_of_blocks_alone_the_sums_inside_tie_one_to_the_next(tmp_path: Path) -> None:
    found = streams_of(SmallNet().eval(), tmp_path / "run.zarr", layers=["conv1", "layer1.0", "layer1.1", "fc"])
    assert found == {"conv1": None, "layer1.0": "layer1.0", "layer1.1": "layer1.0", "fc": None}


class Sums(nn.Module):
    """Two convolutions whose outputs are joined by a function of choice."""

    def __init__(self, join: object) -> None:
        super().__init__()
        self.a, self.b, self.c = (nn.Conv2d(3, 3, 1) for _ in range(3))
        self.join = join

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.c(self.join(self.a(x), self.b(x))).mean((2, 3))


@pytest.mark.parametrize(
    "join",
    [
        lambda a, b: a + b,
        torch.add,
        lambda a, b: a.add(b),
        lambda a, b: a.add_(b),
        lambda a, b: functional.relu(a + b),
        lambda a, b: a + functional.relu(b),
    ],
)
def test_sums_are_known_however_they_are_written(tmp_path: Path, join: object) -> None:
    found = streams_of(Sums(join).eval(), tmp_path / "run.zarr", layers="leaves")
    assert found == {"a": "a", "b": "a", "c": None}


@pytest.mark.parametrize(
    "join",
    [
        lambda a, b: a * b,
        lambda a, b: a + b.mean(),
        lambda a, b: a + b.mean((2, 3), keepdim=True),
        lambda a, b: torch.cat([a, b], 1)[:, 1:4],
        lambda a, b: a.tanh() + b,
        lambda a, b: a + 1 + b.exp(),
    ],
)
def test_what_is_not_a_sum_of_two_recorded_outputs_ties_nothing(tmp_path: Path, join: object) -> None:
    assert set(streams_of(Sums(join).eval(), tmp_path / "run.zarr", layers="leaves").values()) == {None}
