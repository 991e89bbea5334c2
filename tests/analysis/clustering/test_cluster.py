"""Clusters of all snapshots together, of each, and of one."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import ClassVar

import numpy as np
import pytest
from scipy.spatial.distance import cdist
from sklearn.cluster import HDBSCAN, AgglomerativeClustering, BisectingKMeans, KMeans, MiniBatchKMeans
from sklearn.metrics import adjusted_rand_score
from sklearn.mixture import GaussianMixture

from fmcluster.analysis import cluster, pca

CLUSTERERS = [
    KMeans(3, random_state=0),
    MiniBatchKMeans(3, random_state=0),
    BisectingKMeans(3, random_state=0),
    GaussianMixture(3, random_state=0),
    AgglomerativeClustering(3),
    HDBSCAN(min_cluster_size=3, copy=True),
]
any_clusterer = pytest.mark.parametrize("clusterer", CLUSTERERS, ids=lambda estimator: type(estimator).__name__)


@pytest.fixture
def groups(vectors_of):
    """Channels of three plain kinds, drifting over four snapshots."""
    rng = np.random.default_rng(0)
    kinds = rng.standard_normal((3, 1, 6, 1, 5, 5)) * 4
    maps = np.stack([kinds[i % 3, 0] for i in range(12)], axis=1)[:, :, 0]  # (sample, channel, 5, 5)
    maps = maps[None] + 0.3 * rng.standard_normal((4, *maps.shape))
    return vectors_of(maps.astype(np.float16))


@any_clusterer
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
    with pytest.raises(TypeError, match=r"received the class KMeans; expected an instance of it: KMeans\(\.\.\.\)"):
        cluster(scores, KMeans)
    with pytest.raises(TypeError, match="cluster received a Vectors; expected Scores, made by pca"):
        cluster(groups, KMeans(3))
    with pytest.raises(ValueError, match="expected an integer for each of 48 rows"):
        cluster(scores, Fractions())
    with pytest.raises(ValueError, match="99 clusters were asked of 48 rows"):
        cluster(scores, KMeans(99))


class Bins:
    """Puts each row into a cluster by its first score: under 2, under 7, and the rest."""

    def fit_predict(self, X, y=None):
        return np.digitize(X[:, 0], [2, 7])


@pytest.fixture
def line(groups):
    """Scores of one component, as they are given: (snapshot, row)."""
    scores = pca(groups, n_components=1)

    def make(values):
        values = np.asarray(values, dtype=np.float64)
        count = values.shape[1]
        keep = (scores.rows["snapshot"] < len(values)) & (scores.rows["channel"] < count)
        return replace(scores, rows=scores.rows[keep].reset_index(drop=True), values=values.reshape(-1, 1))

    return make


@any_clusterer
def test_clusters_of_each_snapshot_keep_their_names(clusterer, groups):
    clusters = cluster(pca(groups, n_components=3), clusterer, fit="each")
    labels = clusters.by_snapshot(clusters.labels)
    assert clusters.fit == "each"
    assert adjusted_rand_score(np.arange(12) % 3, labels[0]) == 1
    assert (labels == labels[0]).all()
    assert not hasattr(clusterer, "labels_")


class Renaming:
    """Finds the three kinds, and calls them something else every time."""

    calls = 0

    def fit_predict(self, X, y=None):
        Renaming.calls += 1
        return (KMeans(3, random_state=0, n_init=3).fit_predict(X) + Renaming.calls) % 3 + 10 * Renaming.calls


def test_names_follow_the_members_whatever_the_clusterer_calls_them(groups):
    clusters = cluster(pca(groups, n_components=3), Renaming(), fit="each")
    labels = clusters.by_snapshot(clusters.labels)
    assert (labels == labels[0]).all()


def test_a_cluster_without_a_match_gets_a_new_name(line):
    scores = line([[0, 0, 5, 5, 5], [0, 0, 5, 5, 9], [0, 0, 5, 5, 5], [0, 0, 5, 9, 9]])
    clusters = cluster(scores, Bins(), fit="each")
    assert clusters.by_snapshot(clusters.labels).tolist() == [
        [0, 0, 1, 1, 1],
        [0, 0, 1, 1, 2],
        [0, 0, 1, 1, 1],
        [0, 0, 3, 1, 1],  # the larger part keeps the name, and 2 was given up
    ]


def test_clusters_of_one_epoch_are_given_to_all_others(line):
    scores = line([[0, 0, 10, 10], [0, 4, 6, 10], [0, 6, 4, 10]])
    clusters = cluster(scores, KMeans(2, random_state=0), fit_epoch=0)
    labels = clusters.by_snapshot(clusters.labels)
    assert (clusters.fit, clusters.fit_epoch) == ("epoch", 0)
    low, high = labels[0, 0], labels[0, 3]
    assert labels.tolist() == [[low, low, high, high], [low, low, high, high], [low, high, low, high]]


def test_clusters_of_one_epoch_are_those_of_its_rows_alone(groups):
    scores = pca(groups, n_components=3)
    clusters = cluster(scores, GaussianMixture(3, random_state=0), fit_epoch=2)
    own = GaussianMixture(3, random_state=0).fit(scores.by_snapshot(scores.values)[2])
    assert clusters.labels.tolist() == own.predict(scores.values).tolist()


def test_kmeans_starts_from_the_centers_before(line):
    """Two starts, two optima: of four points in a square, the pairs that were together stay together."""
    scores = line(np.zeros((2, 4)))
    flat = np.array([[0, 0], [0, 1], [3, 0], [3, 1.0]])
    tall = np.array([[0, 0], [0, 2], [2, 0], [2, 2.0]])
    scores = replace(scores, values=np.concatenate([flat, tall]))
    for seed in range(8):
        warm = cluster(scores, KMeans(2, random_state=seed, n_init=1), fit="each")
        assert (warm.labels[:4] == warm.labels[4:]).all()
    cold = [cluster(scores, KMeans(2, random_state=seed, n_init=1), fit="each", warm_start=False) for seed in range(8)]
    assert any((clusters.labels[:4] != clusters.labels[4:]).any() for clusters in cold)


class CountingMixture(GaussianMixture):
    """Says how many iterations each fit took."""

    taken: ClassVar[list[int]] = []

    def fit_predict(self, X, y=None):
        labels = super().fit_predict(X)
        CountingMixture.taken.append(self.n_iter_)
        return labels


@pytest.mark.parametrize("covariance", ["full", "tied", "diag", "spherical"])
def test_a_mixture_starts_from_the_components_before(covariance, groups):
    """Restarted where it ended, on the same rows, a mixture is at its optimum at once."""
    CountingMixture.taken.clear()
    scores = pca(groups, n_components=2)
    rows = np.random.default_rng(1).standard_normal((12, 2))
    scores = replace(scores, values=np.tile(rows, (4, 1)))
    mixture = CountingMixture(2, covariance_type=covariance, random_state=0, max_iter=500, tol=1e-6)
    clusters = cluster(scores, mixture, fit="each")
    assert (clusters.by_snapshot(clusters.labels) == clusters.labels[:12]).all()
    first, *later = CountingMixture.taken
    assert first > 5
    assert max(later) <= 2


def test_cold_starts_are_the_same_on_any_executor(groups):
    scores = pca(groups, n_components=3)
    here = cluster(scores, KMeans(4, random_state=0), fit="each", warm_start=False)
    with ThreadPoolExecutor(2) as executor:
        there = cluster(scores, KMeans(4, random_state=0), fit="each", warm_start=False, executor=executor)
    assert here.labels.tolist() == there.labels.tolist()


def test_noise_stays_noise_in_each_snapshot(groups):
    class Noisy:
        def fit_predict(self, X, y=None):
            return np.where(np.arange(len(X)) % 4 == 0, -1, 2)

    clusters = cluster(pca(groups), Noisy(), fit="each")
    assert (clusters.by_snapshot(clusters.labels) == np.where(np.arange(12) % 4 == 0, -1, 2)).all()


def test_what_cannot_be_fitted_that_way_is_refused(groups):
    scores = pca(groups)
    with pytest.raises(TypeError, match="AgglomerativeClustering has no predict"):
        cluster(scores, AgglomerativeClustering(3), fit_epoch=0)
    with pytest.raises(ValueError, match="one of the epochs 0, 1, 2, 3"):
        cluster(scores, KMeans(3), fit_epoch=7)
    with pytest.raises(ValueError, match='fit is \'first\'; expected "pooled" or "each"'):
        cluster(scores, KMeans(3), fit="first")
    with pytest.raises(ValueError, match="13 clusters were asked of 12 rows of each snapshot"):
        cluster(scores, KMeans(13), fit="each")
    with pytest.raises(ValueError, match="13 clusters were asked of 12 rows of each snapshot"):
        cluster(scores, GaussianMixture(13), fit_epoch=0)


def test_rows_that_are_not_finite_are_refused(groups):
    scores = pca(groups)
    values = scores.values.copy()
    values[3, 0] = np.nan
    with pytest.raises(ValueError, match="NaN or infinite"):
        cluster(replace(scores, values=values), KMeans(3))


def test_labels_below_noise_are_refused(groups):
    class Below:
        def fit_predict(self, X, y=None):
            return np.full(len(X), -2)

    with pytest.raises(ValueError, match="gave the label -2; expected 0 or more, or -1 for noise"):
        cluster(pca(groups), Below())


def test_one_snapshot_of_one_row(line):
    scores = line([[1.0]])
    assert cluster(scores, KMeans(1), fit="each").labels.tolist() == [0]
    assert cluster(scores, KMeans(1), fit_epoch=0).labels.tolist() == [0]
