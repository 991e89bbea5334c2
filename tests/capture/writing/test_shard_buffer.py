"""Rows that arrive in any order, on several threads, some of them taken back: what is written of them in the end."""

import threading
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fmcluster.capture.writing._queue import WriteQueue
from fmcluster.capture.writing._shard_buffer import ShardBuffer
from fmcluster.store import LayerSpec

SPECS = {
    "maps": LayerSpec("maps", (2, 3, 3), "float16", "Conv2d", gradient=True),
    "vectors": LayerSpec("vectors", (5,), "float32", "Linear"),
}
ARRAYS = [("maps", "activation"), ("maps", "gradient"), ("vectors", "activation")]


class Disk:
    """Keeps what was written last of each shard."""

    def __init__(self) -> None:
        self.shards: dict[tuple[str, str, int], np.ndarray | None] = {}
        self.n_writes = 0
        self.handed: list[weakref.ref] = []
        self._writing: set[tuple[str, str, int]] = set()
        self._lock = threading.Lock()

    def write(self, layer: str, *, offset: int, values: np.ndarray | None, quantity: str) -> None:
        key = layer, quantity, offset
        with self._lock:
            assert key not in self._writing, f"{key} is written by two threads at once"
            self._writing.add(key)
            self.n_writes += 1
            if values is not None:
                self.handed.append(weakref.ref(values))
        content = None if values is None else values.copy()
        with self._lock:
            self.shards[key] = content
            self._writing.remove(key)

    def whole(self, layer: str, quantity: str, *, n_samples: int, shard: int) -> np.ndarray:
        """All slots of an array; NaN where nothing is."""
        out = np.full((n_samples, *SPECS[layer].shape), np.nan, np.float64)
        for (name, what, offset), values in self.shards.items():
            if (name, what) == (layer, quantity) and values is not None:
                assert offset % shard == 0
                assert len(values) == min(shard, n_samples - offset)
                assert values.dtype == SPECS[layer].dtype_of(quantity)
                out[offset : offset + len(values)] = values
        return out


@dataclass(frozen=True)
class Batch:
    """Some rows of every array, in parts, in any order; perhaps not all of them, if it is taken back."""

    count: int
    parts: list[tuple[str, str, int, int, bool]]  # layer, quantity, first row, number of rows, whether they are blank
    taken_back: bool


@st.composite
def batches(draw: st.DrawFn) -> Batch:
    count = draw(st.integers(1, 9))
    parts = []
    for layer, quantity in ARRAYS:
        cuts = sorted({0, count, *draw(st.lists(st.integers(0, count), max_size=3))})
        for first, last in pairwise(cuts):
            parts.append((layer, quantity, first, last - first, quantity == "gradient" and draw(st.booleans())))
    parts = draw(st.permutations(parts))
    taken_back = draw(st.sampled_from([False, False, True]))
    return Batch(count, parts[: draw(st.integers(0, len(parts)))] if taken_back else parts, taken_back)


class Epoch:
    """An epoch as a recorder makes one: everything goes through a queue of several threads."""

    def __init__(self, *, n_samples: int, shard: int, n_threads: int = 3) -> None:
        self.disk = Disk()
        self.n_samples, self.shard, self.count = n_samples, shard, 0
        self.filling = ShardBuffer(self.disk.write, specs=SPECS, n_samples=n_samples, shard_samples=shard)
        self.expected = {key: np.full((n_samples, *SPECS[key[0]].shape), np.nan) for key in ARRAYS}
        self._queue = WriteQueue(n_threads=n_threads)
        self._numbers = np.random.default_rng(0)
        self._errors: list[Exception] = []

    def _put(self, work: Callable[[], None], *, alone: bool = False) -> None:
        def attempt() -> None:
            try:
                work()
            except Exception as error:
                self._errors.append(error)

        self._queue.put(attempt, alone=alone)

    def put(self, layer: str, quantity: Any, *, slot: int, count: int, blank: bool = False) -> None:
        values = None
        if not blank:
            dtype = SPECS[layer].dtype_of(quantity)
            values = self._numbers.normal(size=(count, *SPECS[layer].shape)).astype(dtype)
            self.expected[layer, quantity][slot : slot + count] = values

        def work() -> None:
            self.filling.put(layer, quantity, slot=slot, count=count, values=values)
            if values is not None:
                values[:] = 77  # the next copy lies there

        self._put(work)

    def show(self, batch: Batch) -> None:
        before = {key: values.copy() for key, values in self.expected.items()}
        for layer, quantity, first, count, blank in batch.parts:
            self.put(layer, quantity, slot=self.count + first, count=count, blank=blank)
        if batch.taken_back:
            self.expected, count = before, self.count
            self._put(lambda: self.filling.rewind(count), alone=True)
        else:
            self.count += batch.count
            self.release()

    def release(self) -> None:
        count = self.count
        self._put(lambda: self.filling.release(count))

    def wait(self) -> None:
        self._queue.wait()
        assert self._errors == []

    def finish(self) -> None:
        count = self.count
        self._put(lambda: self.filling.finish(count), alone=True)
        self.wait()
        self._queue.close()

    def check(self) -> None:
        for layer, quantity in ARRAYS:
            found = self.disk.whole(layer, quantity, n_samples=self.n_samples, shard=self.shard)
            np.testing.assert_array_equal(found, self.expected[layer, quantity])
            for first in range(0, self.n_samples, self.shard):
                if first < self.count:
                    assert (layer, quantity, first) in self.disk.shards, "a shard with samples was never written"
                else:
                    assert self.disk.shards.get((layer, quantity, first)) is None


@pytest.mark.slow
@settings(max_examples=150, deadline=None)
@given(
    shown=st.lists(batches(), max_size=8),
    n_samples=st.integers(1, 40),
    shard=st.integers(1, 12),
    n_threads=st.integers(1, 4),
)
def test_what_is_written_last_is_what_arrived(shown: list[Batch], n_samples: int, shard: int, n_threads: int) -> None:
    epoch = Epoch(n_samples=n_samples, shard=min(shard, n_samples), n_threads=n_threads)
    for batch in shown:
        if epoch.count + batch.count <= n_samples:
            epoch.show(batch)
    epoch.finish()
    epoch.check()


def put(epoch: Epoch, slot: int, count: int, *, blank: bool = False) -> None:
    for layer, quantity in ARRAYS:
        epoch.put(layer, quantity, slot=slot, count=count, blank=blank and quantity == "gradient")


def test_whole_shards_are_written_as_they_arrive_and_once() -> None:
    epoch = Epoch(n_samples=11, shard=4)
    for slot, count in ((0, 4), (4, 7)):  # the second holds a whole shard, and the short one at the end
        put(epoch, slot, count)
        epoch.count += count
    epoch.wait()
    assert epoch.disk.n_writes == 3 * 3
    epoch.finish()
    assert epoch.disk.n_writes == 3 * 3
    epoch.check()


def test_parts_of_a_shard_are_written_together_when_it_is_complete() -> None:
    epoch = Epoch(n_samples=8, shard=8)
    for slot in (6, 0, 4):
        put(epoch, slot, 2)
    epoch.wait()
    assert epoch.disk.n_writes == 0
    put(epoch, 2, 2)
    epoch.wait()
    assert epoch.disk.n_writes == 3
    epoch.count = 8
    epoch.finish()
    assert epoch.disk.n_writes == 3
    epoch.check()


def test_a_shard_of_blanks_is_written_as_such() -> None:
    epoch = Epoch(n_samples=8, shard=4)
    put(epoch, 0, 4, blank=True)
    put(epoch, 4, 1, blank=True)
    put(epoch, 5, 1, blank=True)
    epoch.count = 6
    epoch.finish()
    assert epoch.disk.shards["maps", "gradient", 0] is None
    assert epoch.disk.shards["maps", "gradient", 4] is None
    epoch.check()


def test_blanks_beside_rows_are_nan() -> None:
    epoch = Epoch(n_samples=4, shard=4)
    put(epoch, 0, 1, blank=True)
    put(epoch, 1, 2)
    put(epoch, 3, 1, blank=True)
    epoch.count = 4
    epoch.finish()
    assert np.isnan(epoch.disk.shards["maps", "gradient", 0]).all(axis=(1, 2, 3)).tolist() == [True, False, False, True]
    epoch.check()


def test_shards_larger_than_the_epoch_hold_all_of_it() -> None:
    disk = Disk()
    filling = ShardBuffer(disk.write, specs=SPECS, n_samples=3, shard_samples=100)
    filling.put("vectors", "activation", slot=0, count=3, values=np.ones((3, 5), np.float32))
    assert disk.shards["vectors", "activation", 0].shape == (3, 5)


def test_a_batch_that_is_taken_back_leaves_nothing_behind() -> None:
    epoch = Epoch(n_samples=12, shard=4)
    put(epoch, 0, 2)
    epoch.count = 2
    kept = {key: values.copy() for key, values in epoch.expected.items()}
    put(epoch, 2, 8)  # completes a shard, fills another, begins a third
    epoch._put(lambda: epoch.filling.rewind(2), alone=True)
    epoch.expected = kept
    epoch.finish()
    epoch.check()


def test_rows_of_a_shard_that_was_written_with_a_batch_taken_back_are_kept() -> None:
    epoch = Epoch(n_samples=8, shard=8)
    put(epoch, 0, 4)
    epoch.count = 4
    epoch.release()
    kept = {key: values.copy() for key, values in epoch.expected.items()}
    put(epoch, 4, 4)
    epoch.release()  # of the four
    epoch.wait()
    assert epoch.disk.n_writes == 3
    epoch._put(lambda: epoch.filling.rewind(4), alone=True)
    epoch.expected = kept
    put(epoch, 4, 4)
    epoch.count = 8
    epoch.release()
    epoch.finish()
    assert epoch.disk.n_writes == 6
    epoch.check()


@pytest.mark.parametrize("parts", [[8], [5, 3], [1, 6, 1]], ids=str)
def test_memory_of_released_shards_is_let_go(parts: list[int]) -> None:
    epoch = Epoch(n_samples=20, shard=8)
    slot = 0
    for count in (*parts, 3):  # and a shard that is not complete
        put(epoch, slot, count)
        slot += count
    epoch.wait()
    assert len(epoch.disk.handed) == 3
    epoch.count = 8
    epoch.release()
    epoch.wait()
    assert [one for one in epoch.disk.handed if one() is not None] == []
    epoch.count = slot
    epoch.finish()
    assert [one for one in epoch.disk.handed if one() is not None] == []
    epoch.check()


def test_releasing_while_a_shard_is_being_written_loses_nothing() -> None:
    may_write, disk = threading.Event(), Disk()

    def slow(layer: str, **what: Any) -> None:
        may_write.wait(10)
        disk.write(layer, **what)

    filling = ShardBuffer(slow, specs=SPECS, n_samples=4, shard_samples=4)
    rows = np.arange(20, dtype=np.float32).reshape(4, 5)
    filling.put("vectors", "activation", slot=0, count=2, values=rows[:2])
    last = threading.Thread(target=lambda: filling.put("vectors", "activation", slot=2, count=2, values=rows[2:]))
    last.start()
    last.join(0.05)
    filling.release(4)
    may_write.set()
    last.join(10)
    filling.finish(4)
    np.testing.assert_array_equal(disk.shards["vectors", "activation", 0], rows)


def test_a_shard_that_is_to_be_filled_again_is_not_let_go_before() -> None:
    """Settling need not wait for the rows that it counts: they may still be on their way."""
    disk = Disk()
    filling = ShardBuffer(disk.write, specs=SPECS, n_samples=8, shard_samples=8)
    rows = np.arange(40, dtype=np.float32).reshape(8, 5)
    filling.put("vectors", "activation", slot=0, count=4, values=rows[:4])
    filling.put("vectors", "activation", slot=4, count=4, values=-rows[4:])
    filling.rewind(4)
    filling.release(8)
    filling.put("vectors", "activation", slot=4, count=4, values=rows[4:])
    filling.finish(8)
    np.testing.assert_array_equal(disk.shards["vectors", "activation", 0], rows)


def test_a_write_that_fails_is_told_to_whoever_put_it() -> None:
    def full(layer: str, **what: Any) -> None:
        raise OSError("No space left on device")

    filling = ShardBuffer(full, specs=SPECS, n_samples=4, shard_samples=2)
    with pytest.raises(OSError, match="No space left"):
        filling.put("vectors", "activation", slot=0, count=2, values=np.ones((2, 5), np.float32))
    filling.put("vectors", "activation", slot=2, count=1, values=np.ones((1, 5), np.float32))
    with pytest.raises(OSError, match="No space left"):
        filling.put("vectors", "activation", slot=3, count=1, values=np.ones((1, 5), np.float32))
