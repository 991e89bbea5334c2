"""The shards of the snapshot under way: written, left blank, or still to come."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import StoreError
from ._arrays import chunk_key
from ._shards import ShardLayout, write_shard


class ShardsUnderWay:
    """What has been written of a snapshot; several threads may write to it at once, each another shard.

    Parameters
    ----------
    run : Path
        The run's folder.
    """

    def __init__(self, run: Path) -> None:
        self._run = run
        self._written: dict[str, bool] = {}  # False: left blank

    def clear(self) -> None:
        """Begin another snapshot."""
        self._written.clear()

    def write(
        self, path: str, values: npt.NDArray[Any] | None, *, snapshot: int, offset: int, layout: ShardLayout
    ) -> None:
        """Write the shard that begins at slot `offset`, or leave it blank; see `RunWriter.write`."""
        length, n_slots = layout.shard[0], layout.shape[0]
        if offset % length or not 0 <= offset < n_slots:
            raise ValueError(f"{path}: offset is {offset}; expected a multiple of {length} from 0 to {n_slots - 1}")
        name = f"{path}/{_key(snapshot, offset // length, layout)}"
        if values is None:
            self._written.pop(name, None)
            (self._run / name).unlink(missing_ok=True)
        else:
            _check(values, path, most=min(length, n_slots - offset), layout=layout)
            self._written.pop(name, None)
            chunks, shard = (1, *layout.chunks), (1, *layout.shard)
            write_shard(self._run / name, values[None], chunks=chunks, shard=shard, level=layout.level)
        self._written[name] = values is not None

    def blank(self, path: str, *, snapshot: int, index: npt.NDArray[np.int64], layout: ShardLayout) -> list[str]:
        """Return the keys of a layer's shards that hold nothing and have no file.

        Raises
        ------
        StoreError
            Where another shard has none either, though there are samples in its slots.
        """
        blank = []
        for number, first in enumerate(range(0, layout.shape[0], layout.shard[0])):
            key = _key(snapshot, number, layout)
            file, written = self._run / path / key, self._written.get(f"{path}/{key}")
            if written and file.exists():
                continue
            if written or (written is None and (index[first : first + layout.shard[0]] >= 0).any()):
                raise StoreError(f"{path}/{key} was not written, or is gone; the snapshot is not whole")
            file.unlink(missing_ok=True)  # of a write that failed
            blank.append(key)
        return blank


def _key(snapshot: int, number: int, layout: ShardLayout) -> str:
    return chunk_key(snapshot, number, *(0 for _ in layout.shape[1:]))


def _check(values: npt.NDArray[Any], path: str, *, most: int, layout: ShardLayout) -> None:
    if not 0 < len(values) <= most or values.shape[1:] != layout.shape[1:]:
        raise ValueError(f"{path}: received {values.shape}; expected (1 to {most}, *{layout.shape[1:]}) for this shard")
    if values.dtype.newbyteorder("=") != np.dtype(layout.dtype):
        raise ValueError(f"{path}: received maps of dtype {values.dtype}; expected {layout.dtype}")
