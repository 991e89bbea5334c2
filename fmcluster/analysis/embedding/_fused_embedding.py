"""Fused embedding: all snapshots at once, with neighbors kept within each and every row followed to the next."""

from functools import partial

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator
from sklearn.utils import check_array

from .._parallel import own_threads, run_each
from .._results import Array
from ._losses import Task, lay_out_tsne, lay_out_umap
from ._motion import Paths, Stays, draw_drift
from ._neighbors import find_links, find_neighborhood

N_NEIGHBORS = {"tsne": 30, "umap": 15}
N_ITER = {"tsne": 250, "umap": 200}
LENGTHS = ("pair", "run")


class FusedEmbedding(BaseEstimator):  # type: ignore[misc]
    """An embedding of several snapshots of the same rows: t-SNE's or UMAP's loss in each, true movement between them.

    A joint t-SNE or UMAP finds a row's neighbors mostly among its own other snapshots, where rows move little, and
    loses the neighbors within a snapshot; it also pushes snapshots away from one another. Here each snapshot has a
    layout loss of its own, over its own neighbors. What makes one embedding of them:

    - a common start, the first two principal components;
    - links: every row attracts the nearest row in the snapshots 1, 2, 4 and 8 before and after, as it does neighbors;
    - paths: the distance between a row's two positions in these snapshots is pulled towards the true one, in
      proportion (`Paths`);
    - stays: a row that does not move has one position, however its neighbors move (`Stays`);
    - movements too small to change a row's neighbors are drawn at last, by a local linear map (`draw_drift`).

    Parameters
    ----------
    loss : {"tsne", "umap"}
        Whose loss is minimized in each snapshot. t-SNE's keeps more neighbors.
    n_neighbors : int, optional
        How many neighbors within its snapshot a row has: t-SNE's perplexity (30 by default, a third of a snapshot's
        rows at most), or what UMAP calls so (15, itself among them).
    link : float
        Weight of the links, relative to the neighbors within. Without, a position means another thing in each snapshot.
    motion : float
        Weight of the paths, below 0.5. More of it makes movements truer and loses neighbors.
    lengths : {"pair", "run"}
        Over what the paths' lengths are proportional to the true ones: within a pair of snapshots, so that small steps
        are told apart beside large ones; or over all of the run, so that a late step is drawn as short as it is.
    n_iter : int, optional
        Steps of t-SNE (250 by default), or passes of UMAP (200).
    random_state : int
        Seed of a disturbance that tells apart rows at one position, and of what UMAP draws; the start is the PCA's.

    Attributes
    ----------
    embedding_ : ndarray of shape (n_rows, 2), float64
        Positions; they have no unit.

    Notes
    -----
    What it costs: a snapshot laid out by itself keeps a little more of its neighbors, and two principal components
    show movements in truer proportion (but hardly any neighbors). `benchmarks/dynamic_projections.py` measures both
    `lengths` on data of others.
    Snapshots do not repel one another, so that of two whose rows are all far apart, one may lie on the other.

    Time and memory grow with the number of snapshots times its logarithm, and a little faster than the number of rows:
    neighbors within a snapshot are found by brute force, and repulsion is summed over all pairs of up to 12,000 rows of
    a snapshot (with that many, both take less time than an approximation), and interpolated of more.

    References
    ----------
    L. van der Maaten and G. Hinton, "Visualizing Data using t-SNE", JMLR 9, 2008. G. C. Linderman et al., "Fast
    interpolation-based t-SNE for improved visualization of single-cell RNA-seq data", Nature Methods 16, 2019. A. C.
    Belkina et al., "Automated optimized parameters for T-distributed stochastic neighbor embedding improve
    visualization and analysis of large datasets", Nature Communications 10, 2019. P. G. Poličar, M. Stražar and B.
    Zupan, "openTSNE: A Modular Python Library for t-SNE Dimensionality Reduction and Embedding", JSS 109, 2024. L.
    McInnes, J. Healy and J. Melville, "UMAP: Uniform Manifold Approximation and Projection for Dimension Reduction",
    arXiv:1802.03426, 2018.
    """

    def __init__(
        self,
        *,
        loss: str = "tsne",
        n_neighbors: int | None = None,
        link: float = 0.2,
        motion: float = 0.05,
        lengths: str = "pair",
        n_iter: int | None = None,
        random_state: int = 0,
    ) -> None:
        self.loss = loss
        self.n_neighbors = n_neighbors
        self.link = link
        self.motion = motion
        self.lengths = lengths
        self.n_iter = n_iter
        self.random_state = random_state

    def fit_transform(self, X: npt.ArrayLike, snapshots: npt.ArrayLike | None = None) -> Array:
        """Embed rows.

        Parameters
        ----------
        X : array-like of shape (n_rows, n_features)
            Rows of all snapshots; the first two features are where they start, so they should be the widest.
        snapshots : array-like of shape (n_rows,), int, optional
            The snapshot of each row, in order of time; all of one by default. Each snapshot holds the same rows in the
            same order.

        Returns
        -------
        ndarray of shape (n_rows, 2), float64
            Positions.

        Raises
        ------
        ValueError
            For values that are not finite, snapshots with different numbers of rows, or parameters out of range.
        """
        self._check()
        flat = check_array(X, dtype=np.float64)
        of = np.zeros(len(flat), np.int64) if snapshots is None else np.asarray(snapshots)
        if of.shape != (len(flat),):
            raise ValueError(f"snapshots has shape {of.shape}; expected ({len(flat)},), one for each row of X")
        _, counts = np.unique(of, return_counts=True)
        if len(set(counts.tolist())) > 1:
            raise ValueError(
                f"snapshots have {counts.min()} to {counts.max()} rows; expected the same rows in each, in one order"
            )
        order = np.argsort(of, kind="stable")
        values = flat[order].reshape(len(counts), counts[0], -1)
        count = self.n_neighbors or N_NEIGHBORS[self.loss]
        with own_threads(None, most=len(values)) as workers:
            find = partial(find_neighborhood, perplexity=count)
            neighborhoods = list(run_each(find, values, executor=workers))
            links = find_links(values, neighborhoods=neighborhoods, executor=workers)
        stays = Stays(values)
        task = Task(
            values=values,
            neighborhoods=neighborhoods,
            links=links,
            paths=Paths(values, lengths=self.lengths),
            stays=stays,
            n_neighbors=count,
            link=self.link,
            motion=self.motion,
            n_iter=self.n_iter or N_ITER[self.loss],
            random_state=self.random_state,
        )
        positions = lay_out_tsne(task) if self.loss == "tsne" else lay_out_umap(task)
        self.embedding_: Array = np.empty((len(flat), 2))
        drawn = stays.average(draw_drift(values, positions, neighborhoods=neighborhoods))
        self.embedding_[order] = drawn.reshape(-1, 2)
        return self.embedding_

    def _check(self) -> None:
        if self.loss not in N_ITER:
            raise ValueError(f'loss is {self.loss!r}; expected "tsne" or "umap"')
        if self.lengths not in LENGTHS:
            raise ValueError(f'lengths is {self.lengths!r}; expected "pair" or "run"')
        for name, least in (("n_neighbors", 2), ("n_iter", 1)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise ValueError(f"{name} is {value}; expected at least {least}, or None")
        if self.link < 0:
            raise ValueError(f"link is {self.link}; expected a weight of 0 or more")
        if not 0 <= self.motion < 0.5:
            raise ValueError(f"motion is {self.motion}; expected a weight from 0 to below 0.5")
