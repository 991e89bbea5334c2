"""Products of all pairs of vectors of unit length: here, or on the workers of a cluster that have made them."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from .._parallel import OnCluster, in_one_thread
from .._results import Array
from ._on_disk import Kept

_MOST_TASKS = 4096  # that cut vectors: the scheduler takes about a second for them

Vector = npt.NDArray[np.float32]


def all_pairs(rows: Sequence[Kept], columns: Sequence[Kept]) -> Array:
    """Return the products of all pairs of vectors of unit length, summed in float64; NaN of those that are zero."""
    values = np.zeros((len(rows), len(columns)))
    size = rows[0].size
    step = _step(size, len(rows) + len(columns))
    with in_one_thread():  # with more, sums round otherwise, and a cluster's workers have one each
        for start in range(0, size, step):
            part = np.stack([each[start : start + step] for each in rows], dtype=np.float64)
            other = part if columns is rows else np.stack([each[start : start + step] for each in columns])
            values += part @ other.T
    filled = [each.any() for each in rows]
    return without_constants(
        values, rows=filled, columns=filled if columns is rows else [each.any() for each in columns]
    )


def all_pairs_on_cluster(
    kept: OnCluster, vectors_of: Callable[[Any], Sequence[Vector]], *, n_rows: int | None = None
) -> Array:
    """Return what `all_pairs` returns, bit for bit, of vectors that lie on the workers of a Dask cluster.

    Each worker multiplies its share of the numbers of all vectors, which it is sent by the workers that have them; the
    total, of all pairs, goes from one worker to the next.

    Parameters
    ----------
    kept : OnCluster
        What holds the vectors.
    vectors_of : callable
        Returns those of one of them; at the top level of a module, or from `operator`.
    n_rows : int, optional
        How many of the vectors are rows, the others being columns; by default all are both.
    """
    about = [one for some in kept.each(partial(_describe, vectors_of)) for one in some]
    size, filled = about[0][0], [some for _, some in about]
    step = _step(size, 2 * len(about) if n_rows is None else len(about))
    n_steps = -(-size // step)
    n_parts = min(n_steps, len(kept.workers), max(1, _MOST_TASKS // len(kept.made)))
    ends = [*(step * (at * n_steps // n_parts) for at in range(n_parts)), size]
    parts = [slice(*ends[at : at + 2]) for at in range(n_parts)]
    values = kept.add_up(parts, cut=partial(_cut, vectors_of), add=partial(_add_products, step, n_rows))
    return without_constants(values, rows=filled[:n_rows], columns=filled[n_rows or 0 :])


def without_constants(values: Array, *, rows: Sequence[bool | np.bool], columns: Sequence[bool | np.bool]) -> Array:
    """Put NaN into `values` for vectors that are zero: those of which `rows` and `columns` are not true."""
    np.minimum(values, 1, out=values)  # more is rounding
    values[~np.asarray(rows, bool)] = np.nan
    values[:, ~np.asarray(columns, bool)] = np.nan
    return values


def _step(size: int, count: int) -> int:
    """Return how many numbers of `count` vectors are multiplied at a time: in what one matrix at work took."""
    return min(1 << 16, max(1, 8 * size // count))


def _describe(vectors_of: Callable[[Any], Sequence[Vector]], made: Any) -> list[tuple[int, bool]]:
    """Return of each vector its length, and whether it has a number that is not zero."""
    return [(each.size, bool(each.any())) for each in vectors_of(made)]


def _cut(vectors_of: Callable[[Any], Sequence[Vector]], made: Any, part: slice) -> Vector:
    return np.stack([each[part] for each in vectors_of(made)])


def _add_products(step: int, n_rows: int | None, total: Array, pieces: list[Vector]) -> Array:
    vectors = np.concatenate(pieces)
    for start in range(0, vectors.shape[1], step):
        part = vectors[:n_rows, start : start + step].astype(np.float64, order="C")
        other = part if n_rows is None else vectors[n_rows:, start : start + step].astype(np.float64, order="C")
        total = total + part @ other.T
    return total
