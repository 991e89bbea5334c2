"""Principal components: those of vectors that may exceed memory."""

from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from ...vectors import DrawnPositions, Vectors, unkept
from .._parallel import blas_in_one_thread, own_threads, run_each
from .._results import MAX_BYTES, Array, Scores
from .._validation import fitted_snapshot, name_fit, require
from ._gram import (
    Read,
    accumulate_covariance,
    accumulate_gram,
    feature_reader,
    read_ahead,
    sketch,
    sketch_features,
)
from ._largest_eigenpairs import largest_eigenpairs
from ._plan_reading import N_ITERATIONS, Plan, plan_reading

# Below this share of the largest, a singular value is the rounding of products, and its direction means nothing.
_SMALLEST = 2e-4


def pca(
    vectors: Vectors,
    *,
    n_components: int = 50,
    fit: Literal["pooled"] = "pooled",
    fit_epoch: int | None = None,
    components: bool = False,
    max_bytes: int = MAX_BYTES,
    random_state: int = 0,
    exact: bool = True,
    executor: Executor | None = None,
    device: str = "cpu",
) -> Scores:
    """Reduce the rows of a view to their principal component scores, on one basis for all snapshots.

    Where there are fewer rows than features, the Gram matrix of the rows is accumulated in one pass over the disk, and
    its eigenvectors give the scores. Otherwise it is the covariance of the features, and a second pass projects the
    rows. Both are exact: products are summed in float64 (and taken in it, but for very long sums). With as many
    components as the matrix has rank, the scores keep all distances between rows. Where neither matrix fits into
    `max_bytes`, a randomized range finder with two power iterations takes four passes, over the rows or, where these
    are too many for that, over the features; the scores say what it may have missed (`error`).

    Parameters
    ----------
    vectors : Vectors
        Made by `Layer.vectors`.
    n_components : int
        How many components; fewer where rows or features are fewer.
    fit : {"pooled"}
        The components are those of the rows of all snapshots together, unless `fit_epoch` is given.
    fit_epoch : int, optional
        An epoch: the components are those of the rows of its last snapshot, and all others are projected on them.
    components : bool
        Whether to return the components themselves, too: of the `feature_map` view, principal feature maps. Takes
        another pass over the disk, and memory for them all.
    max_bytes : int
        Memory that may be taken, above what is in use. It bounds this pass over the vectors; what follows works on the
        scores alone. Each worker of an `executor` takes as much.
    random_state : int
        Seed of the range finder.
    exact : bool
        Whether the range finder is for what does not fit alone. If not, it is also taken where the exact matrix would
        take over 17 billion multiplications, and twice as many as it does; `error` says what it may have missed.
    executor : concurrent.futures.Executor, optional
        Where parts of the pass are done; by default in threads, one for a core as far as memory goes, while BLAS takes
        one thread in the whole process. Processes must not be forked
        (``ProcessPoolExecutor(mp_context=multiprocessing.get_context("spawn"))``).
    device : str
        Where products are taken: ``"cpu"``, ``"cuda"``, ...

    Returns
    -------
    Scores
        ``values`` of shape (n_rows, n_components), float64. Of each component, the score of largest magnitude is
        positive.

    Raises
    ------
    TypeError
        For what is not vectors.
    ValueError
        For fewer than one component, an epoch without a snapshot, or activations that are not finite.
    MemoryError
        Where what has to be held does not fit into `max_bytes`.

    References
    ----------
    I. T. Jolliffe, *Principal Component Analysis*, 2nd edition, Springer 2002, section 3.5 (the singular value
    decomposition and its two eigenproblems). B. N. Parlett, *The Symmetric Eigenvalue Problem*, SIAM 1998, theorem
    4.5.1 (the error of a sketch). N. Halko, P. G. Martinsson and J. A. Tropp, "Finding Structure with
    Randomness", SIAM Review 53, 2011 (the range finder).
    """
    require(vectors, Vectors, verb="pca", made_by='layer.vectors("channel")')
    if n_components < 1:
        raise ValueError(f"n_components is {n_components}; expected at least 1")
    n_components = min(n_components, *vectors.shape)
    snapshot = fitted_snapshot(vectors.rows, fit=fit, fit_epoch=fit_epoch, allowed=("pooled",))
    plan = plan_reading(vectors, n_components=n_components, max_bytes=max_bytes, exact=exact or snapshot is not None)
    fitted = vectors if snapshot is None else vectors.at([snapshot])
    n_blocks = -(-4 * vectors.shape[0] * vectors.n_features // plan.block_bytes)
    with own_threads(executor, most=min(plan.workers, n_blocks) if device == "cpu" else 1) as workers:
        found = {"gram": _from_gram, "covariance": _from_covariance, "randomized": _from_sketch}[plan.method](
            _Pass(vectors, fitted, plan, n_components, random_state, workers, device)
        )
    values, singular = found.values, found.singular_values
    signs = np.where(values.max(axis=0) < -values.min(axis=0), -1.0, 1.0)
    values *= signs
    images: npt.NDArray[np.float32] | None = None
    if components:
        needed = 4 * vectors.n_features * len(singular)
        if needed > max_bytes:
            raise MemoryError(
                f"{len(singular)} components of {vectors.n_features} features take {needed >> 20:,} MiB, the budget is "
                f"{max_bytes >> 20:,} MiB; ask for fewer n_components, or raise max_bytes"
            )
        if found.axes is None:
            images = _draw_components(fitted, values[_numbers(vectors, fitted)], singular, plan=plan, executor=executor)
        else:
            images = np.ascontiguousarray((found.axes * signs).T, dtype=np.float32)
        images = images.reshape(-1, *vectors.feature_shape)
    return Scores(
        rows=vectors.rows,
        layer=vectors.layer,
        view=vectors.view,
        fit=name_fit(fit, fit_epoch),
        fit_epoch=fit_epoch,
        values=values,
        singular_values=singular,
        total_variance=found.total / max(fitted.shape[0] - 1, 1),
        n_features=vectors.n_features,
        of_features=of_features(vectors),
        method=plan.method,
        n_fitted=fitted.shape[0],
        error=found.error,
        components=images,
    )


@dataclass(frozen=True, eq=False)
class _Pass:
    """What is to be reduced, on what it is fitted, and how."""

    vectors: Vectors
    fitted: Vectors
    plan: Plan
    n_components: int
    random_state: int
    executor: Executor | None
    device: str


@dataclass(frozen=True, eq=False)
class _Found:
    """Scores (n_rows, n_components), singular values, sum of squares of the fitted rows, and maybe the components."""

    values: Array
    singular_values: Array
    total: float
    axes: Array | None = None
    error: float = 0.0


def _from_gram(todo: _Pass) -> _Found:
    basis = None if todo.fitted is todo.vectors else _numbers(todo.vectors, todo.fitted)
    gram = accumulate_gram(
        todo.vectors,
        block_bytes=todo.plan.block_bytes,
        tile_bytes=todo.plan.tile_bytes,
        basis=basis,
        executor=todo.executor,
        device=todo.device,
    )
    if basis is None:
        total = float(np.trace(gram))
        singular, left = _largest(gram, todo.n_components)
        return _Found(left * singular, singular, total)
    within = (gram[basis] + gram[basis].T) / 2
    total = float(np.trace(within))
    singular, left = _largest(within, min(todo.n_components, len(within)))
    singular, left = _without_rounding(singular, left)
    return _Found(gram @ (left / singular), singular, total)


def _from_covariance(todo: _Pass) -> _Found:
    products, mean = accumulate_covariance(
        todo.fitted, block_bytes=todo.plan.block_bytes, executor=todo.executor, device=todo.device
    )
    total = float(np.trace(products))
    singular, axes = _largest(products, todo.n_components)
    return _Found(_project_all(todo, mean, axes), singular, total, axes)


def _project_all(todo: _Pass, mean: Array, axes: Array) -> Array:
    values = np.empty((todo.vectors.shape[0], axes.shape[1]))
    parts = todo.vectors.row_parts(max_bytes=todo.plan.block_bytes // 2)
    project = partial(_project, todo.vectors.read_rows, mean, axes)
    blocks = (
        read_ahead(map(project, parts)) if todo.executor is None else run_each(project, parts, executor=todo.executor)
    )
    for part, block in zip(parts, blocks, strict=True):
        values[part.start : part.start + len(block)] = block
    return values


def _from_sketch(todo: _Pass) -> _Found:
    if todo.plan.over == "features":
        return _from_feature_sketch(todo)
    if todo.fitted is not todo.vectors:
        raise MemoryError(
            f"neither side of the {todo.vectors.view} view of {todo.vectors.layer}, {todo.vectors.shape}, fits into "
            f"the budget, and a random sketch is of all rows: leave out fit_epoch, or raise max_bytes"
        )
    basis, products, total = sketch(
        todo.vectors,
        width=todo.plan.side,
        n_iterations=N_ITERATIONS,
        block_bytes=todo.plan.block_bytes,
        tile_bytes=todo.plan.tile_bytes,
        random_state=todo.random_state,
        executor=todo.executor,
        device=todo.device,
    )
    singular, left, error = _within(basis, products, todo.n_components)
    return _Found(left * singular, singular, total, error=error)


def _from_feature_sketch(todo: _Pass) -> _Found:
    basis, products, mean, total = sketch_features(
        todo.fitted,
        width=todo.plan.side,
        n_iterations=N_ITERATIONS,
        block_bytes=todo.plan.block_bytes,
        random_state=todo.random_state,
        executor=todo.executor,
        device=todo.device,
    )
    singular, axes, error = _within(basis, products, todo.n_components)
    return _Found(_project_all(todo, mean, axes), singular, total, axes, error=error)


def _within(basis: Array, products: Array, count: int) -> tuple[Array, Array, float]:
    """Return singular values and vectors of a symmetric matrix within a basis, and how far they may be off.

    The error is that of an eigenvalue, relative to the largest: within the residual of each there is a true one.
    """
    with blas_in_one_thread():  # of so few columns, threads wait for one another
        inner = basis.T @ products
        singular, axes = _largest((inner + inner.T) / 2, count)
        vectors = basis @ axes
        residuals = np.linalg.norm(products @ axes - vectors * singular**2, axis=0)
    return singular, vectors, float(residuals.max() / singular[0] ** 2) if singular[0] > 0 else 0.0


def of_features(vectors: Vectors) -> int | None:
    """Return how many features rows have of which some were drawn; None where all are there."""
    source = unkept(vectors.source)
    if not isinstance(source, DrawnPositions):
        return None
    _, height, width = source.source.feature_map_shape
    return len(vectors.samples) * height * width


def _numbers(vectors: Vectors, fitted: Vectors) -> slice:
    """Return where the rows of `fitted`, of one snapshot or of all, lie among those of `vectors`."""
    first = vectors.snapshots.index(fitted.snapshots[0]) * vectors.rows_per_snapshot
    return slice(first, first + fitted.shape[0])


def _project(read: Callable[[Any], npt.NDArray[np.float32]], mean: Array, axes: Array, part: Any) -> Array:
    values: Array = (read(part) - mean) @ axes
    return values


def _draw_components(
    fitted: Vectors, values: Array, singular: Array, *, plan: Plan, executor: Executor | None
) -> npt.NDArray[np.float32]:
    """Return the components, ndarray of shape (n_components, n_features): the rows weighted by their scores."""
    weights = np.divide(values, singular**2, out=np.zeros_like(values), where=singular > _SMALLEST * singular[0])
    parts = fitted.feature_tiles(block_bytes=plan.block_bytes, tile_bytes=plan.tile_bytes)
    read = feature_reader(fitted, parts, executor=executor)
    blocks = run_each(partial(_weigh, read, weights.astype(np.float32)), parts, executor=executor)
    return np.concatenate(list(blocks), axis=1)


def _weigh(read: Read[Any], weights: npt.NDArray[np.float32], part: Any) -> npt.NDArray[np.float32]:
    found = []
    for block in read(part):
        block -= block.mean(axis=0, dtype=np.float64).astype(np.float32)
        found.append(weights.T @ block)
    return np.concatenate(found, axis=1)


def _without_rounding(singular: Array, left: Array) -> tuple[Array, Array]:
    kept = singular > _SMALLEST * singular[0]
    if not kept.any():
        return np.ones(1), np.zeros((len(left), 1))
    return singular[kept], left[:, kept]


def _largest(matrix: Array, count: int) -> tuple[Array, Array]:
    """Return the square roots of the largest eigenvalues, and their eigenvectors as columns; the matrix is spent."""
    values, vectors = largest_eigenpairs(matrix, count)
    return np.sqrt(np.maximum(values, 0)), vectors
