"""Products of vectors that are never held, in one streaming pass: rows by rows, features by features, or a sketch."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import numpy as np
import torch
from scipy.linalg.blas import dsyrk, ssyrk

from ..vectors import Matrix, Scale, Vectors
from .passes import run_each
from .results import Array

T = TypeVar("T")
Part = TypeVar("Part")
Read = Callable[[Part], Matrix]
Add = Callable[[torch.Tensor, Matrix, int], None]  # to a total, a block, which is the part of this number

BLOCK_BYTES = 64 << 20
_PRODUCT_DEPTH = 512
# A singular value is the root of an eigenvalue: a relative error of 1e-8 in the products puts one that is zero at 1e-4
# of the largest. The rounding of float32 products averages out to about that only over many of them.
_DEPTH_FOR_FLOAT32 = 1 << 16
# Where there are fewer rows, the threads of scipy's BLAS wait for one another longer than they work.
_FEWEST_FOR_SYRK = 384
_GROUPS = 16  # of parts that an executor is handed: each comes back as a matrix
OVERSAMPLING = 10


@dataclass(frozen=True)
class Plan:
    """Which matrix is accumulated, and in blocks of what size.

    Attributes
    ----------
    method : {"gram", "covariance", "randomized"}
        Rows by rows; features by features; or rows by a few random directions, more than the components asked for.
    side : int
        Rows and columns of the accumulated matrix; of a randomized one, its columns.
    block_bytes : int
        About how large a block of vectors is.
    """

    method: str
    side: int
    block_bytes: int


def plan_pass(vectors: Vectors, *, n_components: int, max_bytes: int) -> Plan:
    """Choose the smaller side, or where that is too large a random sketch, and see that everything fits.

    Raises
    ------
    MemoryError
        Where not even the sketch and the result would fit into `max_bytes`.
    """
    rows, features = vectors.shape
    columns = 3 + len(vectors.row_axes)
    # scores, and the labels of the rows while their table is put together, and after
    result = rows * n_components * 8 + rows * 8 * 3 * columns
    method, side = ("gram", rows) if rows <= features else ("covariance", features)
    # accumulated in float64, one product beside it; then its eigenvectors and the solver's working copy
    exact = side * side * (8 + 8) + 8 * side * n_components
    width = min(n_components + OVERSAMPLING, rows, features)
    sketch = 4 * rows * width * 8
    for name, matrix, length in ((method, exact, side), ("randomized", sketch, width)):
        # blocks: one being read, one waiting, one being worked on, and temporary copies of it
        block = min(BLOCK_BYTES, (max_bytes - matrix - result) // 6)
        if block >= 4 * (features if name == "covariance" else rows):
            return Plan(name, length, block)
    raise MemoryError(
        f"the {vectors.view} view of {vectors.layer} has {rows} rows of {features} features; its {method} matrix "
        f"and {n_components} scores a row take {_mib(exact + result)}, a random sketch {_mib(sketch + result)}, the "
        f"budget is {_mib(max_bytes)}. Draw fewer rows (vectors(..., n_rows=...)), take fewer snapshots or samples, or "
        f"raise max_bytes."
    )


def accumulate_gram(
    vectors: Vectors,
    *,
    block_bytes: int,
    basis: slice | None = None,
    executor: Executor | None = None,
    device: str = "cpu",
) -> Array:
    """Return the inner products of all rows, each feature centred over the rows.

    The features of a block are complete, so their means are exact before the product is taken: nothing cancels.

    Parameters
    ----------
    basis : slice, optional
        Rows whose means are subtracted, and with which the products are taken; all by default.

    Returns
    -------
    ndarray of shape (n_rows, n_rows of the basis), float64
    """
    rows, features = vectors.shape
    chosen = range(rows)[basis or slice(None)]
    add = partial(_add_gram, basis=basis or slice(None), dtype=product_dtype(features))
    total = add_up(
        feature_reader(vectors, block_bytes=block_bytes, executor=executor),
        vectors.feature_parts(max_bytes=block_bytes),
        add=add,
        shape=(rows, len(chosen)),
        executor=executor,
        device=device,
    )
    if basis is None:
        return _symmetric(total)
    return total


def accumulate_covariance(
    vectors: Vectors, *, block_bytes: int, executor: Executor | None = None, device: str = "cpu"
) -> tuple[Array, Array]:
    """Return the inner products of all features, centred over the rows, and the features' means.

    The blocks are centred on the mean of the first, and what this misses is corrected at the end.

    Returns
    -------
    products : ndarray of shape (n_features, n_features), float64
    mean : ndarray of shape (n_features,), float64
    """
    rows, features = vectors.shape
    parts = vectors.row_parts(max_bytes=block_bytes)
    shift = vectors.read_rows(parts[0]).mean(axis=0, dtype=np.float64).astype(np.float32)
    total = add_up(
        vectors.read_rows,
        parts,
        add=partial(_add_covariance, shift=shift, dtype=product_dtype(rows)),
        shape=(features + 1, features),  # the last row: sums
        executor=executor,
        device=device,
    )
    away = total[-1] / rows
    products = _symmetric(total[:-1])
    products -= np.outer(rows * away, away)
    return products, shift + away


def sketch(
    vectors: Vectors,
    *,
    width: int,
    n_iterations: int,
    block_bytes: int,
    random_state: int,
    executor: Executor | None = None,
    device: str = "cpu",
) -> tuple[Array, Array, float]:
    """Find an orthonormal basis of nearly all that the centred rows do, by products with random directions.

    Reads the vectors ``n_iterations + 2`` times.

    Parameters
    ----------
    width : int
        Directions.
    n_iterations : int
        How often the basis is improved by the product with the vectors and their transpose.

    Returns
    -------
    basis : ndarray of shape (n_rows, width), float64
    products : ndarray of shape (n_rows, width), float64
        The Gram matrix of the rows times the basis.
    total : float
        Sum of squares of the centred vectors.

    References
    ----------
    N. Halko, P. G. Martinsson and J. A. Tropp, "Finding Structure with Randomness", SIAM Review 53, 2011, algorithm
    4.4.
    """
    rows = vectors.shape[0]
    parts = vectors.feature_parts(max_bytes=block_bytes)
    read = feature_reader(vectors, block_bytes=block_bytes, executor=executor)
    run = partial(add_up, read, parts, executor=executor, device=device)
    first = run(add=partial(_add_random, seed=random_state), shape=(rows + 1, width))
    products, total = first[:-1], float(first[-1, 0])
    for _ in range(n_iterations + 1):
        basis = np.linalg.qr(products)[0]
        products = run(add=partial(_add_power, basis=basis), shape=(rows, width))
    return basis, products, total


def feature_reader(vectors: Vectors, *, block_bytes: int, executor: Executor | None = None) -> Read[Any]:
    """Return what reads a part of the features; rows that are to be scaled are measured in a pass of its own."""
    scale: Scale = (None, None)
    if vectors.scaling != "none":
        moments = np.zeros((2, vectors.shape[0]))
        for part in run_each(vectors.row_moments, vectors.feature_parts(max_bytes=block_bytes), executor=executor):
            moments += part
        scale = vectors.scale_rows(moments)
    return partial(vectors.read_features, scale=scale)


def add_up(
    read: Read[Part],
    parts: Sequence[Part],
    *,
    add: Add,
    shape: tuple[int, int],
    executor: Executor | None,
    device: str,
) -> Array:
    """Read parts and add up what is made of them: ndarray of `shape`, float64.

    Without an executor another thread reads while this one multiplies. An executor gets groups of parts.
    """
    if executor is None:
        return _add_group(read, add, shape, device, list(enumerate(parts)))
    size = -(-len(parts) // _GROUPS)
    numbered = list(enumerate(parts))
    groups = [numbered[start : start + size] for start in range(0, len(numbered), size)]
    total = np.zeros(shape)
    for part in run_each(partial(_add_group, read, add, shape, device), groups, executor=executor):
        total += part
    return total


def read_ahead(blocks: Iterable[T]) -> Iterator[T]:
    """Yield from `blocks` while another thread reads the next one."""
    coming_from = iter(blocks)
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="fmcluster-reader") as reader:
        coming = reader.submit(next, coming_from, None)
        while (block := coming.result()) is not None:
            coming = reader.submit(next, coming_from, None)
            yield block


def product_dtype(depth: int) -> torch.dtype:
    """Return in what products are taken whose sums are over so many terms."""
    return torch.float32 if depth > _DEPTH_FOR_FLOAT32 else torch.float64


def _add_group(
    read: Read[Part], add: Add, shape: tuple[int, int], device: str, parts: Sequence[tuple[int, Part]]
) -> Array:
    total = torch.zeros(shape, dtype=torch.float64, device=device)
    for (number, _), block in zip(parts, read_ahead(read(part) for _, part in parts), strict=True):
        add(total, block, number)
    out: Array = total.cpu().numpy()
    return out


def _add_gram(total: torch.Tensor, block: Matrix, _: int, *, basis: slice, dtype: torch.dtype) -> None:
    rows = torch.from_numpy(_centred(block, basis)).to(total.device)
    whole = total.shape[0] == total.shape[1]
    for start in range(0, rows.shape[1], _PRODUCT_DEPTH):
        part = rows[:, start : start + _PRODUCT_DEPTH].to(dtype)
        if whole:
            _add_square(total, part.T)
        else:
            total += part @ part[basis].T


def _add_covariance(total: torch.Tensor, block: Matrix, _: int, *, shift: Matrix, dtype: torch.dtype) -> None:
    block -= shift
    total[-1] += torch.from_numpy(block.sum(axis=0, dtype=np.float64)).to(total.device)
    rows = torch.from_numpy(block).to(total.device)
    for start in range(0, len(rows), _PRODUCT_DEPTH):
        _add_square(total[:-1], rows[start : start + _PRODUCT_DEPTH].to(dtype))


def _add_square(total: torch.Tensor, part: torch.Tensor) -> None:
    """Add ``part.T @ part``; on a CPU the lower triangle alone, at half the work."""
    if total.device.type != "cpu" or len(total) < _FEWEST_FOR_SYRK:
        total += torch.tril(part.T @ part)
        return
    syrk = ssyrk if part.dtype == torch.float32 else dsyrk
    # what Fortran calls upper is lower, read by rows
    values = part.numpy()
    turned = values.flags.c_contiguous
    product = syrk(1.0, values.T if turned else np.asfortranarray(values), trans=0 if turned else 1)
    total += torch.from_numpy(product.T)


def _add_random(total: torch.Tensor, block: Matrix, number: int, *, seed: int) -> None:
    rows = torch.from_numpy(_centred(block)).to(total.device)
    directions = np.random.default_rng([seed, number]).standard_normal((block.shape[1], total.shape[1]), np.float32)
    total[:-1] += rows @ torch.from_numpy(directions).to(total.device)
    total[-1, 0] += rows.square().sum(dtype=torch.float64)


def _add_power(total: torch.Tensor, block: Matrix, _: int, *, basis: Array) -> None:
    rows = torch.from_numpy(_centred(block)).to(total.device)
    total += rows @ (rows.T @ torch.from_numpy(basis.astype(np.float32)).to(total.device))


def _centred(block: Matrix, basis: slice = slice(None)) -> Matrix:
    block -= block[basis].mean(axis=0, dtype=np.float64).astype(np.float32)
    return block


def _symmetric(total: Array) -> Array:
    """Fill the upper triangle by the lower one, in place."""
    for start in range(0, len(total), 1024):  # a few rows at a time: no second matrix
        stop = start + 1024
        corner = np.tril(total[start:stop, start:stop])
        total[start:stop, start:stop] = corner + np.tril(corner, -1).T
        total[start:stop, stop:] = total[stop:, start:stop].T
    return total


def _mib(nbytes: int) -> str:
    return f"{nbytes / 2**20:,.0f} MiB"
