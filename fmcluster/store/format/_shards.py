"""Shard files: as Zarr's sharding codec has them, compressed chunks, their checksums, and an index at the end.

The generic pipelines copy a shard several times on its way, which on a small machine takes longer than compressing it.
Here each chunk goes from the array through the compressor to the disk, and the same values always give the same bytes.
"""

import os
import struct
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from io import BytesIO
from itertools import product
from math import prod
from pathlib import Path
from threading import local
from types import TracebackType
from typing import Any, Protocol, Self

import numpy as np
import numpy.typing as npt
from google_crc32c import value as crc32c
from numcodecs.zstd import compress, decompress  # type: ignore[import-untyped]

from ...vectors import new_block
from ..files import open_regular
from ._checksums import checked_bytes, checksum_digits, committed_checksum

_NOTHING = 2**64 - 1  # offset and length of a chunk that is not there
_BLOCK = 4096
HEADER = 18  # bytes of the longest header of a Zstandard frame
_BUFFER = 2 << 20
_direct = getattr(os, "O_DIRECT", 0)
_thread = local()


class Readable(Protocol):
    """A file to seek and read in."""

    def seek(self, offset: int, whence: int = 0, /) -> int:
        """Go to a position; return it, from the beginning."""

    def read(self, size: int, /) -> bytes:
        """Return the next bytes."""

    def __enter__(self) -> Self: ...

    def __exit__(self, kind: Any, error: Any, trace: Any, /) -> Any: ...


@dataclass(frozen=True)
class ShardLayout:
    """How the feature maps of a layer lie in files; its shapes are without the axis of snapshots.

    Attributes
    ----------
    shape : tuple of int
        All samples of a snapshot.
    shard, chunks : tuple of int
        What lies in one file, and what of it is compressed at a time.
    dtype : str
        NumPy name.
    level : int
        Of Zstandard.
    """

    shape: tuple[int, ...]
    shard: tuple[int, ...]
    chunks: tuple[int, ...]
    dtype: str
    level: int


def shard_layout(metadata: Mapping[str, Any], *, path: str) -> ShardLayout:
    """Return how an array over time lies in files, from its Zarr metadata.

    Raises
    ------
    ValueError
        Where `write_shard` does not write such files.
    """
    number, checksum = {"name": "bytes", "configuration": {"endian": "little"}}, {"name": "crc32c"}
    try:
        sharding = metadata["codecs"][0]["configuration"]
        chunks, level = sharding["chunk_shape"], sharding["codecs"][1]["configuration"]["level"]
    except (LookupError, TypeError):
        chunks, level = [], 0
    zstd = {"name": "zstd", "configuration": {"level": level, "checksum": False}}
    configuration = {
        "chunk_shape": chunks,
        "codecs": [number, zstd, checksum],
        "index_codecs": [number, checksum],
        "index_location": "end",
    }
    if type(level) is not int or metadata["codecs"] != [{"name": "sharding_indexed", "configuration": configuration}]:
        raise ValueError(f"{path} has other codecs than this package writes")
    shard = metadata["chunk_grid"]["configuration"]["chunk_shape"]
    shape, dtype = metadata["shape"], metadata["data_type"]
    return ShardLayout(tuple(shape[1:]), tuple(shard[1:]), tuple(chunks[1:]), dtype, level)


def write_shard(
    path: Path,
    values: npt.NDArray[Any],
    *,
    chunks: tuple[int, ...],
    shard: tuple[int, ...],
    level: int,
) -> str:
    """Write a shard, which is not flushed to the disk; return its chunks' checksums.

    Parameters
    ----------
    path : Path
        The shard's file; replaced where it exists.
    values : ndarray
        At most of the shard's shape; what is missing of it at the end of an axis is NaN.
    chunks, shard : tuple of int
        Shape of a chunk and of the shard, of as many axes as `values`.
    level : int
        Of Zstandard; below zero it is faster and looser.

    Returns
    -------
    str
        Eight hexadecimal digits for each chunk, its CRC-32C, in the order of the index; ``--------`` for one that is
        beyond the values.

    References
    ----------
    Zarr v3 sharding codec, version 1.0, https://zarr-specs.readthedocs.io/en/latest/v3/codecs/sharding-indexed/
    """
    index, checksums = [], []
    at = 0
    with _File(path) as file:
        for corner in product(*(range(0, n, step) for n, step in zip(shard, chunks, strict=True))):
            box = values[tuple(slice(start, start + step) for start, step in zip(corner, chunks, strict=True))]
            if not box.size:
                index += [_NOTHING, _NOTHING]
                checksums.append(checksum_digits(None))
                continue
            data = compress(_whole(box, chunks), level)
            checksum = crc32c(data)
            file.append(data)
            file.append(struct.pack("<I", checksum))
            checksums.append(checksum_digits(checksum))
            index += [at, len(data) + 4]
            at += len(data) + 4
        table = struct.pack(f"<{len(index)}Q", *index)
        file.append(table)
        file.append(struct.pack("<I", crc32c(table)))
    return "".join(checksums)


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file as a shard is written, past the page cache where the system can; it is not flushed."""
    with _File(path) as file:
        file.append(data)


def read_shard(
    source: Path | bytes | Readable,
    out: npt.NDArray[Any],
    *,
    start: tuple[int, ...],
    layout: ShardLayout,
    checksums: str,
) -> None:
    """Read a part of a shard; of its chunks only those that it takes, each with its checksum.

    Parameters
    ----------
    source : Path, bytes or Readable
        The shard's file, or what it holds.
    out : ndarray
        Filled with what begins at `start` within the shard.
    start : tuple of int
        A position within the shard.
    layout : ShardLayout
        Of the array.
    checksums : str
        What `write_shard` returned.

    Raises
    ------
    OSError
        Where the file cannot be read.
    ValueError
        Where a chunk is not the one that was written, or not of its length.
    """
    per_axis = [n // step for n, step in zip(layout.shard, layout.chunks, strict=True)]
    dtype, nbytes = np.dtype(layout.dtype).newbyteorder("<"), prod(layout.chunks) * np.dtype(layout.dtype).itemsize
    touched = [
        range(at // step, -(-(at + n) // step)) for at, n, step in zip(start, out.shape, layout.chunks, strict=True)
    ]
    with _opened(source) as file:
        index = _index(file, prod(per_axis)).reshape(*per_axis, 2)
        for ordinal in product(*touched):
            offset, length = (int(number) for number in index[ordinal])
            expected = committed_checksum(checksums, chunk=int(np.ravel_multi_index(ordinal, per_axis)))
            inside, within = [], []
            for where, step, at, n in zip(ordinal, layout.chunks, start, out.shape, strict=True):
                first, last = max(where * step, at), min((where + 1) * step, at + n)
                inside.append(slice(first - at, last - at))
                within.append(slice(first - where * step, last - where * step))
            target = out[tuple(inside)]
            if offset == length == _NOTHING and expected is None:
                target[...] = np.nan
                continue
            data = checked_bytes(_part(file, offset, length, at_most=largest_file(nbytes)), expected=expected)
            check_frame(data[:HEADER], nbytes=nbytes)
            if target.nbytes == nbytes and target.flags.c_contiguous and target.dtype == dtype:
                decompress(data, target)
            else:
                chunk = np.empty(layout.chunks, dtype)
                decompress(data, chunk)
                target[...] = chunk[tuple(within)]


def check_whole(content: bytes, checksums: str, *, sharded: bool) -> None:
    """See that each chunk of a file is whole, and the one that was committed; nothing is decoded.

    Parameters
    ----------
    content : bytes
        The file.
    checksums : str
        Those that were committed.
    sharded : bool
        Whether the file is a shard; else it is one chunk.

    Raises
    ------
    ValueError
        Where one is not.
    """
    if not sharded:
        checked_bytes(content, expected=committed_checksum(checksums, chunk=0))
        return
    file = BytesIO(content)
    for number, (offset, length) in enumerate(_index(file, len(checksums) // 8).tolist()):
        expected = committed_checksum(checksums, chunk=number)
        if offset == length == _NOTHING and expected is None:
            continue
        checked_bytes(_part(file, offset, length), expected=-1 if expected is None else expected)


def check_frame(header: bytes | memoryview, *, nbytes: int) -> None:
    """See that a Zstandard frame says that it unpacks to `nbytes`.

    Raises
    ------
    ValueError
        Where it says something else, or nothing.
    """
    size = frame_size(header)
    if size != nbytes:
        raise ValueError(
            f"a chunk says that it unpacks to {'any number of' if size is None else size} bytes, not {nbytes}"
        )


def largest_file(nbytes: int) -> int:
    """Return how many bytes a chunk has at most in a file: all that it holds, and what compressing adds to it."""
    return nbytes + (nbytes >> 7) + (1 << 20)


def frame_size(header: bytes | memoryview) -> int | None:
    """Return to how many bytes a Zstandard frame says that it unpacks; None where it does not say so.

    Raises
    ------
    ValueError
        Where it is no such frame.

    References
    ----------
    Y. Collet, M. Kucherawy, Zstandard Compression and the application/zstd Media Type, RFC 8878, section 3.1.1.1
    """
    if len(header) < 6 or header[:4] != b"\x28\xb5\x2f\xfd":
        raise ValueError("a chunk is no Zstandard frame")
    flags = header[4]
    single_segment = flags >> 5 & 1
    first = 6 - single_segment + (0, 1, 2, 4)[flags & 3]
    width = (single_segment, 2, 4, 8)[flags >> 6]
    size = int.from_bytes(header[first : first + width], "little") + (256 if width == 2 else 0)
    return size if width else None


def _opened(source: Path | bytes | Readable) -> Readable:
    if isinstance(source, Path):
        return open_regular(source)
    return BytesIO(source) if isinstance(source, bytes) else source


def _index(file: Readable, n_chunks: int) -> npt.NDArray[np.uint64]:
    """Return the offset and the length of each chunk, ndarray of shape (n_chunks, 2)."""
    size = 16 * n_chunks + 4
    table = checked_bytes(_part(file, file.seek(0, os.SEEK_END) - size, size), expected=None)
    return np.frombuffer(table, "<u8").reshape(n_chunks, 2)


def _part(file: Readable, offset: int, length: int, *, at_most: int | None = None) -> bytes:
    """Return bytes of a file; how many there are is known before memory is taken for them."""
    if not (offset >= 0 and length >= 4 and offset + length <= file.seek(0, os.SEEK_END)):
        raise ValueError("the file is too short")
    if at_most is not None and length > at_most:  # a file may be long, and hold nothing
        raise ValueError(f"a chunk says that it has {length} bytes in its file, and has at most {at_most}")
    file.seek(offset)
    return file.read(length)


def _whole(box: npt.NDArray[Any], chunks: tuple[int, ...]) -> npt.NDArray[Any]:
    """Return a contiguous little-endian chunk, filled up with NaN."""
    dtype = box.dtype.newbyteorder("<")
    if box.shape == chunks:
        return np.ascontiguousarray(box, dtype)
    out = np.full(chunks, np.nan, dtype)
    out[tuple(map(slice, box.shape))] = box
    return out


def _buffer() -> memoryview:
    """Return this thread's buffer, aligned to pages as direct writes need it."""
    if not hasattr(_thread, "buffer"):
        _thread.buffer = new_block((_BUFFER,), np.uint8)
    return memoryview(_thread.buffer)


class _File:
    """Appends to a new file; past the page cache where the system can, which leaves the processor to the training."""

    def __init__(self, path: Path) -> None:
        self._direct = bool(_direct)
        flags = os.O_CREAT | os.O_WRONLY | os.O_TRUNC | getattr(os, "O_BINARY", 0)
        try:
            self._handle = os.open(path, flags | _direct, 0o666)
        except OSError:
            if not self._direct:
                raise
            self._direct = False
            self._handle = os.open(path, flags, 0o666)
        self._buffer = _buffer()
        self._filled = 0
        self._length = 0

    def append(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            piece = view[: _BUFFER - self._filled]
            self._buffer[self._filled : self._filled + len(piece)] = piece
            self._filled += len(piece)
            view = view[len(piece) :]
            if self._filled == _BUFFER:
                self._put(_BUFFER)

    def _put(self, count: int) -> None:
        """Write what is buffered, `count` bytes of it or of what pads it."""
        view = self._buffer[:count]
        while view:
            try:
                view = view[os.write(self._handle, view) :]
            except OSError:
                if not self._direct:
                    raise
                self._stop_direct()  # some file systems take the flag and refuse the write
        self._length += self._filled
        self._filled = 0

    def _stop_direct(self) -> None:
        import fcntl

        fcntl.fcntl(self._handle, fcntl.F_SETFL, fcntl.fcntl(self._handle, fcntl.F_GETFL) & ~_direct)
        self._direct = False

    def __enter__(self) -> "_File":
        return self

    def __exit__(self, failure: type[BaseException] | None, _error: object, _trace: TracebackType | None) -> None:
        try:
            if failure is None:
                self._put(-(-self._filled // _BLOCK) * _BLOCK if self._direct else self._filled)
                os.ftruncate(self._handle, self._length)
        finally:
            with suppress(OSError):
                os.close(self._handle)
