"""A map of all snapshots that keeps neighbours within each and follows every row from one to the next."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import sparse
from sklearn.base import BaseEstimator

from .drift import draw_drift
from .neighbourhoods import Neighbourhood, find_neighbourhood, kernel
from .results import Array


class FusedTSNE(BaseEstimator):  # type: ignore[misc]
    """t-SNE of several snapshots of the same rows, over affinities fused from within and across snapshots.

    A joint t-SNE or UMAP finds a row's neighbours mostly among its own other snapshots, where rows move little, and
    loses the neighbours within a snapshot. Here a row has two kinds of affinity: Gaussian ones to its neighbours
    within its snapshot, at a bandwidth that gives them `perplexity`; and one to the nearest row of every other
    snapshot, at that same bandwidth. Both are put into one matrix, and laid out by t-SNE from a PCA start. Movements
    too small to change a row's neighbours are then drawn by `draw_drift`.

    Parameters
    ----------
    perplexity : float
        How many neighbours within its snapshot a row effectively has; fewer where a snapshot has few rows.
    link : float
        Weight of the affinities across snapshots, relative to those within.
    n_early, n_late : int
        Iterations with exaggerated attraction, and without.
    random_state : int
        Seed of a disturbance that only tells apart rows at one place; the start is the PCA's.

    Attributes
    ----------
    embedding_ : ndarray of shape (n_rows, 2), float64
        Positions.

    References
    ----------
    L. van der Maaten and G. Hinton, "Visualizing Data using t-SNE", JMLR 9, 2008. L. van der Maaten, "Accelerating
    t-SNE using Tree-Based Algorithms", JMLR 15, 2014. P. G. Poličar, M. Stražar and B. Zupan, "openTSNE: A Modular
    Python Library for t-SNE Dimensionality Reduction and Embedding", JSS 109, 2024.
    """

    def __init__(
        self,
        *,
        perplexity: float = 15.0,
        link: float = 1.0,
        n_early: int = 60,
        n_late: int = 150,
        random_state: int = 0,
    ) -> None:
        self.perplexity = perplexity
        self.link = link
        self.n_early = n_early
        self.n_late = n_late
        self.random_state = random_state

    def fit_transform(self, X: npt.ArrayLike, y: npt.ArrayLike | None = None) -> Array:
        """Map rows.

        Parameters
        ----------
        X : array-like of shape (n_rows, n_features)
            Rows of all snapshots; the first two features are where they start, so they should be the widest.
        y : array-like of shape (n_rows,), int, optional
            The snapshot of each row; all of one by default. Each snapshot holds the same rows in the same order.

        Returns
        -------
        ndarray of shape (n_rows, 2), float64
            Positions.
        """
        from openTSNE import TSNEEmbedding
        from openTSNE.affinity import PrecomputedAffinities

        values = np.asarray(X, dtype=np.float64)
        snapshots = np.zeros(len(values), np.int64) if y is None else np.asarray(y)
        groups = [np.flatnonzero(snapshots == snapshot) for snapshot in np.unique(snapshots)]
        places = [find_neighbourhood(values[group], perplexity=self.perplexity) for group in groups]
        layout = TSNEEmbedding(
            self._start(values),
            PrecomputedAffinities(self._affinities(values, groups, places), normalize=True),
            negative_gradient_method="bh",
            n_jobs=1,
            random_state=self.random_state,
        )
        options: dict[str, Any] = {"inplace": True, "learning_rate": "auto"}
        layout.optimize(n_iter=self.n_early, exaggeration=12, momentum=0.5, **options)
        layout.optimize(n_iter=self.n_late, exaggeration=1, momentum=0.8, **options)
        self.embedding_: Array = np.array(layout, dtype=np.float64)
        if len({len(group) for group in groups}) == 1:
            rows = np.concatenate(groups)
            shape = (len(groups), len(groups[0]), -1)
            drawn = draw_drift(values[rows].reshape(shape), self.embedding_[rows].reshape(shape), neighbourhoods=places)
            self.embedding_[rows] = drawn.reshape(-1, 2)
        return self.embedding_

    def _start(self, values: Array) -> Array:
        """Return the first two features, small, as t-SNE wants it; rows at one place are told apart."""
        start = 1e-6 * np.random.default_rng(self.random_state).standard_normal((len(values), 2))
        widest = values[:, :2] - values[:, :2].mean(axis=0)
        spread = widest[:, 0].std()
        if spread > 0:
            start[:, : widest.shape[1]] += 1e-4 * widest / spread
        return start

    def _affinities(
        self, values: Array, groups: Sequence[npt.NDArray[np.int64]], places: Sequence[Neighbourhood]
    ) -> sparse.csr_array:
        """Return the symmetric affinities, sparse, of shape (n_rows, n_rows)."""
        rows: list[npt.NDArray[np.int64]] = []
        columns: list[npt.NDArray[np.int64]] = []
        weights: list[Array] = []
        for group, place in zip(groups, places, strict=True):
            count = place.near.shape[1]
            nearest, total = np.zeros(len(group)), np.ones(len(group))
            if count:
                within = kernel(place.squares, place.precision)
                nearest, total = place.squares[:, 0], within.sum(axis=1)
                rows.append(np.repeat(group, count))
                columns.append(group[place.near].ravel())
                weights.append((within / total[:, None]).ravel())
            for other, elsewhere in zip(groups, places, strict=True):
                if other is group:
                    continue
                distances, near = elsewhere.finder.kneighbors(values[group], n_neighbors=1)
                # relative to the nearest within, as the kernel is; what is nearer than that weighs the same
                excess = np.maximum(distances[:, 0] ** 2 - nearest, 0)
                rows.append(group)
                columns.append(other[near[:, 0]])
                weights.append(self.link * np.exp(-place.precision * excess) / total)
        shape = (len(values), len(values))
        directed = sparse.csr_array(
            (np.concatenate(weights), (np.concatenate(rows), np.concatenate(columns))), shape=shape
        )
        return sparse.csr_array((directed + directed.T) / 2)
