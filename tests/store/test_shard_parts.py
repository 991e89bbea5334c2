"""Parts of shards, read chunk by chunk: the values that were written, or an error."""

import struct
import tempfile
from math import prod
from pathlib import Path

import numpy as np
import pytest
from google_crc32c import value as crc32c
from hypothesis import given, settings
from hypothesis import strategies as st

from fmcluster.store.format._shards import ShardLayout, read_shard, write_shard

CHUNKS, SHARD = (2, 3), (4, 6)
LAYOUT = ShardLayout(shape=(4, 6), shard=SHARD, chunks=CHUNKS, dtype="float16", level=-7)


def whole(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=SHARD).astype(np.float16)


@settings(max_examples=80, deadline=None)
@given(data=st.data())
def test_any_part_is_that_part_of_what_was_written(data: st.DataObject) -> None:
    counts = data.draw(st.lists(st.tuples(st.integers(1, 3), st.integers(1, 4)), min_size=1, max_size=4))
    chunks = tuple(length for _, length in counts)
    shard = tuple(count * length for count, length in counts)
    there = data.draw(st.integers(1, shard[0]))
    dtype = data.draw(st.sampled_from(["float16", "float32"]))
    values = np.arange(prod(shard), dtype=dtype).reshape(shard)[:there]
    expected = np.full(shard, np.nan, dtype)
    expected[:there] = values
    layout = ShardLayout(shape=shard, shard=shard, chunks=chunks, dtype=dtype, level=-7)
    start = tuple(data.draw(st.integers(0, n - 1)) for n in shard)
    stop = tuple(data.draw(st.integers(first + 1, n)) for first, n in zip(start, shard, strict=True))
    out = np.full([b - a for a, b in zip(start, stop, strict=True)], -1, dtype)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "shard"
        checksums = write_shard(path, values, chunks=chunks, shard=shard, level=-7)
        assert len(checksums) == 8 * prod(count for count, _ in counts)
        for source in (path, path.read_bytes()):
            out[...] = -1
            read_shard(source, out, start=start, layout=layout, checksums=checksums)
    np.testing.assert_array_equal(out, expected[tuple(map(slice, start, stop))])


def test_every_flipped_byte_of_what_is_read_is_found_and_the_rest_is_not_looked_at(tmp_path: Path) -> None:
    path = tmp_path / "shard"
    checksums = write_shard(path, whole(), chunks=CHUNKS, shard=SHARD, level=-7)
    content = path.read_bytes()
    first_chunk = int.from_bytes(content[-68:][8:16], "little")  # length of the first of four, in the index
    for place in range(len(content)):
        damaged = bytearray(content)
        damaged[place] ^= 0x40
        path.write_bytes(damaged)
        out = np.empty(CHUNKS, np.float16)
        if first_chunk <= place < len(content) - 68:
            read_shard(path, out, start=(0, 0), layout=LAYOUT, checksums=checksums)
            np.testing.assert_array_equal(out, whole()[:2, :3])
        else:
            with pytest.raises(ValueError, match=r"checksum|too short|not the one that was committed"):
                read_shard(path, out, start=(0, 0), layout=LAYOUT, checksums=checksums)


@pytest.mark.parametrize("kept", [0, 3, 40, 90])
def test_a_file_that_was_cut_is_too_short_or_fails_its_checksum(kept: int, tmp_path: Path) -> None:
    path = tmp_path / "shard"
    checksums = write_shard(path, whole(), chunks=CHUNKS, shard=SHARD, level=-7)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises((ValueError, OSError)):
        read_shard(path, np.empty(CHUNKS, np.float16), start=(0, 0), layout=LAYOUT, checksums=checksums)


def test_a_chunk_of_another_length_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "shard"
    checksums = write_shard(path, whole(), chunks=CHUNKS, shard=SHARD, level=-7)
    other = ShardLayout(shape=(8, 6), shard=(8, 6), chunks=(4, 3), dtype="float16", level=-7)
    with pytest.raises(ValueError, match="a chunk says that it unpacks to 12 bytes, not 24"):
        read_shard(path, np.empty((4, 3), np.float16), start=(0, 0), layout=other, checksums=checksums)


def test_another_chunk_of_the_same_shape_is_refused(tmp_path: Path) -> None:
    checksums = [
        write_shard(tmp_path / str(seed), whole(seed), chunks=CHUNKS, shard=SHARD, level=-7) for seed in range(2)
    ]
    for own, other in ((0, 1), (1, 0)):
        with pytest.raises(ValueError, match="a chunk is not the one that was committed"):
            out = np.empty(CHUNKS, np.float16)
            read_shard(tmp_path / str(own), out, start=(0, 0), layout=LAYOUT, checksums=checksums[other])


def test_an_index_that_leads_beyond_the_file_takes_no_memory(tmp_path: Path) -> None:
    path = tmp_path / "shard"
    checksums = write_shard(path, whole(), chunks=CHUNKS, shard=SHARD, level=-7)
    table = struct.pack("<8Q", *([0, 1 << 62] * 4))
    path.write_bytes(path.read_bytes()[:-68] + table + struct.pack("<I", crc32c(table)))
    with pytest.raises(ValueError, match="too short"):
        read_shard(path, np.empty(CHUNKS, np.float16), start=(0, 0), layout=LAYOUT, checksums=checksums)
