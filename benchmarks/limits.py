"""What no way to record can be faster than: the forward pass, the way to the host, the way to the disk."""

import os
from contextlib import suppress
from mmap import mmap
from pathlib import Path
from statistics import median
from time import perf_counter

import torch

_PIECE = 8 << 20
_BLOCK = 4096


def copy_seconds(nbytes: int) -> float:
    """Seconds for `nbytes` from the device to page-locked memory, at the bandwidth measured with 256 MiB."""
    size = 256 << 20
    there = torch.ones(size, dtype=torch.uint8, device="cuda")
    here = torch.empty(size, dtype=torch.uint8, pin_memory=True)
    times = []
    for _ in range(6):
        start, stop = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        here.copy_(there, non_blocking=True)
        stop.record()
        stop.synchronize()
        times.append(start.elapsed_time(stop) / 1000)
    return median(times[1:]) * nbytes / size


def disk_seconds(folder: Path, *, nbytes: int) -> float:
    """Seconds to write and flush a file of `nbytes`: the faster of through the page cache, and past it."""
    times = [_write(folder / "through.bin", nbytes, flags=0)]
    with suppress(OSError):  # not every file system can do without the page cache
        times.append(_write(folder / "past.bin", nbytes, flags=getattr(os, "O_DIRECT", 0)))
    return min(times)


def _write(path: Path, nbytes: int, *, flags: int) -> float:
    with mmap(-1, _PIECE) as pages:  # aligned, as writes past the page cache have to be
        pages[:] = os.urandom(_PIECE)
        whole = -(-nbytes // _BLOCK) * _BLOCK
        piece = memoryview(pages)
        try:
            start = perf_counter()
            handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | flags)
            try:
                written = 0
                while written < whole:
                    written += os.write(handle, piece[: min(_PIECE, whole - written)])
                os.fsync(handle)
            finally:
                os.close(handle)
            return perf_counter() - start
        finally:
            piece.release()
            path.unlink(missing_ok=True)


def limit(folder: Path, *, forward: float, stored: int, compressed: int) -> dict[str, float]:
    """Return the seconds of each, and the largest of them.

    Parameters
    ----------
    folder : Path
        Where to write.
    forward : float
        Seconds of the bare pass of the same round.
    stored, compressed : int
        Bytes that leave the device, and bytes that reach the disk.
    """
    parts = {"forward": forward, "disk": disk_seconds(folder, nbytes=compressed)}
    if torch.cuda.is_available():
        parts["copy"] = copy_seconds(stored)
    return {**parts, "limit": max(parts.values())}
