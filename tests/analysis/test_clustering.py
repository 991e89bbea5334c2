"""Clusters of all snapshots together."""

import numpy as np
import pytest
from scipy.spatial.distance import cdist
from sklearn.cluster import HDBSCAN, AgglomerativeClustering, KMeans, MiniBatchKMeans
from sklearn.metrics import adjusted_rand_score
from sklearn.mixture import GaussianMixture

from fmcluster.analysis import cluster, pca


@pytest.fixture
def groups(vectors_of):
    """Channels of three plain kinds, drifting over four snapshots."""
    rng = np.random.default_rng(0)
    kinds = rng.standard_normal((3, 1, 6, 1, 5, 5)) * 4
    maps = np.stack([kinds[i % 3, 0] for i in range(12)], axis=1)[:, :, 0]  # (sample, channel, 5, 5)
    maps = maps[None] + 0.3 * rng.standard_normal((4, *maps.shape))
    return vectors_of(maps.astype(np.float16))


@pytest.mark.parametrize(
    "clusterer",
    [
        KMeans(3, random_state=0),
        MiniBatchKMeans(3, random_state=0),
        GaussianMixture(3, random_state=0),
        AgglomerativeClustering(3),
        HDBSCAN(min_cluster_size=5, copy=True),
    ],
    ids=lambda estimator: type(estimator).__name__,
)
def test_any_clusterer_finds_plain_groups(clusterer, groups):
    clusters = cluster(pca(groups, n_components=3), clusterer)
    truth = np.tile(np.arange(12) % 3, 4)
    assert adjusted_rand_score(truth, clusters.labels) == 1
    assert clusters.n_clusters == 3
    assert clusters.method == type(clusterer).__name__
    assert not hasattr(clusterer, "labels_"), "the caller's estimator was fitted"
    assert clusters.frame["cluster"].tolist() == clusters.labels.tolist()


def test_clustering_full_scores_is_clustering_the_vectors(groups):
    """With full rank the scores keep all distances, so k-means finds the same partition in them as in the maps."""
    mine = cluster(pca(groups, n_components=48), KMeans(5, random_state=0, n_init=10))
    raw = groups.to_numpy().astype(np.float64)
    assert cdist(raw, raw).shape == (48, 48)
    theirs = KMeans(5, random_state=0, n_init=10).fit_predict(raw - raw.mean(axis=0))
    assert adjusted_rand_score(theirs, mine.labels) == 1


def test_noise_is_no_cluster(groups):
    class Noisy:
        def fit_predict(self, X, y=None):
            return np.where(np.arange(len(X)) % 4 == 0, -1, 2)

    clusters = cluster(pca(groups), Noisy())
    assert clusters.n_clusters == 1
    assert clusters.names == [2]
    assert (clusters.labels == -1).sum() == 12


def test_what_is_no_clusterer_is_refused(groups):
    scores = pca(groups)

    class Fractions:
        def fit_predict(self, X, y=None):
            return np.linspace(0, 1, len(X))

    with pytest.raises(TypeError, match="no fit_predict"):
        cluster(scores, object())
    with pytest.raises(TypeError, match=r"received the class KMeans; expected one of it: KMeans\(\.\.\.\)"):
        cluster(scores, KMeans)
    with pytest.raises(TypeError, match="cluster received a Vectors; expected Scores, made by pca"):
        cluster(groups, KMeans(3))
    with pytest.raises(ValueError, match="expected an integer for each of 48 rows"):
        cluster(scores, Fractions())
    with pytest.raises(ValueError, match="99 clusters were asked of 48 rows"):
        cluster(scores, KMeans(99))
