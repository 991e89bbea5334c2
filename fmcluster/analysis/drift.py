"""Small movements in a map: too small for neighbours to show, and therefore drawn by a local linear map."""

from collections.abc import Sequence

import numpy as np

from .neighbourhoods import Neighbourhood
from .results import Array

N_NEIGHBORS = 30


def draw_drift(values: Array, positions: Array, *, neighbourhoods: Sequence[Neighbourhood]) -> Array:
    """Let rows move in a map as they truly move, where they move less than their neighbours are away.

    A layout by neighbours knows nothing of a movement that changes no neighbours: it puts the snapshots of such a row
    into one clump, in no order. Here each row's snapshots are averaged, weighted by a Gaussian of their distance to the
    one at hand at the row's own bandwidth, in the vectors and in the map alike; the row is put at that average in the
    map, moved by what it truly is away from the average, through the linear map that best takes its neighbours' vectors
    to their positions (a ridge regression). A row that moved farther than its bandwidth averages over itself alone, and
    stays where the layout put it.

    Parameters
    ----------
    values : ndarray of shape (n_snapshots, n_rows, n_features)
        The vectors.
    positions : ndarray of shape (n_snapshots, n_rows, 2)
        A layout.
    neighbourhoods : sequence of Neighbourhood
        Of each snapshot.

    Returns
    -------
    ndarray of shape (n_snapshots, n_rows, 2)
        New positions.
    """
    out = np.empty_like(positions)
    smooth = [_smooth(values, positions, now, place.precision) for now, place in enumerate(neighbourhoods)]
    for now, ((mean, middle), place) in enumerate(zip(smooth, neighbourhoods, strict=True)):
        near = place.near[:, :N_NEIGHBORS]
        if near.shape[1] == 0:
            out[now] = positions[now]
            continue
        vectors = mean[near] - mean[:, None]
        places = middle[near] - middle[:, None]
        products = vectors @ vectors.transpose(0, 2, 1)
        ridge = np.trace(products, axis1=1, axis2=2) / near.shape[1]
        ridge[ridge == 0] = 1
        weights = np.linalg.solve(products + ridge[:, None, None] * np.eye(near.shape[1]), places)
        along = np.einsum("nd,nkd->nk", values[now] - mean, vectors)
        out[now] = middle + np.einsum("nk,nke->ne", along, weights)
    return out


def _smooth(values: Array, positions: Array, now: int, precision: Array) -> tuple[Array, Array]:
    """Average each row's snapshots, as seen from one of them: its vectors, and its positions."""
    squares = np.stack([((other - values[now]) ** 2).sum(axis=1) for other in values])
    weights = np.exp(-precision * squares)
    weights /= weights.sum(axis=0)
    return np.einsum("tn,tnd->nd", weights, values), np.einsum("tn,tne->ne", weights, positions)
