"""Neighbors of rows: within a snapshot, with their distances and scale, and in the snapshots around it."""

from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt
from sklearn.neighbors import NearestNeighbors

from .._parallel import run_each
from .._results import Array

# How many snapshots apart those are that an embedding of all of them ties together. With distances doubling, the last
# snapshot is few ties away from the first, and the number of ties grows with that of snapshots, not with its square.
LAGS = (1, 2, 4, 8)
_ROWS = 512  # whose distances are held at a time
_FEW_ROWS = 1024  # all of which are compared in no time
_CLOSE = 12  # neighbors that are compared sooner than all rows
_ROUNDING = 1 + 1e-9


@dataclass(frozen=True, eq=False)
class Neighborhood:
    """The nearest rows of each row of a snapshot.

    Attributes
    ----------
    near : ndarray of shape (n_rows, n_neighbors), int64
        Positions of the nearest rows, nearest first.
    squares : ndarray of shape (n_rows, n_neighbors), float64
        Squared distances to them.
    precision : ndarray of shape (n_rows,), float64
        One over the squared bandwidth at which a Gaussian has the perplexity asked for.
    """

    near: npt.NDArray[np.int64]
    squares: Array
    precision: Array


@dataclass(frozen=True, eq=False)
class Links:
    """The nearest row of each row in other snapshots, `LAGS` before and after its own.

    Rows are counted through all snapshots.

    Attributes
    ----------
    rows, columns : ndarray of shape (n_links,), int64
        A row, and its nearest in another snapshot.
    distances : ndarray of shape (n_links,), float64
        How far apart they are.
    """

    rows: npt.NDArray[np.int64]
    columns: npt.NDArray[np.int64]
    distances: Array


def find_neighborhood(values: Array, *, perplexity: float) -> Neighborhood:
    """Find the neighbors of rows, and the bandwidth of each.

    Parameters
    ----------
    values : ndarray of shape (n_rows, n_features)
        Rows of one snapshot.
    perplexity : float
        How many neighbors a row effectively has; three times as many are looked at.
    """
    count = min(len(values) - 1, int(3 * perplexity))
    if count < 1:
        nobody = np.empty((len(values), 0))
        return Neighborhood(nobody.astype(np.int64), nobody, np.zeros(len(values)))
    near = nearest_rows(values, values, count=count, others=True)
    squares = squares_to(values, values, near=near)
    order = np.argsort(squares, axis=1, kind="stable")  # products of matrices round
    near, squares = np.take_along_axis(near, order, axis=1), np.take_along_axis(squares, order, axis=1)
    wanted = min(perplexity, count / 3 + 2 / 3)  # with few neighbors, a third of them, and one at least
    return Neighborhood(near, squares, find_precisions(squares, perplexity=wanted))


def nearest_rows(rows: Array, among: Array, *, count: int, others: bool = False) -> npt.NDArray[np.int64]:
    """Find the nearest of some rows to each of others, by products of matrices: in many dimensions sooner than a tree.

    Parameters
    ----------
    rows : ndarray of shape (n_rows, n_features)
        Whose neighbors.
    among : ndarray of shape (n_others, n_features)
        Of what.
    count : int
        How many.
    others : bool
        Whether both are the same rows, of which none is its own neighbor.

    Returns
    -------
    ndarray of shape (n_rows, count), int64
        The nearest first.
    """
    middle = among.mean(axis=0)  # products of matrices, of which distances are made, round where rows lie far from zero
    finder = NearestNeighbors(n_neighbors=count, algorithm="brute").fit(among - middle)
    near: npt.NDArray[np.int64] = finder.kneighbors(None if others else rows - middle, return_distance=False)
    return near


def squares_to(rows: Array, among: Array, *, near: npt.NDArray[np.int64]) -> Array:
    """Return the squared distances from rows to their neighbors, ndarray of the shape of `near`."""
    out = np.empty(near.shape)
    for start in range(0, len(rows), _ROWS):
        here = slice(start, start + _ROWS)
        apart = among[near[here]] - rows[here, None]
        out[here] = np.einsum("ijk,ijk->ij", apart, apart)
    return out


def find_links(values: Array, *, neighborhoods: Sequence[Neighborhood], executor: Executor | None = None) -> Links:
    """Find the nearest row of each row in the snapshots that lie `LAGS` before and after its own.

    Parameters
    ----------
    values : ndarray of shape (n_snapshots, n_rows, n_features)
        Rows of all snapshots.
    neighborhoods : sequence of Neighborhood
        Of each snapshot.
    executor : concurrent.futures.Executor, optional
        Where the snapshots are searched.
    """
    found = list(run_each(partial(_links_of, values, neighborhoods), range(len(values)), executor=executor))
    rows, columns, distances = (np.concatenate(parts) for parts in zip(*found, strict=True))
    return Links(rows, columns, distances)


def _links_of(
    values: Array, neighborhoods: Sequence[Neighborhood], now: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], Array]:
    """Return the links of a snapshot's rows: from, to, and how far apart."""
    n_snapshots, n_rows = values.shape[:2]
    rows, columns, distances = [np.empty(0, np.int64)], [np.empty(0, np.int64)], [np.empty(0)]
    for other in (now + sign * lag for lag in LAGS for sign in (-1, 1)):
        if 0 <= other < n_snapshots:
            near = _nearest_of_moved(values[now], values[other], around=neighborhoods[other])[:, None]
            rows.append(now * n_rows + np.arange(n_rows))
            columns.append(other * n_rows + near[:, 0])
            distances.append(np.sqrt(squares_to(values[now], values[other], near=near))[:, 0])
    return np.concatenate(rows), np.concatenate(columns), np.concatenate(distances)


def _nearest_of_moved(rows: Array, among: Array, *, around: Neighborhood) -> npt.NDArray[np.int64]:
    """Find the nearest of `among` to each row, which is one of them that has moved.

    What is nearer than a row's own other position lies within twice that distance around it (triangle inequality).
    Where only a few of its neighbors there do, these are all that is compared; of rows that moved further, and where
    there are not many rows, all.
    """
    n_rows = len(rows)
    if n_rows <= _FEW_ROWS:
        return nearest_rows(rows, among, count=1)[:, 0]
    near = np.arange(n_rows)
    reach = 4 * _ROUNDING * squares_to(rows, among, near=near[:, None])
    most_of_all = min(_CLOSE, around.near.shape[1] - 1)  # what lies beyond the last that is known, nobody knows
    within = (around.squares[:, : most_of_all + 1] <= reach).sum(axis=1)
    for least, most in ((1, min(3, most_of_all)), (4, most_of_all)):
        some = np.flatnonzero((within >= least) & (within <= most))
        if len(some):
            candidates = np.column_stack([some, around.near[some, :most]])
            nearest = squares_to(rows[some], among, near=candidates).argmin(axis=1)
            near[some] = candidates[np.arange(len(some)), nearest]
    if len(far := np.flatnonzero(within > most_of_all)):
        near[far] = nearest_rows(rows[far], among, count=1)[:, 0]
    return near


def kernel(squares: Array, precision: Array) -> Array:
    """Return Gaussian weights relative to each row's nearest neighbor, which is always 1."""
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
