"""Checksums: the CRC-32C of each chunk of a run's files, noted by the commit and compared with what is read.

A chunk carries a checksum of its own, which tells that its bytes are whole, but not that they are the ones that were
written there: a file that was swapped for another of the same shape passes. What a commit recorded tells that.
"""

import json
import os
import re
import struct
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path

import numpy as np
from google_crc32c import value as crc32c

Files = Mapping[str, Mapping[str, str]]
"""By array, and by the name of a file: its chunks' checksums, eight hexadecimal digits each, in order."""

_NONE = "--------"
_CHUNK = re.compile(r"c(\.\d+)+")


def checksum_digits(checksum: int | None) -> str:
    """Return what is noted of a chunk: eight hexadecimal digits, or ``--------`` for one that is not there."""
    return _NONE if checksum is None else f"{checksum:08x}"


def committed_checksum(checksums: str, *, chunk: int) -> int | None:
    """Return the checksum that was committed of one of a file's chunks; None: it is not there."""
    digits = checksums[8 * chunk : 8 * chunk + 8]
    return None if digits == _NONE else int(digits, 16)


def check_identity(ending: bytes, expected: int | None) -> None:
    """See that the checksum that a chunk ends with is the one that was committed.

    Raises
    ------
    ValueError
        Where it is another.
    """
    if len(ending) != 4 or _number(ending) != expected:
        raise ValueError("a chunk is not the one that was committed")


def checked_bytes(data: bytes, *, expected: int | None) -> memoryview:
    """Return bytes without the checksum that they end with, once it fits, and is `expected` where that is known.

    They are not copied: a chunk's are many.

    Raises
    ------
    ValueError
        Where it does not fit, or is another.
    """
    if expected is not None:
        check_identity(data[-4:], expected)
    if len(data) < 4 or _number(data[-4:]) != crc32c(np.frombuffer(data, np.uint8)[:-4]):  # it takes no memoryview
        raise ValueError("a CRC-32C checksum does not fit")
    return memoryview(data)[:-4]


def checksum_of(path: Path) -> str:
    """Return the checksum that a file of one chunk ends with, as eight hexadecimal digits."""
    with path.open("rb") as file:
        file.seek(-4, os.SEEK_END)
        return checksum_at_end(file.read())


def checksum_at_end(data: bytes) -> str:
    """Return the checksum that the bytes of one chunk end with, as eight hexadecimal digits."""
    return checksum_digits(_number(data[-4:]))


def check_files(files: Files) -> None:
    """See that what a commit vouches for are checksums of files that lie in the folder of their array.

    Raises
    ------
    ValueError, TypeError, AttributeError
        Where it is anything else.
    """
    for keys in files.values():
        for key, checksums in keys.items():
            if not isinstance(checksums, str):
                raise TypeError("a checksum is no string")
            if not _CHUNK.fullmatch(key):
                raise ValueError(f"{key[:80]!r} is no chunk's name")


def encode_files(files: Files) -> str:
    """Return what is stored of a snapshot's files."""
    return json.dumps({path: dict(sorted(keys.items())) for path, keys in sorted(files.items()) if keys})


def record_digest(record: bytes) -> str:
    """Return the SHA-256 of the file that holds a snapshot's checksums, hexadecimal."""
    return sha256(record).hexdigest()


def _number(ending: bytes) -> int:
    (number,) = struct.unpack("<I", ending)
    return int(number)
