"""An array of a run, read with its damage told apart from what is legitimately not there."""

import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from itertools import product
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import zarr
from zarr.storage import LocalStore

from ..errors import StoreError
from ..vectors import new_block
from ._compat import padded_array, stored_bytes
from ._shards import HEADER, ShardLayout, check_frame, check_frames, read_shard, shard_layout


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


class Shards(NamedTuple):
    """Where the shards of an array are files, and how they are laid out."""

    folder: Path
    layout: ShardLayout


class StoredArray:
    """A Zarr array and what the commits say of its chunks.

    Parameters
    ----------
    array : zarr.Array
        The array.
    run : str
        Where its run lies, for messages.
    absent : sequence of mapping
        For each snapshot, by array: the chunks that hold nothing but fill values and therefore do not exist.
    """

    def __init__(self, array: zarr.Array[Any], *, run: str, absent: Sequence[Mapping[str, list[str]]]) -> None:
        self.array = array
        self.shape: tuple[int, ...] = array.shape
        self._run = run
        self._absent = absent

    @property
    def over_time(self) -> bool:
        """Whether the first axis is `snapshot`."""
        return bool(self.array.metadata.dimension_names[0] == "snapshot")  # type: ignore[union-attr, index]

    def read(self, first: int | slice = slice(None), /, *rest: slice) -> npt.NDArray[Any]:
        """Read a box.

        Raises
        ------
        StoreError
            Where a chunk is missing, empty, or fails its checksum.
        """
        slices = (slice(first, first + 1) if isinstance(first, int) else first, *rest)
        for key in chunk_keys(self.array, *slices):
            self.check_present(key)
        try:
            values = self._decode(slices)
        except Exception as error:  # the codecs raise whatever they like
            key = self._first_damaged(chunk_keys(self.array, *slices))
            raise StoreError(
                f"{self._run} is damaged: {self.array.path}/{key} cannot be decoded ({_first_line(error)}). "
                f"`fmcluster verify` lists all damage."
            ) from error
        return values[0] if isinstance(first, int) else values

    def _decode(self, slices: tuple[slice, ...]) -> npt.NDArray[Any]:
        """Decode a box: whole files, with those at the edges, or parts of them."""
        sizes = shard_shape(self.array)
        full = (*slices, *(slice(None) for _ in self.shape[len(slices) :]))
        box = [slice(*s.indices(n)) for s, n in zip(full, self.shape, strict=True)]
        if any(s.start % k or (s.stop % k and s.stop != n) for s, n, k in zip(box, self.shape, sizes, strict=True)):
            if self._shards is not None:
                return self._decode_part(box, self._shards)
            self._check_frames(box)
            return np.asarray(self.array[slices])
        self._check_frames(box)
        edge = tuple(-(-n // k) * k for n, k in zip(self.shape, sizes, strict=True))
        whole = tuple(slice(s.start, -(-s.stop // k) * k) for s, k in zip(box, sizes, strict=True))
        trim = tuple(slice(0, s.stop - s.start) for s in box)
        return np.asarray(padded_array(self.array, edge)[whole])[trim]

    @cached_property
    def _shards(self) -> Shards | None:
        """The shards of one snapshot each that are files on this machine; None where there are no such."""
        store = self.array.store
        if not isinstance(store, LocalStore) or shard_shape(self.array)[0] != 1 or not self.over_time:
            return None
        known = self.array.metadata.to_dict()
        plain = {name: known[name] for name in ("shape", "data_type", "chunk_grid", "codecs")}
        try:
            layout = shard_layout(json.loads(json.dumps(plain)), path=self._run)  # lists, as they are stored
            return Shards(store.root / self.array.path, layout)
        except StoreError:  # another program wrote them
            return None

    def _decode_part(self, box: Sequence[slice], shards: Shards) -> npt.NDArray[Any]:
        """Decode parts of shards."""
        shard = shard_shape(self.array)
        out = new_block(tuple(s.stop - s.start for s in box), self.array.dtype)
        for where in product(*(range(s.start // k, -(-s.stop // k)) for s, k in zip(box, shard, strict=True))):
            parts, start = [], []
            for at, s, k in zip(where, box, shard, strict=True):
                first, last = max(at * k, s.start), min((at + 1) * k, s.stop)
                parts.append(slice(first - s.start, last - s.start))
                start.append(first - at * k)
            here, key = out[tuple(parts)][0], chunk_key(*where)
            if self._all_nan(key):
                here[...] = np.nan
            else:
                read_shard(shards.folder / key, here, start=tuple(start[1:]), layout=shards.layout)
        return out

    def _all_nan(self, key: str) -> bool:
        """Whether a file is known to hold nothing but fill values, and therefore not there."""
        return self.over_time and key in self._absent[int(key.split(".")[1])].get(self.array.path, ())

    def check_present(self, key: str) -> None:
        """Raise `StoreError` where a file is neither there nor known to hold nothing but fill values."""
        if self._all_nan(key):
            return
        if stored_bytes(self.array, key) == 0:
            raise StoreError(
                f"{self._run} is damaged: {self.array.path}/{key} is missing or empty, though it was committed. "
                f"`fmcluster verify` lists all damage."
            )

    def _check_frames(self, box: Sequence[slice]) -> None:
        """See that the files of a box, of this machine, say that they unpack to the size that they are declared to be.

        `read_shard` sees to it by itself, chunk by chunk.
        """
        store = self.array.store
        if not isinstance(store, LocalStore):
            return
        for key in chunk_keys(self.array, *box):
            file = store.root / self.array.path / key
            if self._all_nan(key):
                continue
            if self._shards is not None:
                check_frames(file, self._shards.layout)
            elif self.array.shards is None and self.array.dtype.kind in "iuf" and self._is_compressed:
                with file.open("rb", buffering=0) as opened:
                    check_frame(opened.read(HEADER), nbytes=prod(self.array.chunks) * self.array.dtype.itemsize)

    @cached_property
    def _is_compressed(self) -> bool:
        codecs: Any = self.array.metadata.to_dict()["codecs"]
        return [codec["name"] for codec in codecs] == ["bytes", "zstd", "crc32c"]

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
