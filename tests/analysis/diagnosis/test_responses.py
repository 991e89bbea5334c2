"""Responses that are taken while images are compared: the same as those that are read, and findings as of all."""

import numpy as np
import pytest

from fmcluster.analysis.components import accumulate_gram
from fmcluster.analysis.diagnosis._channels import examine_channels, examine_responses
from fmcluster.analysis.diagnosis._products import ProductSums, sum_products
from fmcluster.analysis.diagnosis._responses import Collector, positions_to_draw
from fmcluster.vectors import DrawnPositions, Vectors
from tests.analysis.array_source import ArraySource

JUDGED = {"dead": 1e-3, "duplicate": 0.95, "permuted": 0.95}


def make_maps(seed=0, shape=(4, 12, 9, 6, 5)):
    rng = np.random.default_rng(seed)
    maps = rng.normal(size=shape).astype(np.float32)
    maps[1:, :, 5] = 2 * maps[1:, :, 2] + 1  # duplicates
    maps[:, :, 4] = 3  # dead
    maps[2:] = maps[1]
    maps[2:, :, 0], maps[2:, :, 1] = maps[1, :, 1], maps[1, :, 0]  # change places
    return maps


def views(maps, count=None):
    source = ArraySource(maps)
    drawn = source if count is None else DrawnPositions(source, count, 0)
    numbers, samples = tuple(range(len(maps))), np.arange(maps.shape[1])
    return Vectors(drawn, "channel", numbers, samples), Vectors(source, "sample", numbers, samples)


def read(channels, images, *, block_bytes, tile_bytes=0):
    collector = Collector(channels)
    for snapshot in images.snapshots:
        collector.start()
        sizes = {"block_bytes": block_bytes, "tile_bytes": tile_bytes}
        yield accumulate_gram(images.at([snapshot]), **sizes, watch=collector.take), collector.responses


@pytest.mark.parametrize("count", [None, 11])
@pytest.mark.parametrize(("block_bytes", "tile_bytes"), [(1, 0), (700, 0), (700, 3000), (1 << 20, 0)])
def test_they_are_those_that_are_read_whatever_the_blocks(count, block_bytes, tile_bytes):
    maps = make_maps()
    channels, images = views(maps, count)
    for k, (gram, found) in enumerate(read(channels, images, block_bytes=block_bytes, tile_bytes=tile_bytes)):
        rows = maps[k].transpose(1, 0, 2, 3).reshape(9, -1)
        np.testing.assert_array_equal(found.low, rows.min(axis=1))
        np.testing.assert_array_equal(found.high, rows.max(axis=1))
        np.testing.assert_array_equal(found.values.reshape(9, -1), channels.at([k]).to_numpy())
        np.testing.assert_array_equal(found.vectors(channels, k).to_numpy(), channels.at([k]).to_numpy())
        centered = maps[k].reshape(12, -1).astype(float)
        centered -= centered.mean(axis=0)
        np.testing.assert_allclose(gram, centered @ centered.T, atol=1e-3)


@pytest.mark.parametrize("count", [None, 11])
def test_what_is_found_in_them_is_what_is_found_by_reading(count):
    channels, images = views(make_maps(), count)
    taken = (found for _, found in read(channels, images, block_bytes=5000))
    one = examine_responses(taken, channels, **JUDGED, max_bytes=1 << 20)
    other = examine_channels(channels, **JUDGED, max_bytes=1 << 20)
    assert one.dead[:, 4].all()
    assert one.group[1].tolist().count(2) == 2
    assert one.moved_from[2].tolist() == [1, 0, *[-1] * 7]
    for name in ("dead", "group", "energy_width", "moved_from"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    for name in ("least", "effective_rank", "drift", "step", "own"):
        np.testing.assert_allclose(getattr(one, name), getattr(other, name), rtol=1e-5, atol=1e-6)


def test_products_of_many_positions_are_those_of_float64_to_a_millionth():
    maps = (3 + make_maps(shape=(3, 20, 7, 12, 11))).astype(np.float32)
    channels, images = views(maps)
    sums = ProductSums()
    read_whole = sum_products(channels, max_bytes=1 << 24)
    rows = [each.astype(float) - each.mean(axis=1, dtype=float)[:, None] for each in np.split(channels.to_numpy(), 3)]
    for k, (_, found) in enumerate(read(channels, images, block_bytes=5000)):
        products = sums.add(found)
        scale = np.sqrt(np.outer((rows[k] ** 2).sum(axis=1), (rows[k] ** 2).sum(axis=1)))
        for got in (products.within[-1], read_whole.within[k]):
            assert np.max(np.abs(got - rows[k] @ rows[k].T)) < 1e-6 * scale.max()
        if k:
            for got in (products.between[-1], read_whole.between[k - 1]):
                assert np.max(np.abs(got - rows[k - 1] @ rows[k].T)) < 1e-6 * scale.max()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_named_after_all_was_taken(value):
    maps = make_maps()
    maps[1, 7, 3, 2, 2] = value
    channels, images = views(maps)
    with pytest.raises(ValueError, match=r"NaN or infinite values, first at snapshot 1, .*sample 7"):
        list(read(channels, images, block_bytes=700, tile_bytes=3000))


@pytest.mark.parametrize("way", ["taken", "read"])
def test_a_channel_that_fires_where_nothing_was_drawn_is_not_dead(way):
    maps = make_maps()
    channels, images = views(maps, 11)
    left = np.setdiff1d(np.arange(30), channels.source.of_sample(7))[0]
    maps[0, 7, 4].reshape(-1)[left] = 5
    if way == "taken":
        taken = (found for _, found in read(channels, images, block_bytes=5000))
        found = examine_responses(taken, channels, **JUDGED, max_bytes=1 << 20)
    else:
        found = examine_channels(channels, **JUDGED, max_bytes=1 << 20)
    assert found.dead[:, 4].tolist() == [False, True, True, True]


def test_drawn_positions_say_what_all_of_them_say_within_the_standard_error_stated():
    rng = np.random.default_rng(5)
    maps = rng.normal(size=(3, 40, 8, 40, 40)).astype(np.float32)
    maps[:, :, 3] = maps[:, :, 1] + 0.1 * maps[:, :, 3]
    maps[1:] = 0.9 * maps[:1] + 0.3 * maps[1:]
    drawn, whole = (examine_channels(views(maps, count)[0], **JUDGED, max_bytes=1 << 24) for count in (200, None))
    stated = 1 / np.sqrt(40 * 200)
    np.testing.assert_array_equal(drawn.group, whole.group)
    np.testing.assert_array_equal(drawn.energy_width, whole.energy_width)
    assert np.nanmax(np.abs(drawn.own - whole.own)) < 4 * stated
    assert np.nanmax(np.abs(drawn.least - whole.least)) < 4 * stated
    np.testing.assert_allclose(drawn.drift, whole.drift, rtol=4 * stated)
    np.testing.assert_allclose(drawn.effective_rank, whole.effective_rank, rtol=4 * stated)


def test_all_positions_are_taken_of_what_is_small_and_as_many_as_are_stated_of_the_rest():
    assert positions_to_draw(n_channels=64, n_images=100, n_positions=32 * 32) is None  # the demo's widest feature maps
    assert positions_to_draw(n_channels=64, n_images=40, n_positions=112 * 112) * 40 == 32_760
    assert positions_to_draw(n_channels=2048, n_images=100, n_positions=49) is None
    assert positions_to_draw(n_channels=2048, n_images=500, n_positions=49) * 500 == 8000
    assert positions_to_draw(n_channels=8, n_images=200_000, n_positions=4) == 1
