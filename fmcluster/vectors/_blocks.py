"""Blocks: memory that is read into, used and freed."""

import mmap
import sys
from importlib import import_module
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

_LEAST_BYTES = 1 << 20
_WORTH_TORCH = 1 << 27  # values, of which NumPy casts about as many while torch is imported


def new_block(shape: tuple[int, ...], dtype: npt.DTypeLike = np.float32) -> npt.NDArray[Any]:
    """Return an uninitialized array; a large one in pages that go back to the system when it is freed.

    malloc keeps what threads free, up to 32 MiB apiece and for each thread: blocks that come and go would take several
    times what they hold.

    Raises
    ------
    MemoryError
        Where the system has not got as much.
    """
    nbytes = np.dtype(dtype).itemsize * prod(shape)
    if nbytes < _LEAST_BYTES or not hasattr(mmap, "MAP_ANONYMOUS"):
        return np.empty(shape, dtype)
    try:
        pages = mmap.mmap(-1, nbytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    except OSError as error:
        raise MemoryError(f"the system has no {nbytes} bytes of memory for {shape} {np.dtype(dtype)}") from error
    if hasattr(mmap, "MADV_HUGEPAGE"):
        pages.madvise(mmap.MADV_HUGEPAGE)
    return np.frombuffer(pages, dtype).reshape(shape)


def prepare_to_copy(of: int) -> bool:
    """Say whether so many values are copied by torch, which then is loaded: by many small parts, ask for all first."""
    if of < _WORTH_TORCH and "torch" not in sys.modules:
        return False
    import_module("torch")  # which waits where another thread is just importing it
    return True


def copy_block(values: npt.NDArray[np.floating], out: npt.NDArray[np.float32], *, of: int) -> None:
    """Copy values to float32: by torch, ten times as fast where they are float16, if it is loaded or worth loading.

    Parameters
    ----------
    values : ndarray
        A part.
    out : ndarray
        Where to, of the same shape.
    of : int
        How many values there are in all, which are often read several times.
    """
    if not prepare_to_copy(of):
        out[...] = values
        return
    torch = import_module("torch")
    source = values if values.flags.writeable else values.copy()
    torch.from_numpy(out).copy_(torch.from_numpy(source))


def adds_up(block: npt.NDArray[np.floating]) -> bool:
    """Whether a sum is finite, and so all of it is; of large values, a sum may not be. It takes no memory."""
    with np.errstate(over="ignore", invalid="ignore"):
        return bool(np.isfinite(block.sum()))
