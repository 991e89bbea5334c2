"""Reading everything, to know that it can be read."""

import json
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path

from ..errors import StoreError
from ._arrays import StoredArray, chunk_keys, shard_shape
from ._run import Run


def verify(run: Run, *, progress: Callable[[int, int], None] | None = None) -> list[str]:
    """Decode every chunk of a run, and compare it with what was committed; the nodes' own metadata, too.

    Parameters
    ----------
    run : Run
        The run.
    progress : callable, optional
        Called with the number of pieces done and the number of all, after each.

    Returns
    -------
    list of str
        One line per damaged part; empty where the run is whole.
    """
    arrays = [run.stored(path) for path in run.array_paths]
    boxes = [(array, box) for array in arrays for box in _boxes(array)]
    damage = _misleading(run) if run.is_local else []
    for done, (array, box) in enumerate(boxes, start=1):
        try:
            array.read(*box)
        except StoreError as error:
            damage.append(str(error).replace(" `fmcluster verify` lists all damage.", ""))
        if progress is not None:
            progress(done, len(boxes))
    return list(dict.fromkeys(damage))  # a snapshot without its checksums is one line, not one for each of its files


def _misleading(run: Run) -> list[str]:
    """Return a line for each node whose own metadata, which other programs may read, is not what was committed."""
    damage = []
    for path, node in run.nodes.items():
        file = Path(run.path) / path / "zarr.json"
        try:
            found = json.loads(file.read_bytes())
            if node.get("dimension_names", [""])[0] == "snapshot" and found["shape"][0] <= node["shape"][0]:
                found["shape"][0] = node["shape"][0]  # a writer that was interrupted left it behind
        except (OSError, ValueError, LookupError, TypeError, RecursionError):
            found = None
        if found != node:
            damage.append(f"{run.path} is damaged: {path}/zarr.json is not what was committed.")
    return damage


def missing_files(run: Run) -> list[str]:
    """Return the run's files that were committed and are not there; nothing is decoded."""
    lost = []
    for array in map(run.stored, run.array_paths):
        for key in chunk_keys(array.array):
            try:
                array.check_present(key)
            except StoreError:
                lost.append(f"{array.array.path}/{key}")
    return lost


def _boxes(array: StoredArray) -> Iterator[tuple[slice, ...]]:
    steps = shard_shape(array.array)
    ranges = [range(0, n, step) for n, step in zip(array.shape, steps, strict=True)]
    for corner in product(*ranges):
        yield tuple(slice(at, min(at + step, n)) for at, step, n in zip(corner, steps, array.shape, strict=True))
