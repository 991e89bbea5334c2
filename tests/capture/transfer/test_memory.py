"""Memory for what is on its way to the disk: bounded, waited for, never handed out twice."""

import random
import threading
import weakref
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fmcluster.capture.transfer._memory import HostMemory, PinnedRing, Ring

on_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="page-locked memory needs a CUDA device")


class InBackground:
    """Something that goes on in a thread of its own, and may have to wait."""

    def __init__(self, work: Callable[[], object]) -> None:
        self.result: object = None
        self._thread = threading.Thread(target=lambda: setattr(self, "result", work()), daemon=True)
        self._thread.start()

    def is_waiting(self) -> bool:
        self._thread.join(0.1)
        return self._thread.is_alive()

    def ended(self) -> object:
        self._thread.join(20)
        assert not self._thread.is_alive()
        return self.result


takes = st.tuples(st.just("take"), st.integers(1, 40))
gives = st.tuples(st.just("give"), st.integers(0, 1000))
deeds = st.lists(takes | takes | gives, max_size=120)


@pytest.mark.slow
@settings(max_examples=500, deadline=None)
@given(length=st.integers(1, 100), deeds=deeds)
def test_pieces_of_a_ring_never_overlap_and_always_come_free(length: int, deeds: list[tuple[str, int]]) -> None:
    ring, out, largest = Ring(length), [], 0
    for deed, number in deeds:
        if deed == "give":
            if out:
                ring.give_back(out.pop(number % len(out))[0])
            continue
        start = ring.take(number)
        if start is None:
            # what is free lies in two parts, each too small; or was lost at the end to a piece that had to wrap
            assert ring.used + number > length or length - ring.used < number + max(number, largest)
            assert out or number > length
            continue
        largest = max(largest, number)
        stop = start + number
        assert 0 <= start < stop <= length
        assert all(stop <= other or start >= end for other, end in out)
        out.append((start, stop))
        assert sum(end - at for at, end in out) <= ring.used <= length
    random.Random(0).shuffle(out)
    for start, _ in out:
        ring.give_back(start)
    assert ring.used == 0
    assert ring.take(length) == 0


@settings(max_examples=100, deadline=None)
@given(sizes=st.lists(st.integers(1, 10), min_size=1, max_size=200), out_at_once=st.integers(1, 4))
def test_a_ring_that_is_given_back_in_order_goes_round_and_round(sizes: list[int], out_at_once: int) -> None:
    """Four pieces of ten, and a gap of at most nine at the end: 50 are enough for ever."""
    ring, out = Ring(50), []
    for size in sizes:
        if len(out) == out_at_once:
            ring.give_back(out.pop(0))
        start = ring.take(size)
        assert start is not None
        out.append(start)


def test_what_was_given_back_behind_a_piece_that_is_out_waits_for_it() -> None:
    ring = Ring(10)
    first, second, third = (ring.take(n) for n in (4, 4, 2))
    assert (first, second, third) == (0, 4, 8)
    assert ring.take(1) is None
    ring.give_back(second)
    ring.give_back(third)
    assert ring.used == 10
    assert ring.take(1) is None
    ring.give_back(first)
    assert ring.used == 0
    assert ring.take(10) == 0


def test_a_ring_wraps_where_the_end_is_too_short_but_not_into_what_is_out() -> None:
    ring = Ring(10)
    assert [ring.take(n) for n in (3, 4)] == [0, 3]
    ring.give_back(0)
    assert ring.take(5) is None  # three at the end, three at the beginning
    assert ring.take(3) == 7
    assert ring.take(3) == 0
    assert ring.take(1) is None
    ring.give_back(3)
    assert ring.take(5) is None
    assert ring.take(4) == 3


def test_memory_is_bounded_and_waited_for() -> None:
    memory = HostMemory(max_bytes=10)
    one, two = memory.acquire(6), memory.acquire(4)
    assert (one.shape, one.dtype) == ((6,), np.uint8)
    assert not np.shares_memory(one, two)
    third = InBackground(lambda: memory.acquire(1))
    assert third.is_waiting()
    memory.release(two)
    assert third.ended().nbytes == 1
    assert memory.peak_bytes == 10
    fourth = InBackground(lambda: memory.acquire(5))
    assert fourth.is_waiting()
    memory.release(one)
    fourth.ended()
    assert memory.peak_bytes == 10


def test_a_piece_larger_than_the_bound_passes_alone() -> None:
    memory = HostMemory(max_bytes=10)
    small = memory.acquire(1)
    large = InBackground(lambda: memory.acquire(99))
    assert large.is_waiting()
    memory.release(small)
    piece = large.ended()
    assert piece.nbytes == 99
    small = InBackground(lambda: memory.acquire(1))
    assert small.is_waiting()
    memory.release(piece)
    small.ended()
    assert memory.peak_bytes == 99


def test_who_must_not_wait_does_not_but_is_counted() -> None:
    memory = HostMemory(max_bytes=10)
    pieces = [memory.acquire(8, waits=False) for _ in range(3)]
    assert memory.peak_bytes == 24
    patient = InBackground(lambda: memory.acquire(8))
    for piece in pieces:
        assert patient.is_waiting()
        memory.release(piece)
    patient.ended()


@pytest.mark.parametrize("max_bytes", [1, 100, 1000])
def test_many_threads_stay_within_the_bound_and_all_come_through(max_bytes: int) -> None:
    memory, lock = HostMemory(max_bytes=max_bytes), threading.Lock()
    out: list[int] = []
    most = 0

    def work(number: int) -> int:
        nonlocal most
        numbers = random.Random(number)
        for _ in range(100):
            piece = memory.acquire(numbers.randint(1, 150))
            with lock:
                out.append(piece.nbytes)
                most = max(most, sum(out) if len(out) > 1 else 0)
            with lock:
                out.remove(piece.nbytes)
            memory.release(piece)
        return number

    threads = [InBackground(lambda number=number: work(number)) for number in range(6)]
    assert [thread.ended() for thread in threads] == list(range(6))
    assert most <= max_bytes  # several at once only within the bound
    assert memory.peak_bytes <= max(max_bytes, 150)
    assert InBackground(lambda: memory.acquire(10**6)).ended().nbytes == 10**6  # all of it is free again


def test_memory_that_cannot_be_had_is_not_counted() -> None:
    memory = HostMemory(max_bytes=10)
    with pytest.raises(MemoryError):
        memory.acquire(1 << 62)
    assert memory.peak_bytes == 0
    assert InBackground(lambda: memory.acquire(10)).ended().nbytes == 10


def test_memory_that_was_given_back_is_used_again_and_let_go_for_other_sizes() -> None:
    memory = HostMemory(max_bytes=1000)
    first, second = memory.acquire(400), memory.acquire(500)
    addresses = {first.ctypes.data, second.ctypes.data}
    memory.release(first)
    memory.release(second)
    again = memory.acquire(500), memory.acquire(400)
    assert {piece.ctypes.data for piece in again} == addresses
    alive = [weakref.ref(piece) for piece in again]
    for piece in again:
        memory.release(piece)
    del first, second, again, piece
    assert all(reference() is not None for reference in alive)
    memory.acquire(600)  # there is room for the piece of 400 beside it
    assert [reference() is not None for reference in alive] == [False, True]


def address(piece: torch.Tensor) -> range:
    return range(piece.data_ptr(), piece.data_ptr() + piece.nbytes)


@pytest.mark.gpu
@on_cuda
def test_pieces_of_a_pinned_ring_are_page_locked_aligned_and_apart() -> None:
    ring = PinnedRing(max_bytes=4096)
    pieces = [ring.acquire(nbytes) for nbytes in (1, 255, 256, 257, 1000)]
    for number, piece in enumerate(pieces):
        assert piece.is_pinned()
        assert piece.dtype == torch.uint8
        assert piece.shape == ((1, 255, 256, 257, 1000)[number],)
        assert piece.storage_offset() % 256 == 0
        piece.fill_(number)
    assert [set(piece.tolist()) for piece in pieces] == [{n} for n in range(5)]
    assert ring.peak_bytes == 256 + 256 + 256 + 512 + 1024
    for number in (3, 0, 4, 2, 1):
        ring.release(pieces[number])
    assert ring.acquire(4096).data_ptr() == pieces[0].data_ptr()


@pytest.mark.gpu
@on_cuda
def test_a_pinned_ring_waits_until_there_is_room_in_a_row() -> None:
    ring = PinnedRing(max_bytes=1024)
    first, second = ring.acquire(512), ring.acquire(512)
    third = InBackground(lambda: ring.acquire(256))
    assert third.is_waiting()
    ring.release(second)  # behind one that is out
    assert third.is_waiting()
    ring.release(first)
    assert third.ended().data_ptr() == first.data_ptr()
    assert ring.peak_bytes == 1024


@pytest.mark.gpu
@on_cuda
def test_a_piece_larger_than_the_pinned_ring_passes_alone() -> None:
    ring = PinnedRing(max_bytes=512)
    small = ring.acquire(10)
    large = InBackground(lambda: ring.acquire(5000))
    assert large.is_waiting()
    ring.release(small)
    piece = large.ended()
    assert piece.is_pinned()
    assert piece.shape == (5000,)
    another = InBackground(lambda: ring.acquire(10))
    assert another.is_waiting()
    ring.release(piece)
    assert another.ended().shape == (10,)
    assert ring.peak_bytes == 5000


@pytest.mark.gpu
@on_cuda
def test_who_must_not_wait_for_a_pinned_ring_gets_memory_beside_it() -> None:
    ring = PinnedRing(max_bytes=512)
    pieces = [ring.acquire(400, waits=False) for _ in range(3)]
    spans = [address(piece) for piece in pieces]
    assert all(a.stop <= b.start or b.stop <= a.start for a in spans for b in spans if a is not b)
    assert all(piece.is_pinned() for piece in pieces)
    assert ring.peak_bytes == 512 + 400 + 400
    patient = InBackground(lambda: ring.acquire(400))
    for piece in pieces:
        assert patient.is_waiting()
        ring.release(piece)
    patient.ended()
