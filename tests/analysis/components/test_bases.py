"""Principal components on other bases: of one epoch, of a random sketch; and the components themselves."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sklearn.decomposition import PCA

from fmcluster.analysis import pca


def maps_of(seed: int, shape: tuple[int, ...]) -> np.ndarray:
    rng = np.random.default_rng(seed)
    channels = rng.lognormal(sigma=1.5, size=(1, 1, shape[2], 1, 1))
    return np.maximum(channels * rng.standard_normal(shape), 0).astype(np.float16)


@pytest.mark.parametrize("view", ["channel", "feature_map", "sample"])
def test_the_basis_of_one_epoch_is_scikit_learns(view, vectors_of):
    vectors = vectors_of(maps_of(0, (3, 12, 10, 5, 4)), view)
    scores = pca(vectors, n_components=5, fit_epoch=1)
    assert (scores.fit, scores.fit_epoch) == ("epoch", 1)
    matrix = vectors.to_numpy().astype(np.float64)
    size = vectors.rows_per_snapshot
    full = PCA(5, svd_solver="full").fit(matrix[size : 2 * size])
    expected = full.transform(matrix)
    expected *= np.sign((expected * scores.values).sum(axis=0))
    np.testing.assert_allclose(scores.values, expected, atol=1e-3 * np.abs(expected).max())
    np.testing.assert_allclose(scores.explained_variance, full.explained_variance_, rtol=1e-4)
    np.testing.assert_allclose(scores.explained_variance_ratio, full.explained_variance_ratio_, rtol=1e-4)


def test_one_epoch_has_no_more_components_than_its_rows_have_rank(vectors_of):
    scores = pca(vectors_of(maps_of(1, (3, 12, 6, 5, 4)), "channel"), n_components=50, fit_epoch=0)
    assert scores.values.shape == (18, 5)
    assert np.isfinite(scores.values).all()


def test_one_constant_epoch_is_a_basis_of_nothing(vectors_of):
    maps = maps_of(2, (2, 4, 3, 2, 2))
    maps[0] = 1
    scores = pca(vectors_of(maps, "channel"), fit_epoch=0)
    np.testing.assert_array_equal(scores.values, 0)


def test_an_epoch_without_a_snapshot_is_named(vectors_of):
    vectors = vectors_of(maps_of(3, (2, 4, 3, 2, 2)))
    with pytest.raises(ValueError, match="fit_epoch is 7; expected one of the epochs 0, 1"):
        pca(vectors, fit_epoch=7)
    with pytest.raises(ValueError, match="fit is 'each'"):
        pca(vectors, fit="each")


@pytest.mark.slow
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    view=st.sampled_from(["channel", "feature_map", "sample", "position", "n c h w -> (c h) (n w)"]),
    fit_epoch=st.sampled_from([None, 1]),
    seed=st.integers(0, 20),
)
def test_components_take_the_vectors_to_the_scores(view, fit_epoch, seed, vectors_of):
    vectors = vectors_of(maps_of(seed, (2, 6, 5, 4, 3)), view)
    scores = pca(vectors, n_components=3, components=True, fit_epoch=fit_epoch)
    assert scores.components.shape == (len(scores.singular_values), *vectors.feature_shape)
    axes = scores.components.reshape(len(scores.singular_values), -1).astype(np.float64)
    matrix = vectors.to_numpy().astype(np.float64)
    fitted = matrix if fit_epoch is None else matrix[vectors.rows_per_snapshot :]
    known = scores.singular_values > 1e-3 * max(scores.singular_values[0], 1e-9)
    found = ((matrix - fitted.mean(axis=0)) @ axes.T)[:, known]
    np.testing.assert_allclose(found, scores.values[:, known], atol=2e-3 * max(1, np.abs(scores.values).max()))
    np.testing.assert_allclose(np.linalg.norm(axes[known], axis=1), 1, atol=1e-3)


def test_components_over_the_budget_are_refused(vectors_of):
    vectors = vectors_of(maps_of(4, (1, 40, 8, 60, 60)), "channel")
    with pytest.raises(MemoryError, match=r"8 components of 144000 features take 4 MiB.*n_components"):
        pca(vectors, components=True, max_bytes=4 << 20)


def test_a_sketch_finds_what_is_there_and_says_what_it_missed(vectors_of):
    vectors = vectors_of(maps_of(5, (1, 14, 30, 20, 20)), "feature_map")
    exact = pca(vectors, n_components=4)
    assert (exact.method, exact.error) == ("covariance", 0)
    scores = pca(vectors, n_components=4, max_bytes=700_000)
    assert scores.method == "randomized"
    np.testing.assert_allclose(scores.singular_values, exact.singular_values, rtol=3e-2)  # a flat spectrum: the hardest
    assert scores.total_variance == pytest.approx(exact.total_variance, rel=1e-4)
    away = np.abs(scores.singular_values**2 - exact.singular_values**2).max() / exact.singular_values[0] ** 2
    assert away <= scores.error < 0.05
    again = pca(vectors, n_components=4, max_bytes=700_000)
    np.testing.assert_array_equal(again.values, scores.values)
    other = pca(vectors, n_components=4, max_bytes=700_000, random_state=1)
    assert not np.array_equal(other.values, scores.values)


def test_a_sketch_of_low_rank_is_exact(vectors_of):
    rng = np.random.default_rng(0)
    rows, features = rng.standard_normal((14 * 30, 3)), rng.standard_normal((3, 400))
    maps = (rows @ features).reshape(1, 14, 30, 20, 20).astype(np.float32)
    vectors = vectors_of(maps, "feature_map")
    exact, scores = pca(vectors, n_components=3), pca(vectors, n_components=3, max_bytes=700_000)
    assert scores.method == "randomized"
    assert scores.error < 1e-3
    np.testing.assert_allclose(scores.values, exact.values, atol=1e-3 * np.abs(exact.values).max())


def test_one_epoch_is_no_basis_of_a_sketch(vectors_of):
    vectors = vectors_of(maps_of(6, (1, 14, 30, 20, 20)), "feature_map")
    with pytest.raises(MemoryError, match="leave out fit_epoch"):
        pca(vectors, n_components=4, max_bytes=700_000, fit_epoch=0)


@pytest.mark.parametrize("device", ["cpu:0", pytest.param("cuda", marks=pytest.mark.gpu)])
@pytest.mark.parametrize(
    ("view", "max_bytes", "options", "most"),
    [
        ("channel", 1 << 30, {"components": True}, 1e-6),
        ("channel", 1 << 30, {"fit_epoch": 1}, 1e-6),
        ("feature_map", 1 << 30, {}, 1e-6),
        ("feature_map", 700_000, {}, 1e-5),  # a sketch: its products are in float32
        ("sample", 1 << 30, {}, 1e-6),
        ("sample", 1 << 30, {"exact": False}, 1e-5),
        ("position", 1 << 30, {}, 1e-6),
    ],
)
def test_products_on_a_device_are_those_of_the_processor(device, view, max_bytes, options, most, vectors_of):
    """By torch, also on the processor: a device with a number is not the default."""
    vectors = vectors_of(maps_of(7, (2, 14, 30, 20, 20)), view)
    here = pca(vectors, n_components=4, max_bytes=max_bytes, **options)
    there = pca(vectors, n_components=4, max_bytes=max_bytes, device=device, **options)
    assert there.method == here.method
    np.testing.assert_allclose(there.values, here.values, rtol=0, atol=most * np.abs(here.values).max())
    np.testing.assert_allclose(there.explained_variance_ratio, here.explained_variance_ratio, rtol=0, atol=most)


class TestRowsThatAreNotFinite:
    @pytest.mark.parametrize("view", ["channel", "feature_map", "sample", "position"])
    def test_they_are_left_out_in_every_snapshot_and_named(self, view, vectors_of):
        maps = maps_of(8, (3, 4, 5, 3, 3))
        maps[1, 2, 3, 0, 1], maps[2, 2, 3, 2, 2] = np.nan, np.inf
        vectors = vectors_of(maps, view)
        left = vectors.without_nonfinite(max_bytes=500)
        whole = vectors_of(np.nan_to_num(maps, posinf=0), view)
        bad = np.zeros(maps.shape, dtype=bool)
        bad[1, 2, 3, 0, 1] = bad[2, 2, 3, 2, 2] = True
        hit = vectors_of(bad, view).to_numpy().any(axis=1).reshape(3, -1)
        kept = np.tile(~hit.any(axis=0), 3)
        np.testing.assert_array_equal(left.to_numpy(), whole.to_numpy()[kept])
        assert left.rows.equals(vectors.rows[kept].reset_index(drop=True))
        assert left.excluded.equals(vectors.rows[hit.ravel()].reset_index(drop=True))
        assert pca(left, n_components=2).values.shape == (kept.sum(), 2)

    def test_of_drawn_rows_too(self, vectors_of):
        maps = maps_of(9, (2, 4, 9, 3, 3))
        maps[1, 0, 4, 0, 0] = np.nan
        drawn = vectors_of(maps, "channel", n_rows=6, random_state=0)
        assert 4 in set(drawn.rows["channel"])
        left = drawn.without_nonfinite()
        assert set(left.rows["channel"]) == set(drawn.rows["channel"]) - {4}

    def test_where_all_are_finite_nothing_changes(self, vectors_of):
        vectors = vectors_of(maps_of(10, (2, 4, 3, 3, 3)))
        assert vectors.without_nonfinite() is vectors

    def test_where_none_is_it_is_an_error(self, vectors_of):
        maps = np.full((2, 3, 2, 2, 2), np.nan, np.float16)
        with pytest.raises(ValueError, match="every row of the channel view of conv"):
            vectors_of(maps).without_nonfinite()
