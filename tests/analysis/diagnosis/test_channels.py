"""One pass over a layer's channels, against NumPy in float64 and hand-made cases."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import entropy

from fmcluster.analysis.components._rank import effective_rank
from fmcluster.analysis.diagnosis._channels import (
    converged_at,
    correlate_channels,
    examine_channels,
    first_to_stay,
    is_noise,
    match_channels,
    sum_products,
    windows,
)
from fmcluster.vectors._vectors import Vectors
from tests.analysis.array_source import ArraySource

JUDGED = {"dead": 1e-3, "duplicate": 0.95, "permuted": 0.95}


def channel_view(maps):
    maps = np.asarray(maps, np.float32)
    return Vectors(ArraySource(maps), "channel", tuple(range(len(maps))), np.arange(maps.shape[1]))


def noise(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def responses(maps):
    """Rows of (snapshot, channel, everything), float64."""
    return np.asarray(maps, np.float64).transpose(0, 2, 1, 3, 4).reshape(len(maps), maps.shape[2], -1)


@settings(max_examples=25, deadline=None)
@given(
    shape=st.tuples(*(st.integers(1, most) for most in (4, 5, 4, 4, 3))),
    max_bytes=st.integers(100, 5000),
    offset=st.sampled_from([0.0, 100.0]),
)
def test_sums_are_those_of_numpy_whatever_the_shape_and_the_blocks(shape, max_bytes, offset):
    maps = noise(*shape) + np.float32(offset)
    found = sum_products(channel_view(maps), max_bytes=max_bytes)
    rows = responses(maps)
    centered = rows - rows.mean(axis=2, keepdims=True)
    np.testing.assert_allclose(found.within, centered @ centered.transpose(0, 2, 1), rtol=1e-5, atol=1e-4)
    np.testing.assert_allclose(found.between, centered[:-1] @ centered[1:].transpose(0, 2, 1), rtol=1e-5, atol=1e-4)
    np.testing.assert_allclose(found.norms, np.linalg.norm(rows, axis=2), rtol=1e-6)
    np.testing.assert_allclose(found.from_first, np.linalg.norm(rows - rows[0], axis=2), rtol=1e-6)
    np.testing.assert_allclose(found.from_previous[1:], np.linalg.norm(np.diff(rows, axis=0), axis=2), rtol=1e-6)
    np.testing.assert_array_equal(found.low, rows.min(axis=2))
    np.testing.assert_array_equal(found.high, rows.max(axis=2))


def test_every_map_is_read_once_where_the_products_fit():
    vectors = channel_view(noise(5, 6, 4, 3, 3))
    examine_channels(vectors, **JUDGED, max_bytes=1 << 20)
    assert vectors.source.reads == 5


def test_with_a_budget_for_three_snapshots_everything_is_found_that_is_found_at_once():
    maps = noise(8, 6, 10, 3, 3)
    maps[2:, :, 4] = maps[2:, :, 7] * 3  # duplicates
    maps[5:, :, 1] = 0.5  # dead
    maps[6] = maps[5][:, np.roll(np.arange(10), 3)]  # permuted
    at_once = examine_channels(channel_view(maps), **JUDGED, max_bytes=1 << 24)
    small = 2 * 9 * 8 * 10 * 10  # half of it for 2 * 3 + 3 matrices of 10 x 10
    in_parts = examine_channels(channel_view(maps), **JUDGED, max_bytes=small)
    assert (at_once.moved_from[6] >= 0).sum() == 7  # 9 are alive, and two of these twins
    for name in ("dead", "group", "moved_from"):
        np.testing.assert_array_equal(getattr(in_parts, name), getattr(at_once, name))
    for name in ("effective_rank", "drift", "step", "own"):
        np.testing.assert_allclose(getattr(in_parts, name), getattr(at_once, name), rtol=1e-6, atol=1e-7)
    with pytest.raises(MemoryError, match=r"10 channels .* Raise max_bytes"):
        examine_channels(channel_view(maps), **JUDGED, max_bytes=small - 2)


@given(count=st.integers(1, 40), fits=st.integers(3, 12))
def test_windows_cover_every_snapshot_and_every_step(count, fits):
    parts = windows(count, 5, max_bytes=(2 * fits + 3) * 8 * 25)
    assert all(len(part) <= fits and part[0] == 0 and part == sorted(set(part)) for part in parts)
    assert {k for part in parts for k in part} == set(range(count))
    steps = {(a, b) for part in parts for a, b in pairwise(part) if b == a + 1}
    assert steps == {(k, k + 1) for k in range(count - 1)}


def test_constant_channels_are_dead_whatever_their_value_and_small_ones_are_not():
    maps = noise(1, 8, 6, 2, 2)
    maps[0, :, 0] = 0
    maps[0, :, 1] = -37.5
    maps[0, :, 2] *= 1e-6
    maps[0, :, 3] = 1000 + np.float32(0.1) * maps[0, :, 3]  # within the resolution of float16
    maps[0, :, 4] = 0
    maps[0, 5, 4, 1, 1] = 1e-8  # it fired once
    found = examine_channels(channel_view(maps), **JUDGED, max_bytes=1 << 20)
    assert np.flatnonzero(found.dead[0]).tolist() == [0, 1, 3]


def test_duplicates_are_connected_scaled_and_shifted_but_not_opposite_and_never_dead():
    maps = noise(1, 40, 9, 3, 3)
    maps[0, :, 3] = 2 * maps[0, :, 1] + 5
    maps[0, :, 6] = maps[0, :, 3] + np.float32(0.2) * maps[0, :, 6]
    maps[0, :, 8] = -maps[0, :, 0]
    maps[0, :, [4, 5]] = 0
    found = examine_channels(channel_view(maps), **JUDGED, max_bytes=1 << 20)
    assert found.group[0].tolist() == [-1, 1, -1, 1, -1, -1, 1, -1, -1]
    rows = responses(maps)[0]
    cosine = np.corrcoef(rows[[1, 3, 6]])
    assert cosine[0, 2] > 0.95  # what the threshold is about


def test_two_channels_are_connected_through_a_third():
    first, own = noise(2, 4000, seed=3)
    chain = np.stack([first, np.cos(0.3) * first + np.sin(0.3) * own, np.cos(0.6) * first + np.sin(0.6) * own])
    maps = chain.reshape(3, 40, 10, 10).transpose(1, 0, 2, 3)[None]
    cosine = np.corrcoef(responses(maps)[0])
    assert cosine[0, 1] > 0.95 > cosine[0, 2]
    found = examine_channels(channel_view(maps), **JUDGED, max_bytes=1 << 22)
    assert found.group[0].tolist() == [0, 0, 0]


def test_drift_is_relative_to_the_larger_norm_and_zero_where_nothing_moved():
    maps = np.zeros((3, 4, 5, 1, 1), np.float32)
    maps[:, :, 0] = 1 + noise(4, 1, 1)[None]  # stays, bit by bit
    maps[:, :, 1, 0, 0] = np.array([[1, 2, 3, 4], [2, 4, 6, 8], [2, 4, 6, 8]])
    maps[:, :, 2, 0, 0] = np.array([[1, -1, 1, -1], [-1, 1, -1, 1], [1, -1, 1, -1]])
    maps[1:, :, 3, 0, 0] = np.array([1, 2, 3, 4])  # awakes
    maps[:, :, 4, 0, 0] = np.array([[4, 8, 12, 16], [2, 4, 6, 8], [1, 2, 3, 4]])  # shrinks
    found = examine_channels(channel_view(maps), **JUDGED, max_bytes=1 << 20)
    np.testing.assert_array_equal(found.drift[:, 0], 0)
    np.testing.assert_allclose(found.drift[:, 1], [0, 0.5, 0.5])
    np.testing.assert_allclose(found.drift[:, 2], [0, 2, 0])
    np.testing.assert_allclose(found.drift[:, 3], [0, 1, 1])
    np.testing.assert_allclose(found.drift[:, 4], [0, 0.5, 0.75])
    np.testing.assert_allclose(found.step[1:].T, [[0, 0], [0.5, 0], [2, 2], [1, 0], [0.5, 0.5]])
    assert np.isnan(found.step[0]).all()


def test_the_effective_rank_is_the_exponential_of_the_entropy_of_the_spectrum():
    spectrum = np.array([5.0, 3.0, 1.0, 0.5, 0.0])
    rotation = np.linalg.qr(noise(5, 5).astype(float))[0]
    assert effective_rank(rotation * spectrum @ rotation.T) == pytest.approx(np.exp(entropy(spectrum)))
    assert effective_rank(np.diag(spectrum) * 1e-12) == pytest.approx(np.exp(entropy(spectrum)))
    assert effective_rank(np.zeros((3, 3))) == 0


def test_the_effective_rank_of_a_layer_is_that_of_its_channels_covariance_without_the_dead():
    maps = noise(2, 30, 6, 3, 3) * np.array([1, 2, 3, 4, 5, 6], np.float32)[:, None, None]
    maps[1, :, 2] = 7
    found = examine_channels(channel_view(maps), **JUDGED, max_bytes=1 << 20)
    for k, rows in enumerate(responses(maps)):
        spectrum = np.linalg.eigvalsh(np.cov(rows)).clip(0)
        assert found.effective_rank[k] == pytest.approx(np.exp(entropy(spectrum)), rel=1e-5)


@pytest.mark.parametrize("energy", [0.5, 0.9, 1.0])
def test_the_energy_width_is_that_of_the_channels_correlations_without_the_dead(energy):
    maps = noise(2, 30, 6, 3, 3) * np.array([1, 2, 3, 4, 5, 6], np.float32)[:, None, None]
    maps[:, :, 1] += 3 * maps[:, :, 0]
    maps[1, :, 2] = 7
    found = examine_channels(channel_view(maps), **JUDGED, energy=energy, max_bytes=1 << 20)
    for k, rows in enumerate(responses(maps)):
        varying = rows[np.ptp(rows, axis=1) > 0]
        spectrum = np.linalg.svd(np.corrcoef(varying), compute_uv=False)  # not the eigenvalues of a covariance
        share = np.cumsum(spectrum) / spectrum.sum()
        assert found.energy_width[k] == min(np.flatnonzero(share >= energy - 1e-9)) + 1


def test_permuted_channels_are_told_from_moved_ones():
    maps = np.stack([noise(20, 8, 3, 3)] * 4)
    to = np.array([2, 0, 1, 3, 4, 5, 6, 7])
    maps[2:] = maps[0][:, to]  # channel 0 now responds as 2 did
    maps[3, :, 6] = noise(20, 3, 3, seed=5)  # moved, to nobody's place
    found = examine_channels(channel_view(maps), **JUDGED, max_bytes=1 << 20)
    assert (found.moved_from[[0, 1, 3]] == -1).all()
    assert found.moved_from[2].tolist() == [2, 0, 1, -1, -1, -1, -1, -1]
    assert (found.step[2, :3] > 1).all()
    assert (np.abs(found.own[2, :3]) < 0.3).all()


def test_duplicates_do_not_take_one_anothers_place():
    maps = np.stack([noise(20, 5, 3, 3)] * 2)
    maps[:, :, 3] = maps[:, :, 0]
    maps[1, :, 4] = noise(20, 3, 3, seed=2)  # so that channels are matched at all
    found = examine_channels(channel_view(maps), **JUDGED, max_bytes=1 << 20)
    assert (found.moved_from == -1).all()


def test_a_channel_with_a_twin_is_no_evidence_of_a_permutation():
    """Twins, equal but for a little noise, drift: each then looks more like the other's past than like its own."""
    rng = np.random.default_rng(3)
    base = rng.standard_normal((5, 40, 3, 3))
    first = np.empty((40, 12, 3, 3))
    for channel in range(10):  # five pairs of twins at correlation 0.98
        first[:, channel] = base[channel // 2] + 0.14 * rng.standard_normal((40, 3, 3))
    first[:, 10:] = rng.standard_normal((40, 2, 3, 3))
    second = first.copy()
    for pair in range(5):  # exchanged but for the noise that makes them two
        even, odd = first[:, 2 * pair], first[:, 2 * pair + 1]
        second[:, 2 * pair], second[:, 2 * pair + 1] = 0.8 * odd + 0.2 * even, 0.8 * even + 0.2 * odd
    second[:, 10] = rng.standard_normal((40, 3, 3))  # so that channels are matched at all
    maps = np.stack([first, second])
    found = examine_channels(channel_view(maps), **(JUDGED | {"permuted": 0.99}), max_bytes=1 << 20)
    flat = np.corrcoef(responses(maps)[0])
    assert (flat[np.arange(0, 10, 2), np.arange(1, 10, 2)] > 0.95).all()
    assert (found.own[1, :10] < 0.99).all()  # none is what it was, so that only the twins speak against it
    assert (found.moved_from == -1).all()


def test_a_planted_permutation_is_found_among_twins_and_drift():
    """Of 20 channels 12 change places and all drift; two of them are twins, and say nothing."""
    rng = np.random.default_rng(4)
    first = rng.standard_normal((60, 20, 3, 3))
    first[:, 1] = first[:, 0] + 0.1 * rng.standard_normal((60, 3, 3))
    to = np.arange(20)
    to[:12] = np.roll(np.arange(12), 3)
    second = first[:, to] + 0.1 * rng.standard_normal(first.shape)
    found = examine_channels(channel_view([first, second]), **JUDGED, max_bytes=1 << 20).moved_from[1]
    expected = np.where(to == np.arange(20), -1, to)
    expected[np.isin(to, [0, 1])] = -1
    assert found.tolist() == expected.tolist()


def test_matching_finds_a_permutation_leaves_ties_in_place_and_dead_channels_out():
    to = np.array([3, 1, 0, 2])
    correlation = 0.2 * np.ones((4, 4))
    correlation[np.arange(4), to] = 0.9
    assert match_channels(correlation).tolist() == to.tolist()
    assert match_channels(np.ones((4, 4))).tolist() == [0, 1, 2, 3]
    correlation[1], correlation[:, 2] = np.nan, np.nan
    assert match_channels(correlation).tolist()[:3] == [3, -1, 0]
    assert match_channels(np.full((2, 2), np.nan)).tolist() == [-1, -1]


@given(arrays(float, (5, 5), elements=st.sampled_from([0.0, 1.0])))
def test_of_equally_good_matches_the_one_that_leaves_channels_in_place_is_taken(correlation):
    np.fill_diagonal(correlation, 1 - 1e-12)  # as rounding makes it of duplicates
    assert match_channels(correlation).tolist() == [0, 1, 2, 3, 4]


def test_correlations_between_two_snapshots_are_those_of_numpy():
    maps = noise(2, 12, 5, 2, 3) + 10
    maps[1, :, 2] = 4
    found = correlate_channels(channel_view(maps), dead=1e-3, max_bytes=1 << 20)
    rows = responses(maps)
    with np.errstate(invalid="ignore"):
        expected = np.corrcoef(rows[0], rows[1])[:5, 5:]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)
    assert np.isnan(found[:, 2]).all()


def test_noise_is_unlike_itself_at_every_step():
    maps = np.stack([noise(30, 6, 3, 3)] * 4)
    for k in range(4):
        maps[k, :, 0] = noise(30, 3, 3, seed=10 + k)  # at every step
        maps[k, :, 1] = noise(30, 3, 3, seed=20 + min(k, 2))  # but for the last
        maps[k, :, 2] = noise(30, 3, 3, seed=30 + k) if k != 2 else 0  # dead in between
    found = examine_channels(channel_view(maps), **JUDGED, max_bytes=1 << 20)
    assert np.flatnonzero(is_noise(found, noise=0.3)).tolist() == [0]
    found = examine_channels(channel_view(maps[:2]), **JUDGED, max_bytes=1 << 20)
    assert not is_noise(found, noise=0.3).any()  # one step says nothing


def test_a_channel_has_converged_after_its_last_long_step():
    nothing = [np.nan, np.nan, np.nan]
    step = np.array([nothing, [0.5, 0.01, 0.5], [0.2, 0.01, 0.01], [0.01, 0.01, 0.5]])
    assert converged_at(step, drift=0.1) == [2, 0, None]
    assert converged_at(step[:1], drift=0.1) == [None, None, None]


@given(st.lists(st.booleans(), min_size=1, max_size=12))
def test_the_first_to_stay_is_the_start_of_the_last_good_stretch_if_longer_than_the_last(good):
    found = first_to_stay(np.array(good))
    starts = [k for k in range(len(good) - 1) if all(good[k:])]
    assert found == (starts[0] if starts else None)


def test_one_channel_one_sample_and_one_snapshot_are_judged():
    found = examine_channels(channel_view(noise(1, 1, 1, 1, 1)), **JUDGED, max_bytes=1 << 20)
    assert found.dead.tolist() == [[True]]  # a single value is constant
    assert found.effective_rank.tolist() == [0]
    found = examine_channels(channel_view(noise(1, 1, 1, 2, 1)), **JUDGED, max_bytes=1 << 20)
    assert found.dead.tolist() == [[False]]
    assert found.effective_rank.tolist() == [1]


def test_what_is_not_finite_is_named():
    maps = noise(2, 4, 3, 2, 2)
    maps[1, 2, 1, 0, 0] = np.nan
    with pytest.raises(ValueError, match=r"NaN or infinite .* snapshot 1, .* channel 1"):
        examine_channels(channel_view(maps), **JUDGED, max_bytes=1 << 20)
