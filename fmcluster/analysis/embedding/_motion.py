"""Motion of rows in an embedding: as far, in proportion, as their vectors move, in a direction that means something."""

from collections.abc import Sequence

import numpy as np

from .._results import Array
from ._neighbors import LAGS, Neighborhood

N_NEIGHBORS = 30
# Of the squared bandwidth that has the perplexity asked for: with all of it, rows that changed their neighbors count as
# hardly moved where most distances are about equal, as in many dimensions.
DRIFT = 0.5
# Of a run's spread: a step below that is rounding of whoever computed the vectors.
NO_STEP = 1e-6
# Rows at a time, whose neighbors' vectors are held: 100 MB with 50 features.
BLOCK = 8192
_NOWHERE = 1e-9  # two positions closer than this say nothing of a direction


class Paths:
    """What pulls the path of each row through an embedding towards the lengths of its true path.

    For snapshots 1, 2, 4 and 8 apart, the distance between a row's two positions should be proportional to that
    between its two vectors. The scale is that of the embedding: of each pair of snapshots, the mean distance stays
    as it is, so that snapshots with a huge step cannot swallow the others. Steps alone would leave it open whether a
    row goes somewhere or wavers; with the longer distances, a straight path is straight and a return is a return.

    Parameters
    ----------
    values : ndarray of shape (n_snapshots, n_rows, n_features)
        The vectors.
    lengths : {"pair", "run"}
        With "run" all distances have one scale, the ratio of their sums, so that also the steps of one row at two times
        are in proportion; the snapshots of large steps then decide over the scale of the others.
    """

    def __init__(self, values: Array, *, lengths: str = "pair") -> None:
        lags = [lag for lag in LAGS if lag < len(values)]
        self.lengths = [(lag, np.linalg.norm(values[lag:] - values[:-lag], axis=2)) for lag in lags]
        self.one_scale = lengths == "run"
        self._totals = [true.sum(axis=1) for _, true in self.lengths]

    def pull(self, positions: Array) -> Array:
        """Return the gradient of the stress: half the squared error of all distances, mean over the pairs of lags.

        Parameters
        ----------
        positions : ndarray of shape (n_snapshots, n_rows, 2)
            An embedding.

        Returns
        -------
        ndarray of shape (n_snapshots, n_rows, 2)
            What to subtract, times a weight below 1/2.
        """
        gradient = np.zeros_like(positions)
        steps = [positions[lag:] - positions[:-lag] for lag, _ in self.lengths]
        drawn = [np.maximum(np.sqrt(step[:, :, 0] ** 2 + step[:, :, 1] ** 2), _NOWHERE) for step in steps]
        sums = [length.sum(axis=1) for length in drawn]
        if self.one_scale:
            total = sum(each.sum() for each in self._totals)
            common = sum(each.sum() for each in sums) / total if total > 0 else 0.0
            scales = [np.full_like(each, common) for each in sums]
        else:
            scales = [_ratio(each, total) for each, total in zip(sums, self._totals, strict=True)]
        for (lag, true), step, length, scale in zip(self.lengths, steps, drawn, scales, strict=True):
            pull = (1 - scale[:, None] * true / length)[:, :, None] * step / len(self.lengths)
            gradient[lag:] += pull
            gradient[:-lag] -= pull
        return gradient


def _ratio(drawn: Array, true: Array) -> Array:
    return np.divide(drawn, true, out=np.zeros_like(true), where=true > 0)


class Stays:
    """Which rows do not move from a snapshot to the next, and have one position in both.

    Channels that are dead, and layers that are frozen, do not move while their neighbors do, and a layout by neighbors
    would draw them moving.

    Parameters
    ----------
    values : ndarray of shape (n_snapshots, n_rows, n_features)
        The vectors. Steps below a millionth of their spread are none.
    """

    def __init__(self, values: Array) -> None:
        spread = np.sqrt(((values - values.mean(axis=(0, 1))) ** 2).sum(axis=2).mean())
        moves = np.linalg.norm(np.diff(values, axis=0), axis=2) > NO_STEP * spread
        self.any = not bool(moves.all())
        groups = np.zeros(values.shape[:2], np.int64)
        groups[1:] = np.cumsum(moves, axis=0)
        self._groups = (groups + np.arange(values.shape[1]) * len(values)).ravel()
        self._counts = np.bincount(self._groups)

    def average(self, positions: Array) -> Array:
        """Return positions, or gradients, averaged over the snapshots in which a row stays where it is.

        Parameters
        ----------
        positions : ndarray of shape (n_snapshots, n_rows, 2)

        Returns
        -------
        ndarray of shape (n_snapshots, n_rows, 2)
        """
        if not self.any:
            return positions
        out = np.empty_like(positions)
        for axis in range(positions.shape[2]):
            sums = np.bincount(self._groups, weights=positions[:, :, axis].ravel())
            out[:, :, axis] = (sums[self._groups] / self._counts[self._groups]).reshape(positions.shape[:2])
        return out


def draw_drift(values: Array, positions: Array, *, neighborhoods: Sequence[Neighborhood]) -> Array:
    """Let rows move in an embedding as they truly move, where they move less than their neighbors are away.

    A layout by neighbors knows nothing of a movement that changes no neighbors: it puts the snapshots of such a row
    into one clump, in no order. Here each row's snapshots are averaged, weighted by a Gaussian of their distance to the
    one at hand, at half of the row's own squared bandwidth, both in the vectors and in the embedding; the row is put at
    that average in the plane, moved by what it truly is away from the average, through the linear map that best takes
    its neighbors' vectors to their positions (a ridge regression). A row that moved farther averages over itself alone,
    and stays where the layout put it.

    Parameters
    ----------
    values : ndarray of shape (n_snapshots, n_rows, n_features)
        The vectors.
    positions : ndarray of shape (n_snapshots, n_rows, 2)
        A layout.
    neighborhoods : sequence of Neighborhood
        Of each snapshot.

    Returns
    -------
    ndarray of shape (n_snapshots, n_rows, 2)
        New positions.
    """
    out = np.empty_like(positions)
    for now, index in enumerate(neighborhoods):
        mean, middle = _smooth(values, positions, now, index.precision / DRIFT)
        near = index.near[:, :N_NEIGHBORS]
        if near.shape[1] == 0:
            out[now] = positions[now]
            continue
        for start in range(0, len(near), BLOCK):
            rows = slice(start, start + BLOCK)
            vectors = mean[near[rows]] - mean[rows, None]
            offsets = middle[near[rows]] - middle[rows, None]
            products = vectors @ vectors.transpose(0, 2, 1)
            ridge = np.trace(products, axis1=1, axis2=2) / near.shape[1]
            ridge[ridge == 0] = 1
            weights = np.linalg.solve(products + ridge[:, None, None] * np.eye(near.shape[1]), offsets)
            along = np.einsum("nd,nkd->nk", values[now, rows] - mean[rows], vectors)
            out[now, rows] = middle[rows] + np.einsum("nk,nke->ne", along, weights)
    return out


def _smooth(values: Array, positions: Array, now: int, precision: Array) -> tuple[Array, Array]:
    """Average each row's snapshots, as seen from one of them: its vectors, and its positions."""
    squares = np.stack([((other - values[now]) ** 2).sum(axis=1) for other in values])
    weights = np.exp(-precision * squares)
    weights /= weights.sum(axis=0)
    return np.einsum("tn,tnd->nd", weights, values), np.einsum("tn,tne->ne", weights, positions)
