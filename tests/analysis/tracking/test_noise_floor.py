"""Floors: the same rows clustered twice, with no change at all between the two."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_rand_score

from fmcluster.analysis import cluster, pca, track
from fmcluster.analysis.tracking import _matched_halves
from fmcluster.analysis.tracking._matched_halves import assign_groups, draw_groups, draw_halves
from fmcluster.analysis.tracking._noise_floor import NoiseFloor, SomeChannels, noise_floor
from tests.analysis.array_source import ArraySource

KINDS = 4


@pytest.fixture(scope="module")
def maps() -> np.ndarray:
    """24 samples of 4 classes, 16 channels of 4 kinds, 3 snapshots: groups that either half of the probe shows."""
    rng = np.random.default_rng(0)
    by_kind = rng.standard_normal((KINDS, KINDS, 3, 3)) * 3  # class of the sample, kind of the channel
    whole = by_kind[np.arange(24) % KINDS][:, np.arange(16) % KINDS]
    return (whole + 0.5 * rng.standard_normal((3, *whole.shape))).astype(np.float32)


@pytest.mark.parametrize("few", [1, 1000], ids=["side by side", "apart"])
@pytest.mark.parametrize(("view", "axis"), [("channel", "n"), ("sample", "c"), ("position", "c")])
def test_distances_to_centroids_are_those_of_float64(view, axis, few, maps, vectors_of, monkeypatch):
    monkeypatch.setattr(_matched_halves, "_FEW", few)
    vectors = vectors_of(maps, view)
    labels = np.arange(vectors.shape[0]) % 3
    count = vectors.feature_shape[vectors.feature_axes.index(axis)]
    group_of = draw_groups(count, n_groups=4, random_state=0)
    found = assign_groups(
        vectors,
        labels,
        centered=np.ones(len(labels), bool),
        axis=axis,
        group_of=group_of,
        max_bytes=20_000,
        executor=None,
    )
    rows = vectors.to_numpy().astype(np.float64).reshape(len(labels), *vectors.feature_shape)
    rows = np.moveaxis(rows, 1 + vectors.feature_axes.index(axis), 1)
    for group in range(4):
        seen = rows[:, group_of == group].reshape(len(labels), -1)
        centroids = np.stack([seen[labels == label].mean(axis=0) for label in range(3)])
        expected = ((seen[:, None] - centroids) ** 2).sum(axis=2) - (seen**2).sum(axis=1)[:, None]
        np.testing.assert_allclose(found[group], expected, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize("view", ["channel", "sample"])
@pytest.mark.parametrize("fit", [{"fit": "pooled"}, {"fit": "each"}, {"fit_epoch": 1}], ids=str)
def test_groups_that_either_half_shows_have_no_churn(view, fit, maps, vectors_of):
    floor = noise_floor(vectors_of(maps, view), KMeans(KINDS, random_state=0, n_init=5), n_splits=2, **fit)
    assert floor.frame["churn"].tolist() == [0] * 6
    assert floor.frame["ari"].tolist() == [1] * 6
    assert floor.frame["snapshot"].tolist() == [0, 1, 2] * 2
    assert floor.frame["split"].tolist() == [0] * 3 + [1] * 3
    assert floor.fit == fit.get("fit", "epoch")
    assert floor.fit_epoch == fit.get("fit_epoch")
    how = "" if fit.get("fit") == "each" else ", assigned to the same centroids"
    assert floor.source == ("halves of the samples" if view == "channel" else "halves of the channels") + how


@pytest.mark.slow
def test_rows_of_noise_have_a_floor_as_high_as_their_null(vectors_of):
    noise = np.random.default_rng(1).standard_normal((2, 30, 60, 4, 4)).astype(np.float32)
    vectors = vectors_of(noise)
    clusterer = KMeans(4, random_state=0, n_init=2)
    clusters = cluster(pca(vectors, n_components=10), clusterer, fit="each")
    steps = track(clusters, noise_floor=noise_floor(vectors, clusterer, fit="each", n_components=10)).steps.iloc[0]
    assert steps["ari_noise_floor"] == pytest.approx(0, abs=0.1)
    assert steps["churn_noise_floor"] == pytest.approx(steps["churn_null"], abs=0.12)


def test_a_step_lies_between_its_floor_and_its_null(maps, vectors_of):
    """Where a quarter of the channels changes kind, churn is a quarter: more than with no change, less than chance."""
    changed = maps.copy()
    changed[1:, :, 1:5] = changed[1:, :, 0:4]
    vectors = vectors_of(changed)
    clusterer = KMeans(KINDS, random_state=0, n_init=5)
    history = track(cluster(pca(vectors), clusterer), noise_floor=noise_floor(vectors, clusterer))
    step = history.steps.iloc[0]
    assert step["churn"] == 0.25
    assert step["churn_noise_floor"] < step["churn"] < step["churn_null_limit"] < step["churn_null"]
    for name in ("ari", "ami"):
        assert step[f"{name}_noise_floor"] > step[name] > step[f"{name}_null_limit"] > step[f"{name}_null"]
    assert history.steps.iloc[1]["churn"] == 0
    assert history.noise_floor == "halves of the samples, assigned to the same centroids"


def test_halves_share_no_sample_and_no_channel(maps, vectors_of):
    seen = []

    class Watching(ArraySource):
        def read_feature_maps(self, *, snapshot, samples, channels, rows):
            seen.append(tuple(samples.tolist()))
            return super().read_feature_maps(snapshot=snapshot, samples=samples, channels=channels, rows=rows)

    vectors = replace(vectors_of(maps), source=Watching(maps))
    noise_floor(vectors, KMeans(2, random_state=0), fit="each", n_splits=1)
    one, other = sorted(set(seen))
    assert len(one) == len(other) == 12
    assert sorted(one + other) == list(range(24))


@pytest.mark.parametrize(("view", "axis"), [("channel", 0), ("sample", 1), ("position", 1)])
@pytest.mark.parametrize("options", [{}, {"fit_epoch": 1}], ids=str)
@pytest.mark.parametrize("scaling", ["none", "unit"])
def test_both_halves_are_assigned_to_the_same_centroids(view, axis, options, scaling, vectors_of):
    """Against distances in float64, of the very halves that were drawn."""
    maps = np.random.default_rng(5).standard_normal((3, 18, 14, 3, 3)).astype(np.float32)
    vectors = vectors_of(maps, view, scaling=scaling)
    clusterer = KMeans(3, random_state=0, n_init=2)
    clusters = cluster(pca(vectors), clusterer, **options)
    found = noise_floor(vectors, clusterer, clusters=clusters, n_splits=35, max_bytes=1 << 20, **options)
    rows = vectors.to_numpy().astype(np.float64)
    fitted = (clusters.rows["snapshot"] == 1).to_numpy() if options else np.ones(len(rows), bool)
    centers = np.stack([rows[fitted & (clusters.labels == name)].mean(axis=0) for name in clusters.names])
    group_of = draw_groups((18, 14)[axis], n_groups=8, random_state=0)
    of_feature = {"channel": np.repeat(group_of, 9), "sample": np.repeat(group_of, 9), "position": group_of}[view]
    expected = []
    for pair in draw_halves(8, n_splits=35, random_state=0):
        assert sorted(pair[0] + pair[1]) == list(range(8))
        one, other = (
            ((rows[:, None, chosen] - centers[None][:, :, chosen]) ** 2).sum(axis=2).argmin(axis=1).reshape(3, -1)
            for chosen in (np.isin(of_feature, half) for half in pair)
        )
        expected += (one != other).mean(axis=1).tolist()
    np.testing.assert_allclose(found.frame["churn"], expected, atol=2.5 / len(rows))
    assert found.frame["churn"].mean() == pytest.approx(np.mean(expected), abs=1e-3)
    steps = track(clusters, noise_floor=found).steps
    of_split = found.frame[found.frame["snapshot"] < 2].groupby("split")["churn"].mean()
    assert steps["churn_noise_floor"].iloc[0] == pytest.approx(of_split.mean())
    assert steps["churn_noise_floor_limit"].iloc[0] == of_split.max()


def test_clusters_of_other_rows_have_no_noise_floor_here(maps, vectors_of):
    clusterer = KMeans(2, random_state=0)
    clusters = cluster(pca(vectors_of(maps, "sample")), clusterer)
    with pytest.raises(ValueError, match="the clusters are of 72 rows of the sample view of conv; expected those of"):
        noise_floor(vectors_of(maps), clusterer, clusters=clusters)


def test_some_channels_are_read_as_they_lie(maps):
    some = SomeChannels(ArraySource(maps), np.array([2, 3, 7, 15]))
    assert some.feature_map_shape == (4, 3, 3)
    assert some.channels.tolist() == [2, 3, 7, 15]
    assert some.label == "conv"
    samples = np.array([5, 1])
    found = some.read_feature_maps(snapshot=1, samples=samples, channels=slice(1, 4), rows=slice(0, 2))
    np.testing.assert_array_equal(found, maps[1][samples][:, [3, 7, 15], 0:2])


def test_drawn_and_scaled_rows_keep_their_floor(maps, vectors_of):
    vectors = vectors_of(maps, n_rows=10, scaling="unit")
    floor = noise_floor(vectors, KMeans(KINDS, random_state=0, n_init=5), n_splits=1)
    assert floor.rows_per_snapshot == 10
    assert floor.frame["n_rows"].tolist() == [10] * 3


def test_the_floor_is_the_same_on_any_executor_and_budget(vectors_of):
    noise = np.random.default_rng(2).standard_normal((2, 20, 12, 3, 3)).astype(np.float32)
    for view in ("channel", "sample"):
        vectors = vectors_of(noise, view)
        clusterer = KMeans(3, random_state=0)
        here = noise_floor(vectors, clusterer, n_splits=2)
        with ThreadPoolExecutor(2) as executor:
            there = noise_floor(vectors, clusterer, n_splits=2, executor=executor, max_bytes=1 << 20)
        np.testing.assert_allclose(here.frame["ari"], there.frame["ari"], rtol=1e-6)


def test_another_clustering_is_a_floor_too(maps, vectors_of):
    """Names do not count, and members do: at the second snapshot two of 16 rows differ."""
    clusters = cluster(pca(vectors_of(maps)), KMeans(KINDS, random_state=0, n_init=5))
    labels = (clusters.by_snapshot(clusters.labels) + 1) % KINDS
    labels[1, :2] = labels[1, 2:4]
    history = track(clusters, noise_floor=replace(clusters, labels=labels.ravel(), method="Other"))
    assert history.noise_floor == "another clustering"
    assert history.steps["churn_noise_floor"].tolist() == pytest.approx([1 / 16, 1 / 16])
    ari = adjusted_rand_score(clusters.by_snapshot(clusters.labels)[1], labels[1])
    assert history.steps["ari_noise_floor"].tolist() == pytest.approx([(1 + ari) / 2] * 2)


def test_names_of_clusters_of_each_snapshot_do_not_count_between_two_of_them(maps, vectors_of):
    clusters = cluster(pca(vectors_of(maps)), KMeans(KINDS, random_state=0, n_init=5), fit="each")
    labels = clusters.by_snapshot(clusters.labels).copy()
    for order in range(3):
        labels[order] = (labels[order] + order) % KINDS
    steps = track(clusters, noise_floor=replace(clusters, labels=labels.ravel())).steps
    assert steps["churn_noise_floor"].tolist() == [0, 0]


def test_a_floor_of_something_else_is_refused(maps, vectors_of):
    clusterer = KMeans(KINDS, random_state=0)
    clusters = cluster(pca(vectors_of(maps)), clusterer)
    with pytest.raises(ValueError, match=r"KMeans \(\d clusters, fit='each'\) of 16 rows .* expected one of the clus"):
        track(clusters, noise_floor=noise_floor(vectors_of(maps), clusterer, fit="each", n_splits=1))
    with pytest.raises(
        ValueError, match=r"the noise floor is of KMeans \(2 clusters, .* expected .* KMeans \(\d clusters, "
    ):
        track(clusters, noise_floor=noise_floor(vectors_of(maps), KMeans(2, random_state=0), n_splits=1))
    with pytest.raises(ValueError, match=r"of 24 rows of the sample view of conv; expected one of the clusters"):
        track(clusters, noise_floor=noise_floor(vectors_of(maps, "sample"), clusterer, n_splits=1))
    with pytest.raises(ValueError, match=r"the noise floor has no snapshots \[1, 2\]"):
        track(clusters, noise_floor=noise_floor(vectors_of(maps, snapshots=[0]), clusterer, n_splits=1))
    with pytest.raises(
        ValueError, match="the noise floor is of 72 rows of the sample view over 3 snapshots; expected the same"
    ):
        track(clusters, noise_floor=cluster(pca(vectors_of(maps, "sample")), clusterer))


def test_what_cannot_be_halved_is_refused(maps, vectors_of):
    clusterer = KMeans(2, random_state=0)
    with pytest.raises(ValueError, match="positions of a feature map are no independent halves: not available"):
        noise_floor(vectors_of(maps, "feature_map"), clusterer)
    with pytest.raises(ValueError, match="conv has 1 of the channels that are to be halved; expected at least 2"):
        noise_floor(vectors_of(maps[:, :, :1], "sample"), clusterer)
    with pytest.raises(ValueError, match="n_splits is 0"):
        noise_floor(vectors_of(maps), clusterer, n_splits=0)
    with pytest.raises(TypeError, match="noise_floor received a Scores; expected Vectors"):
        noise_floor(pca(vectors_of(maps)), clusterer)


def test_rows_that_are_not_finite_are_refused(maps, vectors_of):
    broken = maps.copy()
    broken[1, 3, 2, 0, 0] = np.nan
    with pytest.raises(ValueError, match="holds NaN or infinite values"):
        noise_floor(vectors_of(broken), KMeans(2, random_state=0))


def test_a_floor_is_frozen(maps, vectors_of):
    floor = noise_floor(vectors_of(maps), KMeans(2, random_state=0), n_splits=1)
    assert isinstance(floor, NoiseFloor)
    with pytest.raises(AttributeError):
        floor.source = "else"
