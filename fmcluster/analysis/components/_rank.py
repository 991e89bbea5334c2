"""Effective rank: how many directions a layer truly uses, and how many channels hold most of the energy."""

import numpy as np
from scipy.linalg import eigvalsh

from .._results import Array


def effective_rank(covariance: Array, *, rows: Array | None = None) -> float:
    """Return the exponential of the entropy of a covariance matrix's normalized eigenvalues.

    It is the number of channels where these are uncorrelated and of equal variance, 1 where all are multiples of one,
    and 0 where nothing varies.

    Parameters
    ----------
    covariance : ndarray of shape (n_channels, n_channels)
        Covariances, or centered inner products: the scale does not matter.
    rows : ndarray of shape (n_channels, n_features), optional
        The centered responses whose products these are. Where they are fewer than channels, the products of the
        features are taken instead, which have the same eigenvalues but for zeros.

    References
    ----------
    O. Roy, M. Vetterli, The effective rank: a measure of effective dimensionality, EUSIPCO 2007. There the singular
    values of a matrix are normalized, of which this one, as positive semidefinite, has its eigenvalues.

    Examples
    --------
    >>> effective_rank(np.eye(4)), effective_rank(np.ones((4, 4))), effective_rank(np.zeros((4, 4)))
    (4.0, 1.0, 0.0)
    """
    eigenvalues = eigvalsh(_smaller(covariance, rows), check_finite=False)
    eigenvalues = eigenvalues[eigenvalues > len(covariance) * np.finfo(float).eps * eigenvalues[-1]]
    if not len(eigenvalues):
        return 0.0
    share = eigenvalues / eigenvalues.sum()
    return round(float(np.exp(-(share * np.log(share)).sum())), 12)


def energy_width(covariance: Array, *, energy: float, rows: Array | None = None) -> int:
    """Return how many eigenvalues of the channels' correlation matrix hold a share of their sum, the largest first.

    Parameters
    ----------
    covariance : ndarray of shape (n_channels, n_channels)
        Covariances, or centered inner products, of channels that vary.
    energy : float
        The share, 0 to 1.
    rows : ndarray of shape (n_channels, n_features), optional
        As of `effective_rank`.

    References
    ----------
    X. Suau, L. Zappella, N. Apostoloff, Filter distillation for network compression, WACV 2020 (PFA-En). There
    responses are maxima over an image's positions; here, of all positions.

    Examples
    --------
    >>> energy_width(np.diag([4.0, 1.0, 9.0, 1.0]), energy=0.7), energy_width(np.ones((4, 4)), energy=0.9)
    (3, 1)
    """
    if not len(covariance):
        return 0
    scale = np.sqrt(np.diag(covariance))
    correlation = _smaller(covariance / scale[:, None] / scale, None if rows is None else rows / scale[:, None])
    eigenvalues = np.maximum(eigvalsh(correlation, check_finite=False)[::-1], 0)
    share = np.cumsum(eigenvalues) / eigenvalues.sum()
    return int(np.searchsorted(share, energy - len(share) * np.finfo(float).eps) + 1)


def _smaller(products: Array, rows: Array | None) -> Array:
    """Return the products of rows, or of their features where these are fewer."""
    return products if rows is None or rows.shape[1] >= len(products) else np.asarray(rows.T @ rows)
