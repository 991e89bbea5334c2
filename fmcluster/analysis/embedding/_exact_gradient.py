"""Exact gradient of t-SNE's loss, over all pairs of rows: sooner than an approximation of up to some thousand."""

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import sparse

from ...vectors import compiled
from .._results import Array

Single = npt.NDArray[np.float32]

_TINY = 1e-300


def attract(positions: Array, affinities: sparse.csr_matrix) -> Array:
    """Return the part of t-SNE's gradient that affinities make, which pulls: ndarray of shape (n_rows, 2), float64."""
    x, y = np.ascontiguousarray(positions.T)
    toward = np.empty((2, len(x)))
    _attract(affinities.indptr, affinities.indices, affinities.data, x, y, toward[0], toward[1])
    return np.asarray(4 * toward.T)


def exact_gradient(positions: Array, affinities: sparse.csr_matrix, *, error: bool) -> tuple[float, Array]:
    """Return t-SNE's divergence (0 where no `error` is asked for) and its gradient.

    Parameters
    ----------
    positions : ndarray of shape (n_rows, 2), float64
        Where the rows are.
    affinities : csr_matrix of shape (n_rows, n_rows)
        Symmetric.
    error : bool
        Whether the divergence is wanted.

    References
    ----------
    L. van der Maaten and G. Hinton, "Visualizing Data using t-SNE", JMLR 9, 2008, equation 5.
    """
    x, y = np.ascontiguousarray(positions.T)
    # half the time of float64, and an error of a millionth: an approximation's is a hundredth
    short_x, short_y = x.astype(np.float32), y.astype(np.float32)
    away, toward = np.zeros((2, len(x)), np.float32), np.empty((2, len(x)))
    total = _repel(short_x, short_y, away[0], away[1])
    _attract(affinities.indptr, affinities.indices, affinities.data, x, y, toward[0], toward[1])
    gradient: Array = 4 * (toward - away / max(total, _TINY)).T
    if not error:
        return 0.0, gradient
    pairs = affinities.tocoo()
    squares = (x[pairs.row] - x[pairs.col]) ** 2 + (y[pairs.row] - y[pairs.col]) ** 2
    known = pairs.data > 0
    shares = pairs.data[known]
    values = shares * (np.log(shares) + np.log1p(squares[known]) + np.log(max(total, _TINY)))
    return float(values.sum()), gradient


# the check of Python's error model for divisions by zero, of which there are none, keeps loops from being vectorized
@compiled(fastmath=True, error_model="numpy")
def _repel(x: Single, y: Single, along_x: Single, along_y: Single) -> Any:  # pragma: no cover  (compiled)
    """Add up over all others what pushes each row away, not yet divided by the sum of all similarities: returned."""
    total, one = 0.0, np.float32(1)
    for i in range(len(x)):
        to_x, to_y, here = np.float32(0), np.float32(0), np.float32(0)
        for j in range(i):
            dx, dy = x[i] - x[j], y[i] - y[j]
            similarity = one / (one + dx * dx + dy * dy)
            here += similarity
            push_x, push_y = similarity * similarity * dx, similarity * similarity * dy
            to_x += push_x
            to_y += push_y
            along_x[j] -= push_x
            along_y[j] -= push_y
        along_x[i] += to_x
        along_y[i] += to_y
        total += float(here)
    return 2 * total


@compiled(fastmath=True, error_model="numpy")
def _attract(
    ends: npt.NDArray[np.int32],
    columns: npt.NDArray[np.int32],
    shares: Array,
    x: Array,
    y: Array,
    along_x: Array,
    along_y: Array,
) -> None:  # pragma: no cover  (compiled)
    """Sum up over the neighbors what pulls each row."""
    for i in range(len(x)):
        to_x, to_y = 0.0, 0.0
        for at in range(ends[i], ends[i + 1]):
            dx, dy = x[i] - x[columns[at]], y[i] - y[columns[at]]
            pull = shares[at] / (1.0 + dx * dx + dy * dy)
            to_x += pull * dx
            to_y += pull * dy
        along_x[i], along_y[i] = to_x, to_y
