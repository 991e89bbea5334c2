"""Noise floor: how much clusters differ where nothing has changed."""

from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from ...vectors import PartialSource, Unit, Vectors
from .._parallel import run_each
from .._results import MAX_BYTES, Array, Clusters, Fit, Labels, snapshot_of_epoch
from .._summarized import Summarized
from .._validation import require
from ..clustering import Clusterer, cluster, name_by_members, takes_centers
from ..components import pca
from ._agreement import MEASURES, agree, tabulate
from ._matched_halves import assign_groups, draw_groups, draw_halves, nearest

N_GROUPS = 8


@dataclass(frozen=True, eq=False, repr=False)
class NoiseFloor(Summarized):
    """How far two clusterings of the same rows agree at the same snapshot, where nothing but chance differs.

    Attributes
    ----------
    frame : DataFrame
        ``snapshot, epoch, step, split`` (which pair of clusterings), ``n_rows`` (in a cluster in both), ``churn, ari,
        ami``.
    source : str
        What the two were made from.
    layer, view : str
        Where the rows come from.
    fit : {"pooled", "each", "epoch"}
        What the clusterer was fitted on.
    fit_epoch : int or None
        The epoch, where it was fitted on one.
    method : str
        Name of the clusterer.
    n_asked : int or None
        How many clusters it was asked for; None for one that finds out.
    rows_per_snapshot : int
        Number of rows in each snapshot.
    """

    frame: pd.DataFrame
    source: str
    layer: str
    view: str
    fit: str
    method: str
    n_asked: int | None
    rows_per_snapshot: int
    fit_epoch: int | None = None

    def between(self, snapshot: int, other: int) -> Array:
        """Return what no change looks like from one snapshot to another: the mean of theirs.

        Returns
        -------
        ndarray of shape (2, 3), float64
            Churn, ARI and AMI: their means over the splits, and their limits, the largest churn and the smallest of the
            others that a split has.
        """
        here = self.frame[self.frame["snapshot"].isin([snapshot, other])]
        splits = here.groupby(["split", "snapshot"])[list(MEASURES)].mean().groupby("split").mean()
        limits = [splits[name].max() if name == "churn" else splits[name].min() for name in MEASURES]
        return np.stack([splits.mean().to_numpy(np.float64), np.array(limits, np.float64)])

    def check(self, clusters: Clusters) -> None:
        """Raise `ValueError` where this is not the noise floor of such clusters."""
        count = len(clusters.rows) // clusters.n_snapshots
        fits = [_fit_in_words(each.fit, each.fit_epoch) for each in (self, clusters)]
        mine = (self.layer, self.view, fits[0], self.method, self.n_asked, self.rows_per_snapshot)
        theirs = (clusters.layer, clusters.view, fits[1], clusters.method, clusters.n_asked, count)
        if mine != theirs:
            raise ValueError(
                f"the noise floor is of {_in_words(*mine)}; expected one of the clusters, {_in_words(*theirs)}: "
                f"make it with the same vectors, clusterer and fit"
            )
        missing = sorted(set(clusters.rows["snapshot"]) - set(self.frame["snapshot"]))
        if missing:
            raise ValueError(f"the noise floor has no snapshots {missing}; make it of all that the clusters are of")


def noise_floor(
    vectors: Vectors,
    clusterer: Clusterer,
    *,
    fit: Fit = "pooled",
    fit_epoch: int | None = None,
    clusters: Clusters | None = None,
    n_components: int = 50,
    n_splits: int = 5,
    max_bytes: int = MAX_BYTES,
    random_state: int = 0,
    executor: Executor | None = None,
) -> NoiseFloor:
    """See how far two halves of the probe agree about the clusters of the same rows, within each snapshot.

    Nothing has changed between the two but what was looked at, so that this is what the choice of the probe alone
    accounts for. Of the `channel` view, the samples are halved; of the `sample` and `position` views, the channels.
    Each half sees half of the data, and the two share none of it, while two snapshots share the whole probe: the noise
    floor is cautious, and a step with less churn than its noise floor has changed less than a change of the probe
    would.

    It matches what is tracked. Churn of a pooled k-means is between rows that are assigned to the same centroids at two
    snapshots; so the rows are assigned to these same centroids twice, as either half sees rows and centroids. Of
    clusters of each snapshot, and of clusterers without centers, both halves are clustered by themselves, and names are
    matched.

    Parameters
    ----------
    vectors : Vectors
        Made by `Layer.vectors`.
    clusterer : scikit-learn style clusterer
        As of `cluster`.
    fit : {"pooled", "each"}
        As of `cluster`.
    fit_epoch : int, optional
        As of `cluster`.
    clusters : Clusters, optional
        The clusters that are to be tracked, where they are known already: `cluster` of these vectors. Otherwise, where
        they are needed, they are made.
    n_components : int
        As of `pca`.
    n_splits : int
        How many times the probe is halved; fewer where there are fewer ways to halve eight groups of it.
    max_bytes : int
        Memory that may be taken by each of the passes, above what is in use.
    random_state : int
        Seed of the halves.
    executor : concurrent.futures.Executor, optional
        Where the halves are read and clustered.

    Returns
    -------
    NoiseFloor

    Raises
    ------
    TypeError
        For what is not vectors, or no clusterer.
    ValueError
        For a view that cannot be halved: the features of the `feature_map` view are positions, and neighboring
        positions depend on one another.

    References
    ----------
    T. Lange, V. Roth, M. L. Braun and J. M. Buhmann, "Stability-Based Validation of Clustering Solutions", Neural
    Computation 16, 2004.
    """
    require(vectors, Vectors, verb="noise_floor", made_by='layer.vectors("channel")')
    if n_splits < 1:
        raise ValueError(f"n_splits is {n_splits}; expected at least 1")
    halve, count, what = _way_to_halve(vectors)
    if count < 2:
        raise ValueError(f"{vectors.layer} has {count} of the {what} that are to be halved; expected at least 2")
    if fit != "each" and takes_centers(clusterer):
        if clusters is None:
            scores = pca(vectors, n_components=n_components, max_bytes=max_bytes, random_state=random_state)
            clusters = cluster(scores, clusterer, fit=fit, fit_epoch=fit_epoch)
        return _matched_noise_floor(
            vectors, clusters, n_splits=n_splits, max_bytes=max_bytes, random_state=random_state, executor=executor
        )
    rng = np.random.default_rng(random_state)
    orders = [rng.permutation(count) for _ in range(n_splits)]
    halves = [halve(np.sort(part)) for order in orders for part in (order[: count // 2], order[count // 2 :])]
    find = partial(
        _cluster_half,
        clusterer=clusterer,
        fit=fit,
        fit_epoch=fit_epoch,
        n_components=n_components,
        max_bytes=max_bytes // 2 if what == "channels" else max_bytes,
        random_state=random_state,
    )
    found = list(run_each(find, halves, executor=executor))
    frames = [_compare(found[2 * split], found[2 * split + 1], split=split) for split in range(n_splits)]
    return _make_noise_floor(found[0], pd.concat(frames, ignore_index=True), source=f"halves of the {what}")


def _matched_noise_floor(
    vectors: Vectors,
    clusters: Clusters,
    *,
    n_splits: int,
    max_bytes: int,
    random_state: int,
    executor: Executor | None,
) -> NoiseFloor:
    """Assign rows to the centroids of their clusters twice, as two halves of the data see both."""
    if not clusters.rows.equals(vectors.rows):
        raise ValueError(
            f"the clusters are of {len(clusters.rows)} rows of the {clusters.view} view of {clusters.layer}; expected "
            f"those of the vectors, {len(vectors.rows)} rows of the {vectors.view} view of {vectors.layer}: make them "
            f"of these vectors, cluster(pca(vectors), clusterer)"
        )
    axis = "n" if "n" in vectors.feature_axes else "c"
    count = vectors.feature_shape[vectors.feature_axes.index(axis)]
    fitted = np.ones(len(clusters.rows), bool)
    if clusters.fit_epoch is not None:
        fitted = (clusters.rows["snapshot"] == snapshot_of_epoch(clusters.rows, clusters.fit_epoch)).to_numpy()
    group_of = draw_groups(count, n_groups=N_GROUPS, random_state=random_state)
    distances = assign_groups(
        vectors,
        clusters.labels,
        centered=fitted,
        axis=axis,
        group_of=group_of,
        max_bytes=max_bytes,
        executor=executor,
    )
    frames = []
    halves = draw_halves(len(distances), n_splits=n_splits, random_state=random_state)
    for split, pair in enumerate(halves):
        one, other = (replace(clusters, labels=nearest(distances, half)) for half in pair)
        frames.append(_tabulate(one, other, other.labels, split=split, matched=False))
    what = {"n": "samples", "c": "channels"}[axis]
    source = f"halves of the {what}, assigned to the same centroids"
    return _make_noise_floor(clusters, pd.concat(frames, ignore_index=True), source=source)


def noise_floor_between(clusters: Clusters, other: Clusters) -> NoiseFloor:
    """Compare two clusterings of the same rows within each snapshot.

    Parameters
    ----------
    clusters, other : Clusters
        Of the same rows and snapshots, such as by a clusterer with another seed, or of another run.

    Raises
    ------
    ValueError
        Where they are of other rows.
    """
    labels = ["snapshot", *clusters.identity]
    if clusters.identity != other.identity or not np.array_equal(clusters.rows[labels], other.rows[labels]):
        raise ValueError(
            f"the noise floor is of {len(other.rows)} rows of the {other.view} view over {other.n_snapshots} "
            f"snapshots; expected the same rows as the clusters: {len(clusters.rows)} of the {clusters.view} view over "
            f"{clusters.n_snapshots}"
        )
    return _make_noise_floor(clusters, _compare(clusters, other, split=0), source="another clustering")


@dataclass(frozen=True, eq=False)
class SomeChannels(PartialSource):
    """A source of vectors with some of the channels of another.

    Attributes
    ----------
    source : Source
        The whole.
    chosen : ndarray of int64
        Which of its channels, counted from 0, in order. Whatever lies between them is read, too.
    """

    chosen: Labels

    @property
    def feature_map_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of one sample's feature maps."""
        return len(self.chosen), *self.source.feature_map_shape[1:]

    @property
    def channels(self) -> Labels:
        """The channels' numbers."""
        return self.source.channels[self.chosen]

    @property
    def units(self) -> Mapping[str, Unit]:
        """What of the samples is decoded at once."""
        return {axis: unit for axis, unit in getattr(self.source, "units", {}).items() if axis == "n"}

    def read_feature_maps(
        self, *, snapshot: int, samples: Labels, channels: slice, rows: slice
    ) -> npt.NDArray[np.floating]:
        """Read ndarray of shape (n_samples, n_channels, height, width)."""
        wanted = self.chosen[channels]
        box = slice(int(wanted[0]), int(wanted[-1]) + 1)
        maps = self.source.read_feature_maps(snapshot=snapshot, samples=samples, channels=box, rows=rows)
        return maps[:, wanted - box.start]


def _way_to_halve(vectors: Vectors) -> tuple[Callable[[Labels], Vectors], int, str]:
    """Return what makes vectors of some samples, or channels; how many there are; what they are."""
    if "n" in vectors.feature_axes:
        return lambda chosen: replace(vectors, samples=vectors.samples[chosen]), len(vectors.samples), "samples"
    if "c" in vectors.feature_axes:
        source = vectors.source
        return (
            lambda chosen: replace(vectors, source=SomeChannels(source, chosen)),
            source.feature_map_shape[0],
            "channels",
        )
    raise ValueError(
        f"the features of the {vectors.view} view are neither samples nor channels, and the positions of a "
        f"feature map are no independent halves: not available; pass clusters of another random_state instead, "
        f"track(clusters, noise_floor=others)"
    )


def _cluster_half(
    half: Vectors,
    *,
    clusterer: Any,
    fit: Fit,
    fit_epoch: int | None,
    n_components: int,
    max_bytes: int,
    random_state: int,
) -> Clusters:
    scores = pca(half, n_components=n_components, max_bytes=max_bytes, random_state=random_state)
    return cluster(scores, clusterer, fit=fit, fit_epoch=fit_epoch)


def _compare(one: Clusters, other: Clusters, *, split: int) -> pd.DataFrame:
    """Return the agreement at each snapshot, names matched at each, or over all of them where they mean the same."""
    apart = one.fit == "each"
    labels = other.labels if apart else name_by_members(one.labels, other.labels, unused=int(one.labels.max()) + 1)
    return _tabulate(one, other, labels, split=split, matched=apart)


def _tabulate(one: Clusters, other: Clusters, labels: Labels, *, split: int, matched: bool) -> pd.DataFrame:
    time = one.rows[["snapshot", "epoch", "step"]].drop_duplicates(ignore_index=True)
    pairs = zip(one.by_snapshot(one.labels), other.by_snapshot(labels), strict=True)
    tables = [tabulate(*pair) for pair in pairs]
    values = np.concatenate([agree(table[None], matched=matched) for table in tables])
    found = dict(zip(MEASURES, values.T, strict=True))
    return time.assign(split=split, n_rows=[int(table.sum()) for table in tables], **found)


def _make_noise_floor(clusters: Clusters, frame: pd.DataFrame, *, source: str) -> NoiseFloor:
    return NoiseFloor(
        frame=frame,
        source=source,
        layer=clusters.layer,
        view=clusters.view,
        fit=clusters.fit,
        fit_epoch=clusters.fit_epoch,
        method=clusters.method,
        n_asked=clusters.n_asked,
        rows_per_snapshot=len(clusters.rows) // clusters.n_snapshots,
    )


def _in_words(layer: str, view: str, fit: str, method: str, n_asked: int | None, count: int) -> str:
    found = "" if n_asked is None else f"{n_asked} clusters, "
    return f"{method} ({found}{fit}) of {count} rows of the {view} view of {layer}"


def _fit_in_words(fit: str, fit_epoch: int | None) -> str:
    return f"fit={fit!r}" if fit_epoch is None else f"fit_epoch={fit_epoch}"
