"""Reading everything, to know that it can be read."""

from collections.abc import Callable, Iterator
from itertools import product

from ..errors import StoreError
from ._arrays import StoredArray, chunk_keys, shard_shape
from ._run import Run


def verify(run: Run, *, progress: Callable[[int, int], None] | None = None) -> list[str]:
    """Decode every chunk of a run, its checksum included.

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
    damage = []
    for done, (array, box) in enumerate(boxes, start=1):
        try:
            array.read(*box)
        except StoreError as error:
            damage.append(str(error).replace(" `fmcluster verify` lists all damage.", ""))
        if progress is not None:
            progress(done, len(boxes))
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
