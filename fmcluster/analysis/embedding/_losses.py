"""Losses of t-SNE and of UMAP: embeddings of all snapshots at once.

In both, rows attract and repel one another within their snapshot only. Snapshots are held together by links, which
only attract, and by what `Paths` asks of each row.
"""

import os
from collections.abc import Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import sparse

from .._compat import minimize_tsne, tsne_gradient, umap_curve, umap_graph, umap_step
from .._results import Array
from ._motion import Paths, Stays
from ._neighbors import Links, Neighborhood, kernel

MOST_ROWS = 12_000  # of a snapshot, whose pairs are all gone over; of more, openTSNE's interpolation takes less time


@dataclass(frozen=True, eq=False)
class Task:
    """What is laid out.

    Attributes
    ----------
    values : ndarray of shape (n_snapshots, n_rows, n_features)
        The vectors.
    neighborhoods : sequence of Neighborhood
        Of each snapshot.
    links : Links
        Between snapshots.
    paths : Paths
        Of the rows.
    stays : Stays
        Where rows do not move.
    n_neighbors : int
        How many neighbors within its snapshot a row has.
    link, motion : float
        Weights of the links, and of the paths.
    n_iter : int
        How many steps are taken.
    random_state : int
        A seed.
    """

    values: Array
    neighborhoods: Sequence[Neighborhood]
    links: Links
    paths: Paths
    stays: Stays
    n_neighbors: int
    link: float
    motion: float
    n_iter: int
    random_state: int

    def start(self, *, scale: float) -> Array:
        """Return the first two features, ndarray of shape (n_snapshots, n_rows, 2), with `scale` as deviation."""
        widest = self.values[:, :, :2] - self.values[:, :, :2].mean(axis=(0, 1))
        spread = widest[:, :, 0].std()
        # rows that are equal are set apart
        start = 0.01 * np.random.default_rng(self.random_state).standard_normal((*self.values.shape[:2], 2))
        if spread > 0:
            start[:, :, : widest.shape[2]] += widest / spread
        start *= scale
        return self.stays.average(start)


def lay_out_tsne(task: Task) -> Array:
    """Lay out by t-SNE's loss in each snapshot, from a PCA start; openTSNE takes the steps.

    Returns
    -------
    ndarray of shape (n_snapshots, n_rows, 2), float64
    """
    n_threads = min(os.cpu_count() or 1, len(task.values))
    with ThreadPoolExecutor(n_threads, thread_name_prefix="fmcluster-embed") as threads:
        loss = TsneLoss(task, threads=threads, n_threads=n_threads)
        found = minimize_tsne(
            task.start(scale=1e-4).reshape(-1, 2),
            loss,
            affinities=loss.links,
            n_iter=task.n_iter,
            # each snapshot is a t-SNE of its own, and takes the step that suits its number of rows (Belkina et al.,
            # 2019)
            learning_rate=task.values.shape[1],
            random_state=task.random_state,
        )
    return found.reshape(*task.values.shape[:2], 2)


class TsneLoss:
    """t-SNE's loss summed over snapshots, plus links and paths, in the form that openTSNE calls.

    Parameters
    ----------
    task : Task
        What is laid out.
    threads : Executor, optional
        Where the snapshots' gradients are taken, some of them in each of `n_threads`: openTSNE's own threads would wait
        for one another at every point of small embeddings.
    n_threads : int
        How many.

    Attributes
    ----------
    within : list of csr_matrix of shape (n_rows, n_rows)
        Symmetric affinities in each snapshot, which sum up to 1: Gaussian, of the perplexity asked for.
    links : csr_matrix of shape (n_snapshots * n_rows, n_snapshots * n_rows)
        Symmetric affinities between snapshots: of each row to its nearest elsewhere, by its own Gaussian.
    """

    def __init__(self, task: Task, *, threads: Executor | None = None, n_threads: int = 1) -> None:
        self._threads, self._n_threads = threads, n_threads
        n_snapshots, n_rows = task.values.shape[:2]
        self.shape = (n_snapshots, n_rows, 2)
        self.task = task
        self.within, nearest, total = [], [], []
        for around in task.neighborhoods:
            if around.near.shape[1] == 0:
                nearest.append(np.zeros(n_rows))
                total.append(np.ones(n_rows))
                continue
            weights = kernel(around.squares, around.precision)
            nearest.append(around.squares[:, 0])
            total.append(weights.sum(axis=1))
            ends = np.arange(n_rows + 1) * around.near.shape[1]
            share = (weights / total[-1][:, None]).ravel()
            directed = sparse.csr_matrix((share, around.near.ravel(), ends), shape=(n_rows, n_rows))
            self.within.append(sparse.csr_matrix((directed + directed.T) / (2 * n_rows)))
        rows, columns = task.links.rows, task.links.columns
        # relative to the nearest within, as the kernel is; what is nearer than that weighs the same
        excess = np.maximum(task.links.distances**2 - np.concatenate(nearest)[rows], 0)
        precision = np.concatenate([around.precision for around in task.neighborhoods])[rows]
        weights = task.link * np.exp(-precision * excess) / np.concatenate(total)[rows]
        size = n_snapshots * n_rows
        directed = sparse.csr_matrix((weights, (rows, columns)), shape=(size, size))
        self.links = sparse.csr_matrix((directed + directed.T) / (2 * n_rows))
        from ._exact_gradient import attract, exact_gradient  # which loads the compiler

        self._attract = attract
        self._exact = exact_gradient if n_rows <= MOST_ROWS else None

    def __call__(
        self,
        embedding: npt.NDArray[np.float64],
        P: sparse.csr_matrix,
        *,
        dof: float,
        bh_params: dict[str, Any],
        fft_params: dict[str, Any],
        reference_embedding: None,
        n_jobs: int,
        should_eval_error: bool,
    ) -> tuple[float, Array]:
        """Return the divergences' sum, where it is asked for, and the gradient, for positions one below the other."""
        flat = np.asarray(embedding)
        positions = flat.reshape(self.shape)
        gradient = np.zeros(self.shape)
        errors = np.zeros(len(self.within))

        def descend(first: int) -> None:
            for now in range(first, len(self.within), self._n_threads):
                if self._exact is not None:
                    errors[now], gradient[now] = self._exact(positions[now], self.within[now], error=should_eval_error)
                    continue
                errors[now], gradient[now] = tsne_gradient(
                    positions[now],
                    self.within[now],
                    dof=dof,
                    fft_params=fft_params,
                    n_jobs=n_jobs,
                    error=should_eval_error,
                )

        run = map if self._threads is None else self._threads.map
        list(run(descend, range(self._n_threads)))
        gradient += self.task.motion / self.shape[1] * self.task.paths.pull(positions)
        gradient += self._attract(flat, self.links).reshape(self.shape)
        return sum(errors.tolist()), self.task.stays.average(gradient).reshape(-1, 2)


def lay_out_umap(task: Task) -> Array:
    """Lay out by UMAP's loss in each snapshot, from a PCA start; umap-learn takes the steps.

    In each iteration every edge is drawn with its membership as probability; the alternation with the paths follows.

    Returns
    -------
    ndarray of shape (n_snapshots, n_rows, 2), float64
    """
    graphs, links = fuzzy_graphs(task)
    curve = umap_curve(1.0, 0.1)  # UMAP's own spread and min_dist
    rng = np.random.default_rng(task.random_state)
    # umap-learn spreads a start over 10 in either direction
    positions = task.start(scale=4.0).astype(np.float32)
    flat = positions.reshape(-1, 2)
    for step in range(task.n_iter):
        rate = 1 - step / task.n_iter
        for now, graph in enumerate(graphs):
            _step(positions[now], graph, curve=curve, rate=rate, repel=5.0, rng=rng)
        _step(flat, links, curve=curve, rate=rate, repel=_NEVER, rng=rng)
        positions -= (task.motion * task.paths.pull(positions.astype(np.float64))).astype(np.float32)
        if task.stays.any:
            positions[:] = task.stays.average(positions.astype(np.float64))
    return positions.astype(np.float64)


_NEVER = 1e-9  # repelling samples to an attracting one


def fuzzy_graphs(task: Task) -> tuple[list[sparse.coo_matrix], sparse.coo_matrix]:
    """Return UMAP's fuzzy graph of each snapshot, and that of the links between them: symmetric memberships."""
    n_snapshots, n_rows = task.values.shape[:2]
    size = n_snapshots * n_rows
    graphs, scales, nearest = [], [np.empty(0)], [np.empty(0)]
    count = min(task.n_neighbors, n_rows)  # itself among them
    if count < 2:
        return [sparse.coo_matrix((n_rows, n_rows))] * n_snapshots, sparse.coo_matrix((size, size))
    for values, around in zip(task.values, task.neighborhoods, strict=True):
        itself = np.arange(n_rows)[:, None]
        near = np.hstack([itself, around.near[:, : count - 1]])
        distances = np.hstack([np.zeros((n_rows, 1)), np.sqrt(around.squares[:, : count - 1])]).astype(np.float32)
        graph, scale, closest = umap_graph(values, near=near, distances=distances)
        graphs.append(graph)
        scales.append(scale)
        nearest.append(closest)
    rows, columns = task.links.rows, task.links.columns
    excess = np.maximum(task.links.distances - np.concatenate(nearest)[rows], 0)
    weights = task.link * np.exp(-excess / np.maximum(np.concatenate(scales)[rows], np.finfo(np.float32).tiny))
    directed = sparse.csr_matrix((weights, (rows, columns)), shape=(size, size))
    return graphs, sparse.coo_matrix(directed + directed.T - directed.multiply(directed.T))


def _step(
    positions: npt.NDArray[np.float32],
    graph: sparse.coo_matrix,
    *,
    curve: tuple[float, float],
    rate: float,
    repel: float,
    rng: np.random.Generator,
) -> None:
    """Take one step along each of the edges drawn, in around."""
    drawn = rng.random(graph.nnz) < graph.data
    if not drawn.any():
        return
    state = rng.integers(-(2**31), 2**31 - 1, 3)
    umap_step(positions, (graph.row[drawn], graph.col[drawn]), curve=curve, rate=rate, repel=repel, state=state)
