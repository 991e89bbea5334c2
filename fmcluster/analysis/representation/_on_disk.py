"""Vectors on the disk: those that are too many for memory, in a file without a name that goes with the process."""

import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile, gettempdir
from typing import IO, Any, Protocol

import numpy as np
import numpy.typing as npt

from .._result_files import results_beside


class Kept(Protocol):
    """One of several vectors of a length, of which parts are taken."""

    @property
    def size(self) -> int:
        """Its length."""

    def __getitem__(self, part: slice, /) -> npt.NDArray[np.float32]:
        """Return a part of it."""

    def any(self) -> Any:
        """Whether it has a number that is not zero."""


@dataclass(frozen=True)
class OnDisk:
    """A vector of float32 in a file.

    Attributes
    ----------
    file : file object
        Where it is.
    offset : int
        Its first byte.
    size : int
        Its length.
    filled : bool
        Whether it has a number that is not zero.
    """

    file: IO[bytes]
    offset: int
    size: int
    filled: bool

    def __getitem__(self, part: slice) -> npt.NDArray[np.float32]:
        """Read a part of it."""
        start, stop, _ = part.indices(self.size)
        self.file.seek(self.offset + 4 * start)
        return np.frombuffer(self.file.read(4 * max(0, stop - start)), np.float32)

    def any(self) -> bool:
        """Whether it has a number that is not zero."""
        return self.filled


@contextmanager
def on_disk(vectors: Iterable[npt.NDArray[np.float32]], *, beside: str, nbytes: int) -> Iterator[list[Kept]]:
    """Write vectors to a file for as long as the block lasts.

    Parameters
    ----------
    vectors : iterable of ndarray of shape (n,), float32
        Each is written as soon as it is there.
    beside : str
        A run: the file lies in the folder of its results, or in the system's own where that cannot be written to.
    nbytes : int
        How much they are.

    Raises
    ------
    OSError
        Where there is not so much room.
    """
    folder = _folder(beside)
    if (free := shutil.disk_usage(folder).free) < nbytes:
        raise OSError(
            f"the inner products of all layers and snapshots take {nbytes >> 20:,} MiB, more than memory may hold, and "
            f"{folder} has {free >> 20:,} MiB free; make room there, take fewer samples, snapshots or layers, or raise "
            f"max_bytes"
        )
    with TemporaryFile(dir=folder) as file:
        kept: list[Kept] = []
        for values in vectors:
            kept.append(OnDisk(file, file.tell(), values.size, bool(values.any())))
            file.write(np.ascontiguousarray(values).data)
        file.flush()
        yield kept


def _folder(beside: str) -> Path:
    if "://" not in beside:
        results = Path(results_beside(beside))
        for folder in (results, results.parent):
            if folder.is_dir() and os.access(folder, os.W_OK):
                return folder
    return Path(gettempdir())
