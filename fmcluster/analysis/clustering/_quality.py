"""Quality of clusters: measures at each snapshot, by themselves and against the true classes."""

from collections.abc import Mapping
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from sklearn.metrics import (
    adjusted_mutual_info_score,
    calinski_harabasz_score,
    davies_bouldin_score,
    normalized_mutual_info_score,
    silhouette_score,
)
from sklearn.metrics.cluster import contingency_matrix
from sklearn.neighbors import NearestNeighbors

from .._parallel import run_each
from .._results import NOISE, Array, Clusters, Labels, Scores
from .._summarized import Summarized
from .._validation import require, require_finite
from ..diagnosis import neighbor_accuracy

Classes = Mapping[Any, Any] | pd.Series
_UNKNOWN = -1
_NULL_ROWS, _PERMUTATIONS = 1000, 5
_MEASURES = (
    "silhouette",
    "silhouette_null",
    "davies_bouldin",
    "calinski_harabasz",
    "nmi",
    "ami",
    "purity",
    "knn_accuracy",
    "knn_chance",
)


@dataclass(frozen=True, eq=False, repr=False)
class Quality(Summarized):
    """How good clusters are, per snapshot.

    Attributes
    ----------
    layer, view : str
        Where the rows come from.
    method : str
        Name of the clusterer.
    fit : {"pooled", "each", "epoch"}
        What the clusters were fitted on.
    fit_epoch : int or None
        The epoch, where they were fitted on one.
    n_neighbors : int
        How many neighbors were asked for `knn_accuracy`; all others where there are fewer.
    frame : DataFrame
        One row per snapshot, with columns

        - ``snapshot, epoch, step``;
        - ``n_rows``, ``n_clusters`` (those with a row in this snapshot), ``noise`` (share of rows in no cluster);
        - of the rows in a cluster: ``silhouette`` (mean over rows, from -1 to 1, high is good), ``silhouette_null``
          (the same with the labels permuted at random, of at most 1,000 rows, mean of 5 times: what clusters that mean
          nothing would have), ``davies_bouldin`` (from 0, low is good), ``calinski_harabasz`` (from 0, high is good);
        - of the rows in a cluster whose class is known: ``nmi`` (0 to 1) and ``ami`` (the same corrected for chance: 0
          is chance, 1 the best) between clusters and classes, ``purity`` (share of rows whose class is the most
          frequent one of their cluster);
        - of the rows whose class is known: ``knn_accuracy``, the share that get it from their nearest neighbors,
          themselves left out, and ``knn_chance``, the same with the labels permuted at random, mean of 20 times;
        - ``silhouette_rows``, how many rows the silhouette is of;
        - ``note``: why measures are NaN; empty where none is, or only for want of `classes`.
    """

    layer: str
    view: str
    method: str
    fit: str
    n_neighbors: int
    frame: pd.DataFrame
    fit_epoch: int | None = None

    @property
    def values(self) -> Array:
        """The measures without the counts, ndarray of shape (n_snapshots, 9), in the order of `frame`."""
        return self.frame[list(_MEASURES)].to_numpy(dtype=np.float64)


def quality(
    clusters: Clusters,
    scores: Scores,
    *,
    classes: Classes | None = None,
    n_neighbors: int = 15,
    max_rows: int = 5000,
    random_state: int = 0,
    executor: Executor | None = None,
) -> Quality:
    """Measure how well separated the clusters of each snapshot are, and how far they and the neighbors are classes.

    Each snapshot is measured by itself, on the scores of its own rows. Rows that are noise are in no cluster: they are
    left out of all measures of clusters, and their share stands beside them.

    Where there are fewer than two clusters, or each row is a cluster of its own, nothing says how well clusters are
    separated: the three measures are NaN. So is Calinski and Harabasz's where all rows of each cluster are the same, as
    it divides by their scatter, and so are NMI and AMI where all rows are of one class. `note` names the reason.

    Parameters
    ----------
    clusters : Clusters
        Made by `cluster`.
    scores : Scores
        Made by `pca`: what was clustered. Distances are taken in them, Euclidean.
    classes : Series or mapping, optional
        The class of each sample by its dataset index, such as ``run.samples["label"]``; for the `sample` view only.
        Samples of class -1, "" or NaN are of unknown class, and left out of the measures against classes.
    n_neighbors : int
        How many neighbors name a row's class, by majority; of classes with equally many, that of the nearest.
    max_rows : int
        Silhouettes take all pairs of rows. Of snapshots with more rows than this, so many rows are drawn, once, the
        same in every snapshot; `silhouette_rows` of them are in a cluster. The other measures are of all rows.
    random_state : int
        Seed of the draw, and of the permuted labels.
    executor : concurrent.futures.Executor, optional
        Where snapshots are measured; by default here, one after the other.

    Returns
    -------
    Quality
        With a `frame` of one row per snapshot.

    Raises
    ------
    TypeError
        For what is neither clusters nor scores, or classes that are not by sample.
    ValueError
        Where clusters and scores are not of the same rows, scores are not finite, classes are given for rows that are
        not samples, or a sample's class is missing.

    References
    ----------
    P. J. Rousseeuw, "Silhouettes", Journal of Computational and Applied Mathematics 20, 1987. D. L. Davies and
    D. W. Bouldin, "A Cluster Separation Measure", IEEE TPAMI 1, 1979. T. Calinski and J. Harabasz, "A dendrite method
    for cluster analysis", Communications in Statistics 3, 1974. N. X. Vinh, J. Epps and J. Bailey, "Information
    Theoretic Measures for Clusterings Comparison", JMLR 11, 2010 (NMI by the arithmetic mean, AMI). T. M. Cover and
    P. E. Hart, "Nearest neighbor pattern classification", IEEE Transactions on Information Theory 13, 1967.
    """
    require(clusters, Clusters, verb="quality", made_by="cluster(scores, clusterer)")
    require(scores, Scores, verb="quality", made_by="pca(vectors)")
    clusters.check_same_rows(scores)
    require_finite(scores)
    for name, number, least in (("n_neighbors", n_neighbors, 1), ("max_rows", max_rows, 2)):
        if number < least:
            raise ValueError(f"{name} is {number}; expected at least {least}")
    by_snapshot = clusters.by_snapshot(clusters.labels)
    n_rows = by_snapshot.shape[1]
    drawn = np.arange(n_rows)
    if n_rows > max_rows:
        drawn = np.sort(np.random.default_rng(random_state).choice(n_rows, max_rows, replace=False))
    known = None if classes is None else _classes_of(clusters, classes)
    time = clusters.rows.iloc[::n_rows][["snapshot", "epoch", "step"]].reset_index(drop=True)
    pairs = zip(scores.by_snapshot(scores.values), by_snapshot, strict=True)
    measure = partial(_measure, drawn=drawn, classes=known, n_neighbors=n_neighbors, random_state=random_state)
    measured = pd.DataFrame(list(run_each(measure, pairs, executor=executor)))
    return Quality(
        layer=clusters.layer,
        view=clusters.view,
        method=clusters.method,
        fit=clusters.fit,
        fit_epoch=clusters.fit_epoch,
        n_neighbors=n_neighbors,
        frame=pd.concat([time, measured], axis=1),
    )


def _measure(
    snapshot: tuple[Array, Labels], *, drawn: Labels, classes: Labels | None, n_neighbors: int, random_state: int
) -> dict[str, Any]:
    """Measure the rows and labels of one snapshot: a row of the table."""
    values, labels = snapshot
    clustered = labels != NOISE
    found: dict[str, Any] = {
        "n_rows": len(labels),
        "n_clusters": len(np.unique(labels[clustered])),
        "noise": float((~clustered).mean()),
        **dict.fromkeys(_MEASURES, np.nan),
    }
    notes = []
    picked = drawn[clustered[drawn]]
    found["silhouette_rows"] = len(picked)
    if nothing := _nothing_to_separate(labels[clustered]):
        notes.append(nothing)
    else:
        rows, names = values[clustered], labels[clustered]
        found["davies_bouldin"] = float(davies_bouldin_score(rows, names))
        if len(np.unique(rows, axis=0)) > found["n_clusters"]:
            found["calinski_harabasz"] = float(calinski_harabasz_score(rows, names))
        else:
            notes.append("the rows of each cluster are all the same")
        if nothing := _nothing_to_separate(labels[picked]):
            notes.append(f"of the rows drawn for silhouettes: {nothing}")
        else:
            found["silhouette"] = float(silhouette_score(values[picked], labels[picked]))
            found["silhouette_null"] = _null_of(values[picked], labels[picked], random_state=random_state)
    if classes is not None:
        notes += _compare(found, values, labels, classes=classes, n_neighbors=n_neighbors, random_state=random_state)
    return found | {"note": "; ".join(notes)}


def _null_of(values: Array, labels: Labels, *, random_state: int) -> float:
    """Return the mean silhouette of rows whose labels are permuted; NaN where too few rows of a few are drawn."""
    rng = np.random.default_rng(random_state)
    rows = np.sort(rng.choice(len(labels), min(len(labels), _NULL_ROWS), replace=False))
    if _nothing_to_separate(labels[rows]):
        return float("nan")
    return float(np.mean([silhouette_score(values[rows], rng.permutation(labels[rows])) for _ in range(_PERMUTATIONS)]))


def _nothing_to_separate(labels: Labels) -> str:
    """Say why there is no separation to measure; nothing where there is."""
    count = len(np.unique(labels))
    if count < 2:
        return "only one cluster" if count else "no row is in a cluster"
    return "each row is a cluster of its own" if count == len(labels) else ""


def _compare(
    found: dict[str, Any], values: Array, labels: Labels, *, classes: Labels, n_neighbors: int, random_state: int
) -> list[str]:
    """Fill in the measures against the true classes; return why some are missing."""
    notes = []
    known = classes != _UNKNOWN
    both = known & (labels != NOISE)
    counts = contingency_matrix(classes[both], labels[both]) if both.any() else np.empty((0, 0))
    if counts.size:
        found["purity"] = float(counts.max(axis=0).sum() / counts.sum())
    if len(counts) > 1:
        found["nmi"] = float(normalized_mutual_info_score(classes[both], labels[both]))
        found["ami"] = float(adjusted_mutual_info_score(classes[both], labels[both]))
    else:
        notes.append(
            "the rows in clusters are of one class" if len(counts) else "no row in a cluster is of known class"
        )
    rows, names = values[known], classes[known]
    if len(rows) > 1:
        near = NearestNeighbors(n_neighbors=min(n_neighbors, len(rows) - 1)).fit(rows).kneighbors(return_distance=False)
        found["knn_accuracy"], found["knn_chance"], _ = neighbor_accuracy(near, names, random_state=random_state)
    else:
        notes.append("fewer than two rows are of known class")
    return notes


def _classes_of(clusters: Clusters, classes: Classes) -> Labels:
    """Return the class of each row of a snapshot, numbered from 0 in order; -1 where it is not known."""
    if clusters.identity != ["sample"]:
        raise ValueError(
            f"classes are of samples, but rows of the {clusters.view} view are named by "
            f'{", ".join(clusters.identity)}; cluster the sample view, layer.vectors("sample"), or leave out classes'
        )
    if not isinstance(classes, Mapping | pd.Series):
        raise TypeError(
            f'classes is a {type(classes).__name__}; expected a Series by sample, such as run.samples["label"], or a '
            f"mapping from sample to class"
        )
    given = classes if isinstance(classes, pd.Series) else pd.Series(dict(classes), dtype=object)
    if not given.index.is_unique:
        raise ValueError(f"classes names sample {given.index[given.index.duplicated()][0]} more than once")
    samples = pd.Index(clusters.rows["sample"].iloc[: len(clusters.rows) // clusters.n_snapshots])
    if len(missing := samples.difference(given.index)):
        raise ValueError(
            f"classes has no class of {len(missing)} of the {len(samples)} samples, the first of them {missing[0]}; "
            f"give those that are not known the class -1"
        )
    of_rows = given.loc[samples].astype(object)
    of_rows = of_rows.where(~of_rows.isin([-1, ""]), None)
    return np.asarray(pd.factorize(of_rows.infer_objects(), sort=True)[0], np.int64)
