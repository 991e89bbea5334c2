"""Stored array: read so that damage is distinguished from what is legitimately not there."""

import errno
import json
from collections.abc import Sequence
from functools import cached_property
from itertools import product
from math import prod
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import zarr
from zarr.storage import LocalStore

from ...errors import StoreError
from ...vectors import new_block
from .._compat import read_bytes, require_folder, stored_bytes
from ..files import RemoteFile
from ._chunk_file import decode_chunk, largest_chunk
from ._format import holds_weights
from ._shards import ShardLayout, read_shard, shard_layout

MOST_BYTES = 8 << 30  # of a file that is not on this machine

# of arrays that are read as a whole, of which a hostile run may say that they are as long as it likes
_UNSEEN = 256 << 20  # bytes that are taken, whatever lies there
_UNSEEN_OF_ONE, _RATIO = 4 << 20, 1000  # bytes more for each snapshot and each file, and for each byte in one

_UNCOMPRESSED = 2  # codecs: of numbers or strings, and the checksum

_ALLOWED, _OPEN = "With permission to read it", "Once this process may open more files (ulimit -n)"
_REFUSED = {  # of files of which nothing is known
    errno.EACCES: _ALLOWED,
    errno.EPERM: _ALLOWED,
    errno.EMFILE: _OPEN,
    errno.ENFILE: _OPEN,
}


def shard_shape(array: zarr.Array[Any]) -> tuple[int, ...]:
    """Return the shape of what lies in one file of the array: a shard, or a chunk where it has none."""
    return array.shards or array.chunks


def chunk_key(*where: int) -> str:
    """Return the name of the file that holds a shard or chunk."""
    return ".".join(map(str, ("c", *where)))


def chunk_keys(array: zarr.Array[Any], *slices: slice) -> list[str]:
    """Return the names of the files that hold a box of an array; axes that are not named are taken whole."""
    ranges = []
    for axis, (length, size) in enumerate(zip(array.shape, shard_shape(array), strict=True)):
        start, stop, _ = (slices[axis] if axis < len(slices) else slice(None)).indices(length)
        ranges.append(range(start // size, -(-stop // size) if stop > start else start // size))
    return [chunk_key(*where) for where in product(*ranges)]


class Vouched(Protocol):
    """What the commits say of a run's files; see `CommittedFiles`."""

    def constant(self, path: str, *, key: str) -> str | None:
        """Return the checksums of a file of an array without an axis of snapshots; None: there is no such file."""

    def at(self, snapshot: int, *, path: str, key: str) -> str | None:
        """Return the checksums of a file of a snapshot; None: there is no such file."""


class StoredArray:
    """A Zarr array, of which nothing is read that was not committed.

    Parameters
    ----------
    array : zarr.Array
        The array.
    run : str
        Where its run lies, for messages.
    vouched : Vouched
        The checksums that were committed.
    """

    def __init__(self, array: zarr.Array[Any], *, run: str, vouched: Vouched) -> None:
        self.array = array
        self.shape: tuple[int, ...] = array.shape
        self._run = run
        self._vouched = vouched

    @property
    def over_time(self) -> bool:
        """Whether the first axis is `snapshot`."""
        return bool(self.array.metadata.dimension_names[0] == "snapshot")  # type: ignore[union-attr, index]

    def read(self, first: int | slice = slice(None), /, *rest: slice) -> npt.NDArray[Any]:
        """Read a box.

        Raises
        ------
        StoreError
            Where a file is missing, empty, there though none was committed, or another than the one that was.
        """
        slices = (slice(first, first + 1) if isinstance(first, int) else first, *rest)
        keys = chunk_keys(self.array, *slices)
        for key in keys:
            self.check_present(key)
        self._check_memory(slices, keys)
        try:
            values = self._decode(slices)
        except Exception as error:  # the codecs raise whatever they like
            key = self._first_damaged(keys)
            if isinstance(error, OSError) and error.errno in _REFUSED:
                raise StoreError(
                    f"{self._run}: {self.array.path}/{key} cannot be read ({_first_line(error)}). "
                    f"{_REFUSED[error.errno]}, try again."
                ) from error
            raise StoreError(
                f"{self._run} is damaged: {self.array.path}/{key} cannot be decoded ({_first_line(error)}). "
                f"`fmcluster verify` lists all damage."
            ) from error
        return values[0] if isinstance(first, int) else values

    def _decode(self, slices: tuple[slice, ...]) -> npt.NDArray[Any]:
        """Decode a box: of each file that it touches, all, or of a shard the chunks that it takes."""
        full = (*slices, *(slice(None) for _ in self.shape[len(slices) :]))
        box = [slice(*s.indices(n)) for s, n in zip(full, self.shape, strict=True)]
        if self._layout is not None:
            return self._decode_shards(box, self._layout)
        out = np.empty(tuple(s.stop - s.start for s in box), self.array.dtype)
        for where in product(
            *(range(s.start // k, -(-s.stop // k)) for s, k in zip(box, self.array.chunks, strict=True))
        ):
            parts, within = [], []
            for at, s, k in zip(where, box, self.array.chunks, strict=True):
                first, last = max(at * k, s.start), min((at + 1) * k, s.stop)
                parts.append(slice(first - s.start, last - s.start))
                within.append(slice(first - at * k, last - at * k))
            key = chunk_key(*where)
            if (checksums := self._checksums(key)) is None:
                out[tuple(parts)] = self.array.fill_value
            else:
                content = self._content(key, at_most=largest_chunk(self.array.chunks, self.array.dtype))
                chunk = decode_chunk(
                    content,
                    chunk=self.array.chunks,
                    dtype=self.array.dtype,
                    compressed=self._is_compressed,
                    expected=int(checksums, 16),
                )
                out[tuple(parts)] = chunk[tuple(within)]
        return out

    @cached_property
    def _is_compressed(self) -> bool:
        """Whether the chunks of an array without shards are Zstandard frames."""
        return len(self.array.metadata.codecs) > _UNCOMPRESSED  # type: ignore[union-attr]

    @cached_property
    def _folder(self) -> Path | None:
        """Where the array's files are, if they are on this machine."""
        store = self.array.store
        return store.root / self.array.path if isinstance(store, LocalStore) else None

    @cached_property
    def _layout(self) -> ShardLayout | None:
        """How the shards of one snapshot each are laid out; None where there are no shards."""
        if self.array.shards is None:
            return None
        known = self.array.metadata.to_dict()
        plain = {name: known[name] for name in ("shape", "data_type", "chunk_grid", "codecs")}
        return shard_layout(json.loads(json.dumps(plain)), path=self._run)  # lists, as they are stored

    def _decode_shards(self, box: Sequence[slice], layout: ShardLayout) -> npt.NDArray[Any]:
        """Decode shards, or parts of them."""
        shard = shard_shape(self.array)
        out = new_block(tuple(s.stop - s.start for s in box), self.array.dtype)
        for where in product(*(range(s.start // k, -(-s.stop // k)) for s, k in zip(box, shard, strict=True))):
            parts, start = [], []
            for at, s, k in zip(where, box, shard, strict=True):
                first, last = max(at * k, s.start), min((at + 1) * k, s.stop)
                parts.append(slice(first - s.start, last - s.start))
                start.append(first - at * k)
            here, key = out[tuple(parts)][0], chunk_key(*where)
            if (checksums := self._checksums(key)) is None:
                here[...] = np.nan
                continue
            source = self._source(key, asked=here.size / prod(layout.shard))
            read_shard(source, here, start=tuple(start[1:]), layout=layout, checksums=checksums)
        return out

    def _source(self, key: str, *, asked: float) -> Path | bytes | RemoteFile:
        """Return where to read a share of a shard from; more than half of a remote one comes in one piece."""
        if self._folder is not None:
            return self._folder / key
        size = stored_bytes(self.array, key)
        if asked > 0.5 or size > MOST_BYTES:  # too large is an error there
            return self._content(key)
        return RemoteFile(self.array.store, f"{self.array.path}/{key}", size=size)

    def _content(self, key: str, *, at_most: int = MOST_BYTES) -> bytes:
        """Return what a file holds."""
        return read_bytes(self.array.store, f"{self.array.path}/{key}", at_most=at_most) or b""

    def _checksums(self, key: str) -> str | None:
        """Return the checksums that were committed of a file; None: it is all fill values, and not there."""
        if self.over_time:
            return self._vouched.at(int(key.split(".")[1]), path=self.array.path, key=key)
        return self._vouched.constant(self.array.path, key=key)

    def check_present(self, key: str) -> None:
        """Raise `StoreError` where a file is not there though it was committed, or is though it was not."""
        committed, size = self._checksums(key) is not None, stored_bytes(self.array, key)
        if committed and not size:
            require_folder(self.array.store)
            found = "is missing or empty, though it was committed"
        elif size and not committed:
            found = "is there, though no commit vouches for it"
        elif not committed and holds_weights(self.array.path):
            found = "is missing, and no commit vouches for it, though all of a weight is written"
        else:
            return
        raise StoreError(
            f"{self._run} is damaged: {self.array.path}/{key} {found}. `fmcluster verify` lists all damage."
        )

    def _check_memory(self, slices: Sequence[slice], keys: Sequence[str]) -> None:
        """Raise `StoreError` where what lies there is too little for what is to be taken for it.

        Feature maps are not looked at, of which nothing lies there where there was no gradient, nor weights, which may
        be zero.
        """
        nbytes = prod(
            [len(range(*each.indices(n))) for each, n in zip(slices, self.shape, strict=False)]
            + [self.array.dtype.itemsize, *self.shape[len(slices) :]]
        )
        if nbytes <= _UNSEEN or self.array.shards is not None or holds_weights(self.array.path):
            return
        sizes = [size for size in (stored_bytes(self.array, key) for key in keys) if size]
        n_seen = len(sizes) + (len(range(*slices[0].indices(self.shape[0]))) if self.over_time else 0)
        if nbytes > _UNSEEN + _UNSEEN_OF_ONE * n_seen + _RATIO * sum(sizes):
            raise StoreError(
                f"{self._run} is damaged: {self.array.path} says that it holds {nbytes >> 20:,} MiB, of which "
                f"{sum(sizes):,} bytes lie there. Nothing was read; restore it from a copy."
            )

    def _first_damaged(self, keys: Sequence[str]) -> str:
        for key in keys:
            where = zip(map(int, key.split(".")[1:]), shard_shape(self.array), self.shape, strict=True)
            try:
                self._decode(tuple(slice(at * size, min((at + 1) * size, n)) for at, size, n in where))
            except Exception:
                return key
        return keys[0]


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
