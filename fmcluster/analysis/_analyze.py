"""Analysis of a layer: components, embedding, clusters and history of its vectors, in one call."""

from collections.abc import Callable
from concurrent.futures import Executor
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from sklearn.cluster import KMeans

from ..vectors import Vectors, unkept
from ._cache import ResultCache
from ._estimators import name_of
from ._parallel import in_one_thread
from ._results import MAX_BYTES, N_INIT, Array, Clusters, Embedding, History, Scores
from ._summarized import Summarized
from .clustering import cluster
from .components import pca, plan_reading
from .embedding import Reducer, embed
from .tracking import track

_MANY_ROWS = 1 << 16  # of fewer, the threads of k-means wait for one another, busily, longer than they work


@dataclass(frozen=True, eq=False, repr=False)
class Analysis(Summarized):
    """What `analyze` found.

    Attributes
    ----------
    vectors : Vectors
        Of what.
    scores, embedding, clusters, history
        Made by `pca`, `embed`, `cluster` and `track`.
    """

    vectors: Vectors
    scores: Scores
    embedding: Embedding
    clusters: Clusters
    history: History


def analyze(
    vectors: Vectors,
    *,
    n_clusters: int = 8,
    n_components: int = 50,
    reducer: Reducer | None = None,
    random_state: int = 0,
    max_bytes: int = MAX_BYTES,
    exact: bool = True,
    executor: Executor | None = None,
    cache: ResultCache | None = None,
    announce: Callable[[str], None] | None = None,
) -> Analysis:
    """Reduce, embed, cluster (by k-means) and track rows, over all their snapshots at once.

    Parameters
    ----------
    vectors : Vectors
        Made by `Layer.vectors`.
    n_clusters : int
        How many clusters; fewer where fewer rows are distinct.
    n_components : int
        How many principal components the rest works on.
    reducer : scikit-learn style reducer, optional
        Makes the embedding; by default that of `embed`.
    random_state : int
        Seed of embedding and clusters.
    max_bytes : int
        Memory that the principal components may take.
    exact : bool
        As of `pca`.
    executor : concurrent.futures.Executor, optional
        Where parts of the passes are done.
    cache : ResultCache, optional
        Results that are used again where they were made of the same vectors with the same parameters.
    announce : callable, optional
        Told in words what comes next.

    Returns
    -------
    Analysis

    Raises
    ------
    ValueError
        For fewer than one cluster; for what `pca`, `embed` and `cluster` refuse.
    """
    say = announce or (lambda _what: None)
    begun = begin_analysis(
        vectors,
        n_clusters=n_clusters,
        n_components=n_components,
        reducer=reducer,
        random_state=random_state,
        max_bytes=max_bytes,
        exact=exact,
        executor=executor,
        cache=cache,
        announce=say,
    )
    say("embed")
    return Analysis(begun.vectors, begun.scores, begun.make_embedding(), begun.clusters, begun.history)


@dataclass(frozen=True, eq=False)
class BegunAnalysis:
    """An analysis without its embedding, which takes the scores alone and no feature maps: it can be made meanwhile.

    Attributes
    ----------
    vectors : Vectors
        Of what.
    scores, clusters, history
        Made by `pca`, `cluster` and `track`.
    make_embedding : callable
        Returns what `embed` does, or what is saved of it.
    """

    vectors: Vectors
    scores: Scores
    clusters: Clusters
    history: History
    make_embedding: Callable[[], Embedding]


def begin_analysis(
    vectors: Vectors,
    *,
    n_clusters: int,
    n_components: int = 50,
    reducer: Reducer | None,
    random_state: int,
    max_bytes: int,
    exact: bool,
    executor: Executor | None,
    cache: ResultCache | None,
    announce: Callable[[str], None],
) -> BegunAnalysis:
    """Reduce, cluster and track rows as `analyze` does, which says what the arguments are."""
    if n_clusters < 1:
        raise ValueError(f"n_clusters is {n_clusters}; expected at least 1")
    plan = plan_reading(vectors, n_components=min(n_components, *vectors.shape), max_bytes=max_bytes, exact=exact)
    parameters: dict[str, Any] = {"n_components": n_components, "method": plan.method, "random_state": random_state}
    of = replace(vectors, source=unkept(vectors.source))  # what makes the embedding holds no feature maps

    def use(make: Callable[[], Any], kind: type, verb: str, **more: Any) -> Any:
        if cache is None or (reducer is not None and _parameters_of(reducer) is None):
            return make()
        return cache.use(make, kind, verb=verb, vectors=of, parameters=parameters | more)

    def find_scores() -> Scores:
        return pca(
            vectors,
            n_components=n_components,
            max_bytes=max_bytes,
            random_state=random_state,
            exact=exact,
            executor=executor,
        )

    announce("principal components")
    scores: Scores = use(find_scores, Scores, "pca")
    announce("clusters")
    # Rows that are equal, such as dead channels, can only be in one cluster; a cluster for each row says nothing.
    count = max(1, min(n_clusters, vectors.rows_per_snapshot, _count_distinct(scores.values)))

    def find_clusters() -> Clusters:
        with in_one_thread() if len(scores.values) < _MANY_ROWS else nullcontext():
            return cluster(scores, KMeans(count, random_state=random_state, n_init=N_INIT))

    clusters: Clusters = use(find_clusters, Clusters, "cluster", reducer=None, n_clusters=count)

    def make_embedding() -> Embedding:
        used = None if reducer is None else f"{name_of(reducer)} {_parameters_of(reducer)}"
        found: Embedding = use(
            lambda: embed(scores, reducer, random_state=random_state), Embedding, "embed", reducer=used
        )
        return found

    return BegunAnalysis(vectors, scores, clusters, track(clusters), make_embedding)


def _count_distinct(values: Array) -> int:
    """Count the rows that differ by more than the rounding of scores."""
    largest = np.abs(values).max()
    rounded = np.round(values / largest, 6) + 0.0 if largest else values  # no minus zero, which is another number
    return len(np.unique(rounded, axis=0))


def _parameters_of(estimator: object) -> str | None:
    """Return all parameters of a scikit-learn style estimator in words; None of what does not tell them."""
    return repr(sorted(estimator.get_params().items())) if hasattr(estimator, "get_params") else None
