"""Pending shards: those of the snapshot that is being written, each written, left blank, or missing yet."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ...errors import StoreError
from ..format import ShardLayout, chunk_key, write_shard
from ._storage import Storage


@dataclass(frozen=True, eq=False)
class Shard:
    """One shard of the snapshot that is being written.

    Attributes
    ----------
    name : str
        The path of its file within the run.
    file : Path
        Its file.
    values : ndarray of shape (n_samples, ...), or None
        What it holds; None: nothing but fill values.
    layout : ShardLayout
        Of the array that it belongs to.
    storage : Storage
        Where the run is kept.
    """

    name: str
    file: Path
    values: npt.NDArray[Any] | None
    layout: ShardLayout
    storage: Storage

    def run(self) -> str | None:
        """Write the file and return its checksums; of a blank shard, remove the file.

        Raises
        ------
        OSError, StoreError
            Where that fails; what the file then holds does not count.
        """
        if self.values is None:
            self.storage.remove([self.name])
            return None
        chunks, shape = (1, *self.layout.chunks), (1, *self.layout.shard)
        checksums = write_shard(self.file, self.values[None], chunks=chunks, shard=shape, level=self.layout.level)
        self.storage.keep_part(self.file)
        return checksums


class PendingShards:
    """The shards of the snapshot that is being written; several threads may each write another one.

    Parameters
    ----------
    storage : Storage
        Where the run is kept.
    """

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._written: dict[str, str | None] = {}  # their checksums; None: left blank

    @property
    def written(self) -> dict[str, str | None]:
        """What is written, by the paths of the files, with their checksums; None: left blank."""
        return dict(self._written)

    def take_over(self, written: Mapping[str, str | None]) -> None:
        """Count what another process wrote."""
        self._written.update(written)

    def clear(self) -> None:
        """Begin another snapshot."""
        self._written.clear()

    def write(
        self, path: str, values: npt.NDArray[Any] | None, *, snapshot: int, offset: int, layout: ShardLayout
    ) -> None:
        """Write the shard that begins at slot `offset`, or leave it blank; see `RunWriter.write`."""
        shard = self._shard(path, values, snapshot=snapshot, offset=offset, layout=layout)
        self._written.pop(shard.name, None)  # should the write fail, it counts as missing
        self._written[shard.name] = shard.run()

    def _shard(
        self, path: str, values: npt.NDArray[Any] | None, *, snapshot: int, offset: int, layout: ShardLayout
    ) -> Shard:
        """Return the shard to be written, once it is known to fit."""
        length, n_slots = layout.shard[0], layout.shape[0]
        if offset % length or not 0 <= offset < n_slots:
            raise ValueError(f"{path}: offset is {offset}; expected a multiple of {length} from 0 to {n_slots - 1}")
        if values is not None:
            _check(values, path, most=min(length, n_slots - offset), layout=layout)
        name = f"{path}/{_key(snapshot, offset // length, layout)}"
        return Shard(name, self._storage.folder / name, values, layout, self._storage)

    def checksums(
        self, path: str, *, snapshot: int, index: npt.NDArray[np.int64], layout: ShardLayout
    ) -> dict[str, str]:
        """Return the checksums of a layer's shards by their keys; those that are blank have no file, and no entry.

        Raises
        ------
        StoreError
            Where another shard has no file either, though there are samples in its slots.
        """
        found = {}
        for number, first in enumerate(range(0, layout.shape[0], layout.shard[0])):
            key = _key(snapshot, number, layout)
            name = f"{path}/{key}"
            checksums = self._written.get(name)
            if checksums is not None and self._storage.has(name):
                found[key] = checksums
                continue
            blank = name in self._written or (index[first : first + layout.shard[0]] < 0).all()
            if checksums is not None or not blank:
                raise StoreError(f"{name} was not written, or is gone; the snapshot is not whole")
            self._storage.remove([name])  # of a write that failed
        return found


def _key(snapshot: int, number: int, layout: ShardLayout) -> str:
    return chunk_key(snapshot, number, *(0 for _ in layout.shape[1:]))


def _check(values: npt.NDArray[Any], path: str, *, most: int, layout: ShardLayout) -> None:
    if not 0 < len(values) <= most or values.shape[1:] != layout.shape[1:]:
        raise ValueError(f"{path}: received {values.shape}; expected (1 to {most}, *{layout.shape[1:]}) for this shard")
    if values.dtype.newbyteorder("=") != np.dtype(layout.dtype):
        raise ValueError(f"{path}: received feature maps of dtype {values.dtype}; expected {layout.dtype}")
