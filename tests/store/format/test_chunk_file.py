"""Files of one chunk: what zarr would read, and what is damaged."""

from pathlib import Path

import numpy as np
import pytest
import zarr
from zarr.codecs import Crc32cCodec, ZstdCodec

from fmcluster.store.format._chunk_file import decode_chunk, largest_chunk, write_chunk

from .test_check_root import bomb, sealed_chunk


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
        with pytest.raises(ValueError, match="CRC-32C checksum does not fit"):
            decode_chunk(file.read_bytes(), chunk=(12,), dtype="float64")
    file.write_bytes(whole)
    with pytest.raises(ValueError, match="unpacks to"):
        decode_chunk(file.read_bytes(), chunk=(13,), dtype="float64")


def test_strings_are_read_as_zarr_writes_them(tmp_path: Path) -> None:
    values = np.array(["", "a", "ünïcode 蜜蜂", "x" * 300, "e"], dtype=np.dtypes.StringDType())
    for name, compressors in (("a", [ZstdCodec(level=1), Crc32cCodec()]), ("b", [Crc32cCodec()])):
        array = zarr.create_array(tmp_path / name, shape=(5,), chunks=(4,), dtype=str, compressors=compressors)
        array[:] = values
        for number, part in enumerate((values[:4], values[4:])):
            content = (tmp_path / name / f"c/{number}").read_bytes()
            found = decode_chunk(content, chunk=(4,), dtype=array.dtype, compressed=len(compressors) == 2)
            assert found.dtype == array.dtype
            assert found[: len(part)].tolist() == part.tolist()


@pytest.mark.parametrize("dtype", [np.dtype("int64"), np.dtypes.StringDType()])
def test_what_unpacks_to_more_than_a_chunk_takes_no_memory(dtype: np.dtype, tmp_path: Path) -> None:
    """Frames that follow the first, and one that lies of its size."""
    array = zarr.create_array(
        tmp_path / "a", shape=(6,), chunks=(6,), dtype=dtype, compressors=[ZstdCodec(level=1), Crc32cCodec()]
    )
    array[:] = np.array(["12345"] * 6, dtype) if dtype.kind == "T" else np.arange(6) + 1
    whole = (tmp_path / "a/c/0").read_bytes()
    assert len(decode_chunk(whole, chunk=(6,), dtype=dtype)) == 6
    more, lying, huge = bomb(1 << 24)[:-4], bomb(1 << 24, said=48)[:-4], bomb(3 << 30)[:-4]
    for frames, said in ((whole[:-4] + more, "too small"), (lying, "too small"), (huge, "unpacks to 3221225472 bytes")):
        with pytest.raises((ValueError, RuntimeError), match=said):
            decode_chunk(sealed_chunk(frames), chunk=(6,), dtype=dtype)
    assert largest_chunk((6,), np.dtype("int64")) < 1 << 21
