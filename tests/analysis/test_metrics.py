"""Metrics between representations: published values, references of their own, and what must not change them."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import orthogonal_procrustes
from scipy.stats import ortho_group

from fmcluster.analysis.metrics import cca, linear_cka, procrustes, pwcca, rbf_cka, svcca

METRICS = {"cka": linear_cka, "rbf": rbf_cka, "svcca": svcca, "pwcca": pwcca, "procrustes": procrustes}


def normal(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape)


@pytest.fixture(scope="module")
def tutorial() -> tuple[np.ndarray, np.ndarray]:
    """Two random normal matrices of 500 neurons and 10,000 points."""
    return normal(0, 10_000, 500), normal(1, 10_000, 500)


@pytest.mark.slow
def test_the_published_values_of_random_matrices(tutorial) -> None:
    found = cca(*tutorial)
    assert found.mean() == pytest.approx(0.191, abs=0.002)
    assert found[:20].mean() == pytest.approx(0.412, abs=0.003)
    assert 0.033 < svcca(*tutorial, n_directions=20) < 0.040
    assert pwcca(*tutorial) == pytest.approx(0.192, abs=0.003)


def unbiased_hsic(k: np.ndarray, other: np.ndarray) -> float:
    """As it is defined: the mean over all quadruples of different samples (Song et al. 2012, equation 4), in sums."""
    n = len(k)
    k, other = k - np.diag(np.diag(k)), other - np.diag(np.diag(other))
    ones = np.ones(n)
    third = (ones @ k @ ones) * (ones @ other @ ones) / ((n - 1) * (n - 2))
    return (np.trace(k @ other) + third - 2 / (n - 2) * ones @ k @ other @ ones) / (n * (n - 3))


def biased_hsic(k: np.ndarray, other: np.ndarray) -> float:
    h = np.eye(len(k)) - 1 / len(k)
    return np.trace(k @ h @ other @ h) / (len(k) - 1) ** 2


def aligned(hsic, k: np.ndarray, other: np.ndarray) -> float:
    return hsic(k, other) / np.sqrt(hsic(k, k) * hsic(other, other))


@settings(max_examples=40, deadline=None)
@given(
    n=st.integers(5, 25), p=st.integers(1, 30), q=st.integers(1, 30), seed=st.integers(0, 99), debiased=st.booleans()
)
@pytest.mark.filterwarnings("ignore:biased CKA")
def test_alignments_are_what_their_definitions_say(n, p, q, seed, debiased) -> None:
    x, y = normal(seed, n, p), normal(seed + 100, n, q)
    hsic = unbiased_hsic if debiased else biased_hsic
    assert linear_cka(x, y, debiased=debiased) == pytest.approx(aligned(hsic, x @ x.T, y @ y.T), abs=1e-9)
    kernels = []
    for each in (x, y):
        squares = ((each[:, None] - each) ** 2).sum(axis=2)
        median = np.median([np.sqrt(squares[i, j]) for i, j in itertools.combinations(range(n), 2)])
        kernels.append(np.exp(-squares / (2 * (0.8 * median) ** 2)))
    assert rbf_cka(x, y, bandwidth=0.8, debiased=debiased) == pytest.approx(aligned(hsic, *kernels), abs=1e-9)


def test_hsic_is_the_mean_over_quadruples_of_different_samples() -> None:
    """The reference of the test above, from the definition of HSIC by expectations."""
    x, y = normal(0, 6, 3), normal(1, 6, 2)
    k, other = x @ x.T, y @ y.T
    terms = [
        k[i, j] * (other[i, j] + other[q, r] - 2 * other[i, q]) for i, j, q, r in itertools.permutations(range(6), 4)
    ]
    assert unbiased_hsic(k, other) == pytest.approx(np.mean(terms))


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (1, 2))])
def test_debiased_cka_of_independent_noise_is_zero_and_the_biased_one_is_not(seed) -> None:
    x, y = normal(seed, 200, 25_000), normal(seed + 50, 200, 25_000)
    assert abs(linear_cka(x, y)) < 0.02
    assert abs(rbf_cka(x, y)) < 0.02
    for metric in (linear_cka, rbf_cka):
        with pytest.warns(
            UserWarning, match=r"200 samples with 25000 and 25000 features is about 0.99 or more even of"
        ):
            assert metric(x, y, debiased=False) > 0.98


@pytest.mark.parametrize(("p", "q"), [(1000, 20), (300, 300), (20, 1000)])
def test_the_warning_says_what_the_biased_estimate_of_noise_would_be(p, q) -> None:
    with pytest.warns(UserWarning, match="biased CKA") as warned:
        found = linear_cka(normal(0, 200, p), normal(1, 200, q), debiased=False)
    said = float(str(warned[0].message).split("about ")[1].split()[0])
    assert said == pytest.approx(found, abs=0.02)


def test_there_is_no_warning_where_samples_outnumber_features() -> None:
    x, y = normal(0, 40, 40), normal(1, 40, 3)
    assert linear_cka(x, y, debiased=False) > linear_cka(x, y)


@pytest.mark.parametrize("name", METRICS)
def test_a_representation_is_like_itself_turned_moved_and_scaled(name) -> None:
    x = normal(2, 60, 8)
    turned = 3 * x @ ortho_group.rvs(8, random_state=0) + np.arange(8)
    for other in (x, turned):
        assert METRICS[name](x, other) == pytest.approx(1, abs=1e-9)
    assert METRICS[name](x, normal(3, 60, 8)) < 0.9


@settings(max_examples=40, deadline=None)
@given(
    name=st.sampled_from(["cka", "rbf", "procrustes"]),
    n=st.integers(4, 20),
    p=st.integers(2, 12),
    scale=st.floats(1e-3, 1e3),
    seed=st.integers(0, 1000),
)
def test_rotations_and_scales_change_nothing_and_order_does_not_matter(name, n, p, scale, seed) -> None:
    x, y = normal(seed, n, p), normal(seed + 1, n, 3)
    turned = scale * x @ ortho_group.rvs(p, random_state=seed)
    expected = METRICS[name](x, y)
    assert METRICS[name](turned, y) == pytest.approx(expected, abs=1e-8)
    assert METRICS[name](y, turned) == pytest.approx(expected, abs=1e-8)


def test_alignments_know_other_linear_maps() -> None:
    """Unlike canonical correlations: stretching a direction changes them."""
    x, y = normal(0, 40, 6), normal(1, 40, 6)
    y[:, 0] = x[:, 0]
    stretched = x * [30, 1, 1, 1, 1, 1]
    for name in ("cka", "rbf", "procrustes"):
        assert abs(METRICS[name](stretched, y) - METRICS[name](x, y)) > 0.01


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 1000))
def test_canonical_correlations_do_not_know_the_basis(seed) -> None:
    x, y = normal(seed, 50, 5), normal(seed + 1, 50, 4)
    mixed = x @ (normal(seed + 2, 5, 5) + 3 * np.eye(5))
    np.testing.assert_allclose(cca(mixed, y), cca(x, y), atol=1e-8)
    np.testing.assert_allclose(cca(y, x), cca(x, y), atol=1e-8)


def test_canonical_correlations_are_those_of_the_eigenproblem() -> None:
    x, y = normal(4, 80, 6), normal(5, 80, 5)
    y[:, 0] += 2 * x[:, 1]
    a, b = x - x.mean(axis=0), y - y.mean(axis=0)
    product = np.linalg.solve(a.T @ a, a.T @ b) @ np.linalg.solve(b.T @ b, b.T @ a)
    expected = np.sqrt(np.sort(np.linalg.eigvals(product).real)[::-1][:5])
    np.testing.assert_allclose(cca(x, y), expected, atol=1e-10)


def test_svcca_is_cca_of_the_largest_principal_components() -> None:
    x, y = normal(6, 90, 12) * np.geomspace(1, 0.01, 12), normal(7, 90, 9) * np.geomspace(1, 0.05, 9)

    def largest(values: np.ndarray, count: int) -> np.ndarray:
        left, singular, _ = np.linalg.svd(values - values.mean(axis=0), full_matrices=False)
        return left[:, :count] * singular[:count]

    def enough(values: np.ndarray, share: float) -> int:
        singular = np.linalg.svd(values - values.mean(axis=0), compute_uv=False)
        return int((np.cumsum(singular**2) / (singular**2).sum() < share).sum()) + 1

    assert svcca(x, y, n_directions=3) == pytest.approx(cca(largest(x, 3), largest(y, 3)).mean())
    counts = enough(x, 0.9), enough(y, 0.9)
    assert counts[0] < 12
    assert svcca(x, y, variance=0.9) == pytest.approx(cca(largest(x, counts[0]), largest(y, counts[1])).mean())


def test_pwcca_weighs_by_what_the_directions_stand_for_in_the_first() -> None:
    """Of two independent features, one wide and shared, one narrow and not: by hand."""
    shared, own, other = np.linalg.qr(normal(8, 40, 3) - normal(8, 40, 3).mean(axis=0))[0].T
    shared, own, other = (each - each.mean() for each in (shared, own, other))
    basis = np.linalg.qr(np.stack([shared, own, other], axis=1))[0].T
    x = np.stack([9 * basis[0], basis[1]], axis=1)
    y = np.stack([basis[0], basis[2]], axis=1)
    assert pwcca(x, y) == pytest.approx(0.9)
    assert pwcca(y, x) == pytest.approx(0.5)


def test_procrustes_is_what_the_best_rotation_leaves() -> None:
    x, y = normal(9, 30, 5), normal(10, 30, 5)
    a, b = ((each - each.mean(axis=0)) / np.linalg.norm(each - each.mean(axis=0)) for each in (x, y))
    rotation, _ = orthogonal_procrustes(a, b)
    assert procrustes(x, y) == pytest.approx(1 - ((a @ rotation - b) ** 2).sum() / 2)


@pytest.mark.parametrize("name", METRICS)
@pytest.mark.parametrize("value", [0.0, 7.0, 0.1])  # the mean of 0.1 is not 0.1
def test_what_is_constant_is_like_nothing(name, value) -> None:
    assert np.isnan(METRICS[name](np.full((20, 3), value), normal(11, 20, 3)))


def test_samples_that_are_all_equally_far_are_like_nothing_where_the_bias_is_taken_away() -> None:
    y = normal(15, 8, 3)
    for metric in (linear_cka, rbf_cka):
        assert np.isnan(metric(np.eye(8), y))
        assert metric(np.eye(8), y, debiased=False) > 0


def test_one_feature_is_enough() -> None:
    x = normal(12, 20, 1)
    for metric in METRICS.values():
        assert metric(x, 2 * x + 1) == pytest.approx(1)


def test_dead_features_are_no_directions() -> None:
    x, y = normal(13, 20, 6), normal(14, 20, 6)
    np.testing.assert_allclose(cca(np.hstack([x, np.zeros((20, 50))]), y), cca(x, y), atol=1e-9)


class TestRefused:
    def test_no_more_points_than_directions(self) -> None:
        """Centring takes one of 20 points away: 19 directions are left for both."""
        x, y = normal(0, 20, 300), normal(1, 20, 5)
        with pytest.raises(ValueError, match=r"20 points on 19 and 5 directions, at least 5 of 5 are 1 .* take more"):
            cca(x, y)
        with pytest.raises(ValueError, match=r"5 of 5 are 1 whatever the points are"):
            svcca(x, y, variance=1.0)
        with pytest.raises(ValueError, match=r"5 of 5 are 1 whatever .*n_directions=9 at most"):
            pwcca(y, x)

    def test_more_directions_than_points_in_both_together(self) -> None:
        """Planes of 10 and 10 directions among 19 share one, of noise as well."""
        x, y = normal(2, 20, 300), normal(3, 20, 300)
        with pytest.raises(ValueError, match="20 points on 10 and 10 directions, at least 1 of 10 are 1 whatever"):
            cca(x, y, n_directions=10)
        assert cca(x[:, :10], y[:, :9]).max() < 1 - 1e-6
        left, right = (np.linalg.svd(each - each.mean(axis=0), full_matrices=False)[0][:, :10] for each in (x, y))
        assert np.linalg.svd(left.T @ right, compute_uv=False)[0] == pytest.approx(1)

    @pytest.mark.parametrize("metric", METRICS.values())
    def test_other_samples(self, metric) -> None:
        with pytest.raises(ValueError, match="x has 9 rows and y 8; expected the same samples"):
            metric(normal(0, 9, 3), normal(1, 8, 3))

    @pytest.mark.parametrize("metric", METRICS.values())
    @pytest.mark.parametrize("bad", [np.nan, np.inf])
    def test_what_is_not_finite(self, metric, bad) -> None:
        x = normal(0, 9, 3)
        x[1, 1] = bad
        with pytest.raises(ValueError, match="y holds NaN or infinite values"):
            metric(normal(1, 9, 3), x)

    def test_other_arguments(self) -> None:
        x, y = normal(0, 9, 3), normal(1, 9, 3)
        with pytest.raises(ValueError, match="3 samples are too few; expected at least 4"):
            linear_cka(x[:3], y[:3])
        with pytest.raises(ValueError, match=r"x has shape \(9,\); expected \(n_samples, n_features\)"):
            procrustes(x[:, 0], y)
        with pytest.raises(ValueError, match="bandwidth is 0; expected a positive"):
            rbf_cka(x, y, bandwidth=0)
        with pytest.raises(ValueError, match="n_directions is 0"):
            cca(x, y, n_directions=0)
        with pytest.raises(ValueError, match="variance is 1"):
            svcca(x, y, variance=1.5)
