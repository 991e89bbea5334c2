"""Number of clusters: criteria by which each is judged, and the best of them."""

from collections.abc import Iterable
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
import pandas as pd
from sklearn.cluster import KMeans
from sklearn.metrics import silhouette_score
from sklearn.mixture import GaussianMixture

from .._estimators import fresh, name_of
from .._parallel import run_each
from .._results import N_INIT, Array, Labels, Scores
from .._summarized import Summarized
from .._validation import fitted_snapshot, require
from ._cluster import Clusterer, require_clusterer, size_parameter

Criterion = Literal["silhouette", "gap", "bic"]
MOST_ROWS = 5_000


@dataclass(frozen=True, eq=False, repr=False)
class NumberOfClusters(Summarized):
    """How good each number of clusters is, and which one that speaks for.

    Attributes
    ----------
    k : int
        The number of clusters that was chosen.
    criterion : str
        ``"silhouette"`` (largest), ``"gap"`` (Tibshirani's rule) or ``"bic"`` (smallest).
    method : str
        Name of the clusterer.
    frame : DataFrame
        ``k``, ``value`` of the criterion, ``spread`` (of the gap: one standard error, that of the simulation included;
        NaN for the others), ``chosen``.
    """

    k: int
    criterion: str
    method: str
    frame: pd.DataFrame


def choose_k(
    scores: Scores,
    ks: Iterable[int] = range(2, 13),
    *,
    criterion: Criterion = "silhouette",
    clusterer: Clusterer | None = None,
    fit: Literal["pooled"] = "pooled",
    fit_epoch: int | None = None,
    n_references: int = 10,
    random_state: int = 0,
    executor: Executor | None = None,
) -> NumberOfClusters:
    """Choose the number of clusters, of the rows of all snapshots together or of those of one epoch.

    Rows that hardly move are in each snapshot again, almost the same. The gap and the BIC take them for so many
    independent rows, and speak for many clusters; choose by one epoch then.

    Parameters
    ----------
    scores : Scores
        Made by `pca`.
    ks : iterable of int
        Numbers of clusters to try: from 1 on; of the silhouette, from 2 on.
    criterion : {"silhouette", "gap", "bic"}
        ``"silhouette"``: how much nearer a row is to its own cluster than to the next, the mean over rows; the largest
        is chosen. ``"gap"``: how much tighter the clusters are than those of rows spread evenly over the same box
        along the principal axes; the smallest k is chosen whose gap is within one standard error of the next one's or
        beyond it; where none is, the largest k. ``"bic"``: Bayesian information criterion of a mixture; the smallest
        is chosen. The first two take 5,000 rows drawn at random, where there are more.
    clusterer : scikit-learn style clusterer, optional
        With a parameter ``n_clusters`` (of a mixture ``n_components``), which is set to each k; for ``"bic"`` with a
        method ``bic``. By default KMeans, and for ``"bic"`` a Gaussian mixture with diagonal
        covariances, each the best of four starts.
    fit : {"pooled"}
        The rows are those of all snapshots together, unless `fit_epoch` is given.
    fit_epoch : int, optional
        An epoch: the rows are those of its last snapshot.
    n_references : int
        Of the gap: sets of rows that are spread evenly.
    random_state : int
        Seed of the default clusterer, of the rows drawn and of the references.
    executor : concurrent.futures.Executor, optional
        Where the rows are clustered.

    Returns
    -------
    NumberOfClusters
        The curve is its `frame`.

    Raises
    ------
    TypeError
        Where the clusterer is not asked for a number of clusters, or has no ``bic``.
    ValueError
        For no or too large numbers of clusters (more than distinct rows; of the silhouette, as many as rows), scores
        that are not finite, or another criterion.

    References
    ----------
    P. J. Rousseeuw, "Silhouettes", Journal of Computational and Applied Mathematics 20, 1987. R. Tibshirani,
    G. Walther and T. Hastie, "Estimating the Number of Clusters in a Data Set via the Gap Statistic", JRSS B 63, 2001.
    G. Schwarz, "Estimating the Dimension of a Model", Annals of Statistics 6, 1978.
    """
    require(scores, Scores, verb="choose_k", made_by="pca(vectors)")
    if criterion not in ("silhouette", "gap", "bic"):
        raise ValueError(f'criterion is {criterion!r}; expected "silhouette", "gap" or "bic"')
    if n_references < 2:
        raise ValueError(f"n_references is {n_references}; expected at least 2")
    values = scores.values
    snapshot = fitted_snapshot(scores.rows, fit=fit, fit_epoch=fit_epoch, allowed=("pooled",))
    if snapshot is not None:
        values = values[(scores.rows["snapshot"] == snapshot).to_numpy()]
    numbers = check_numbers(ks, values, least=2 if criterion == "silhouette" else 1)
    if clusterer is None:
        mixture = GaussianMixture(covariance_type="diag", n_init=N_INIT, random_state=random_state)
        clusterer = mixture if criterion == "bic" else KMeans(n_init=N_INIT, random_state=random_state)
    sized(clusterer, numbers[0])
    spread = np.full(len(numbers), np.nan)
    drawn = np.arange(len(values))
    if len(values) > MOST_ROWS:
        drawn = np.sort(np.random.default_rng(random_state).choice(len(values), MOST_ROWS, replace=False))
    if criterion == "silhouette":
        if numbers[-1] >= len(values):
            raise ValueError(f"a silhouette of {numbers[-1]} clusters needs more than the {len(values)} rows there are")
        judge = partial(_silhouette, clusterer, values, drawn)
        curve = np.array(list(run_each(judge, numbers, executor=executor)))
        best = int(np.argmax(curve))
    elif criterion == "bic":
        if not hasattr(clusterer, "bic"):
            raise TypeError(f"{name_of(clusterer)} has no bic; expected a mixture, such as GaussianMixture()")
        curve = np.array(list(run_each(partial(_bic, clusterer, values), numbers, executor=executor)))
        best = int(np.argmin(curve))
    else:
        curve, spread = _gap(clusterer, values[drawn], numbers, n_references, random_state, executor)
        enough = np.flatnonzero(curve[:-1] >= curve[1:] - spread[1:])
        best = int(enough[0]) if len(enough) else len(numbers) - 1
    frame = pd.DataFrame({"k": numbers, "value": curve, "spread": spread})
    return NumberOfClusters(
        k=numbers[best],
        criterion=criterion,
        method=name_of(clusterer),
        frame=frame.assign(chosen=np.arange(len(numbers)) == best),
    )


def check_numbers(ks: Iterable[int], values: Array, *, least: int) -> list[int]:
    """Return the numbers of clusters in order, and raise `ValueError` where they, or the rows, are of no use."""
    if not np.isfinite(values).all():
        raise ValueError("the scores hold NaN or infinite values; leave such rows out with vectors.without_nonfinite()")
    given = list(ks)
    numbers = sorted({int(k) for k in given})
    distinct = len(np.unique(values, axis=0))
    if not numbers or numbers != sorted(set(given)) or numbers[0] < least or numbers[-1] > distinct:
        raise ValueError(
            f"ks is {given}; expected whole numbers from {least} to {distinct}, the number of rows that differ"
        )
    return numbers


def sized(clusterer: Any, k: int) -> Any:
    """Return an unfitted copy that is asked for `k` clusters; raise `TypeError` for what cannot be asked."""
    require_clusterer(clusterer)
    name = size_parameter(clusterer)
    if name is None:
        raise TypeError(
            f"{name_of(clusterer)} has no parameter n_clusters that could be set; expected a clusterer that is asked "
            f"for a number of clusters, such as KMeans()"
        )
    return fresh(clusterer).set_params(**{name: k})


def _labels_of(clusterer: Any, values: Array, k: int) -> Labels:
    labels: Labels = np.asarray(sized(clusterer, k).fit_predict(values))
    return labels


def _silhouette(clusterer: Any, values: Array, drawn: Labels, k: int) -> float:
    labels = _labels_of(clusterer, values, k)[drawn]
    found = len(np.unique(labels))
    # a mixture may leave components without rows
    return float(silhouette_score(values[drawn], labels)) if 1 < found < len(drawn) else -1.0


def _bic(clusterer: Any, values: Array, k: int) -> float:
    return float(sized(clusterer, k).fit(values).bic(values))


def _gap(
    clusterer: Any, values: Array, numbers: list[int], n_references: int, random_state: int, executor: Executor | None
) -> tuple[Array, Array]:
    """Return the gap of each number of clusters, and its standard error."""
    centered = values - values.mean(axis=0)
    axes = np.linalg.svd(centered, full_matrices=False)[2]
    turned = centered @ axes.T
    spread_evenly = partial(_reference, turned.min(axis=0), turned.max(axis=0), len(values))
    seeds = np.random.SeedSequence(random_state).spawn(n_references)
    tightness = partial(_tightness, clusterer, numbers, turned, spread_evenly)
    own, *others = run_each(tightness, [None, *seeds], executor=executor)
    even = np.array(others)
    return even.mean(axis=0) - own, even.std(axis=0) * np.sqrt(1 + 1 / n_references)


def _reference(low: Array, high: Array, count: int, seed: np.random.SeedSequence) -> Array:
    return np.random.default_rng(seed).uniform(low, high, (count, len(low)))


def _tightness(clusterer: Any, numbers: list[int], values: Array, spread_evenly: Any, seed: Any) -> Array:
    """Return, for each k, the logarithm of the sum of squares within clusters, of the rows or of a reference."""
    values = values if seed is None else spread_evenly(seed)
    within = []
    for k in numbers:
        labels = _labels_of(clusterer, values, k)
        groups = [values[labels == label] for label in np.unique(labels)]
        within.append(sum(float(((group - group.mean(axis=0)) ** 2).sum()) for group in groups))
    smallest = np.finfo(np.float64).eps * float((values**2).sum())
    return np.log(np.maximum(within, max(smallest, np.finfo(np.float64).tiny)))
