"""Shard buffer: rows that arrive in no particular order, put together to shards."""

from collections.abc import Mapping
from dataclasses import dataclass
from threading import Lock
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from ...store import LayerSpec, Quantity

Rows = npt.NDArray[Any]
Key = tuple[str, Quantity, int]


class Write(Protocol):
    """What writes a shard, as `RunWriter.write` does."""

    def __call__(self, layer: str, *, offset: int, values: Rows | None, quantity: Quantity) -> None:
        """Write it; None where it holds nothing."""


@dataclass(eq=False)
class _PartialShard:
    rows: Rows | None  # None while nothing but blanks has arrived
    filled: npt.NDArray[np.bool_]


class ShardBuffer:
    """The slots of one snapshot, from which every shard is written when it is complete.

    A stretch of slots that covers a shard is written at once; others wait until their shard is complete. `put` may
    be called from several threads for different slots.

    Parameters
    ----------
    write : callable
        Writes a shard.
    specs : mapping of str to LayerSpec
        The layers.
    n_samples : int
        Number of slots.
    shard_samples : int
        How many of them lie in a shard.
    """

    def __init__(self, write: Write, *, specs: Mapping[str, LayerSpec], n_samples: int, shard_samples: int) -> None:
        self._write = write
        self._specs = specs
        self._n_samples = n_samples
        self._shard_samples = min(shard_samples, n_samples)
        self._partial: dict[Key, _PartialShard] = {}
        self._written: set[Key] = set()
        self._lock = Lock()

    def put(self, layer: str, quantity: Quantity, *, slot: int, count: int, values: Rows | None) -> None:
        """Put rows into the slots from one on; None: they are blank."""
        size = self._shard_samples
        if values is not None:
            values = values.reshape(count, *self._specs[layer].shape)  # 1-D feature maps come with a height of 1
        for shard in range(slot // size, (slot + count - 1) // size + 1):
            first, last = shard * size, min((shard + 1) * size, self._n_samples)
            start, stop = max(slot, first), min(slot + count, last)
            part = None if values is None else values[start - slot : stop - slot]
            key = layer, quantity, first
            if (start, stop) == (first, last):
                self._write_shard(key, part)
                continue
            with self._lock:
                partial = self._partial.setdefault(key, _PartialShard(None, np.zeros(last - first, bool)))
                if part is not None:
                    if partial.rows is None:
                        shape = self._specs[layer].shape
                        partial.rows = np.full((last - first, *shape), np.nan, part.dtype)
                    partial.rows[start - first : stop - first] = part
                partial.filled[start - first : stop - first] = True
                complete = bool(partial.filled.all())
            if complete:
                self._write_shard(key, partial.rows)

    def release(self, count: int) -> None:
        """Let go of shards that are written: the first `count` slots stay as they are.

        To be queued like `put`: a shard that a `rewind` is still to take back must not be let go of before.
        """
        with self._lock:
            for key in [k for k, partial in self._partial.items() if k[2] + len(partial.filled) <= count]:
                if self._partial[key].filled.all() and key in self._written:
                    del self._partial[key]

    def rewind(self, count: int) -> None:
        """Take back all but the first `count` slots. Nothing may be put meanwhile."""
        for key in [k for k in self._partial if k[2] >= count]:
            del self._partial[key]
        for (_, _, first), partial in self._partial.items():
            partial.filled[max(0, count - first) :] = False
            if partial.rows is not None:
                partial.rows[max(0, count - first) :] = np.nan

    def finish(self, count: int) -> None:
        """Write what is left, with only the first `count` slots filled. Nothing may be put meanwhile."""
        for key, partial in sorted(self._partial.items()):
            if not partial.filled.all():
                self._write_shard(key, partial.rows)
        for layer, quantity, first in sorted(key for key in self._written if key[2] >= count):
            self._write(layer, offset=first, values=None, quantity=quantity)
        self._partial.clear()

    def _write_shard(self, key: Key, rows: Rows | None) -> None:
        layer, quantity, first = key
        self._write(layer, offset=first, values=rows, quantity=quantity)
        with self._lock:
            self._written.add(key)
