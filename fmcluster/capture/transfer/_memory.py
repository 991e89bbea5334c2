"""Host memory: what is on its way to the disk, bounded and waited for; nothing is dropped."""

from collections import deque
from dataclasses import dataclass
from threading import Condition

import numpy as np
import numpy.typing as npt
import torch

from ...vectors import new_block

Bytes = npt.NDArray[np.uint8]
_ALIGNED = 256


class HostMemory:
    """Hands out pieces of ordinary memory, and waits where too much of it is out.

    Parameters
    ----------
    max_bytes : int
        `acquire` waits while more than this is out; a single larger piece passes alone.

    Attributes
    ----------
    peak_bytes : int
        The most that has been out.
    """

    def __init__(self, *, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.peak_bytes = 0
        self._out = 0
        self._back: deque[Bytes] = deque()
        self._changed = Condition()

    def acquire(self, nbytes: int, *, waits: bool = True) -> Bytes:
        """Return a piece of uninitialized memory, ndarray of shape (nbytes,)."""
        with self._changed:
            if waits:
                self._changed.wait_for(lambda: not self._out or self._out + nbytes <= self.max_bytes)
            piece = self._used_before(nbytes)
            self._out += nbytes
            self.peak_bytes = max(self.peak_bytes, self._out)
        return piece

    def release(self, piece: Bytes) -> None:
        """Take a piece back; whoever acquires one of its size next may overwrite it."""
        with self._changed:
            self._out -= piece.nbytes
            self._back.append(piece)
            self._changed.notify_all()

    def _used_before(self, nbytes: int) -> Bytes:
        """Return a piece that came back, which the system need not clear first; where there is none, a new one."""
        for position, piece in enumerate(self._back):
            if piece.nbytes == nbytes:
                del self._back[position]
                return piece
        while self._back and self._out + nbytes + sum(piece.nbytes for piece in self._back) > self.max_bytes:
            self._back.popleft()
        return new_block((nbytes,), np.uint8)


@dataclass(eq=False)
class _Stretch:
    """A part of the ring that is out, or was given back behind one that still is."""

    start: int
    stop: int
    back: bool = False


class Ring:
    """Where in a buffer the next piece lies: pieces follow one another, and come free in any order.

    Parameters
    ----------
    length : int
        Of the buffer.
    """

    def __init__(self, length: int) -> None:
        self.length = length
        self.used = 0
        self._out: deque[_Stretch] = deque()

    def take(self, count: int) -> int | None:
        """Return where `count` bytes in a row are free, now taken; None where they are not."""
        start, stop = 0, self.length
        if self._out:
            first, last = self._out[0], self._out[-1]
            start = last.stop
            if last.start < first.start:  # what is out wraps around the end
                stop = first.start
            elif start + count > self.length:
                start, stop = 0, first.start
        if start + count > stop:
            return None
        self._out.append(_Stretch(start, start + count))
        self.used += count
        return start

    def give_back(self, start: int) -> None:
        """Free what was taken at `start`."""
        stretch = next(s for s in self._out if s.start == start and not s.back)
        stretch.back = True
        while self._out and self._out[0].back:
            first = self._out.popleft()
            self.used -= first.stop - first.start


class PinnedRing:
    """The same for copies from a CUDA device: pieces of one page-locked buffer, used over and over.

    Parameters
    ----------
    max_bytes : int
        Length of the buffer, which is made when first needed. A larger piece passes alone, in memory of its own.
    """

    def __init__(self, *, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.peak_bytes = 0
        self._ring = Ring(max_bytes)
        self._buffer: torch.Tensor | None = None
        self._starts: dict[int, int] = {}
        self._alone: dict[int, int] = {}
        self._changed = Condition()

    def acquire(self, nbytes: int, *, waits: bool = True) -> torch.Tensor:
        """Return a piece of page-locked memory, Tensor of shape (nbytes,), uint8."""
        length = -(-nbytes // _ALIGNED) * _ALIGNED
        start: int | None = None

        def has_room() -> bool:
            nonlocal start
            if length > self.max_bytes:
                return not self._ring.used and not self._alone
            start = None if self._alone and waits else self._ring.take(length)
            return start is not None

        with self._changed:
            if self._buffer is None and length <= self.max_bytes:
                self._buffer = torch.empty(self.max_bytes, dtype=torch.uint8, pin_memory=True)
            if waits:
                self._changed.wait_for(has_room)
            else:
                has_room()
            if start is None or self._buffer is None:
                piece = torch.empty(nbytes, dtype=torch.uint8, pin_memory=True)
                self._alone[piece.data_ptr()] = nbytes
            else:
                piece = self._buffer[start : start + nbytes]
                self._starts[piece.data_ptr()] = start
            self.peak_bytes = max(self.peak_bytes, self._ring.used + sum(self._alone.values()))
        return piece

    def release(self, piece: torch.Tensor) -> None:
        """Take a piece back; the next copy may overwrite it."""
        with self._changed:
            if self._alone.pop(piece.data_ptr(), None) is None:
                self._ring.give_back(self._starts.pop(piece.data_ptr()))
            self._changed.notify_all()
