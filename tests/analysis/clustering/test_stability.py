"""Which clusters are found again: in samples of the rows, and with other numbers of clusters."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
from sklearn.cluster import HDBSCAN, KMeans

from fmcluster.analysis import pca
from fmcluster.analysis.clustering._stability import sc3_stability, stability


@pytest.fixture
def scores_of(vectors_of):
    """Scores of given values of shape (n_snapshots, n_rows, n_components)."""

    def make(values):
        values = np.asarray(values, dtype=np.float64)
        maps = np.zeros((len(values), 2, values.shape[1], 1, 1), np.float32)
        return replace(pca(vectors_of(maps), n_components=1), values=values.reshape(-1, values.shape[2]))

    return make


@pytest.fixture
def mixed(scores_of):
    """Two snapshots: one group by itself, and one without structure that k-means cuts somewhere."""
    rng = np.random.default_rng(0)
    alone = rng.normal([50, 0], 1, (30, 2))
    loose = rng.uniform(-8, 8, (60, 2))
    whole = np.concatenate([alone, loose])
    return scores_of(np.stack([whole, whole + 0.01 * rng.standard_normal(whole.shape)]))


@pytest.mark.parametrize("fit", ["pooled", "each"])
def test_a_group_by_itself_is_stable_and_a_cut_is_not(fit, mixed):
    found = stability(mixed, KMeans(4, random_state=0), fit=fit, n_resamples=20)
    frame = found.frame
    assert list(frame.columns) == ["snapshot", "epoch", "step", "cluster", "size", "jaccard", "recovered", "dissolved"]
    assert len(frame) == 8
    assert found.clusters.fit == fit
    for snapshot, labels in enumerate(found.clusters.by_snapshot(found.clusters.labels)):
        here = frame[frame["snapshot"] == snapshot].set_index("cluster")
        alone = labels[0]
        assert here.loc[alone, ["size", "jaccard", "recovered", "dissolved"]].tolist() == [30, 1, 1, 0]
        assert (here["jaccard"].drop(alone) < 0.95).all()
        assert (here["jaccard"].drop(alone) > 0.2).all()
        assert here["size"].sum() == 90


class Halves:
    """Cuts at 0.5 as it is; but where a row is missing that it looks for, puts everything into one cluster."""

    def fit_predict(self, X, y=None):
        return (X[:, 0] > 0.5).astype(int) if (X[:, 0] == 0.25).any() else np.zeros(len(X), int)


def test_by_hand(scores_of):
    """Of draws with the row all is found again; of those without, each cluster is its share of the whole."""
    values = np.array([0.25, 0, 1, 1, 1, 1])
    found = stability(scores_of(values[None, :, None]), Halves(), n_resamples=200, random_state=3)
    rng = np.random.default_rng(3)
    indices, drawn_zero = [], []
    for _ in range(200):
        drawn = np.unique(rng.integers(6, size=6))
        whole = 0 in drawn
        ones = (drawn >= 2).sum()
        indices.append(1.0 if whole else ones / len(drawn))
        if whole or 1 in drawn:
            drawn_zero.append(1.0 if whole else (1 in drawn) / len(drawn))
    frame = found.frame.set_index("cluster")
    assert frame.loc[1, "jaccard"] == pytest.approx(np.mean(indices))
    assert frame.loc[0, "jaccard"] == pytest.approx(np.mean(drawn_zero))
    assert frame.loc[0, "dissolved"] == pytest.approx((np.array(drawn_zero) <= 0.5).mean())
    assert frame.loc[1, "recovered"] == pytest.approx((np.array(indices) >= 0.75).mean())


def test_noise_is_no_cluster_to_be_found_again(scores_of):
    rng = np.random.default_rng(0)
    groups = np.concatenate([rng.standard_normal((25, 2)), rng.normal([30, 0], 1, (25, 2)), [[200, 200]]])
    found = stability(scores_of(groups[None]), HDBSCAN(min_cluster_size=8, copy=True), n_resamples=10)
    assert (found.clusters.labels == -1).any()
    assert -1 not in found.frame["cluster"].tolist()
    assert found.frame["size"].sum() == (found.clusters.labels >= 0).sum()


def test_it_is_the_same_on_any_executor(mixed):
    here = stability(mixed, KMeans(4, random_state=0), n_resamples=6)
    with ThreadPoolExecutor(2) as executor:
        there = stability(mixed, KMeans(4, random_state=0), n_resamples=6, executor=executor)
        across = sc3_stability(mixed, [2, 3], executor=executor)
    np.testing.assert_allclose(here.frame["jaccard"], there.frame["jaccard"], rtol=1e-6)
    np.testing.assert_allclose(sc3_stability(mixed, [2, 3]).frame["stability"], across.frame["stability"], rtol=1e-6)


class Table(KMeans):
    """Gives the labels that are written down for a number of clusters."""

    WRITTEN = {  # noqa: RUF012
        2: [0, 0, 0, 0, 1, 1],
        3: [0, 0, 1, 1, 2, 2],
        4: [0, 0, 1, 2, 3, 1],
    }

    def fit_predict(self, X, y=None):
        return np.array(self.WRITTEN[self.n_clusters])


def test_sc3_by_hand(scores_of):
    scores = scores_of(np.arange(6.0)[None, :, None])
    frame = sc3_stability(scores, [2, 3, 4], clusterer=Table()).frame
    assert list(frame.columns) == ["snapshot", "epoch", "step", "k", "cluster", "size", "stability"]
    found = {(row.k, row.cluster): row.stability for row in frame.itertuples()}
    expected = {
        # in 3: two parts, whole in each; in 4: three, of which one has another's member
        (2, 0): ((1 + 1) / 4 + (1 + 1 / 2 + 1) / 9) / 2,
        (2, 1): (1 / 1 + (1 + 1 / 2) / 4) / 2,
        (3, 0): ((2 / 4) / 1 + 1) / 2,
        (3, 1): ((2 / 4) / 1 + (1 / 2 + 1) / 4) / 2,
        (3, 2): (1 + (1 + 1 / 2) / 4) / 2,
        (4, 0): ((2 / 4) / 1 + 1) / 2,
        (4, 1): ((1 / 4 + 1 / 2) / 4 + (1 / 2 + 1 / 2) / 4) / 2,
        (4, 2): (1 / 4 + 1 / 2) / 2,
        (4, 3): (1 / 2 + 1 / 2) / 2,
    }
    assert found == pytest.approx(expected)


@pytest.mark.parametrize("fit", ["pooled", "each"])
def test_a_group_by_itself_is_there_with_every_k(fit, mixed):
    frame = sc3_stability(mixed, range(2, 6), clusterer=KMeans(random_state=0, n_init=5), fit=fit).frame
    assert frame.groupby(["snapshot", "k"]).size().tolist() == [2, 3, 4, 5] * 2
    assert (frame["stability"].groupby([frame["snapshot"], frame["k"]]).max() == 1).all()
    assert (frame["stability"] == 1).sum() == 8
    assert frame["stability"].between(0, 1).all()


def test_a_single_k_or_none_is_refused(mixed):
    with pytest.raises(ValueError, match=r"ks is \[3\]; expected at least two"):
        sc3_stability(mixed, [3])
    with pytest.raises(ValueError, match="expected whole numbers from 1 to 180"):
        sc3_stability(mixed, [2, 500])
    with pytest.raises(TypeError, match="HDBSCAN has no parameter n_clusters"):
        sc3_stability(mixed, [2, 3], clusterer=HDBSCAN(copy=True))
    with pytest.raises(TypeError, match="sc3_stability received a ndarray"):
        sc3_stability(mixed.values, [2, 3])


def test_what_cannot_be_sampled_is_refused(mixed, scores_of):
    with pytest.raises(ValueError, match="n_resamples is 0"):
        stability(mixed, KMeans(3), n_resamples=0)
    with pytest.raises(TypeError, match="object has no fit_predict"):
        stability(mixed, object())
    with pytest.raises(TypeError, match="stability received a ndarray"):
        stability(mixed.values, KMeans(3))
    with pytest.raises(ValueError, match=r"5 clusters were asked of \d rows"):
        stability(scores_of(np.arange(6.0)[None, :, None]), KMeans(5, random_state=0))
