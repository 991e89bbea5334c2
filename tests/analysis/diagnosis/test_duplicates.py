"""Duplicates, against NumPy, the delete-one jackknife, and how often the interval holds the truth."""

import numpy as np
import pytest
from scipy.stats import t

from fmcluster.analysis.diagnosis._duplicates import correlate_pairs, find_duplicates
from fmcluster.vectors._vectors import Vectors
from tests.analysis.array_source import ArraySource


def view(maps):
    """Return the channels of one snapshot of maps (n_images, n_channels, height, width), and their moments."""
    maps = np.asarray(maps, np.float32)
    rows = maps.astype(np.float64).transpose(1, 0, 2, 3).reshape(maps.shape[1], -1)
    centered = rows - rows.mean(axis=1, keepdims=True)
    vectors = Vectors(ArraySource(maps[None]), "channel", (0,), np.arange(len(maps)))
    norms = np.linalg.norm(centered, axis=1)
    return vectors, centered @ centered.T / np.outer(norms, norms), {"means": rows.mean(axis=1), "norms": norms}


def correlated(rng, correlation, *, images, size=3, shared=0.0):
    """Draw two channels of a correlation, whose positions within an image share a part of what they are."""
    one, own = (
        np.sqrt(shared) * rng.normal(size=(images, 1, 1)) + np.sqrt(1 - shared) * rng.normal(size=(images, size, size))
        for _ in range(2)
    )
    return np.stack([one, correlation * one + np.sqrt(1 - correlation**2) * own], axis=1)


@pytest.mark.parametrize("max_bytes", [1 << 24, 2000, 6 * 4 * 3 * 5])  # all at once, some images, lines of an image
def test_the_interval_is_that_of_the_jackknife_over_images(max_bytes):
    rng = np.random.default_rng(0)
    maps = np.concatenate([correlated(rng, 0.9, images=60, size=5, shared=0.5), rng.normal(size=(60, 1, 5, 5))], axis=1)
    vectors, _, moments = view(maps)
    found = correlate_pairs(vectors, np.arange(3), **moments, max_bytes=max_bytes)
    rows = np.float32(maps).astype(np.float64).transpose(1, 0, 2, 3)
    whole = np.corrcoef(rows.reshape(3, -1))
    np.testing.assert_allclose(found.value, whole, atol=1e-12)
    without = np.stack([np.corrcoef(np.delete(rows, k, axis=1).reshape(3, -1)) for k in range(60)])
    error = np.sqrt(59 / 60 * ((without - without.mean(axis=0)) ** 2).sum(axis=0))
    off = ~np.eye(3, dtype=bool)
    np.testing.assert_allclose((found.value - found.low)[off], t.ppf(0.975, 59) * error[off], rtol=0.1)


@pytest.mark.slow
@pytest.mark.parametrize(("images", "shared"), [(30, 0.0), (100, 0.0), (100, 0.8)])
def test_hardly_more_than_one_in_forty_lower_ends_is_over_the_truth(images, shared):
    rng = np.random.default_rng(1)
    over = []
    for _ in range(400):
        vectors, _, moments = view(correlated(rng, 0.95, images=images, shared=shared))
        low = correlate_pairs(vectors, np.arange(2), **moments, max_bytes=1 << 24).low
        over.append(low[0, 1] > 0.95)
    assert np.mean(over) < 0.025 + 3 * np.sqrt(0.025 * 0.975 / 400)


def test_what_so_few_images_cannot_tell_is_no_duplicate():
    rng = np.random.default_rng(2)
    for count, group in ((40, [-1, -1]), (4000, [0, 0])):
        own = np.linalg.qr(np.column_stack([np.ones(count), rng.normal(size=(count, 2))]))[0][:, 1:]
        maps = np.stack([own[:, 0], 0.96 * own[:, 0] + 0.28 * own[:, 1]], axis=1)[:, :, None, None]  # exactly 0.96
        vectors, correlation, moments = view(maps)
        found, least = find_duplicates(vectors, correlation, **moments, threshold=0.95, max_bytes=1 << 24)
        assert found.tolist() == group
        assert np.isnan(least).all() == (group[0] < 0)
    assert 0.95 < least[1] < least[0] == pytest.approx(0.96, abs=1e-6)


def test_of_one_image_nothing_is_said_and_the_same_again_is_a_duplicate_at_any_scale():
    maps = np.random.default_rng(3).normal(size=(8, 1, 4, 4)) * np.array([1, 1e-30, 1e18])[:, None, None]
    for chosen, group in ((maps, [0, 0, 0]), (maps[:1], [-1, -1, -1])):
        vectors, correlation, moments = view(chosen)
        found, _ = find_duplicates(vectors, correlation, **moments, threshold=0.95, max_bytes=1 << 24)
        assert found.tolist() == group


def test_maps_are_read_again_only_where_channels_are_near():
    vectors, correlation, moments = view(np.random.default_rng(4).normal(size=(20, 5, 2, 2)))
    find_duplicates(vectors, correlation, **moments, threshold=0.95, max_bytes=1 << 24)
    assert vectors.source.reads == 0


def test_many_positions_are_multiplied_in_float32_and_summed_in_float64():
    rng = np.random.default_rng(2)
    maps = np.concatenate([correlated(rng, 0.95, images=30, size=48), rng.normal(size=(30, 1, 48, 48))], axis=1) + 30
    vectors, whole, moments = view(maps)
    found = correlate_pairs(vectors, np.arange(3), **moments, max_bytes=1 << 26)
    np.testing.assert_allclose(found.value, whole, atol=1e-6)
    in_float64 = correlate_pairs(view(maps * 1e16)[0], np.arange(3), **view(maps * 1e16)[2], max_bytes=1 << 26)
    np.testing.assert_allclose(found.low, in_float64.low, atol=1e-6)
