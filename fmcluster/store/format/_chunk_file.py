"""Chunk file: little-endian numbers or strings, compressed with Zstandard or not, and their CRC-32C at the end."""

import struct
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from google_crc32c import value as crc32c
from numcodecs.vlen import VLenUTF8  # type: ignore[import-untyped]
from numcodecs.zstd import compress, decompress  # type: ignore[import-untyped]

from ._checksums import checked_bytes
from ._shards import HEADER, check_frame, frame_size, largest_file

_MOST_OF_STRINGS = 1 << 30  # bytes, as those of any chunk


def write_chunk(path: Path, values: npt.NDArray[Any], *, chunk: tuple[int, ...], level: int) -> str:
    """Write a file of one chunk, which is not flushed to the disk; whatever it holds, there is a file.

    Parameters
    ----------
    path : Path
        The file; replaced where it exists.
    values : ndarray
        At most of the chunk's shape; what is missing of it at the end of an axis is zero, and is never read.
    chunk : tuple of int
        Shape of the chunk.
    level : int
        Of Zstandard.

    Returns
    -------
    str
        The CRC-32C that the file ends with, eight hexadecimal digits.
    """
    if values.shape != chunk:
        whole = np.zeros(chunk, values.dtype)
        whole[tuple(map(slice, values.shape))] = values
        values = whole
    data = compress(np.ascontiguousarray(values, values.dtype.newbyteorder("<")), level)
    checksum = crc32c(data)
    with path.open("wb") as file:
        file.write(data)
        file.write(struct.pack("<I", checksum))
    return f"{checksum:08x}"


def largest_chunk(chunk: tuple[int, ...], dtype: np.dtype[Any]) -> int:
    """Return how many bytes a file of one chunk has at most."""
    return largest_file(_MOST_OF_STRINGS if _holds_strings(dtype) else prod(chunk) * dtype.itemsize)


def decode_chunk(
    content: bytes,
    *,
    chunk: tuple[int, ...],
    dtype: npt.DTypeLike,
    compressed: bool = True,
    expected: int | None = None,
) -> npt.NDArray[Any]:
    """Return what a file of one chunk holds; memory is taken for as much as the chunk has, whatever is in the file.

    Other decoders unpack all frames of a file, one after the other, before they compare how much it is.

    Parameters
    ----------
    content : bytes
        The file.
    chunk : tuple of int
        Shape of the chunk.
    dtype : dtype-like
        Of numbers, or of strings.
    compressed : bool
        Whether the chunk is a Zstandard frame.
    expected : int, optional
        The checksum that was committed.

    Returns
    -------
    ndarray of the chunk's shape

    Raises
    ------
    ValueError
        Where it is damaged, or another than the one that was committed.
    """
    data, dtype = checked_bytes(content, expected=expected), np.dtype(dtype)
    if _holds_strings(dtype):
        return _decode_strings(_unpacked_strings(data) if compressed else data, chunk=chunk).astype(dtype, copy=False)
    values = np.empty(chunk, dtype.newbyteorder("<"))
    if compressed:
        check_frame(data[:HEADER], nbytes=values.nbytes)
        decompress(data, values)
    elif len(data) == values.nbytes:
        values.reshape(-1).view(np.uint8)[:] = np.frombuffer(data, np.uint8)
    else:
        raise ValueError(f"a chunk holds {len(data)} bytes, not {values.nbytes}")
    return values


def _unpacked_strings(data: memoryview) -> memoryview:
    """Return what a Zstandard frame of strings unpacks to, of which only the frame itself says how much it is."""
    nbytes = frame_size(data[:HEADER])
    if nbytes is None or nbytes > _MOST_OF_STRINGS:
        raise ValueError(
            f"a chunk of strings says that it unpacks to {'any number of' if nbytes is None else nbytes} bytes"
        )
    values = np.empty(nbytes, np.uint8)
    if nbytes:
        decompress(data, values)
    return values.data


def _decode_strings(data: memoryview, *, chunk: tuple[int, ...]) -> npt.NDArray[Any]:
    """Return strings: their number, and each with its length before it."""
    count = int.from_bytes(data[:4], "little")
    if count != prod(chunk) or len(data) < 4 * (1 + count):
        raise ValueError(f"a chunk holds {count} strings in {len(data)} bytes, not {prod(chunk)}")
    return np.asarray(VLenUTF8().decode(bytes(data))).reshape(chunk)


def _holds_strings(dtype: np.dtype[Any]) -> bool:
    return dtype.kind in "OT"
