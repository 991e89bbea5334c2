"""Analyze: what the verbs give one after the other, for as many clusters as there are distinct rows at most."""

import gc
import weakref

import numpy as np
import pytest
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA

import fmcluster as fm
from fmcluster.analysis import analyze, begin_analysis
from fmcluster.vectors import keep


def maps_of(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(3, 6, 12, 4, 3)).astype(np.float32)


@pytest.mark.slow
def test_it_gives_what_the_verbs_give(vectors_of) -> None:
    vectors = vectors_of(maps_of(), "channel")
    stages: list[str] = []
    found = analyze(vectors, n_clusters=3, n_components=5, random_state=1, announce=stages.append)
    scores = fm.pca(vectors, n_components=5, random_state=1)
    clusters = fm.cluster(scores, KMeans(3, random_state=1, n_init=4))
    np.testing.assert_allclose(found.scores.values, scores.values, atol=1e-9)
    assert found.clusters.labels.tolist() == clusters.labels.tolist()
    np.testing.assert_array_equal(found.embedding.values, fm.embed(scores, random_state=1).values)
    assert found.history.frame.equals(fm.track(clusters).frame)
    assert found.vectors is vectors
    assert len(stages) == 3


def test_equal_rows_are_in_one_cluster_at_most(vectors_of) -> None:
    maps = maps_of()
    maps[:, :, 2:] = 0  # ten dead channels, and two that are not
    maps[1:] = maps[:1]
    found = analyze(vectors_of(maps, "channel"), n_clusters=8)
    assert found.clusters.n_clusters == 3


def test_no_cluster_is_refused(vectors_of) -> None:
    with pytest.raises(ValueError, match="n_clusters is 0; expected at least 1"):
        analyze(vectors_of(maps_of(), "channel"), n_clusters=0)


def test_what_makes_the_embedding_later_holds_no_feature_maps(vectors_of) -> None:
    kept = keep(vectors_of(maps_of(), "channel"), max_bytes=1 << 20)
    held = weakref.ref(kept.source)
    how = {"reducer": PCA(2), "random_state": 0, "max_bytes": 1 << 28, "exact": False, "executor": None, "cache": None}
    begun = begin_analysis(kept, n_clusters=3, announce=lambda _what: None, **how)
    scores, make = begun.scores, begun.make_embedding
    del kept, begun
    gc.collect()
    assert held() is None
    np.testing.assert_array_equal(make().values, fm.embed(scores, PCA(2), random_state=0).values)
