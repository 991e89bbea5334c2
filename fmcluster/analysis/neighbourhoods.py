"""Who is near whom within a snapshot, and on what scale."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from sklearn.neighbors import NearestNeighbors

from .results import Array


@dataclass(frozen=True, eq=False)
class Neighbourhood:
    """The nearest rows of each row of a snapshot.

    Attributes
    ----------
    finder : NearestNeighbors
        Fitted on the snapshot.
    near : ndarray of shape (n_rows, n_neighbors), int64
        Positions of the nearest rows, nearest first.
    squares : ndarray of shape (n_rows, n_neighbors), float64
        Squared distances to them.
    precision : ndarray of shape (n_rows,), float64
        One over the squared bandwidth at which a Gaussian has the perplexity asked for.
    """

    finder: NearestNeighbors
    near: npt.NDArray[np.int64]
    squares: Array
    precision: Array


def find_neighbourhood(values: Array, *, perplexity: float) -> Neighbourhood:
    """Find the neighbours of rows, and the bandwidth of each.

    Parameters
    ----------
    values : ndarray of shape (n_rows, n_features)
        Rows of one snapshot.
    perplexity : float
        How many neighbours a row effectively has; three times as many are looked at.
    """
    finder = NearestNeighbors().fit(values)
    count = min(len(values) - 1, int(3 * perplexity))
    if count < 1:
        nobody = np.empty((len(values), 0))
        return Neighbourhood(finder, nobody.astype(np.int64), nobody, np.zeros(len(values)))
    distances, near = finder.kneighbors(n_neighbors=count)
    squares = distances**2
    wanted = min(perplexity, count / 3 + 2 / 3)  # with few neighbours, a third of them, and one at least
    return Neighbourhood(finder, near, squares, find_precisions(squares, perplexity=wanted))


def kernel(squares: Array, precision: Array) -> Array:
    """Return Gaussian weights relative to each row's nearest neighbour, which is always 1."""
    weights: Array = np.exp(-precision[:, None] * (squares - squares[:, :1]))
    return weights


def find_precisions(squares: Array, *, perplexity: float) -> Array:
    """Find each row's precision, by bisection, so that its weights have the perplexity asked for.

    Parameters
    ----------
    squares : ndarray of shape (n_rows, n_neighbors)
        Squared distances, ascending.
    """
    tiny = np.finfo(float).tiny
    scale = squares.mean(axis=1)
    scale[scale == 0] = 1
    low, high = np.full(len(squares), -40.0), np.full(len(squares), 60.0)
    for _ in range(50):
        middle = (low + high) / 2
        weights = kernel(squares, np.exp2(middle) / scale)
        share = weights / weights.sum(axis=1, keepdims=True)
        entropy = -(share * np.log(np.maximum(share, tiny))).sum(axis=1)
        wide = entropy > np.log(perplexity)
        low, high = np.where(wide, middle, low), np.where(wide, high, middle)
    return np.asarray(np.exp2((low + high) / 2) / scale)
