"""What a data set, a loader or a model can reach: generators wherever they are, counters and orders of one's own."""

import random
import sys
from collections import deque
from collections.abc import Callable
from contextlib import ExitStack, suppress
from threading import Event, Thread
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, Subset

import fmcluster as fm
from fmcluster.capture.forward._held_state import HeldState, _Value, put_counters_back_by

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


@pytest.mark.slow
def test_what_another_thread_changes_meanwhile_ends_nothing() -> None:
    """A data loader's thread fills a queue, and gives an object and a class attributes, while state is looked for."""

    class Filled:
        def __init__(self) -> None:
            self.queue, self.found = deque(object() for _ in range(50)), {number: object() for number in range(50)}

    holder, stop = Filled(), Event()

    def fill() -> None:
        number = 0
        while not stop.is_set():
            holder.queue.append(object())
            holder.queue.popleft()
            number += 1
            holder.found[number % 90], vars(holder)[f"of_{number % 90}"] = object(), number
            holder.found.pop((number + 40) % 90, None), vars(holder).pop(f"of_{(number + 40) % 90}", None)
            setattr(Filled, f"of_{number % 90}", number)
            with suppress(AttributeError):  # it was put back meanwhile
                delattr(Filled, f"of_{(number + 40) % 90}")

    thread = Thread(target=fill, daemon=True)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    thread.start()
    try:
        for _ in range(300):
            with ExitStack() as restored:
                HeldState.of([holder]).put_attributes_back_by(restored)
    finally:
        sys.setswitchinterval(interval)
        stop.set()
        thread.join()


@pytest.mark.parametrize("of", ["object", "class", "module"])
def test_a_name_that_is_gone_before_it_can_be_dropped_keeps_nothing_from_being_put_back(
    of: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another thread deletes the new name between the look at the names and the way back."""

    class Owner:
        count = 0

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.count = 0

    owner, net = Owner(), Net()
    owner.count = 0
    holder: Any = {"object": owner, "class": Owner, "module": net}[of]
    way_back = _Value.way_back

    def deleted_meanwhile(before: _Value, now: Any) -> Callable[[], None] | None:
        if isinstance(now, int) and now == 2:
            delattr(holder, "later")
        return way_back(before, now)

    with ExitStack() as restored:
        HeldState.of([owner]).put_attributes_back_by(restored)
        put_counters_back_by(restored, [net])
        holder.count, holder.later = 1, 2
        monkeypatch.setattr(_Value, "way_back", deleted_meanwhile)
    assert holder.count == 0
    assert not hasattr(holder, "later")


class Counting:
    n = 0


COUNT = 0


def count_globally() -> float:
    global COUNT
    COUNT += 1
    return COUNT


def count_by_class() -> float:
    Counting.n += 1
    return Counting.n


def enclosed(kind: str) -> Callable[[], float]:
    """Return a function that counts in what it encloses."""
    number, array, tensor, entry = 0, np.zeros(2), torch.zeros(2), {"n": 0}
    order, sobol = deque(range(5)), torch.quasirandom.SobolEngine(1, scramble=True, seed=2)

    def by_number() -> float:
        nonlocal number
        number += 1
        return number

    def by_entry() -> float:
        entry["n"] += 1
        return entry["n"]

    def by_order() -> float:
        order.rotate(1)
        return order[0]

    def by_array() -> float:
        array[0] += 1
        return float(array[0])

    return {
        "number": by_number,
        "entry": by_entry,
        "order": by_order,
        "array": by_array,
        "tensor": lambda: float(tensor.add_(1)[0]),
        "sobol": lambda: float(sobol.draw(1)),
        "global": count_globally,
        "class": count_by_class,
    }[kind]


@pytest.mark.parametrize("kind", ["number", "entry", "order", "array", "tensor", "sobol", "global", "class"])
def test_what_a_function_encloses_or_names_is_put_back(kind: str) -> None:
    """As where training's data set and the probe's share a function that counts."""
    draw = enclosed(kind)
    draw()
    with ExitStack() as restored:
        HeldState.of((lambda: draw(),)).put_attributes_back_by(restored)
        within = [draw(), draw()]
    assert [draw(), draw()] == within
