"""One streaming pass over vectors that are never held: the Gram or the covariance matrix, whichever is smaller."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch

from ..vectors import Vectors
from .results import Array

T = TypeVar("T")

BLOCK_BYTES = 64 << 20
_PRODUCT_DEPTH = 512
# A singular value is the root of an eigenvalue: a relative error of 1e-8 in the products puts one that is zero at 1e-4
# of the largest. The rounding of float32 products averages out below that only over many of them.
_DEPTH_FOR_FLOAT32 = 1 << 16


@dataclass(frozen=True)
class Plan:
    """Which matrix is accumulated, and in blocks of what size.

    Attributes
    ----------
    method : {"gram", "covariance"}
        Rows by rows, or features by features.
    side : int
        Rows and columns of the accumulated matrix.
    block_bytes : int
        About how large a block of vectors is.
    """

    method: str
    side: int
    block_bytes: int


def plan_pass(vectors: Vectors, *, n_components: int, max_bytes: int) -> Plan:
    """Choose the smaller side, and see that everything fits.

    Raises
    ------
    MemoryError
        Where neither the matrix nor the result would fit into `max_bytes`.
    """
    rows, features = vectors.shape
    method, side = ("gram", rows) if rows <= features else ("covariance", features)
    # accumulated in float64, one product beside it; then its eigenvectors and the solver's working copy
    matrix = side * side * (8 + 8) + 8 * side * n_components
    labels = rows * 8 * 3 * len(vectors.rows.columns)  # of the rows, while their table is put together, and after
    scores = rows * n_components * 8 + labels
    left = max_bytes - matrix - scores
    # blocks: one being read, one waiting, one being worked on, and temporary copies of it
    block = min(BLOCK_BYTES, left // 6)
    smallest = 4 * (rows if method == "gram" else features)
    if block < smallest:
        raise MemoryError(
            f"the {vectors.view} view of {vectors.layer} has {rows} rows of {features} features; its {method} matrix "
            f"and {n_components} scores a row take {_mib(matrix + scores)}, the budget is {_mib(max_bytes)}. Draw "
            f"fewer rows (vectors(..., n_rows=...)), take fewer snapshots or samples, or raise max_bytes."
        )
    return Plan(method, side, block)


def accumulate_gram(vectors: Vectors, *, block_bytes: int) -> Array:
    """Return the inner products of all rows, each feature centred over the rows.

    The features of a block are complete, so their means are exact before the product is taken: nothing cancels.

    Returns
    -------
    ndarray of shape (n_rows, n_rows), float64
    """
    rows, features = vectors.shape
    total = torch.zeros((rows, rows), dtype=torch.float64)
    dtype = _product_dtype(features)
    for block in read_ahead(vectors.feature_blocks(max_bytes=block_bytes)):
        block -= block.mean(axis=0, dtype=np.float64).astype(np.float32)
        _add_products(total, torch.from_numpy(block), dtype)
    return _symmetric(total)


def accumulate_covariance(vectors: Vectors, *, block_bytes: int) -> tuple[Array, Array]:
    """Return the inner products of all features, centred over the rows, and the features' means.

    The blocks are centred on the mean of the first, and what this misses is corrected at the end.

    Returns
    -------
    products : ndarray of shape (n_features, n_features), float64
    mean : ndarray of shape (n_features,), float64
    """
    rows, features = vectors.shape
    total = torch.zeros((features, features), dtype=torch.float64)
    dtype = _product_dtype(rows)
    shift: npt.NDArray[np.float32] | None = None
    sums = np.zeros(features)
    for _, block in read_ahead(vectors.row_blocks(max_bytes=block_bytes)):
        if shift is None:
            shift = block.mean(axis=0, dtype=np.float64).astype(np.float32)
        block = block - shift
        sums += block.sum(axis=0, dtype=np.float64)
        _add_products(total, torch.from_numpy(block.T), dtype)
    assert shift is not None
    away = sums / rows
    products = _symmetric(total)
    products -= np.outer(rows * away, away)
    return products, shift + away


def read_ahead(blocks: Iterator[T]) -> Iterator[T]:
    """Yield from `blocks` while another thread reads the next one."""
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="fmcluster-reader") as reader:
        coming = reader.submit(next, blocks, None)
        while (block := coming.result()) is not None:
            coming = reader.submit(next, blocks, None)
            yield block


def _add_products(total: torch.Tensor, block: torch.Tensor, dtype: torch.dtype) -> None:
    """Add ``block @ block.T``: products over few features at a time, summed in float64."""
    for start in range(0, block.shape[1], _PRODUCT_DEPTH):
        part = block[:, start : start + _PRODUCT_DEPTH].to(dtype)
        total += part @ part.T


def _product_dtype(depth: int) -> torch.dtype:
    return torch.float32 if depth > _DEPTH_FOR_FLOAT32 else torch.float64


def _symmetric(total: torch.Tensor) -> Array:
    out: Array = total.numpy()
    out += out.T.copy()
    out /= 2
    return out


def _mib(nbytes: int) -> str:
    return f"{nbytes / 2**20:,.0f} MiB"
