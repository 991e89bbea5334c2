"""Checksums: what is noted of a chunk is read back, and bytes that differ from it in one bit are refused."""

import struct

import pytest
from google_crc32c import value as crc32c

from fmcluster.store.format._checksums import (
    check_identity,
    checked_bytes,
    checksum_at_end,
    checksum_digits,
    committed_checksum,
)


def with_checksum(data: bytes) -> bytes:
    return data + struct.pack("<I", crc32c(data))


def test_what_is_noted_of_chunks_is_read_back() -> None:
    noted = [0, None, 1, 2**32 - 1]
    digits = "".join(map(checksum_digits, noted))
    assert digits == "00000000--------00000001ffffffff"
    assert [committed_checksum(digits, chunk=chunk) for chunk in range(4)] == noted


def test_the_checksum_at_the_end_is_that_of_the_bytes_before_it() -> None:
    content = bytes(32) + b"\xaa\x36\x91\x8a"  # RFC 3720, B.4
    assert checksum_at_end(content) == "8a9136aa"
    assert checked_bytes(content, expected=0x8A9136AA) == bytes(32)


@pytest.mark.parametrize("expected", [None, crc32c(b"bytes")])
def test_every_flipped_bit_is_found(expected: int | None) -> None:
    whole = with_checksum(b"bytes")
    for bit in range(8 * len(whole)):
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        with pytest.raises(ValueError, match=r"does not fit|not the one that was committed"):
            checked_bytes(bytes(damaged), expected=expected)


@pytest.mark.parametrize("ending", [b"", b"\0\0\0", b"\1\0\0\0"])
def test_whole_bytes_that_are_not_those_that_were_committed_are_refused(ending: bytes) -> None:
    with pytest.raises(ValueError, match="not the one that was committed"):
        check_identity(ending, 0)
