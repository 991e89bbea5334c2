"""Chunk file: little-endian numbers, compressed with Zstandard, and their CRC-32C at the end."""

import struct
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from google_crc32c import value as crc32c
from numcodecs.zstd import compress, decompress  # type: ignore[import-untyped]

from ._shards import HEADER, check_frame


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


def decode_chunk(content: bytes, *, chunk: tuple[int, ...], dtype: str) -> npt.NDArray[Any]:
    """Return what a file of one chunk holds, an ndarray of the chunk's shape.

    Raises
    ------
    ValueError
        Where it is damaged.
    """
    data, checksum = content[:-4], content[-4:]
    if len(checksum) < 4 or struct.unpack("<I", checksum)[0] != crc32c(data):
        raise ValueError("a chunk is damaged: its CRC-32C does not fit")
    nbytes = int(np.prod(chunk)) * np.dtype(dtype).itemsize
    check_frame(data[:HEADER], nbytes=nbytes)
    return np.frombuffer(decompress(data), np.dtype(dtype).newbyteorder("<")).reshape(chunk)
