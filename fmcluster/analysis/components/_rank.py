"""How many directions a layer truly uses."""

import numpy as np
from scipy.linalg import eigvalsh

from .._results import Array


def effective_rank(covariance: Array) -> float:
    """Return the exponential of the entropy of a covariance matrix's normalized eigenvalues.

    It is the number of channels where these are uncorrelated and of equal variance, 1 where all are multiples of one,
    and 0 where nothing varies.

    Parameters
    ----------
    covariance : ndarray of shape (n_channels, n_channels)
        Covariances, or centered inner products: the scale does not matter.

    References
    ----------
    O. Roy, M. Vetterli, The effective rank: a measure of effective dimensionality, EUSIPCO 2007. There the singular
    values of a matrix are normalized, of which this one, as positive semidefinite, has its eigenvalues.

    Examples
    --------
    >>> effective_rank(np.eye(4)), effective_rank(np.ones((4, 4))), effective_rank(np.zeros((4, 4)))
    (4.0, 1.0, 0.0)
    """
    eigenvalues = eigvalsh(covariance, check_finite=False)
    eigenvalues = eigenvalues[eigenvalues > len(covariance) * np.finfo(float).eps * eigenvalues[-1]]
    if not len(eigenvalues):
        return 0.0
    share = eigenvalues / eigenvalues.sum()
    return round(float(np.exp(-(share * np.log(share)).sum())), 12)
