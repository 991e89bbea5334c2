"""Private interfaces of other libraries: of umap-learn (checked with 0.5.12), openTSNE (1.0.4), distributed (2026.8.0).

Each function here stands for one of them; ``tests/analysis/test_compat.py`` says which one a new version has changed.
"""

import warnings
from collections.abc import Callable
from concurrent.futures import Executor, ProcessPoolExecutor
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import sparse

Array = npt.NDArray[np.float64]
Loss = Callable[..., tuple[float, Array]]


def minimize_tsne(
    start: Array, loss: Loss, *, affinities: sparse.csr_matrix, n_iter: int, learning_rate: float, random_state: int
) -> Array:
    """Descend a loss with openTSNE's optimizer, which takes a callable for `negative_gradient_method`.

    Parameters
    ----------
    start : ndarray of shape (n_points, 2), float64
        Where the points start.
    loss : callable
        Of positions, affinities and openTSNE's own options; returns the value and the gradient.
    affinities : csr_matrix of shape (n_points, n_points)
        What `loss` is handed as its second argument.
    n_iter, learning_rate, random_state
        As openTSNE has them.

    Returns
    -------
    ndarray of shape (n_points, 2), float64
    """
    from openTSNE import TSNEEmbedding
    from openTSNE.affinity import PrecomputedAffinities

    embedding = TSNEEmbedding(
        start,
        PrecomputedAffinities(affinities, normalize=False),
        negative_gradient_method=loss,
        n_jobs=1,
        random_state=random_state,
    )
    embedding.optimize(n_iter=n_iter, exaggeration=1, momentum=0.8, learning_rate=learning_rate, inplace=True)
    return np.array(embedding, dtype=np.float64)


def tsne_gradient(
    positions: Array, affinities: sparse.csr_matrix, *, dof: float, fft_params: dict[str, Any], n_jobs: int, error: bool
) -> tuple[float, Array]:
    """Return t-SNE's divergence (0 where no `error` is asked for) and its gradient, by openTSNE's interpolation."""
    from openTSNE.tsne import kl_divergence_fft

    value, slope = kl_divergence_fft(positions, affinities, dof, fft_params, n_jobs=n_jobs, should_eval_error=error)
    return value or 0.0, 4 * slope  # openTSNE leaves this factor to the learning rate


def umap_curve(spread: float, min_dist: float) -> tuple[float, float]:
    """Return the two parameters of UMAP's curve in the plane."""
    a, b = _umap().find_ab_params(spread, min_dist)
    return float(a), float(b)


def umap_graph(
    values: Array, *, near: npt.NDArray[np.intp], distances: npt.NDArray[np.float32]
) -> tuple[sparse.coo_matrix, Array, Array]:
    """Return UMAP's fuzzy graph of neighbors that are known, each row's scale, and the distance to its nearest."""
    graph, scale, nearest = _umap().fuzzy_simplicial_set(
        values, near.shape[1], None, "euclidean", knn_indices=near, knn_dists=distances
    )
    return graph.tocoo(), scale, nearest


def umap_step(
    positions: npt.NDArray[np.float32],
    edges: tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]],
    *,
    curve: tuple[float, float],
    rate: float,
    repel: float,
    state: npt.NDArray[np.int64],
) -> None:
    """Move points along each of some edges once, in place, as UMAP's optimizer does in one of its epochs."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from umap.layouts import optimize_layout_euclidean

    optimize_layout_euclidean(
        positions,
        positions,
        *edges,
        2,  # the first of its epochs only counts
        len(positions),
        np.ones(len(edges[0])),
        *curve,
        state,
        initial_alpha=rate,
        negative_sample_rate=repel,
        move_other=True,
    )


def dask_client(executor: Executor) -> Any:
    """Return the client whose `get_executor` made an executor; None of any other executor."""
    return getattr(executor, "_client", None)


def start_method(executor: Executor) -> str:
    """Return how an executor starts its processes, such as ``"fork"``; ``""`` of one that starts none."""
    context = getattr(executor, "_mp_context", None) if isinstance(executor, ProcessPoolExecutor) else None
    return context.get_start_method() if context is not None else ""


def _umap() -> ModuleType:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what it has to say when it is imported (of TensorFlow) is not ours
        from umap import umap_
    module: ModuleType = umap_
    return module
