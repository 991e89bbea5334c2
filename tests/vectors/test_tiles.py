"""Tiles and their parts: cut between chunks, without a gap, and each box once."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from fmcluster.vectors import Tile, Unit
from fmcluster.vectors._tiles import cut_tile, unit_bytes


@given(step=st.integers(1, 200), chunk=st.integers(1, 9), chunks=st.integers(1, 6))
def test_steps_end_between_chunks_where_they_hold_one(step: int, chunk: int, chunks: int) -> None:
    found = Unit(chunk, chunk * chunks).align(step)
    assert 1 <= found <= step
    assert found % chunk == 0 or step < chunk
    assert found % (chunk * chunks) == 0 or 2 * found <= chunk * chunks or found == chunk or step < chunk


def test_the_blocks_of_a_tile_are_all_of_it() -> None:
    sizes = {"n": 8, "c": 3, "h": 4, "w": 5}
    tile = cut_tile({"n": slice(2, 8)}, "nhw", sizes=sizes, copies=2, block_bytes=300)
    assert isinstance(tile, Tile)
    seen = np.zeros((6, 3, 4, 5), int)
    for box in tile.blocks:
        cut = tuple(box.get(axis, slice(None)) for axis in "nchw")
        seen[cut] += 1
        assert 2 * 4 * seen[cut].size <= 600
    assert (seen == 1).all()


def test_the_least_that_reads_no_chunk_twice() -> None:
    sizes = {"n": 8, "c": 6, "h": 4, "w": 5}
    units = {"n": Unit(2, 4), "c": Unit(3, 6)}
    whole = 4 * 7 * 8 * 6 * 4 * 5
    assert unit_bytes("nhw", sizes=sizes, units=units, copies=7) == whole // 8 * 2
    assert unit_bytes("chw", sizes=sizes, units=units, copies=7) == whole // 6 * 3
    assert unit_bytes("hw", sizes=sizes, units=units, copies=7) == whole
    assert unit_bytes("nhw", sizes=sizes, units={}, copies=7) == 0
