"""What a data set, a loader or a model can reach: generators wherever they are, counters and orders of one's own."""

import random
from collections import deque
from contextlib import ExitStack
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, Subset

import fmcluster as fm
from fmcluster.capture.forward._held_state import HeldState

GENERATOR = np.random.default_rng(77)


def helper() -> float:
    return max(GENERATOR.random() for _ in range(1))


class Drawing:
    """Images with a random number, drawn from one place or another."""

    of_class = np.random.RandomState(3)

    def __init__(self, draw: str) -> None:
        self.draw = draw
        self.bits, self.system = np.random.PCG64(4), random.SystemRandom()
        self.queue, self.frozen = deque([random.Random(5)]), frozenset([np.random.default_rng(6)])
        self.n, self.order, self.state = 0, np.arange(9), {"i": 0, "more": [1, 2]}
        self.turned = deque([1, 2, 3])
        self.seen: list[int] = []

    def __len__(self) -> int:
        return 6

    def __getitem__(self, i: int) -> tuple[torch.Tensor, int, float]:
        image = torch.full((2, 3, 3), float(i))
        return image, 0, float(getattr(self, self.draw)())

    def from_class(self) -> float:
        return self.of_class.rand()

    def from_function(self) -> float:
        return helper()

    def from_bits(self) -> float:
        return self.bits.random_raw() / 2**64

    def from_entries(self) -> float:
        return self.queue[0].random() + next(iter(self.frozen)).random()

    def counted(self) -> float:
        self.n += 1
        self.state["i"] += 2
        return self.n + self.state["i"] / 10

    def shuffled(self) -> float:
        self.of_class.shuffle(self.order)
        self.turned.rotate()
        return 10.0 * self.order[0] + self.turned[0]


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 3, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(x).mean((2, 3))


@pytest.mark.parametrize("draw", ["from_class", "from_function", "from_bits", "from_entries", "counted", "shuffled"])
def test_training_sees_what_it_would_without_snapshots(draw: str, tmp_path: Any) -> None:
    def epochs(recorder: fm.Recorder | None, data: Dataset[Any]) -> list[float]:
        drawn = []
        for epoch in range(2):
            if recorder is not None:
                recorder.snapshot(epoch=epoch)
            drawn += [float(number) for _, _, numbers in DataLoader(data, batch_size=2) for number in numbers]
        return drawn

    def restarted() -> Any:
        GENERATOR.bit_generator.state = np.random.PCG64(77).state
        Drawing.of_class.seed(3)
        return Drawing(draw)

    expected = epochs(None, restarted())
    data = restarted()
    with fm.Recorder(Net(), tmp_path / "run.zarr", probe=Subset(data, range(4))) as recorder:
        assert epochs(recorder, data) == expected
    assert len(set(expected)) > 2


def test_what_fills_or_is_set_up_stays_with_what_belongs_to_it() -> None:
    class Cache(SimpleNamespace):
        pass

    cached = Cache(by_index={}, n_cached=0)
    opened = Cache(file=None, is_open=False)
    listed = Cache(items=[None, None], n_filled=0)
    reading = Cache(lines=iter("abc"), n_read=0)
    ordered = Cache(order=[3, 1, 2], last=None, epoch=1)
    with ExitStack() as restored:
        HeldState.of((cached, opened, listed, reading, ordered)).put_attributes_back_by(restored)
        cached.by_index[4], cached.n_cached = "image", 1
        opened.file, opened.is_open = object(), True
        listed.items[0], listed.n_filled = "image", 1
        next(reading.lines)
        reading.n_read += 1
        ordered.order.sort()
        ordered.last, ordered.epoch, ordered.more = 2, 1.5, 7
    assert (cached.n_cached, opened.is_open, listed.n_filled, reading.n_read) == (1, True, 1, 1)
    assert vars(ordered) == {"order": [3, 1, 2], "last": None, "epoch": 1}


def test_what_is_a_librarys_and_what_has_no_state_is_left() -> None:
    class Broken:
        __slots__ = ("rng",)

        def __getattr__(self, name: str) -> Any:
            raise RuntimeError(f"no {name}")

    held = HeldState.of((Broken(), random.SystemRandom(), DataLoader([1]), nn.Conv2d(1, 1, 1), random))
    assert held.generators == []
    assert held.own == []
