"""How many clusters."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
from sklearn.cluster import HDBSCAN, AgglomerativeClustering, KMeans
from sklearn.metrics import silhouette_score
from sklearn.mixture import GaussianMixture

from fmcluster.analysis import pca
from fmcluster.analysis.clustering._choose_k import choose_k


@pytest.fixture
def scores_of(vectors_of):
    """Scores of given values: rows of one snapshot, or of several."""

    def make(values, n_snapshots=1):
        values = np.asarray(values, dtype=np.float64)
        maps = np.zeros((n_snapshots, 2, len(values) // n_snapshots, 1, 1), np.float32)
        return replace(pca(vectors_of(maps), n_components=1), values=values)

    return make


@pytest.fixture
def blobs(scores_of):
    rng = np.random.default_rng(0)
    centers = np.array([[0, 0, 0], [8, 0, 0], [0, 8, 0], [0, 0, 8.0]])
    return scores_of(np.concatenate([center + rng.standard_normal((25, 3)) for center in centers]))


@pytest.mark.parametrize("criterion", ["silhouette", "gap", "bic"])
def test_four_plain_groups_are_four(criterion, blobs):
    found = choose_k(blobs, range(2, 8), criterion=criterion)
    assert found.k == 4
    assert found.criterion == criterion
    assert found.frame["k"].tolist() == [2, 3, 4, 5, 6, 7]
    assert found.frame.loc[found.frame["chosen"], "k"].tolist() == [4]
    assert found.frame["spread"].notna().all() == (criterion == "gap")


def test_the_curve_of_silhouettes_is_that_of_scikit_learn(blobs):
    found = choose_k(blobs, [5, 2, 3], clusterer=AgglomerativeClustering())
    expected = [silhouette_score(blobs.values, AgglomerativeClustering(k).fit_predict(blobs.values)) for k in (2, 3, 5)]
    assert found.frame["value"].tolist() == pytest.approx(expected)
    assert found.method == "AgglomerativeClustering"


def test_the_curve_of_bic_is_that_of_scikit_learn(blobs):
    found = choose_k(blobs, [1, 4], criterion="bic", clusterer=GaussianMixture(random_state=1))
    mixtures = [GaussianMixture(k, random_state=1).fit(blobs.values) for k in (1, 4)]
    assert found.frame["value"].tolist() == pytest.approx([mixture.bic(blobs.values) for mixture in mixtures])


def test_rows_spread_evenly_are_one_cluster_by_the_gap(scores_of):
    """No other criterion can say one; and the gap of rows drawn like its references is about 0."""
    even = scores_of(np.random.default_rng(1).uniform(size=(120, 2)) * [4, 1])
    found = choose_k(even, range(1, 6), criterion="gap")
    assert found.k == 1
    first = found.frame.iloc[0]
    assert abs(first["value"]) < 4 * first["spread"]


def test_the_gap_is_that_of_inertias(blobs):
    """By the book: logarithms of k-means' inertia, of the rows and of others spread over the box along their axes."""
    frame = choose_k(blobs, range(2, 6), criterion="gap", n_references=5, random_state=3).frame
    centered = blobs.values - blobs.values.mean(axis=0)
    turned = centered @ np.linalg.svd(centered, full_matrices=False)[2].T
    low, high = turned.min(axis=0), turned.max(axis=0)
    generators = [np.random.default_rng(seed) for seed in np.random.SeedSequence(3).spawn(5)]

    def inertias(rows):
        return np.log([KMeans(k, n_init=4, random_state=3).fit(rows).inertia_ for k in range(2, 6)])

    even = np.array([inertias(rng.uniform(low, high, turned.shape)) for rng in generators])
    np.testing.assert_allclose(frame["value"], even.mean(axis=0) - inertias(turned), rtol=1e-6)
    np.testing.assert_allclose(frame["spread"], even.std(axis=0) * np.sqrt(1 + 1 / 5), rtol=1e-6)


@pytest.mark.slow
def test_the_gap_takes_the_smallest_k_within_a_standard_error(blobs):
    """The value at 4 is beyond that at 5 less its spread, and those before are not, though they are no maximum."""
    frame = choose_k(blobs, range(2, 8), criterion="gap").frame
    enough = (frame["value"] >= frame["value"].shift(-1) - frame["spread"].shift(-1)).tolist()
    assert enough[:3] == [False, False, True]
    loose = choose_k(replace(blobs, values=blobs.values * [1, 1, 0]), range(1, 8), criterion="gap").frame
    enough = (loose["value"] >= loose["value"].shift(-1) - loose["spread"].shift(-1)).tolist()
    assert loose.loc[loose["chosen"], "k"].item() == loose["k"][enough.index(True)]


def test_where_the_gap_still_grows_the_largest_k_is_taken(blobs):
    assert choose_k(blobs, [2, 3], criterion="gap").k == 3


def test_the_gap_does_not_depend_on_where_the_axes_point(blobs):
    turn = np.linalg.qr(np.random.default_rng(2).standard_normal((3, 3)))[0]
    turned = replace(blobs, values=blobs.values @ turn + 100)
    here, there = (choose_k(scores, range(2, 6), criterion="gap").frame["value"] for scores in (blobs, turned))
    np.testing.assert_allclose(here, there, atol=0.05)


def test_one_epoch_alone(scores_of):
    """Two groups at the first epoch, three at the second."""
    rng = np.random.default_rng(0)
    early = np.repeat([[0, 0], [9, 0], [9, 0.0]], 10, axis=0)
    late = np.repeat([[0, 0], [9, 0], [0, 9.0]], 10, axis=0)
    scores = scores_of(np.concatenate([early, late]) + 0.3 * rng.standard_normal((60, 2)), n_snapshots=2)
    assert choose_k(scores, range(2, 6), fit_epoch=0).k == 2
    assert choose_k(scores, range(2, 6), fit_epoch=1).k == 3
    with pytest.raises(ValueError, match="one of the epochs 0, 1"):
        choose_k(scores, fit_epoch=5)


@pytest.mark.parametrize("criterion", ["silhouette", "gap", "bic"])
def test_the_curve_is_the_same_on_any_executor(criterion, blobs):
    here = choose_k(blobs, range(2, 5), criterion=criterion)
    with ThreadPoolExecutor(2) as executor:
        there = choose_k(blobs, range(2, 5), criterion=criterion, executor=executor)
    np.testing.assert_allclose(here.frame["value"], there.frame["value"], rtol=1e-6)


@pytest.mark.slow
def test_many_rows_are_judged_by_some(scores_of):
    rng = np.random.default_rng(0)
    scores = scores_of(np.repeat([[0], [6], [12.0]], 2000, axis=0) + rng.standard_normal((6000, 1)))
    found = choose_k(scores, [2, 3, 4])
    assert found.k == 3
    whole = silhouette_score(scores.values, KMeans(3, n_init=4, random_state=0).fit_predict(scores.values))
    assert found.frame["value"][1] == pytest.approx(whole, abs=0.01)
    assert found.frame["value"][1] != whole


def test_what_is_no_number_of_clusters_is_refused(blobs, scores_of):
    for ks in ([], [0, 2], [1, 2], [2, 101], [2.5]):
        with pytest.raises(ValueError, match="expected whole numbers from 2 to 100, the number of rows that differ"):
            choose_k(blobs, ks)
    with pytest.raises(ValueError, match="expected whole numbers from 2 to 1, the number of rows that differ"):
        choose_k(scores_of(np.ones((9, 2))), [2, 3])
    with pytest.raises(ValueError, match="needs more than the 100 rows there are"):
        choose_k(blobs, [2, 100])
    with pytest.raises(ValueError, match="n_references is 1"):
        choose_k(blobs, criterion="gap", n_references=1)


def test_what_cannot_be_asked_is_refused(blobs):
    with pytest.raises(ValueError, match="criterion is 'elbow'; expected"):
        choose_k(blobs, criterion="elbow")
    with pytest.raises(TypeError, match="HDBSCAN has no parameter n_clusters"):
        choose_k(blobs, clusterer=HDBSCAN(copy=True))
    with pytest.raises(TypeError, match="KMeans has no bic; expected a mixture"):
        choose_k(blobs, criterion="bic", clusterer=KMeans())
    with pytest.raises(TypeError, match="choose_k received a ndarray; expected Scores"):
        choose_k(blobs.values)
    with pytest.raises(ValueError, match="NaN or infinite"):
        choose_k(replace(blobs, values=np.where(blobs.values > 9, np.nan, blobs.values)))
