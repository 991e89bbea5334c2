"""Metrics of similarity: two representations of the same samples compared, given as arrays.

Of an array of shape (n_samples, n_features), features may be in any order and on any basis: none of these metrics knows
them. Two representations may have different numbers of features.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.spatial.distance import pdist, squareform

from ._canonical import canonical, weighted
from ._cka import FEWEST_SAMPLES, flatten_kernel, rbf_kernel, warn_of_bias
from ._results import Array

__all__ = ["cca", "linear_cka", "procrustes", "pwcca", "rbf_cka", "svcca"]


def linear_cka(x: npt.ArrayLike, y: npt.ArrayLike, *, debiased: bool = True) -> float:
    """Return the linear centered kernel alignment of two representations.

    Parameters
    ----------
    x, y : array-like of shape (n_samples, n_features)
        The same samples in the same order.
    debiased : bool
        Whether to take the unbiased estimate, which is 0 of independent noise and may be a little below. The biased
        one tends to 1 as features outnumber samples, whatever they are.

    Returns
    -------
    float
        Up to 1, for representations that are the same but for rotation and scale. NaN where one of them is constant,
        and of a debiased estimate also where all samples are equally far from one another.

    Raises
    ------
    ValueError
        For arrays of other shapes, or not finite; for fewer than 4 samples (2 of a biased estimate).

    Warns
    -----
    UserWarning
        Of a biased estimate where features outnumber samples.

    References
    ----------
    S. Kornblith, M. Norouzi, H. Lee and G. Hinton, "Similarity of Neural Network Representations Revisited", ICML 2019.
    L. Song et al., "Feature Selection via Dependence Maximization", JMLR 13, 2012 (the unbiased estimate).

    Examples
    --------
    >>> import numpy as np
    >>> x = np.random.default_rng(0).standard_normal((50, 8))
    >>> print(f"{linear_cka(x, 3 * x[:, ::-1]):.3f}")  # neither the order of features nor scale matters
    1.000
    >>> noise = np.random.default_rng(1).standard_normal((50, 8))
    >>> print(f"{linear_cka(x, noise):.3f} {linear_cka(x, noise, debiased=False):.3f}")
    -0.006 0.127
    """
    x, y = _pair(x, y, fewest=FEWEST_SAMPLES if debiased else 2)
    if not debiased:
        warn_of_bias(len(x), (x.shape[1], y.shape[1]))
    return _align(x @ x.T, y @ y.T, debiased=debiased)


def rbf_cka(x: npt.ArrayLike, y: npt.ArrayLike, *, bandwidth: float = 0.5, debiased: bool = True) -> float:
    """Return the centered kernel alignment of two representations under Gaussian kernels.

    Parameters
    ----------
    x, y : array-like of shape (n_samples, n_features)
        The same samples in the same order.
    bandwidth : float
        Standard deviation of the kernel, as a share of the median distance between samples.
    debiased : bool
        As of `linear_cka`.

    Returns
    -------
    float

    Raises
    ------
    ValueError
        As `linear_cka`; for a bandwidth that is not positive.

    Warns
    -----
    UserWarning
        As `linear_cka`.

    References
    ----------
    Kornblith et al., ICML 2019, section 3.

    Examples
    --------
    >>> import numpy as np
    >>> x = np.random.default_rng(0).standard_normal((50, 8))
    >>> print(f"{rbf_cka(x, x + 10):.3f}")
    1.000
    """
    x, y = _pair(x, y, fewest=FEWEST_SAMPLES if debiased else 2)
    if not debiased:
        warn_of_bias(len(x), (x.shape[1], y.shape[1]))
    kernels = [rbf_kernel(squareform(pdist(each, "sqeuclidean")), bandwidth=bandwidth) for each in (x, y)]
    return _align(*kernels, debiased=debiased)


def cca(x: npt.ArrayLike, y: npt.ArrayLike, *, n_directions: int | None = None) -> Array:
    """Return the canonical correlations of two representations, largest first.

    Parameters
    ----------
    x, y : array-like of shape (n_points, n_features)
        The same points in the same order.
    n_directions : int, optional
        Of each, so many of the directions of largest variance alone; by default all.

    Returns
    -------
    ndarray of shape (n_correlations,), float64
        As many as the smaller of both has directions; none of what is constant.

    Raises
    ------
    ValueError
        For arrays of other shapes, or not finite; where points are so few that some correlations are 1 whatever they
        are: there have to be more of them than directions of both together.

    References
    ----------
    H. Hotelling, "Relations Between Two Sets of Variates", Biometrika 28, 1936.

    Examples
    --------
    >>> import numpy as np
    >>> x = np.random.default_rng(0).standard_normal((50, 2))
    >>> cca(x, x @ [[1, 2], [3, 4]]).round(6)
    array([1., 1.])
    """
    found, _ = canonical(**_products(x, y), n_directions=n_directions, variance=1.0)
    return found


def svcca(x: npt.ArrayLike, y: npt.ArrayLike, *, n_directions: int | None = None, variance: float = 0.99) -> float:
    """Return the mean canonical correlation of the directions of largest variance.

    Parameters
    ----------
    x, y : array-like of shape (n_points, n_features)
        The same points in the same order.
    n_directions : int, optional
        How many directions of each; by default as many as hold the share `variance` of its variance.

    Returns
    -------
    float
        From 0 to 1; NaN where one of them is constant.

    Raises
    ------
    ValueError
        As `cca`.

    References
    ----------
    M. Raghu, J. Gilmer, J. Yosinski and J. Sohl-Dickstein, "SVCCA", NeurIPS 2017.

    Examples
    --------
    >>> import numpy as np
    >>> x = np.random.default_rng(0).standard_normal((50, 2))
    >>> print(f"{svcca(x, x @ [[1, 2], [3, 4]]):.3f}")
    1.000
    """
    found, _ = canonical(**_products(x, y), n_directions=n_directions, variance=variance)
    return float(found.mean()) if len(found) else float("nan")


def pwcca(x: npt.ArrayLike, y: npt.ArrayLike, *, n_directions: int | None = None) -> float:
    """Return the mean of the canonical correlations, weighted by how much of `x` each of them stands for.

    Parameters
    ----------
    x, y : array-like of shape (n_points, n_features)
        The same points in the same order. The weights are those of `x`: the other way round is another number.
    n_directions : int, optional
        As of `cca`.

    Returns
    -------
    float
        From 0 to 1; NaN where one of them is constant.

    Raises
    ------
    ValueError
        As `cca`.

    References
    ----------
    A. Morcos, M. Raghu and S. Bengio, "Insights on Representational Similarity in Neural Networks with Canonical
    Correlation", NeurIPS 2018.

    Examples
    --------
    >>> import numpy as np
    >>> x = np.random.default_rng(0).standard_normal((50, 2))
    >>> print(f"{pwcca(x, x @ [[1, 2], [3, 4]]):.3f}")
    1.000
    """
    found, weights = canonical(**_products(x, y), n_directions=n_directions, variance=1.0)
    return weighted(found, weights)


def procrustes(x: npt.ArrayLike, y: npt.ArrayLike) -> float:
    """Return how well one representation, centered and of unit norm, is turned onto the other.

    Parameters
    ----------
    x, y : array-like of shape (n_samples, n_features)
        The same samples in the same order.

    Returns
    -------
    float
        1 minus half of the squared distance that the best rotation leaves: from 0 to 1; NaN where one is constant.

    Raises
    ------
    ValueError
        For arrays of other shapes, or not finite.

    References
    ----------
    F. Ding, J.-S. Denain and J. Steinhardt, "Grounding Representation Similarity Through Statistical Testing",
    NeurIPS 2021.

    Examples
    --------
    >>> import numpy as np
    >>> x = np.random.default_rng(0).standard_normal((50, 2))
    >>> turned, stretched = x @ [[0, 1], [-1, 0]], x @ [[1, 0], [0, 9]]
    >>> print(f"{procrustes(x, turned):.3f} {procrustes(x, stretched):.3f}")
    1.000 0.803
    """
    x, y = _pair(x, y, fewest=2)
    norms = np.linalg.norm(x) * np.linalg.norm(y)
    return float(np.linalg.norm(x.T @ y, "nuc") / norms) if norms > 0 else float("nan")


def _align(first: Array, second: Array, *, debiased: bool) -> float:
    a, b = flatten_kernel(first, debiased=debiased), flatten_kernel(second, debiased=debiased)
    return float(a @ b) if a.any() and b.any() else float("nan")


def _products(x: npt.ArrayLike, y: npt.ArrayLike) -> dict[str, Any]:
    x, y = _pair(x, y, fewest=2)
    return {"xx": x.T @ x, "yy": y.T @ y, "xy": x.T @ y, "n_points": len(x)}


def _pair(x: npt.ArrayLike, y: npt.ArrayLike, *, fewest: int) -> tuple[Array, Array]:
    pair = []
    for name, values in (("x", x), ("y", y)):
        array = np.asarray(values, dtype=np.float64)
        if array.ndim != 2:
            raise ValueError(f"{name} has shape {array.shape}; expected (n_samples, n_features)")
        if not np.isfinite(array).all():
            raise ValueError(f"{name} holds NaN or infinite values; leave out their rows")
        pair.append(array)
    if len(pair[0]) != len(pair[1]):
        raise ValueError(f"x has {len(pair[0])} rows and y {len(pair[1])}; expected the same samples in the same order")
    if len(pair[0]) < fewest:
        raise ValueError(f"{len(pair[0])} samples are too few; expected at least {fewest}")
    first, second = (_center(array) for array in pair)
    return first, second


def _center(array: Array) -> Array:
    """Subtract each feature's mean; of a constant, exactly zero is left."""
    constant = (array == array[0]).all(axis=0)
    centered: Array = np.where(constant, 0, array - array.mean(axis=0))
    return centered
