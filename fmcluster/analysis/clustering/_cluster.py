"""Clusters of the rows of all snapshots: together, one after the other, or by the clusters of one epoch."""

from concurrent.futures import Executor
from functools import partial
from typing import Any, Protocol

import numpy as np
from sklearn.cluster import BisectingKMeans

from .._estimators import fresh, name_of
from .._parallel import run_each
from .._results import NOISE, Array, Clusters, Fit, Labels, Scores
from .._validation import fitted_snapshot, name_fit, require, require_finite
from ._matching import name_in_turn


class Clusterer(Protocol):
    """A scikit-learn style clusterer."""

    def fit_predict(self, X: Any, y: Any = None) -> Any:
        """Return a label for each row of X; -1 is noise."""


def cluster(
    scores: Scores,
    clusterer: Clusterer,
    *,
    fit: Fit = "pooled",
    fit_epoch: int | None = None,
    warm_start: bool = True,
    executor: Executor | None = None,
) -> Clusters:
    """Cluster the rows of all snapshots.

    Parameters
    ----------
    scores : Scores
        Made by `pca`. With as many components as there is rank, this clusters the raw vectors.
    clusterer : scikit-learn style clusterer
        Anything with ``fit_predict``, such as ``KMeans(8, random_state=0)`` or ``HDBSCAN()``; it is cloned where it
        can be.
    fit : {"pooled", "each"}
        ``"pooled"``: the rows of all snapshots together, so that a label means the same in each. ``"each"``: each
        snapshot by itself; its clusters are then named after those of the snapshot before with which they share most
        members (those matched with none get a new name).
    fit_epoch : int, optional
        An epoch: the clusterer is fitted on the rows of its last snapshot, and all other rows are given to the clusters
        found there by ``predict``.
    warm_start : bool
        Of ``fit="each"``: whether to start each snapshot from the centers (of a Gaussian mixture: the components) of
        the one before, where the clusterer takes a start. Clusterers with ``init`` and ``n_init``, and those with
        ``means_init``, do.
    executor : concurrent.futures.Executor, optional
        Of ``fit="each"``: where the snapshots are clustered, unless each waits for the one before it.

    Returns
    -------
    Clusters
        ``labels`` of shape (n_rows,), int64; -1 is noise.

    Raises
    ------
    TypeError
        Where `clusterer` has no ``fit_predict``, or no ``predict`` and is fitted on one epoch.
    ValueError
        Where there are fewer rows than clusters asked for, scores are not finite, or the labels are not one integer a
        row.

    References
    ----------
    H. W. Kuhn, "The Hungarian Method for the Assignment Problem", Naval Research Logistics Quarterly 2, 1955 (the
    names).
    """
    require(scores, Scores, verb="cluster", made_by="pca(vectors)")
    require_clusterer(clusterer)
    snapshot = fitted_snapshot(scores.rows, fit=fit, fit_epoch=fit_epoch)
    require_finite(scores)
    blocks = scores.by_snapshot(scores.values)
    snapshots = scores.rows["snapshot"].unique().tolist()
    together = fit == "pooled" and snapshot is None
    fitted = len(scores.rows) if together else blocks.shape[1]
    sized = size_parameter(clusterer)
    wanted = getattr(clusterer, sized) if sized else None
    if isinstance(wanted, int | np.integer) and wanted > fitted:
        where = "" if together else " of each snapshot"
        raise ValueError(f"{wanted} clusters were asked of {fitted} rows{where}; ask for fewer")
    if together:
        labels = _find(clusterer, scores.values)
    elif fit == "each":
        found = _in_turn(clusterer, blocks) if warm_start and _takes_start(clusterer) else None
        labels = name_in_turn(np.stack(found or list(run_each(partial(_find, clusterer), blocks, executor=executor))))
    else:
        labels = _at_one(clusterer, blocks, snapshots.index(snapshot))
    return Clusters(
        rows=scores.rows,
        layer=scores.layer,
        view=scores.view,
        fit=name_fit(fit, fit_epoch),
        fit_epoch=fit_epoch,
        labels=labels.ravel(),
        method=name_of(clusterer),
        n_asked=int(wanted) if isinstance(wanted, int | np.integer) else None,
    )


def require_clusterer(clusterer: object) -> None:
    """Raise `TypeError` for what is no clusterer."""
    if isinstance(clusterer, type):
        raise TypeError(
            f"cluster received the class {clusterer.__name__}; expected an instance of it: {clusterer.__name__}(...)"
        )
    if not hasattr(clusterer, "fit_predict"):
        raise TypeError(f"{name_of(clusterer)} has no fit_predict; expected a scikit-learn style clusterer")


def size_parameter(clusterer: object) -> str | None:
    """Return what the clusterer calls the number of clusters, None where it is asked for none."""
    known = _parameters(clusterer)
    if "n_clusters" in known:
        return "n_clusters"
    return "n_components" if "means_init" in known or "weight_concentration_prior" in known else None


def _parameters(clusterer: Any) -> dict[str, Any]:
    return clusterer.get_params(deep=False) if hasattr(clusterer, "get_params") else {}


def takes_centers(clusterer: object) -> bool:
    """Say whether a clusterer is a k-means: it starts from centers, and gives each row to the nearest."""
    return {"init", "n_init"} <= set(_parameters(clusterer)) and not isinstance(clusterer, BisectingKMeans)


def _takes_start(clusterer: object) -> bool:
    return takes_centers(clusterer) or "means_init" in _parameters(clusterer)


def _start_from(estimator: Any) -> dict[str, Any]:
    """Return the parameters that make a clusterer start where this one ended."""
    if "means_init" not in _parameters(estimator):
        return {"init": estimator.cluster_centers_, "n_init": 1}
    # the means alone would be put together with the weights and covariances of other components
    return {
        "means_init": estimator.means_,
        "weights_init": estimator.weights_,
        "precisions_init": estimator.precisions_,
        "n_init": 1,
    }


def _find(clusterer: Any, values: Array) -> Labels:
    return _checked(clusterer, fresh(clusterer).fit_predict(values), len(values))


def _in_turn(clusterer: Any, blocks: Array) -> list[Labels]:
    found: list[Labels] = []
    start: dict[str, Any] = {}
    for values in blocks:
        estimator = fresh(clusterer)
        if start:
            estimator.set_params(**start)
        found.append(_checked(estimator, estimator.fit_predict(values), len(values)))
        start = _start_from(estimator)
    return found


def _at_one(clusterer: Any, blocks: Array, fitted_at: int) -> Labels:
    if not hasattr(clusterer, "predict"):
        raise TypeError(
            f"{name_of(clusterer)} has no predict, and cannot give rows to the clusters of another snapshot; take "
            f'fit="pooled" or fit="each", or a clusterer with predict, such as KMeans or GaussianMixture'
        )
    estimator = fresh(clusterer)
    fitted = estimator.fit_predict(blocks[fitted_at])
    found = [fitted if order == fitted_at else estimator.predict(values) for order, values in enumerate(blocks)]
    return np.stack([_checked(estimator, labels, blocks.shape[1]) for labels in found])


def _checked(clusterer: object, given: Any, count: int) -> Labels:
    labels: Labels = np.asarray(given)
    if labels.shape != (count,) or labels.dtype.kind not in "iu":
        raise ValueError(
            f"{name_of(clusterer)} gave {labels.dtype} labels of shape {labels.shape}; expected an integer for each of "
            f"{count} rows"
        )
    if labels.min() < NOISE:
        raise ValueError(f"{name_of(clusterer)} gave the label {labels.min()}; expected 0 or more, or -1 for noise")
    return labels.astype(np.int64, copy=False)
