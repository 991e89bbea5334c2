"""Stability of clusters: over samples of the rows, and over the number of clusters."""

from collections.abc import Iterable
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from sklearn.cluster import KMeans

from .._parallel import run_each
from .._results import N_INIT, NOISE, Array, Clusters, Fit, Labels, Scores
from .._summarized import Summarized
from .._validation import require
from ._choose_k import check_numbers, sized
from ._cluster import Clusterer, cluster
from ._matching import shared_members

# Hennig: a cluster that is found again at most this well has dissolved, and at least this well is stable
DISSOLVED, STABLE = 0.5, 0.75


@dataclass(frozen=True, eq=False, repr=False)
class Stability(Summarized):
    """How well each cluster is found again in samples of the rows.

    Attributes
    ----------
    clusters : Clusters
        The clusters of all rows.
    n_resamples : int
        How many samples were drawn.
    frame : DataFrame
        One row per snapshot and cluster: ``snapshot, epoch, step, cluster, size``, ``jaccard`` (mean over samples of
        the largest Jaccard index with a cluster found there, from 0 to 1; NaN where none drew a member),
        ``recovered`` (share of samples with 0.75 or more), ``dissolved`` (0.5 or less). A mean of 0.75 is what Hennig
        calls a stable cluster.
    """

    clusters: Clusters
    n_resamples: int
    frame: pd.DataFrame


@dataclass(frozen=True, eq=False, repr=False)
class StabilityAcrossK(Summarized):
    """How well each cluster is found again with other numbers of clusters.

    Attributes
    ----------
    frame : DataFrame
        One row per snapshot, number of clusters and cluster: ``snapshot, epoch, step, k, cluster, size, stability``,
        from 0 to 1: the cluster is there with every other number of clusters.
    """

    frame: pd.DataFrame


def stability(
    scores: Scores,
    clusterer: Clusterer,
    *,
    fit: Fit = "pooled",
    fit_epoch: int | None = None,
    n_resamples: int = 50,
    random_state: int = 0,
    executor: Executor | None = None,
) -> Stability:
    """Cluster samples of the rows, and see how well each cluster is found again.

    Rows are drawn with replacement, as many as there are, the same in every snapshot; one that is drawn several times
    counts once. Each cluster, as far as it was drawn, is compared with the most similar one of the sample, within each
    snapshot.

    Parameters
    ----------
    scores : Scores
        Made by `pca`.
    clusterer : scikit-learn style clusterer
        As of `cluster`.
    fit : {"pooled", "each"}
        As of `cluster`.
    fit_epoch : int, optional
        As of `cluster`.
    n_resamples : int
        How many samples are drawn.
    random_state : int
        Seed of the samples.
    executor : concurrent.futures.Executor, optional
        Where the samples are clustered.

    Returns
    -------
    Stability

    Raises
    ------
    TypeError
        For what is not scores, or no clusterer.
    ValueError
        For fewer rows than clusters, in all or in a sample (about two thirds of them), and as `cluster` does.

    References
    ----------
    C. Hennig, "Cluster-wise Assessment of Cluster Stability", Computational Statistics & Data Analysis 52, 2007.
    """
    require(scores, Scores, verb="stability", made_by="pca(vectors)")
    if n_resamples < 1:
        raise ValueError(f"n_resamples is {n_resamples}; expected at least 1")
    clusters = cluster(scores, clusterer, fit=fit, fit_epoch=fit_epoch, executor=executor)
    rng, count = np.random.default_rng(random_state), len(scores.rows) // scores.n_snapshots
    draws = [np.unique(rng.integers(count, size=count)) for _ in range(n_resamples)]
    tables = list(
        run_each(partial(_found_again, scores, clusterer, clusters, fit, fit_epoch), draws, executor=executor)
    )
    indices = np.stack(tables)  # (resample, snapshot and cluster)
    drawn = np.isfinite(indices)
    often = np.maximum(drawn.sum(axis=0), 1)
    known = drawn.any(axis=0)
    measures = {
        "jaccard": np.where(drawn, indices, 0).sum(axis=0),
        "recovered": (drawn & (np.nan_to_num(indices) >= STABLE)).sum(axis=0),
        "dissolved": (drawn & (np.nan_to_num(indices) <= DISSOLVED)).sum(axis=0),
    }
    frame = _sizes(clusters).assign(
        **{name: np.where(known, total / often, np.nan) for name, total in measures.items()}
    )
    return Stability(clusters=clusters, n_resamples=n_resamples, frame=frame)


def sc3_stability(
    scores: Scores,
    ks: Iterable[int] = range(2, 13),
    *,
    clusterer: Clusterer | None = None,
    fit: Fit = "pooled",
    fit_epoch: int | None = None,
    random_state: int = 0,
    executor: Executor | None = None,
) -> StabilityAcrossK:
    """Cluster the rows into several numbers of clusters, and see which clusters stay whole and by themselves.

    The stability index of SC3: of a cluster that falls into N clusters of another solution, the mean share of its
    members in each of these, divided by N; the mean over all other solutions. Within each snapshot.

    Parameters
    ----------
    scores : Scores
        Made by `pca`.
    ks : iterable of int
        At least two numbers of clusters.
    clusterer : scikit-learn style clusterer, optional
        With a parameter ``n_clusters`` (of a mixture ``n_components``), which is set to each k. By default KMeans, the
        best of four starts.
    fit : {"pooled", "each"}
        As of `cluster`.
    fit_epoch : int, optional
        As of `cluster`.
    random_state : int
        Seed of the default clusterer.
    executor : concurrent.futures.Executor, optional
        Where the rows are clustered.

    Returns
    -------
    StabilityAcrossK

    Raises
    ------
    TypeError
        For what is not scores, or a clusterer that is not asked for a number of clusters.
    ValueError
        For fewer than two numbers of clusters, numbers out of range, and as `cluster` does.

    References
    ----------
    V. Y. Kiselev et al., "SC3: Consensus Clustering of Single-Cell RNA-seq Data", Nature Methods 14, 2017 (the
    stability index, in its supplement).
    """
    require(scores, Scores, verb="sc3_stability", made_by="pca(vectors)")
    numbers = check_numbers(ks, scores.values, least=1)
    if len(numbers) < 2:
        raise ValueError(f"ks is {numbers}; expected at least two numbers of clusters, to compare them")
    if clusterer is None:
        clusterer = KMeans(n_init=N_INIT, random_state=random_state)
    sized(clusterer, numbers[0])
    solutions = list(run_each(partial(_solve, scores, clusterer, fit, fit_epoch), numbers, executor=executor))
    frames = []
    for here, (k, clusters) in enumerate(zip(numbers, solutions, strict=True)):
        others = [other for there, other in enumerate(solutions) if there != here]
        found = np.concatenate(
            [
                np.mean([_kept_whole(own, other.by_snapshot(other.labels)[order]) for other in others], axis=0)
                for order, own in enumerate(clusters.by_snapshot(clusters.labels))
            ]
        )
        frames.append(_sizes(clusters).assign(k=k, stability=found))
    frame = pd.concat(frames).sort_values(["snapshot", "k", "cluster"], ignore_index=True)
    return StabilityAcrossK(frame[["snapshot", "epoch", "step", "k", "cluster", "size", "stability"]])


def _sizes(clusters: Clusters) -> pd.DataFrame:
    """Return the members of each cluster in each snapshot in which it has any, noise left out."""
    frame = clusters.frame
    time = ["snapshot", "epoch", "step"]
    return frame[frame["cluster"] != NOISE].groupby([*time, "cluster"]).size().rename("size").reset_index()


def _found_again(
    scores: Scores, clusterer: Any, clusters: Clusters, fit: Fit, fit_epoch: int | None, drawn: Labels
) -> Array:
    """Return the largest Jaccard index of each cluster of each snapshot, in the order of `_sizes`."""
    count = len(scores.rows) // scores.n_snapshots
    chosen = (np.arange(scores.n_snapshots)[:, None] * count + drawn).ravel()
    part_of_scores = replace(scores, rows=scores.rows.iloc[chosen].reset_index(drop=True), values=scores.values[chosen])
    sample = cluster(part_of_scores, clusterer, fit=fit, fit_epoch=fit_epoch)
    labels, parts = clusters.by_snapshot(clusters.labels), sample.by_snapshot(sample.labels)
    return np.concatenate([_jaccard(own, part, drawn) for own, part in zip(labels, parts, strict=True)])


def _jaccard(labels: Labels, part: Labels, drawn: Labels) -> Array:
    """Return the largest Jaccard index of each cluster by its name, NaN where no member was drawn."""
    names = np.unique(labels[labels != NOISE])
    names_drawn, names_found, table = shared_members(labels[drawn], part)
    either = _members(labels[drawn], names_drawn)[:, None] + _members(part, names_found) - table
    best = np.full(len(names), np.nan)
    best[np.searchsorted(names, names_drawn)] = (table / either).max(axis=1, initial=0.0)
    return best


def _members(labels: Labels, names: Labels) -> Labels:
    sizes: Labels = (labels == names[:, None]).sum(axis=1)
    return sizes


def _solve(scores: Scores, clusterer: Any, fit: Fit, fit_epoch: int | None, k: int) -> Clusters:
    return cluster(scores, sized(clusterer, k), fit=fit, fit_epoch=fit_epoch)


def _kept_whole(own: Labels, other: Labels) -> Array:
    """Return, of each cluster of one solution by its name, how whole and pure it is in another."""
    names, names_other, table = shared_members(own, other)
    parts = np.maximum((table > 0).sum(axis=1), 1)
    found: Array = (table / _members(other, names_other)).sum(axis=1) / parts**2
    return found[np.argsort(names)]
