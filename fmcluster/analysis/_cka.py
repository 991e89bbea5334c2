"""Kernels of CKA: centered and flattened, so that products of them are alignments; for arrays and for runs."""

import warnings
from math import sqrt

import numpy as np

from ._results import Array

FEWEST_SAMPLES = 4  # of which a debiased estimate can be made


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
    """Return a Gaussian kernel of squared distances, its bandwidth a share of the median; ones where all are 0."""
    if not bandwidth > 0:
        raise ValueError(f"bandwidth is {bandwidth}; expected a positive share of the median distance")
    median = np.median(np.sqrt(squares[np.triu_indices(len(squares), 1)]))
    if median == 0:
        return np.ones_like(squares)
    kernel: Array = np.exp(-squares / (2 * (bandwidth * median) ** 2))
    return kernel


def center_kernel(kernel: Array, *, debiased: bool) -> Array:
    """Return a kernel centered over its rows and columns: ndarray of shape (n_samples, n_samples), float64.

    The debiased one is U-centered: without its diagonal, which is 0, so that its products are unbiased (Song et al.
    2012; G. J. Székely and M. L. Rizzo, "Partial Distance Correlation with Methods for Dissimilarities", Annals of
    Statistics 42, 2014). The center of a sum is the sum of the centers.
    """
    n = len(kernel)
    rows = kernel.sum(axis=1) - (np.diag(kernel) if debiased else 0)
    lost = (n - 2, (n - 1) * (n - 2)) if debiased else (n, n * n)
    centered: Array = kernel - rows[:, None] / lost[0]
    centered -= rows / lost[0]
    centered += rows.sum() / lost[1]
    if debiased:
        np.fill_diagonal(centered, 0)
    return centered


def flatten_kernel(kernel: Array, *, debiased: bool) -> Array:
    """Return a centered kernel as a vector of unit length: products of such vectors are alignments.

    Of a constant, the vector is zero.
    """
    n = len(kernel)
    centered = center_kernel(kernel, debiased=debiased)
    upper = centered[~np.tri(n, dtype=bool)]
    upper *= np.sqrt(2)
    values = upper if debiased else np.concatenate([np.diag(centered), upper])
    norm = np.linalg.norm(values)
    return values / norm if norm > negligible(kernel) else np.zeros_like(values)


def negligible(kernel: Array) -> float:
    """Return below what the norm of a centered kernel is rounding, and the kernel a constant."""
    return 1e-10 * float(np.abs(kernel).max(initial=0)) * len(kernel)
