"""One set of clusters for all snapshots."""

from typing import Any, Protocol

import numpy as np

from .arguments import require
from .estimators import fresh, name_of
from .results import Clusters, Scores


class Clusterer(Protocol):
    """A scikit-learn style clusterer."""

    def fit_predict(self, X: Any, y: Any = None) -> Any:
        """Return a label for each row of X; -1 is noise."""


def cluster(scores: Scores, clusterer: Clusterer) -> Clusters:
    """Cluster the rows of all snapshots together, so that a label means the same in each.

    Parameters
    ----------
    scores : Scores
        Made by `pca`. With as many components as there is rank, this clusters the raw vectors.
    clusterer : scikit-learn style clusterer
        Anything with ``fit_predict``, such as ``KMeans(8, random_state=0)`` or ``HDBSCAN()``; it is cloned where it
        can be.

    Returns
    -------
    Clusters
        ``labels`` of shape (n_rows,), int64, as the clusterer gave them; -1 is noise.

    Raises
    ------
    TypeError
        Where `clusterer` has no ``fit_predict``.
    ValueError
        Where there are fewer rows than clusters asked for, or the labels are not one integer a row.
    """
    require(scores, Scores, verb="cluster", made_by="pca(vectors)")
    if isinstance(clusterer, type):
        raise TypeError(
            f"cluster received the class {clusterer.__name__}; expected one of it: {clusterer.__name__}(...)"
        )
    if not hasattr(clusterer, "fit_predict"):
        raise TypeError(f"{name_of(clusterer)} has no fit_predict; expected a scikit-learn style clusterer")
    wanted = getattr(clusterer, "n_clusters", None)
    if isinstance(wanted, int) and wanted > len(scores.rows):
        raise ValueError(f"{wanted} clusters were asked of {len(scores.rows)} rows; ask for fewer")
    labels = np.asarray(fresh(clusterer).fit_predict(scores.values))
    if labels.shape != (len(scores.rows),) or labels.dtype.kind not in "iu":
        raise ValueError(
            f"{name_of(clusterer)} gave {labels.dtype} labels of shape {labels.shape}; expected an integer for each of "
            f"{len(scores.rows)} rows"
        )
    return Clusters(
        rows=scores.rows,
        layer=scores.layer,
        view=scores.view,
        fit="pooled",
        labels=labels.astype(np.int64),
        method=name_of(clusterer),
    )
