"""Kept feature maps: the same numbers as of what they are of, which is read once."""

import threading
from dataclasses import replace

import numpy as np
import pytest

from fmcluster.vectors import DrawnPositions, Vectors, keep, unkept
from tests.analysis.array_source import ArraySource

MAPS = np.random.default_rng(0).normal(size=(3, 5, 4, 6, 7)).astype(np.float32)


@pytest.mark.parametrize("view", ["channel", "feature_map", "sample", "position"])
def test_vectors_are_the_same_and_each_snapshot_is_read_once(view):
    source = ArraySource(MAPS)
    vectors = Vectors(source, view, (0, 2), np.array([4, 1, 2]))
    kept = keep(vectors, max_bytes=MAPS.nbytes)
    expected = vectors.to_numpy()
    source.reads = 0
    for max_bytes in (1, 500, 1 << 20):
        np.testing.assert_array_equal(np.concatenate(list(kept.feature_blocks(max_bytes=max_bytes)), axis=1), expected)
        np.testing.assert_array_equal(
            np.concatenate([rows for _, rows in kept.row_blocks(max_bytes=max_bytes)]), expected
        )
    tiles = kept.feature_tiles(block_bytes=300, tile_bytes=2000)
    if view != "position":  # whose few features are a block
        assert max(len(tile.blocks) for tile in tiles) > 1
    found = [block for tile in tiles for block in kept.read_tile(tile)]
    np.testing.assert_array_equal(np.concatenate(found, axis=1), expected)
    assert source.reads == 2


def test_a_part_of_what_is_kept_is_the_same_part():
    kept = keep(Vectors(ArraySource(MAPS), "channel", (0, 1, 2), np.arange(5)), max_bytes=MAPS.nbytes)
    for samples in ([0, 3, 4], [3], [2, 1], [1, 2, 3]):
        some = replace(kept, samples=np.array(samples), snapshots=(1,))
        expected = MAPS[1][samples].transpose(1, 0, 2, 3).reshape(4, -1)
        np.testing.assert_array_equal(some.to_numpy(), expected)


def test_drawn_positions_are_kept_and_still_known_for_what_they_are():
    drawn = DrawnPositions(ArraySource(MAPS), 9, 0)
    vectors = Vectors(drawn, "channel", (0, 1, 2), np.arange(5))
    kept = keep(vectors, max_bytes=3 * 5 * 4 * 9 * 4)
    np.testing.assert_array_equal(kept.to_numpy(), vectors.to_numpy())
    assert unkept(kept.source) is drawn
    assert unkept(drawn) is drawn


def test_what_takes_more_than_the_budget_is_not_kept():
    vectors = Vectors(ArraySource(MAPS), "channel", (0, 1), np.arange(5))
    assert keep(vectors, max_bytes=2 * 5 * 4 * 6 * 7 * 4 - 1) is vectors
    assert keep(vectors, max_bytes=2 * 5 * 4 * 6 * 7 * 4) is not vectors


def test_threads_that_ask_at_once_read_it_once():
    source = ArraySource(MAPS)
    kept = keep(Vectors(source, "channel", (0, 1, 2), np.arange(5)), max_bytes=MAPS.nbytes)
    found = [None] * 8
    start = threading.Barrier(8)

    def read(number: int) -> None:
        start.wait()
        found[number] = kept.to_numpy()

    threads = [threading.Thread(target=read, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert source.reads == 3
    assert all(np.array_equal(each, found[0]) for each in found)
