"""Least squares: channels predicted from others, which of them are needed least, and the inner part of a kernel."""

from collections.abc import Sequence

import numpy as np
import torch
from scipy.linalg import lapack
from torch.nn import functional

from ..store import KernelGeometry

MOST_WEIGHTS = 4608  # of an output channel: their second moments take 170 MB
COPIES_TO_SOLVE = 5  # of a matrix, beside it, where eigenvalues are computed
_AT_ONCE = 64  # channels that are taken out of a precision before it is computed anew


def solve(matrix: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """Solve for a positive semidefinite matrix, in the least-norm sense where it is singular.

    Eigenvalues below 1e-10 of the largest count as zero. They are computed only where there may be such: not where
    Cholesky's factor shows that there are none; and of a matrix of low rank, of few images, by a factor of that rank.
    """
    inverse, is_singular = _well_conditioned_inverse(matrix, most=1e9)
    if inverse is not None:
        return inverse @ right
    factor = _factor_of_low_rank(matrix) if is_singular else None
    if factor is not None:
        matrix = factor.T @ factor  # its eigenvalues are those of the whole that are not zero
        inverse, _ = _well_conditioned_inverse(matrix, most=1e8)  # which is used twice
        if inverse is not None:
            return factor @ (inverse @ (inverse @ (factor.T @ right)))
    values, vectors = torch.linalg.eigh(matrix)
    good = values > values[-1].clamp_min(0) * 1e-10
    inverse = torch.where(good, 1 / torch.where(good, values, 1.0), 0.0)
    if factor is not None:  # its products with the vectors are the matrix's, times the roots of the values
        vectors, inverse = factor @ vectors, inverse.square()
    solved: torch.Tensor = vectors @ (inverse[:, None] * (vectors.T @ right))
    return solved


def _well_conditioned_inverse(matrix: torch.Tensor, *, most: float) -> tuple[torch.Tensor | None, bool]:
    """Return the inverse, None where the ratio of the eigenvalues may be over `most`; and whether a pivot is zero."""
    lower, fails_at = torch.linalg.cholesky_ex(matrix)
    if fails_at > 0:
        return None, True
    inverse = torch.cholesky_inverse(lower)
    return (inverse if _norm(matrix) * _norm(inverse) < most else None), False


def _factor_of_low_rank(matrix: torch.Tensor) -> torch.Tensor | None:
    """Return a matrix of (n, rank) whose product with its transpose is another of (n, n), by Cholesky with pivots.

    None where there is no pivot above zero: of a matrix of zeros, or one that is not finite.
    """
    lower, pivots, rank, _ = lapack.dpstrf(matrix.cpu().numpy().T, lower=1)
    if rank == 0:
        return None
    factor = np.empty((len(lower), rank))
    factor[pivots - 1] = np.tril(lower[:, :rank])
    return torch.from_numpy(factor).to(matrix.device)


def _norm(matrix: torch.Tensor) -> float:
    return float(matrix.abs().sum(0).max())


def inner_weights(kernel: Sequence[int], size: int) -> torch.Tensor:
    """Return which positions of a kernel are within a smaller one around its middle, Tensor of the kernel's shape.

    Examples
    --------
    >>> inner_weights((3, 3), 1).int().tolist()
    [[0, 0, 0], [0, 1, 0], [0, 0, 0]]
    """
    out = torch.zeros(*kernel, dtype=torch.bool)
    where = []
    for length in kernel:
        inner = min(size, length)
        start = (length - inner) // 2
        where.append(slice(start, start + inner))
    out[tuple(where)] = True
    return out


def kernel_patches(inputs: torch.Tensor, kernel: KernelGeometry, *, rows: range | None = None) -> torch.Tensor:
    """Return what a kernel sees of its inputs.

    Parameters
    ----------
    inputs : Tensor of shape (n_samples, n_channels, height, width)
        What the convolution is given.
    kernel : KernelGeometry
        Where it looks.
    rows : range, optional
        Of the outputs; by default all.

    Returns
    -------
    Tensor of shape (groups, n_samples, n_positions, n_weights)
        In the order of the weights of an output channel.
    """
    (top, bottom), (left, right) = kernel.padding
    padded = functional.pad(inputs, [left, right, top, bottom])
    if rows is not None:
        first, last = rows.start * kernel.stride[0], (rows.stop - 1) * kernel.stride[0]
        padded = padded[:, :, first : last + (kernel.size[0] - 1) * kernel.dilation[0] + 1]
    seen = functional.unfold(padded, kernel.size, dilation=kernel.dilation, stride=kernel.stride)
    return torch.unflatten(seen, 1, (kernel.groups, -1)).permute(1, 0, 3, 2)


def predict_from_others(
    mean: torch.Tensor, covariance: torch.Tensor, *, removed: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Predict some channels linearly from the others.

    Parameters
    ----------
    mean : Tensor of shape (n_channels,), float64
        Of each channel.
    covariance : Tensor of shape (n_channels, n_channels), float64
        Of the channels.
    removed : Tensor of int64
        The channels that are predicted.

    Returns
    -------
    kept : Tensor of int64
        The others.
    weights : Tensor of shape (n_removed, n_kept), float64
    constant : Tensor of shape (n_removed,), float64
        The prediction is the constant plus the weights times the others.
    """
    others = torch.ones(len(mean), dtype=torch.bool, device=mean.device)
    others[removed] = False
    kept = others.nonzero().flatten()
    weights = covariance[removed][:, kept] @ _inverse(covariance[kept][:, kept])
    return kept, weights, mean[removed] - weights @ mean[kept]


def order_by_redundancy(covariance: torch.Tensor, importance: torch.Tensor) -> torch.Tensor:
    """Remove one channel after the other: the one whose residual, given those that are left, matters least.

    Parameters
    ----------
    covariance : Tensor of shape (n_channels, n_channels), float64
        Of the channels.
    importance : Tensor of shape (n_channels,), float64
        What a unit of each channel's squared residual counts.

    Returns
    -------
    Tensor of shape (n_channels,), int64
        The channels, the least needed first.
    """
    order: list[int] = []
    left = torch.arange(len(covariance), device=covariance.device)
    precision = _inverse(covariance)
    while len(left):
        some = min(_AT_ONCE, len(left))
        roots = precision.new_empty(some, len(left))  # what is subtracted from the precision is their squares
        diagonal, gone = precision.diagonal().clone(), torch.zeros_like(left, dtype=torch.bool)
        for step in range(some):
            loss = importance[left] / diagonal.clamp_min(1e-30)
            least = int(torch.where(gone, torch.inf, loss).argmin())
            column = precision[least] - roots[:step, least] @ roots[:step]
            roots[step] = column / column[least].clamp_min(1e-30).sqrt()
            diagonal -= roots[step].square()
            gone[least] = True
            order.append(int(left[least]))
        left, roots = left[~gone], roots[:, ~gone]
        precision = torch.addmm(precision[~gone][:, ~gone], roots.T, roots, alpha=-1)
    return torch.tensor(order, device=covariance.device)


def _inverse(matrix: torch.Tensor) -> torch.Tensor:
    """Invert a covariance, with a millionth of its mean variance added to the diagonal."""
    ridge = 1e-6 * matrix.diagonal().mean().clamp_min(1e-12)
    inverse: torch.Tensor = torch.linalg.inv(matrix + ridge * torch.eye(len(matrix), dtype=matrix.dtype).to(matrix))
    return inverse
