"""Streaming principal components against a full decomposition in float64, which shares nothing with them."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import pdist
from sklearn.decomposition import PCA

from fmcluster.analysis import pca
from fmcluster.analysis.components._gram import (
    accumulate_covariance,
    accumulate_gram,
    sketch,
)
from fmcluster.analysis.components._plan_reading import BLOCK_BYTES, plan_reading
from fmcluster.vectors import DrawnPositions, Vectors
from tests.analysis.array_source import ArraySource


def relu_maps(seed: int, shape: tuple[int, ...], *, offset: float = 0.0) -> np.ndarray:
    """Maps as a network makes them: float16, some channels all positive, some mostly zero."""
    rng = np.random.default_rng(seed)
    channels = rng.lognormal(size=(1, 1, shape[2], 1, 1))
    return np.maximum(channels * rng.standard_normal(shape) + offset, 0).astype(np.float16)


def reference(vectors) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    matrix = vectors.to_numpy().astype(np.float64)
    matrix -= matrix.mean(axis=0)
    left, singular, right = np.linalg.svd(matrix, full_matrices=False)
    return left, singular, right


@pytest.mark.slow
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    shape=st.tuples(*(st.integers(1, n) for n in (4, 7, 9, 5, 5))),
    view=st.sampled_from(["channel", "feature_map", "sample", "position"]),
    offset=st.sampled_from([0.0, 1.0, 30.0]),
    seed=st.integers(0, 100),
)
def test_any_shape_and_view_agree_with_the_full_decomposition(shape, view, offset, seed, vectors_of):
    vectors = vectors_of(relu_maps(seed, shape, offset=offset), view)
    scores = pca(vectors, n_components=8)
    left, singular, _ = reference(vectors)
    count = len(scores.singular_values)
    assert count == min(8, *vectors.shape)
    largest = max(singular[0], 1e-30)
    assert np.abs(scores.singular_values - singular[:count]).max() <= 1e-4 * largest
    # a subspace is only as well known as its gap to the next singular value is wide
    for k in range(1, count + 1):
        gap = (singular[k - 1] ** 2 - (singular[k] ** 2 if k < len(singular) else 0)) / largest**2
        if gap > 1e-3:
            mine, _ = np.linalg.qr(scores.values[:, :k])
            sine = np.linalg.norm(mine - left[:, :k] @ (left[:, :k].T @ mine), 2)
            assert sine <= 1e-4 / gap
    matrix = vectors.to_numpy().astype(np.float64)
    variance = matrix.var(axis=0, ddof=1).sum() if len(matrix) > 1 else 0.0
    assert scores.total_variance == pytest.approx(variance, rel=1e-4, abs=1e-9)


@pytest.mark.parametrize("view", ["channel", "feature_map"])
def test_agrees_with_scikit_learn(view, vectors_of):
    vectors = vectors_of(relu_maps(0, (3, 20, 24, 9, 8)), view)
    scores = pca(vectors, n_components=10)
    full = PCA(10, svd_solver="full").fit(vectors.to_numpy().astype(np.float64))
    np.testing.assert_allclose(scores.explained_variance, full.explained_variance_, rtol=1e-5)
    np.testing.assert_allclose(scores.explained_variance_ratio, full.explained_variance_ratio_, rtol=1e-5)
    expected = full.transform(vectors.to_numpy().astype(np.float64))
    expected *= np.sign((expected * scores.values).sum(axis=0))
    np.testing.assert_allclose(scores.values, expected, atol=1e-4 * np.abs(expected).max())


def test_both_sides_give_the_same(vectors_of):
    maps = relu_maps(1, (3, 6, 40, 8, 8))
    wide = pca(vectors_of(maps, "channel"), n_components=5)
    assert wide.method == "gram"
    tall = pca(vectors_of(maps, "n c h w -> (n c) (h w)"), n_components=5)
    assert tall.method == "covariance"
    _, singular, _ = reference(vectors_of(maps, "feature_map"))
    np.testing.assert_allclose(tall.singular_values, singular[:5], rtol=1e-5)


def test_full_rank_scores_keep_all_distances(vectors_of):
    vectors = vectors_of(relu_maps(2, (2, 10, 12, 6, 6)))
    scores = pca(vectors, n_components=24)
    np.testing.assert_allclose(pdist(scores.values), pdist(vectors.to_numpy().astype(np.float64)), rtol=1e-4)


def test_blocks_do_not_change_the_result(vectors_of, monkeypatch):
    maps = relu_maps(3, (3, 16, 10, 12, 12))
    whole = pca(vectors_of(maps), n_components=4)
    monkeypatch.setattr("fmcluster.analysis.components._plan_reading.BLOCK_BYTES", 4096)
    vectors = vectors_of(maps)
    pieces = pca(vectors, n_components=4)
    assert vectors.source.reads > 50
    np.testing.assert_allclose(pieces.values, whole.values, atol=1e-4 * np.abs(whole.values).max())


def test_zeros_stay_zero_where_sums_are_too_long_for_float64_products(vectors_of):
    """Rows that are multiples of one another: whatever is beyond the first singular value is rounding."""
    rng = np.random.default_rng(0)
    pattern = np.abs(rng.standard_normal((1, 40, 1, 50, 50))).astype(np.float16)
    maps = pattern * np.array([1, 2, 4, 0.5, 0.25, 8], np.float16)[None, None, :, None, None]
    vectors = vectors_of(maps)
    assert vectors.n_features > 1 << 16
    singular = pca(vectors, n_components=6).singular_values
    assert singular[1] < 2e-4 * singular[0]


@pytest.mark.parametrize("factor", [2.0**120, 2.0**-131], ids=["near 1e37", "denormal"])
def test_products_of_very_large_and_very_small_values_are_those_of_usual_ones(factor, vectors_of, monkeypatch):
    """In each of the three ways, also where sums are so long that products are taken in float32."""
    monkeypatch.setattr("fmcluster.analysis.components._gram._DEPTH_FOR_FLOAT32", 0)
    maps = np.random.default_rng(0).standard_normal((2, 6, 5, 4, 4)).astype(np.float32)
    extreme, usual = (vectors_of(maps * np.float32(each), "channel") for each in (factor, 1))
    near = {"rtol": 1e-4, "atol": 1e-4}
    products = [accumulate_gram(each, block_bytes=2000) for each in (extreme, usual)]
    np.testing.assert_allclose(products[0] / factor / factor, products[1], **near)
    products = [accumulate_covariance(each, block_bytes=2000) for each in (extreme, usual)]
    np.testing.assert_allclose(products[0][0] / factor / factor, products[1][0], **near)
    np.testing.assert_allclose(products[0][1] / factor, products[1][1], **near)
    options = {"width": 10, "n_iterations": 2, "block_bytes": 2000, "random_state": 0}
    found, expected = (sketch(each, **options) for each in (extreme, usual))
    np.testing.assert_allclose(np.abs(found[0]), np.abs(expected[0]), rtol=1e-2, atol=1e-2)
    assert found[2] / factor / factor == pytest.approx(expected[2], rel=1e-4)


def test_one_pass_over_the_disk_where_rows_are_few(vectors_of):
    vectors = vectors_of(relu_maps(4, (3, 16, 10, 12, 12)))
    pca(vectors)
    assert vectors.source.reads == 3  # a block, three snapshots


def test_the_same_twice_and_the_largest_score_is_positive(vectors_of):
    maps = relu_maps(5, (2, 8, 9, 6, 6))
    first, second = pca(vectors_of(maps)), pca(vectors_of(maps))
    np.testing.assert_array_equal(first.values, second.values)
    peaks = first.values[np.abs(first.values).argmax(axis=0), np.arange(first.values.shape[1])]
    assert (peaks[first.singular_values > 1e-3] > 0).all()


def test_constant_vectors_have_no_variance(vectors_of):
    scores = pca(vectors_of(np.full((2, 3, 4, 2, 2), 7, np.float16)))
    assert scores.total_variance == 0
    np.testing.assert_array_equal(scores.explained_variance_ratio, 0)
    np.testing.assert_array_equal(scores.values, 0)


def test_frame_labels_every_row(vectors_of):
    scores = pca(vectors_of(relu_maps(6, (3, 4, 5, 3, 3))), n_components=2)
    assert list(scores.frame.columns) == ["snapshot", "epoch", "step", "channel", "pc0", "pc1"]
    assert scores.frame["channel"].tolist() == list(range(5)) * 3
    assert scores.by_snapshot(scores.values).shape == (3, 5, 2)


def test_a_matrix_over_the_budget_is_refused_with_the_way_out(vectors_of):
    vectors = vectors_of(relu_maps(7, (2, 30, 8, 20, 20)), "feature_map")
    with pytest.raises(MemoryError, match=r"480 rows of 400 features.*budget is 1 MiB.*n_rows"):
        pca(vectors, max_bytes=1 << 20)
    assert plan_reading(vectors, n_components=50, max_bytes=1 << 30).block_bytes == BLOCK_BYTES


def test_not_a_number_is_named(vectors_of):
    maps = relu_maps(8, (3, 4, 5, 3, 3))
    maps[1, 2, 3, 0, 0] = np.nan
    with pytest.raises(ValueError, match=r"conv holds NaN or infinite values, first at snapshot 1.*channel 3"):
        pca(vectors_of(maps))


def test_no_component_is_refused(vectors_of):
    with pytest.raises(ValueError, match="n_components is 0"):
        pca(vectors_of(relu_maps(9, (1, 2, 3, 2, 2))), n_components=0)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("view", "side", "n_samples"), [("channel", 56, 150), ("feature_map", 28, 600), ("sample", 56, 150)]
)
def test_memory_stays_under_the_budget(view, side, n_samples):
    """In a process of its own: the peak above its imports, for vectors several times the budget."""
    import subprocess
    import sys

    script = f"""
import resource, sys
import numpy as np, pandas as pd, torch, scipy.linalg
from fmcluster.analysis import pca
from fmcluster.vectors import make_vectors
class Source:
    label = "conv"
    channels = np.arange(64)
    snapshots = pd.DataFrame(dict(snapshot=range(4), epoch=range(4), step=range(4)))
    feature_map_shape = (64, {side}, {side})
    def read_feature_maps(self, *, snapshot, samples, channels, rows):
        rng = np.random.default_rng([snapshot, int(samples[0])])
        c, h = len(range(64)[channels]), len(range({side})[rows])
        return rng.random((len(samples), c, h, {side}), np.float32).astype(np.float16)
options = dict(snapshots=range(4), n_rows=None, scaling="none", random_state=0)
pca(make_vectors(Source(), "channel", samples=np.arange(1), **options))  # warm
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
pca(make_vectors(Source(), "{view}", samples=np.arange({n_samples}), **options), max_bytes=1 << 28)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    out = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True).stdout
    assert int(out) / 1024 < 256


@pytest.mark.parametrize("value", [np.zeros((3, 4)), "layer4", None])
def test_what_is_not_vectors_is_named(value):
    with pytest.raises(TypeError, match=r"pca received a \w+; expected Vectors, made by layer.vectors"):
        pca(value)


@pytest.mark.slow
def test_a_sketch_in_place_of_what_takes_long_is_as_near_as_it_says(vectors_of, monkeypatch):
    monkeypatch.setattr("fmcluster.analysis.components._plan_reading.MANY_PRODUCTS", 0)
    vectors = vectors_of(relu_maps(3, (3, 4, 300, 20, 20)), "channel")
    exact, short = pca(vectors, n_components=5), pca(vectors, n_components=5, exact=False)
    assert (exact.method, short.method) == ("gram", "randomized")
    assert exact.error == 0 < short.error < 0.05
    variances = np.linalg.svd(vectors.to_numpy() - vectors.to_numpy().mean(axis=0), compute_uv=False) ** 2
    for found in short.singular_values**2:
        assert np.abs(variances - found).min() <= 1.001 * short.error * variances[0]
    np.testing.assert_allclose(short.total_variance, exact.total_variance, rtol=1e-5)
    assert short.explained_variance_ratio.sum() == pytest.approx(exact.explained_variance_ratio.sum(), rel=0.05)


def test_scores_at_drawn_positions_say_of_how_many_and_keep_distances_as_nearly_as_they_say():
    rng = np.random.default_rng(2)
    maps = rng.normal(size=(2, 20, 6, 30, 30)).astype(np.float32)
    source = ArraySource(maps)
    of_all = pca(Vectors(source, "channel", (0, 1), np.arange(20)))
    drawn = pca(Vectors(DrawnPositions(source, 100, 0), "channel", (0, 1), np.arange(20)))
    assert (of_all.n_features, of_all.of_features) == (18_000, None)
    assert (drawn.n_features, drawn.of_features) == (2000, 18_000)
    ratio = pdist(drawn.values) ** 2 / pdist(of_all.values) ** 2 * 9
    assert np.abs(ratio - 1).max() < 4 * np.sqrt(2 / 2000)  # of normal values: two over how many
