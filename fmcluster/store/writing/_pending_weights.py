"""Pending weights: the parts of parameters and buffers of the snapshot that is being written."""

from collections.abc import Iterator
from typing import Any

import numpy.typing as npt

from ...errors import StoreError
from ..format import LEVEL, Part, chunk_key, decode_chunk, parts_of, weight_path, write_chunk
from ._nodes import Nodes
from ._storage import Storage


class PendingWeights:
    """The parts of parameters and buffers of the snapshot that is being written; several threads may each write one.

    Parameters
    ----------
    storage : Storage
        Where the run is kept.
    nodes : Nodes
        Its arrays.
    """

    def __init__(self, storage: Storage, nodes: Nodes) -> None:
        self._storage = storage
        self._nodes = nodes
        self._written: dict[str, str] = {}

    def clear(self) -> None:
        """Begin another snapshot."""
        self._written.clear()

    def parts(self, name: str) -> Iterator[tuple[Part, tuple[slice, ...]]]:
        """Go through the parts of a parameter or buffer: the number of each, and where it lies in the tensor."""
        shape, chunks, _ = self._layout(f"{weight_path(name)}/value")
        return parts_of(shape, chunks=chunks)

    def write(self, name: str, values: npt.NDArray[Any], *, part: Part) -> None:
        """Write a part of a parameter or buffer, and flush it to the disk.

        Parameters
        ----------
        name : str
            Of the parameter or buffer.
        values : ndarray
            In the stored dtype, and of the shape that `parts` gives.
        part : tuple of int
            Which part they are.

        Raises
        ------
        ValueError
            For values that the run cannot hold.
        OSError
            Where they cannot be written.
        """
        path = f"{weight_path(name)}/value"
        if path not in self._nodes:
            raise ValueError(f"{self._storage.name} has no array for the weight {name!r}; name it in `create`")
        shape, chunks, dtype = self._layout(path)
        expected = tuple(min(step, n - at * step) for at, step, n in zip(part, chunks, shape, strict=True))
        if values.shape != expected or values.dtype.name != dtype:
            raise ValueError(
                f"{path}: received {values.dtype} of shape {values.shape} for part {part}; expected {dtype} of shape "
                f"{expected}"
            )
        key = f"{path}/{chunk_key(self._n_committed, *part)}"
        self._written.pop(key, None)  # should the write fail, it counts as missing
        file = self._storage.folder / key
        checksum = write_chunk(file, values[None], chunk=(1, *chunks), level=LEVEL)
        self._storage.keep_part(file, read_again=True)
        self._written[key] = checksum

    def before(self, name: str, *, part: Part) -> npt.NDArray[Any] | None:
        """Return a part as the last committed snapshot has it; None where there is none, or it cannot be read."""
        path = f"{weight_path(name)}/value"
        shape, chunks, dtype = self._layout(path)
        if not self._n_committed:
            return None
        try:
            content = self._storage.read(f"{path}/{chunk_key(self._n_committed - 1, *part)}")
            whole = decode_chunk(content, chunk=chunks, dtype=dtype)
        except (OSError, ValueError, RuntimeError, StoreError):  # the third is the decompressor's
            return None
        return whole[tuple(slice(0, n - at * step) for at, step, n in zip(part, chunks, shape, strict=True))]

    def checksums(self, path: str) -> dict[str, str]:
        """Return the checksums of the parts of an array, by their keys.

        Raises
        ------
        StoreError
            Where one was not written.
        """
        shape, chunks, _ = self._layout(path)
        found = {}
        for part, _ in parts_of(shape, chunks=chunks):
            key = chunk_key(self._n_committed, *part)
            if f"{path}/{key}" not in self._written or not self._storage.has(f"{path}/{key}"):
                raise StoreError(f"{path}/{key} was not written, or is gone; the snapshot is not whole")
            found[key] = self._written[f"{path}/{key}"]
        return found

    @property
    def _n_committed(self) -> int:
        """How many snapshots there are, which is the number of the one that is being written."""
        return int(self._nodes["epoch"]["shape"][0])

    def _layout(self, path: str) -> tuple[tuple[int, ...], tuple[int, ...], str]:
        """Return the shape, the shape of a part, and the dtype of an array, without the axis of snapshots."""
        node = self._nodes[path]
        chunks = node["chunk_grid"]["configuration"]["chunk_shape"]
        return tuple(node["shape"][1:]), tuple(chunks[1:]), node["data_type"]
