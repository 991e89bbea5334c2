"""Files of one chunk: what zarr would read, and what is damaged."""

from pathlib import Path

import numpy as np
import pytest
import zarr
from zarr.codecs import Crc32cCodec, ZstdCodec

from fmcluster.store.format._chunk_file import decode_chunk, write_chunk


@pytest.mark.parametrize("dtype", ["bool", "uint8", "int64", "float16", "float32", "complex64"])
def test_zarr_reads_what_is_written(dtype: str, tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 2, (5, 3)).astype(dtype)
    array = zarr.create_array(
        tmp_path / "a", shape=(5, 3), chunks=(4, 3), dtype=dtype, compressors=[ZstdCodec(level=1), Crc32cCodec()]
    )
    for number, part in enumerate((values[:4], values[4:])):
        file = tmp_path / "a" / f"c/{number}/0"
        file.parent.mkdir(parents=True)
        digits = write_chunk(file, part, chunk=(4, 3), level=-7)
        assert file.read_bytes()[-4:][::-1].hex() == digits
        np.testing.assert_array_equal(decode_chunk(file.read_bytes(), chunk=(4, 3), dtype=dtype)[: len(part)], part)
    np.testing.assert_array_equal(array[:], values)


def test_a_damaged_file_is_not_read(tmp_path: Path) -> None:
    file = tmp_path / "c.0"
    write_chunk(file, np.arange(12.0), chunk=(12,), level=-7)
    whole = file.read_bytes()
    for content in (b"", b"ab", whole[:-1], whole[:9] + bytes([whole[9] ^ 1]) + whole[10:]):
        file.write_bytes(content)
        with pytest.raises(ValueError, match="is damaged"):
            decode_chunk(file.read_bytes(), chunk=(12,), dtype="float64")
    file.write_bytes(whole)
    with pytest.raises(ValueError, match="unpacks to"):
        decode_chunk(file.read_bytes(), chunk=(13,), dtype="float64")
