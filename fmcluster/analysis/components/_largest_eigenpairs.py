"""Largest eigenpairs: the largest eigenvalues of a symmetric matrix that is held, and their vectors."""

from collections.abc import Callable
from inspect import signature
from typing import Any

import numpy as np
from scipy.linalg import eigh
from scipy.sparse.linalg import ArpackError, LinearOperator, eigsh

from .._results import Array

_LARGE = 1000  # rows, from which on a few eigenpairs are found sooner by products than by a decomposition
_SHARE = 16  # one eigenpair for so many rows
_RESTARTS = 40  # where the spectrum has no end, as of few distinct rows, there would be hundreds
_AGREE = 1e-10  # of the largest: as far as an eigenvalue may be from a true one


def largest_eigenpairs(matrix: Array, count: int) -> tuple[Array, Array]:
    """Return the largest eigenvalues of a symmetric matrix, in descending order, and their vectors as columns.

    A few of a large matrix are found by Lanczos' method, from its products with vectors, as accurately. It can miss a
    copy of an eigenvalue that is there several times; so the largest of what is left is looked for, too, and where that
    is larger than the last one found, or the method does not end, the matrix is decomposed.

    Parameters
    ----------
    matrix : ndarray of shape (n_rows, n_rows), float64
        Symmetric and finite; what is in it afterwards is undefined.
    count : int
        How many.

    Returns
    -------
    values : ndarray of shape (count,), float64
    vectors : ndarray of shape (n_rows, count), float64
        Of unit length, orthogonal to one another.

    References
    ----------
    R. B. Lehoucq, D. C. Sorensen and C. Yang, ARPACK Users' Guide, SIAM 1998.
    """
    side = len(matrix)
    if side >= _LARGE and count * _SHARE <= side:
        found = _by_products(matrix, count)
        if found is not None:
            return found
    # symmetric: transposed, it is in the order that LAPACK works on in place
    values, vectors = eigh(
        matrix.T, subset_by_index=(side - count, side - 1), driver="evr", overwrite_a=True, check_finite=False
    )
    return values[::-1], vectors[:, ::-1]


def _by_products(matrix: Array, count: int) -> tuple[Array, Array] | None:
    """Return eigenpairs, or None where they are not surely the largest."""
    size = float(np.abs(np.diagonal(matrix)).max())  # of a matrix of products, the largest number
    if size == 0:
        return None

    def times(vectors: Array) -> Array:
        out: Array = matrix @ (vectors / size)
        return out

    found = _lanczos(times, len(matrix), count)
    if found is None:
        return None
    values, vectors = found

    def left(vector: Array) -> Array:
        out: Array = times(vector) - vectors @ (values * (vectors.T @ vector))
        return out

    beyond = _lanczos(left, len(matrix), 1, tolerance=1e-3)
    tolerance = _AGREE * values[0]
    residual = np.linalg.norm(times(vectors) - vectors * values, axis=0).max()
    surely = beyond is not None and values[-1] > tolerance >= max(residual, beyond[0][0] - values[-1])
    return (values * size, vectors) if surely else None


def _lanczos(
    times: Callable[[Array], Array], side: int, count: int, *, tolerance: float = 0
) -> tuple[Array, Array] | None:
    """Return the largest eigenpairs of a matrix that is known by its products; None where they are not all found."""
    start = np.random.default_rng(count).standard_normal(side)
    # before SciPy 1.17, which takes a generator, ARPACK's own seed was always the same
    seeded: dict[str, Any] = {"rng": np.random.default_rng(0)} if "rng" in signature(eigsh).parameters else {}
    operator = LinearOperator((side, side), matvec=times, dtype=np.float64)
    try:
        values, vectors = eigsh(operator, count, which="LA", v0=start, tol=tolerance, maxiter=_RESTARTS, **seeded)
    except ArpackError:
        return None
    order = np.argsort(values)[::-1]
    return (values[order], vectors[:, order]) if len(values) == count else None
