"""How alike two representations of the same samples are: numbers between arrays, or between what was summed of them.

Of an array of shape (n_samples, n_features), features may be in any order and on any basis: none of these metrics knows
them. Two representations may have different numbers of features.
"""

import warnings
from math import sqrt
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.linalg import eigh
from scipy.spatial.distance import pdist, squareform

from ._results import Array

FEWEST_SAMPLES = 4  # of which a debiased estimate can be made
_RANK = 1e-10  # a direction with less than this share of the largest variance is rounding


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
    """
    x, y = _pair(x, y, fewest=2)
    norms = np.linalg.norm(x) * np.linalg.norm(y)
    return float(np.linalg.norm(x.T @ y, "nuc") / norms) if norms > 0 else float("nan")


def warn_of_bias(n_samples: int, n_features: tuple[int, int]) -> None:
    """Warn where features outnumber samples, and say what the biased linear estimate of independent noise would be.

    That is the ratio of expectations, for normal noise; with Gaussian kernels it is more.
    """
    first, second = n_features
    if max(n_features) > n_samples:
        noise = sqrt(first / (first + n_samples) * second / (second + n_samples))
        warnings.warn(
            f"biased CKA of {n_samples} samples with {first} and {second} features is about {noise:.2f} or more even "
            f"of independent noise; take debiased=True",
            stacklevel=3,
        )


def rbf_kernel(squares: Array, *, bandwidth: float) -> Array:
    """Return a Gaussian kernel of squared distances, at a share of the median distance; constant of one place."""
    if not bandwidth > 0:
        raise ValueError(f"bandwidth is {bandwidth}; expected a positive share of the median distance")
    median = np.median(np.sqrt(squares[np.triu_indices(len(squares), 1)]))
    if median == 0:
        return np.ones_like(squares)
    kernel: Array = np.exp(-squares / (2 * (bandwidth * median) ** 2))
    return kernel


def flatten_kernel(kernel: Array, *, debiased: bool) -> Array:
    """Return a centered kernel as a vector of unit length: products of such vectors are alignments.

    The debiased one is U-centered: without its diagonal, so that its products are unbiased (Song et al. 2012; G. J.
    Székely and M. L. Rizzo, "Partial Distance Correlation with Methods for Dissimilarities", Annals of Statistics 42,
    2014). Of a constant, the vector is zero.
    """
    n = len(kernel)
    rows = kernel.sum(axis=1) - (np.diag(kernel) if debiased else 0)
    lost = (n - 2, (n - 1) * (n - 2)) if debiased else (n, n * n)
    centered = kernel - rows[:, None] / lost[0] - rows / lost[0] + rows.sum() / lost[1]
    upper = np.sqrt(2) * centered[np.triu_indices(n, 1)]
    values = upper if debiased else np.concatenate([np.diag(centered), upper])
    norm = np.linalg.norm(values)
    scale = np.abs(kernel).max(initial=0)
    return values / norm if norm > 1e-10 * scale * n else np.zeros_like(values)


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
