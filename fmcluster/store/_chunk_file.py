"""Chunk file: little-endian numbers, compressed with Zstandard, and their CRC-32C at the end."""

import os
import struct
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from google_crc32c import value as crc32c
from numcodecs.zstd import compress, decompress  # type: ignore[import-untyped]

from ._shards import HEADER, check_frame


def write_chunk(
    path: Path, values: npt.NDArray[Any], *, chunk: tuple[int, ...], level: int, flushed: bool = True
) -> str:
    """Write a file of one chunk, and flush it to the disk; whatever it holds, there is a file.

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
    flushed : bool
        Whether to wait until it is on the disk; not where the caller does so for many of them.

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
        file.flush()
        if flushed:
            os.fsync(file.fileno())
    return f"{checksum:08x}"


def read_chunk(path: Path, *, chunk: tuple[int, ...], dtype: str) -> npt.NDArray[Any]:
    """Return what a file of one chunk holds, an ndarray of the chunk's shape.

    Raises
    ------
    OSError
        Where the file cannot be read.
    ValueError
        Where it is damaged.
    """
    content = path.read_bytes()
    data, checksum = content[:-4], content[-4:]
    if len(checksum) < 4 or struct.unpack("<I", checksum)[0] != crc32c(data):
        raise ValueError(f"{path} is damaged: its CRC-32C does not fit")
    nbytes = int(np.prod(chunk)) * np.dtype(dtype).itemsize
    check_frame(data[:HEADER], nbytes=nbytes)
    return np.frombuffer(decompress(data), np.dtype(dtype).newbyteorder("<")).reshape(chunk)
