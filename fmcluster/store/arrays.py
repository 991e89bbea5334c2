"""An array of a run, read with its damage told apart from what is legitimately not there."""

from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt
import zarr

from ..errors import StoreError
from .pipeline import padded_array, stored_bytes


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
            return np.asarray(self.array[slices])
        edge = tuple(-(-n // k) * k for n, k in zip(self.shape, sizes, strict=True))
        whole = tuple(slice(s.start, -(-s.stop // k) * k) for s, k in zip(box, sizes, strict=True))
        trim = tuple(slice(0, s.stop - s.start) for s in box)
        return np.asarray(padded_array(self.array, edge)[whole])[trim]

    def check_present(self, key: str) -> None:
        """Raise `StoreError` where a file is neither there nor known to hold nothing but fill values."""
        if self.over_time:
            snapshot = int(key.split(".")[1])
            if key in self._absent[snapshot].get(self.array.path, ()):
                return
        if stored_bytes(self.array, key) == 0:
            raise StoreError(
                f"{self._run} is damaged: {self.array.path}/{key} is missing or empty, though it was committed. "
                f"`fmcluster verify` lists all damage."
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
