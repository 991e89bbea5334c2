"""Layer content: what a report shows of one layer, computed once, then drawn by several panels."""

import math
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
from sklearn.cluster import KMeans

from ...analysis import (
    Clusters,
    Embedding,
    History,
    NoiseFloor,
    Reducer,
    ResultCache,
    Scores,
    begin_analysis,
    noise_floor,
    representatives,
    track,
)
from ...analysis.components import products_of
from ...plot.drawing import Limits, cluster_palette, limits_of, sample_name, snapshot_table, snapshot_titles
from ...store import Layer, without_broken_rows
from ...vectors import Scaling, Vectors, keep

Announce = Callable[[str], None]

ROWS_PER_SNAPSHOT, ROWS_IN_ALL = 2048, 20_480
MANY_PRODUCTS, POSITIONS_IN_ALL = 1 << 36, 1 << 15
N_SPLITS = 9
STAGES = 3


@dataclass(frozen=True)
class Settings:
    """How the layers of a report are analyzed.

    Attributes
    ----------
    view : str
        What a row is.
    n_clusters : int
        How many clusters are asked for.
    reducer : scikit-learn style reducer or None
        Makes the embedding; None is the default of `embed`.
    random_state : int
        Seed of clusters, embedding and drawn rows.
    max_bytes : int
        Memory that the principal components may take.
    snapshots : tuple of int or None
        Which snapshots; None for all.
    samples : tuple of int or None
        Which samples; None for all that the snapshots have in common.
    scaling : {"none", "centered", "unit"}
        What is done to each row, as of `Layer.vectors`: with ``"unit"``, clusters do not move with the scale.
    executor : Executor or None
        Where the heavy work is done.
    """

    view: str
    n_clusters: int
    reducer: Reducer | None
    random_state: int
    max_bytes: int
    snapshots: tuple[int, ...] | None = None
    samples: tuple[int, ...] | None = None
    scaling: Scaling = "none"
    executor: Executor | None = None


@dataclass(frozen=True, eq=False)
class LayerContent:
    """The results for one layer.

    Attributes
    ----------
    layer : Layer
        The layer.
    rows_in_view : int
        How many rows the view has in a snapshot; more than were analyzed where rows were drawn.
    vectors : Vectors
        The rows that were analyzed.
    scores, clusters, history
        What the analysis returned.
    make_embedding : callable
        Makes the embedding, from the scores.
    noise_floor : NoiseFloor or None
        How much clusters differ where nothing has changed; None where it is not available.
    """

    layer: Layer
    rows_in_view: int
    vectors: Vectors
    scores: Scores
    clusters: Clusters
    history: History
    make_embedding: Callable[[], Embedding]
    noise_floor: NoiseFloor | None = None

    @cached_property
    def embedding(self) -> Embedding:
        """Positions of the rows in the plane, made when they are first asked for."""
        return self.make_embedding()

    @cached_property
    def n_rows(self) -> int:
        """Rows analyzed in each snapshot."""
        return len(self.scores.rows) // self.scores.n_snapshots

    @cached_property
    def titles(self) -> list[str]:
        """A name for each snapshot, such as ``"epoch 1, step 4"``."""
        return snapshot_titles(snapshot_table(self.scores.rows))

    @cached_property
    def palette(self) -> dict[int, str]:
        """The color of each cluster, in all panels."""
        return cluster_palette(self.clusters.labels)

    @cached_property
    def labels(self) -> npt.NDArray[np.int64]:
        """The cluster of each row, ndarray of shape (n_snapshots, n_rows), int64."""
        labels: npt.NDArray[np.int64] = self.clusters.by_snapshot(self.clusters.labels)
        return labels

    @cached_property
    def row_names(self) -> list[str]:
        """What each row of a snapshot is, such as ``"channel 12"`` or ``"sample 3 (bees)"``; not escaped."""
        first = self.scores.rows[self.scores.identity].iloc[: self.n_rows]
        names = []
        for row in first.itertuples(index=False):
            parts = zip(self.scores.identity, row, strict=True)
            names.append(
                ", ".join(
                    sample_name(self.layer, value) if what == "sample" else f"{what} {value}" for what, value in parts
                )
            )
        return names

    @cached_property
    def ratio(self) -> float:
        """Width over height of the embedding at the last snapshot, within what a panel can take."""
        (left, right), (bottom, top) = self.limits.at(self.scores.n_snapshots - 1)
        return float(np.clip((right - left) / max(top - bottom, 1e-9), 1.1, 2.4))

    @cached_property
    def limits(self) -> Limits:
        """Where the axes of the embedding end."""
        return limits_of(self.embedding.by_snapshot(self.embedding.values))

    @cached_property
    def change(self) -> npt.NDArray[np.float64]:
        """How far each row's vector is at the last snapshot from where it was at the first, ndarray of (n_rows,)."""
        scores = self.scores.by_snapshot(self.scores.values)
        distance: npt.NDArray[np.float64] = np.linalg.norm(scores[-1] - scores[0], axis=1)
        return distance

    @cached_property
    def representatives(self) -> dict[int, int]:
        """Of each cluster with members at the last snapshot, the row nearest to their mean; no noise."""
        found = representatives(self.clusters, self.scores)
        last = found[found["snapshot"] == self.scores.rows["snapshot"].iloc[-1]]
        return {int(label): int(number) for label, number in zip(last["cluster"], last["row"], strict=True)}


def make_layer_content(
    layer: Layer, settings: Settings, *, announce: Announce, cache: ResultCache | None
) -> LayerContent:
    """Reduce, cluster and track one layer; its embedding is made when it is first asked for, from what is held.

    Parameters
    ----------
    layer : Layer
        The layer.
    settings : Settings
        How.
    announce : callable
        Told in words what comes next, `STAGES` times; whoever goes on with the content says so.
    cache : ResultCache or None
        Results that are used again.

    Returns
    -------
    LayerContent
    """
    whole = layer.vectors(
        settings.view, snapshots=settings.snapshots, samples=settings.samples, scaling=settings.scaling
    )
    vectors = without_broken_rows(_drawn(layer, whole, settings))
    room = settings.max_bytes // 4
    # the passes read all of it six times; an executor's processes would be sent what is held
    kept = vectors if settings.executor else keep(vectors, max_bytes=room)
    found = begin_analysis(
        kept,
        n_clusters=settings.n_clusters,
        reducer=settings.reducer,
        random_state=settings.random_state,
        max_bytes=settings.max_bytes - room,
        exact=False,
        cache=cache,
        executor=settings.executor,
        announce=lambda what: announce(f"{layer.name}: {what}"),
    )
    announce(f"{layer.name}: noise floor")
    noise = find_noise_floor(kept, found.clusters, random_state=settings.random_state, cache=cache)
    return LayerContent(
        layer=layer,
        rows_in_view=whole.rows_per_snapshot,
        vectors=vectors,
        scores=found.scores,
        clusters=found.clusters,
        history=found.history if noise is None else track(found.clusters, noise_floor=noise),
        make_embedding=found.make_embedding,
        noise_floor=noise,
    )


def find_noise_floor(
    vectors: Vectors, clusters: Clusters, *, random_state: int, cache: ResultCache | None, max_bytes: int = 1 << 28
) -> NoiseFloor | None:
    """Assign the rows to the centroids of a pooled k-means twice, from two halves of the probe.

    None where there is nothing to be halved, or no change to be compared with it.
    """
    axes = vectors.feature_axes
    halved = next((axis for axis in "nc" if axis in axes), None)
    if halved is None or len(vectors.snapshots) < 2 or vectors.feature_shape[axes.index(halved)] < 2:
        return None

    def find() -> NoiseFloor:
        clusterer = KMeans(clusters.n_asked or clusters.n_clusters, random_state=random_state)
        return noise_floor(
            vectors, clusterer, clusters=clusters, n_splits=N_SPLITS, max_bytes=max_bytes, random_state=random_state
        )

    if cache is None:
        return find()
    parameters = {"n_clusters": clusters.n_asked, "n_splits": N_SPLITS, "random_state": random_state}
    return cache.use(find, NoiseFloor, verb="noise_floor", vectors=vectors, parameters=parameters)


def _drawn(layer: Layer, whole: Vectors, settings: Settings) -> Vectors:
    """Return the vectors, or so many of their rows and positions, drawn at random, as page, memory and time allow."""
    fits = ROWS_PER_SNAPSHOT
    if whole.view != "channel":  # channels are all there; of other rows, what the page can take
        fits = max(256, min(fits, ROWS_IN_ALL // len(whole.snapshots)))
    if min(whole.shape) ** 2 * 16 > settings.max_bytes // 2:
        fits = min(fits, math.isqrt(settings.max_bytes // 32) // len(whole.snapshots))
    n_rows = max(4, fits) if whole.rows_per_snapshot > fits else None
    n_positions = positions_to_draw(whole, rows=len(whole.snapshots) * (n_rows or whole.rows_per_snapshot))
    if n_rows is None and n_positions is None:
        return whole
    return layer.vectors(
        settings.view,
        snapshots=settings.snapshots,
        samples=settings.samples,
        n_rows=n_rows,
        n_positions=n_positions,
        scaling=settings.scaling,
        random_state=settings.random_state,
    )


def positions_to_draw(vectors: Vectors, *, rows: int) -> int | None:
    """Return how many positions of each image the channels are compared at; None for all.

    All are taken where the products of so many rows are 69 billion at most; of more, as many as make 32,768 together.
    A squared distance, or a cosine, of two rows is then off by about 1 in 100.
    """
    n_images = len(vectors.samples)
    if vectors.row_axes != "c" or products_of(rows, vectors.n_features) <= MANY_PRODUCTS:
        return None
    count = max(1, POSITIONS_IN_ALL // n_images)
    return count if count * n_images < vectors.n_features else None
