"""Slots of samples: where they lie in a snapshot, and what has to be read to get at them."""

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

Selection = int | slice | Sequence[int] | npt.NDArray[np.integer] | None

Numbers = npt.NDArray[np.int64]


def last_slots(index: Numbers, samples: Numbers) -> Numbers:
    """Return the last slot that holds each of the samples, -1 for those that no slot holds.

    Examples
    --------
    >>> last_slots(np.array([7, 3, -1, 7]), np.array([7, 3, 5, -1]))
    array([ 3,  1, -1, -1])
    """
    order = np.argsort(index, kind="stable")
    slots = order[np.searchsorted(index[order], samples, side="right") - 1]
    return np.where((index[slots] == samples) & (samples >= 0), slots, -1)


def boxes(slots: Numbers, *, n_slots: int, chunk: int, shard: int, widen: bool) -> Iterator[slice]:
    """Cover slots with boxes to be read one by one: no chunk is in two of them, and few are without need.

    Neighboring shards that are wanted whole are one box; otherwise a box is within a shard.

    Parameters
    ----------
    slots : ndarray of int64
        Ascending, each once.
    n_slots : int
        How many there are in the snapshot.
    chunk, shard : int
        Slots in a chunk, and in a shard.
    widen : bool
        Whether to take the whole of a shard where more than half of its chunks are wanted: decoding a whole file is
        several times faster than decoding parts of it.
    """
    whole = slice(0, 0)
    for wanted in np.split(slots, np.flatnonzero(np.diff(slots // shard)) + 1) if len(slots) else ():
        start = int(wanted[0]) // shard * shard
        stop = min(start + shard, n_slots)
        all_of_it = len(wanted) == stop - start
        if not all_of_it or whole.stop != start:
            yield from _filled(whole)
            whole = slice(start, start)
        if all_of_it:
            whole = slice(whole.start, stop)
        elif widen and 2 * chunk * len(np.unique(wanted // chunk)) > shard:
            yield slice(start, stop)
        else:
            for stretch in np.split(wanted, np.flatnonzero(np.diff(wanted // chunk) > 1) + 1):
                yield slice(int(stretch[0]), int(stretch[-1]) + 1)
    yield from _filled(whole)


def _filled(box: slice) -> Iterator[slice]:
    if box.stop > box.start:
        yield box


def ranges(numbers: Sequence[int] | Numbers) -> str:
    """Write integers as ranges.

    Examples
    --------
    >>> ranges([5, 0, 1, 2, 3])
    '0 to 3, 5'
    """
    parts: list[list[int]] = []
    for number in sorted(int(number) for number in numbers):
        if parts and number == parts[-1][-1] + 1:
            parts[-1][1:] = [number]
        else:
            parts.append([number])
    return ", ".join(" to ".join(map(str, part)) for part in parts)


def integers(selection: int | Sequence[int] | npt.NDArray[np.integer], what: str) -> npt.NDArray[np.int64]:
    """Return a selection as an array of numbers; a mask is refused, rather than taken for the numbers 0 and 1."""
    picked = np.atleast_1d(np.asarray(selection))
    if picked.ndim != 1 or (picked.size and picked.dtype.kind not in "iu"):
        raise TypeError(
            f"{what} is of dtype {picked.dtype} and shape {picked.shape}; expected integers, in one row "
            f"(of a mask: np.flatnonzero(mask), or run.samples.index[mask])"
        )
    return picked.astype(np.int64)
