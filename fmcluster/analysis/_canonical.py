"""Canonical correlations from sums of products: what the metrics on arrays and those on runs share."""

import numpy as np
from scipy.linalg import eigh

from ._results import Array

_RANK = 1e-10  # a direction with less than this share of the largest variance is rounding


def canonical(
    xx: Array, yy: Array, *, xy: Array, n_points: int, n_directions: int | None, variance: float
) -> tuple[Array, Array]:
    """Return canonical correlations from centered products, and the weights of `x` on them (Morcos et al. 2018).

    Parameters
    ----------
    xx, yy, xy : ndarray of shape (n_features, n_features), float64
        Inner products of the centered features of x, of y, and of x with y.
    n_points : int
        Over how many points they were summed.
    n_directions : int or None
        Directions kept of each.
    variance : float
        Share of the variance that is kept where `n_directions` is None.

    Raises
    ------
    ValueError
        Where the directions of both are more than centered points have: then they share some, whatever they are.
    """
    if n_directions is not None and n_directions < 1:
        raise ValueError(f"n_directions is {n_directions}; expected at least 1")
    if not 0 < variance <= 1:
        raise ValueError(f"variance is {variance}; expected a share, above 0 and up to 1")
    white = [_whiten(each, n_directions, variance) for each in (xx, yy)]
    counts = [each.shape[1] for each in white]
    forced = sum(counts) - (n_points - 1)  # centered, the points have one direction fewer
    if forced > 0 and min(counts) > 0:
        raise ValueError(
            f"of canonical correlations of {n_points} points on {counts[0]} and {counts[1]} directions, at least "
            f"{min(forced, *counts)} of {min(counts)} are 1 whatever the points are; take more samples, or fewer "
            f"directions (n_directions={max((n_points - 1) // 2, 1)} at most)"
        )
    if min(counts) == 0:
        return np.empty(0), np.empty(0)
    turned, found, _ = np.linalg.svd(white[0].T @ xy @ white[1], full_matrices=False)
    weights = np.abs(turned.T @ white[0].T @ xx).sum(axis=1)
    return np.clip(found, 0, 1), weights


def weighted(correlations: Array, weights: Array) -> float:
    """Return the weighted mean; NaN of nothing."""
    return float(correlations @ weights / weights.sum()) if len(correlations) else float("nan")


def _whiten(products: Array, n_directions: int | None, variance: float) -> Array:
    """Return what turns features into directions of unit length, ndarray of shape (n_features, n_directions)."""
    values, axes = eigh(products)
    values, axes = values[::-1], axes[:, ::-1]
    known = int((values > _RANK * max(values[0], 0)).sum()) if values[0] > 0 else 0
    if n_directions is not None:
        known = min(known, n_directions)
    elif known and variance < 1:
        share = np.cumsum(values[:known]) / values[:known].sum()
        known = min(known, int(np.searchsorted(share, variance)) + 1)
    whitened: Array = axes[:, :known] / np.sqrt(values[:known])
    return whitened
