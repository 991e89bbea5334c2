"""Trial writes: what shards cost and weigh, and how fast a disk or an object store takes them; nothing is left."""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from time import perf_counter, thread_time
from typing import Any
from uuid import uuid4

import numpy.typing as npt

from ..files import flush, open_bucket, put_object, remove_objects, stage
from ..format import LEVEL, LayerSpec, write_bytes, write_shard
from ._create import chunk_shape

_MOST_BYTES = 32 << 20
_LARGEST, _SMALLEST = 16 << 20, 4096
_MOST_FILES = 16


def write_trial(spec: LayerSpec, values: npt.NDArray[Any], *, folder: Path) -> tuple[int, float]:
    """Write one batch of a layer's activations as a run would hold it, and remove it.

    Parameters
    ----------
    spec : LayerSpec
        The layer.
    values : ndarray of shape (n_samples, *spec.shape)
        In its dtype; one shard.
    folder : Path
        Where to write.

    Returns
    -------
    nbytes : int
        Size of the file.
    processor_seconds : float
        What this thread spent on compression, checksums, and handing the bytes to the system; not its waiting for the
        disk.
    """
    path = folder / "trial"
    chunks = chunk_shape(spec, "activation", shard_samples=len(values))
    start = thread_time()
    try:
        write_shard(path, values, chunks=chunks, shard=values.shape, level=LEVEL)
        return path.stat().st_size, thread_time() - start
    finally:
        path.unlink(missing_ok=True)


def upload_rate(url: str, *, file_bytes: int, n_threads: int) -> float:
    """Return how many bytes a second an object store takes, put as shards are; what was put is removed.

    Parameters
    ----------
    url : str
        Where a run would lie; the objects lie beside it.
    file_bytes : int
        Size of an object; beyond 16 MiB as 16 MiB.
    n_threads : int
        How many requests at once.

    Raises
    ------
    Unreachable
        Where it does not answer.
    """
    size = min(max(file_bytes, _SMALLEST), _LARGEST)
    bucket, data = open_bucket(url), os.urandom(size)
    keys = [f"trial-{uuid4().hex}" for _ in range(max(2, min(_MOST_FILES, _MOST_BYTES // size)))]
    try:
        with ThreadPoolExecutor(n_threads) as pool:
            start = perf_counter()
            for _ in pool.map(lambda key: put_object(bucket, key, content=data, url=url, over="anything"), keys):
                pass
            return len(keys) * size / (perf_counter() - start)
    finally:
        remove_objects(bucket, keys, url=url)


def disk_rate(folder: Path, *, file_bytes: int, n_threads: int) -> float:
    """Return how many bytes a second a folder's disk takes, flushed, written as shards are.

    Parameters
    ----------
    folder : Path
        Where to write; what is written is at most 32 MiB, and is removed, also where
        writing fails.
    file_bytes : int
        Size of a file; beyond 16 MiB as 16 MiB.
    n_threads : int
        How many write at once.

    Raises
    ------
    OSError
        Where nothing can be written there.
    """
    size = min(max(file_bytes, _SMALLEST), _LARGEST)
    count = max(2, min(_MOST_FILES, _MOST_BYTES // size))
    data = os.urandom(size)  # does not compress, should the disk try to
    with stage(folder / "trial") as made:
        paths = [made / str(number) for number in range(count)]
        with ThreadPoolExecutor(n_threads) as pool:
            start = perf_counter()
            for _ in pool.map(lambda path: write_bytes(path, data), paths):
                pass
            flush(paths)
            return count * size / (perf_counter() - start)
