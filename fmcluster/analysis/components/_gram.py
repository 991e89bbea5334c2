"""Gram matrices and covariances in one streaming pass: products of vectors that are never held, or a sketch of them."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from ...vectors import Box, Matrix, RowPart, Scale, Tile, Vectors
from .._parallel import alone_in_thread, blas_in_one_thread, run_each, sum_each
from .._results import Array
from ._plan_reading import GROUPS

T = TypeVar("T")
Part = TypeVar("Part")
Read = Callable[[Part], Iterable[Matrix]]
Watch = Callable[[Box, Matrix], None]
Dtype = type[np.float32] | type[np.float64]
Total = Any  # what is added up: ndarray, or on a device Tensor; both know the operators that are used here
Number = tuple[int, int]  # of a part, and of a block in it
Add = Callable[[Total, Matrix, Number], None]  # to a total, a block, which is the one of this number

_SLICE_BYTES = 8 << 20  # of a block that is centered and multiplied at a time: about what a cache holds
_SHALLOWEST, _DEEPEST = 512, 4096
# A singular value is the root of an eigenvalue: a relative error of 1e-8 in the products puts one that is zero at 1e-4
# of the largest. The rounding of float32 products averages out to about that only over many of them.
_DEPTH_FOR_FLOAT32 = 1 << 16
_SMALLEST, _LARGEST = 1e-15, 1e15  # float32 holds their squares, and sums of many
_HELD = (1e-26, 1e30)  # between these, sums of products are of values that float32 holds well


def accumulate_gram(
    vectors: Vectors,
    *,
    block_bytes: int,
    tile_bytes: int = 0,
    basis: slice | None = None,
    executor: Executor | None = None,
    device: str = "cpu",
    watch: Watch | None = None,
) -> Array:
    """Return the inner products of all rows, each feature centered over the rows.

    The features of a block are complete, so they are centered before the product is taken: nothing cancels. What
    rounding left of their means is taken off the sums.

    Parameters
    ----------
    basis : slice, optional
        Rows whose means are subtracted, and with which the products are taken; all by default.
    watch : callable, optional
        Shown each block as it is read, after the box that it is of: what else is to be known of the vectors is so
        known without reading them again. Nothing is read ahead then: small blocks stay in the cache in between.

    Returns
    -------
    ndarray of shape (n_rows, n_rows of the basis), float64
    """
    rows, features = vectors.shape
    tiles = vectors.feature_tiles(block_bytes=block_bytes, tile_bytes=tile_bytes)
    chosen = range(rows)[basis or slice(None)]
    scale = measure_rows(vectors, tiles, executor=executor)
    unchecked = replace(vectors, checked=False)  # what is not finite makes sums that are not
    read = partial(unchecked.read_tile, scale=scale, reuse=watch is not None)
    total = add_up(
        read if watch is None else partial(_read_watched, read, watch),
        tiles,
        add=partial(_add_gram, basis=basis or slice(None), dtype=product_dtype(features)),
        shape=(rows, len(chosen)),
        executor=executor,
        device=device,
        ahead=watch is None,
    )
    if vectors.checked and not np.isfinite(total).all():
        _read_all(vectors, tiles)  # which says where
    return _center_again(total, basis or slice(None))


def accumulate_covariance(
    vectors: Vectors, *, block_bytes: int, executor: Executor | None = None, device: str = "cpu"
) -> tuple[Array, Array]:
    """Return the inner products of all features, centered over the rows, and the features' means.

    The blocks are centered on the mean of the first, and what this misses is corrected at the end.

    Returns
    -------
    products : ndarray of shape (n_features, n_features), float64
    mean : ndarray of shape (n_features,), float64
    """
    rows, features = vectors.shape
    parts = vectors.row_parts(max_bytes=block_bytes)
    shift = vectors.read_rows(parts[0]).mean(axis=0, dtype=np.float64).astype(np.float32)
    total = add_up(
        partial(_read_rows, vectors),
        parts,
        add=partial(_add_covariance, shift=shift, dtype=product_dtype(rows)),
        shape=(features + 1, features),  # the last row: sums
        executor=executor,
        device=device,
    )
    away = total[-1] / rows
    products = total[:-1]
    for index, mean in enumerate(rows * away):  # row by row: no second matrix
        products[index] -= mean * away
    return products, shift + away


def sketch(
    vectors: Vectors,
    *,
    width: int,
    n_iterations: int,
    block_bytes: int,
    tile_bytes: int = 0,
    random_state: int,
    executor: Executor | None = None,
    device: str = "cpu",
) -> tuple[Array, Array, float]:
    """Find an orthonormal basis of nearly all that the centered rows do, by products with random directions.

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
        Sum of squares of the centered vectors.

    References
    ----------
    N. Halko, P. G. Martinsson and J. A. Tropp, "Finding Structure with Randomness", SIAM Review 53, 2011, algorithm
    4.4.
    """
    rows = vectors.shape[0]
    parts = vectors.feature_tiles(block_bytes=block_bytes, tile_bytes=tile_bytes)
    read = feature_reader(vectors, parts, executor=executor)
    run = partial(add_up, read, parts, executor=executor, device=device)
    first = run(add=partial(_add_random, seed=random_state), shape=(rows + 1, width))
    products, total = first[:-1], float(first[-1, 0])
    for _ in range(n_iterations + 1):
        basis = _orthonormal(products)
        products = run(add=partial(_add_power, basis=basis), shape=(rows, width))
    return basis, products, total


def sketch_features(
    vectors: Vectors,
    *,
    width: int,
    n_iterations: int,
    block_bytes: int,
    random_state: int,
    executor: Executor | None = None,
    device: str = "cpu",
) -> tuple[Array, Array, Array, float]:
    """Find an orthonormal basis of nearly all that the centered features do, as `sketch` does of the rows.

    Blocks are of whole rows, of which none reads a chunk that another does. Reads the vectors ``n_iterations + 1``
    times.

    Returns
    -------
    basis : ndarray of shape (n_features, width), float64
    products : ndarray of shape (n_features, width), float64
        The features' inner products times the basis.
    mean : ndarray of shape (n_features,), float64
    total : float
        Sum of squares of the centered vectors.
    """
    rows, features = vectors.shape
    parts = vectors.row_parts(max_bytes=block_bytes)
    shift = vectors.read_rows(parts[0]).mean(axis=0, dtype=np.float64).astype(np.float32)
    products = np.random.default_rng(random_state).standard_normal((features, width))
    for _ in range(n_iterations + 1):
        basis = _orthonormal(products)
        found = add_up(
            partial(_read_rows, vectors),
            parts,
            add=partial(_add_turned, basis=basis, shift=shift),
            shape=(features + 1, width + 1),  # the last column: sums; its last number: the sum of squares
            executor=executor,
            device=device,
        )
        away = found[:-1, -1] / rows
        products = found[:-1, :-1] - rows * np.outer(away, away @ basis)
    return basis, products, shift + away, float(found[-1, -1] - rows * away @ away)


def feature_reader(vectors: Vectors, tiles: Sequence[Tile], *, executor: Executor | None = None) -> Read[Any]:
    """Return what reads a tile of the features; rows that are to be scaled are measured in a pass of its own."""
    return partial(vectors.read_tile, scale=measure_rows(vectors, tiles, executor=executor))


def measure_rows(vectors: Vectors, tiles: Sequence[Tile], *, executor: Executor | None = None) -> Scale:
    """Return how rows are to be scaled: where they are, in a pass of its own."""
    if vectors.scaling == "none":
        return None, None
    moments = np.zeros((2, vectors.shape[0]))
    for part in run_each(vectors.tile_moments, tiles, executor=executor):
        moments += part
    return vectors.scale_rows(moments)


def _read_all(vectors: Vectors, tiles: Sequence[Tile]) -> None:
    for tile in tiles:
        for _ in vectors.read_tile(tile):
            pass


def _read_watched(read: Read[Tile], watch: Watch, tile: Tile) -> Iterator[Matrix]:
    for inner, block in zip(tile.blocks, read(tile), strict=True):
        moved = {}
        for axis, part in inner.items():
            start = (tile.box[axis].start or 0) if axis in tile.box else 0
            moved[axis] = slice(start + part.start, start + part.stop)
        watch({**tile.box, **moved}, block)
        yield block


def _read_rows(vectors: Vectors, part: RowPart) -> Iterator[Matrix]:
    yield vectors.read_rows(part)


def add_up(
    read: Read[Part],
    parts: Sequence[Part],
    *,
    add: Add,
    shape: tuple[int, int],
    executor: Executor | None,
    device: str,
    ahead: bool = True,
) -> Array:
    """Read parts and add up what is made of them: ndarray of `shape`, float64.

    Without an executor another thread reads while this one multiplies, if `ahead`. An executor gets groups of parts.
    """
    numbered = list(enumerate(parts))
    if executor is None:
        return _add_group(read, add, shape, device, ahead, numbered)
    size = -(-len(parts) // GROUPS)
    groups = [numbered[start : start + size] for start in range(0, len(numbered), size)]
    return sum_each(partial(_add_group, read, add, shape, device, False), groups, shape=shape, executor=executor)


def read_ahead(blocks: Iterable[T]) -> Iterator[T]:
    """Yield from `blocks` while another thread reads the next one."""
    coming_from = iter(blocks)
    with ThreadPoolExecutor(1, thread_name_prefix="fmcluster-reader", initializer=alone_in_thread) as reader:
        coming = reader.submit(next, coming_from, None)
        while (block := coming.result()) is not None:
            coming = reader.submit(next, coming_from, None)
            yield block


def product_dtype(depth: int) -> Dtype:
    """Return in what products are taken whose sums are over so many terms."""
    return np.float32 if depth > _DEPTH_FOR_FLOAT32 else np.float64


def wide_enough(values: Total, dtype: Dtype) -> Dtype:
    """Return in what products of values are taken: in float64 where float32 does not hold their squares."""
    return np.float64 if beyond_float32(values.min(), values.max()) else dtype


def beyond_float32(low: npt.ArrayLike, high: npt.ArrayLike) -> bool:
    """Whether some values, the lowest and the highest of which are given, have squares that float32 does not hold.

    Over 1e15, products overflow; where all are under 1e-15, they are lost.
    """
    largest = np.maximum(np.abs(low), np.abs(high))
    return bool(((largest > _LARGEST) | ((largest > 0) & (largest < _SMALLEST))).any())


def slices(length: int, *, width: int) -> Iterator[slice]:
    """Cut so many vectors of a width into slices that a cache can hold: products are taken of one, and added up."""
    depth = max(_SHALLOWEST, min(_DEEPEST, _SLICE_BYTES // (4 * width)))
    return (slice(start, start + depth) for start in range(0, length, depth))


def _add_group(
    read: Read[Part], add: Add, shape: tuple[int, int], device: str, ahead: bool, parts: Sequence[tuple[int, Part]]
) -> Array:
    total = _zeros(shape, device)
    blocks = (((number, at), block) for number, part in parts for at, block in enumerate(read(part)))
    for number, block in read_ahead(blocks) if ahead else blocks:
        add(total, block, number)
    out: Array = total if isinstance(total, np.ndarray) else total.cpu().numpy()
    return out


def _zeros(shape: tuple[int, int], device: str) -> Total:
    if device == "cpu":
        return np.zeros(shape)
    import torch

    return torch.zeros(shape, dtype=torch.float64, device=device)


def _add_gram(total: Total, block: Matrix, _: Number, *, basis: slice, dtype: Dtype) -> None:
    rows = _beside(total, block)
    for here in slices(block.shape[1], width=len(block)):
        with np.errstate(over="ignore", invalid="ignore"):  # such are taken once more
            products = _products(_cast(rows[:, here], dtype), basis)
        if dtype is np.float32 and not _HELD[0] < float(abs(products).max()) < _HELD[1]:
            products = _products(_cast(rows[:, here], wide_enough(block[:, here], dtype)), basis)
        total += products


def _products(part: Total, basis: slice) -> Total:
    part = part - part[basis].mean(axis=0)
    return part @ part[basis].T  # of all rows, NumPy takes half of it


def _add_covariance(total: Total, block: Matrix, _: Number, *, shift: Matrix, dtype: Dtype) -> None:
    block -= shift
    total[-1] += _beside(total, block.sum(axis=0, dtype=np.float64))
    rows = _beside(total, block)
    for here in slices(len(block), width=block.shape[1]):
        part = _cast(rows[here], wide_enough(block[here], dtype))
        total[:-1] += part.T @ part


def _add_random(total: Total, block: Matrix, number: Number, *, seed: int) -> None:
    _center(block)
    dtype = wide_enough(block, np.float32)
    directions = np.random.default_rng([seed, *number]).standard_normal((block.shape[1], total.shape[1]), np.float32)
    total[:-1] += _cast(_beside(total, block), dtype) @ _cast(_beside(total, directions), dtype)
    total[-1, 0] += np.einsum("ij,ij", block, block, dtype=np.float64)


def _add_power(total: Total, block: Matrix, _: Number, *, basis: Array) -> None:
    _center(block)
    dtype = wide_enough(block, np.float32)
    rows = _cast(_beside(total, block), dtype)
    total += rows @ (rows.T @ _cast(_beside(total, basis), dtype))


def _add_turned(total: Total, block: Matrix, _: Number, *, basis: Array, shift: Matrix) -> None:
    block -= shift
    dtype = wide_enough(block, np.float32)
    rows = _cast(_beside(total, block), dtype)
    total[:-1, :-1] += rows.T @ (rows @ _cast(_beside(total, basis), dtype))
    total[:-1, -1] += _beside(total, block.sum(axis=0, dtype=np.float64))
    total[-1, -1] += np.einsum("ij,ij", block, block, dtype=np.float64)


def _orthonormal(products: Array) -> Array:
    """Return an orthonormal basis of a few columns: its many small products are not worth the threads of BLAS."""
    with blas_in_one_thread():
        basis: Array = np.linalg.qr(products)[0]
    return basis


def _center(block: Matrix) -> None:
    block -= block.mean(axis=0, dtype=np.float64).astype(np.float32)


def _center_again(total: Array, basis: slice) -> Array:
    """Take the means that are left off inner products of rows (n_rows, n_rows of the basis), in place."""
    here = total[basis].mean(axis=0)
    total -= total.mean(axis=1)[:, None]
    total -= here - here.mean()
    return total


def _beside(total: Total, values: npt.NDArray[np.floating]) -> Total:
    """Return values where the total is."""
    if isinstance(total, np.ndarray):
        return values
    import torch

    return torch.from_numpy(values).to(total.device)


def _cast(values: Total, dtype: Dtype) -> Total:
    if isinstance(values, np.ndarray):
        return values.astype(dtype, copy=False)
    return values.float() if dtype is np.float32 else values.double()
