"""Reading what may lie: a file is opened only if it is one, and no more of it is read than is allowed."""

import errno
import os
import stat
from io import FileIO
from pathlib import Path

from ...errors import StoreError
from ._disk import kind_of_file


def open_regular(file: Path) -> FileIO:
    """Open a file to read it, unbuffered; what is no file is neither waited for nor followed, whenever it came there.

    Raises
    ------
    FileNotFoundError
        Where nothing is there.
    StoreError
        Where it is a link, FIFO, socket or device.
    """
    flags = os.O_RDONLY | sum(getattr(os, name, 0) for name in ("O_NOFOLLOW", "O_NONBLOCK", "O_BINARY"))
    try:
        handle = os.open(file, flags)
    except OSError as error:
        if error.errno not in (errno.ELOOP, errno.ENXIO, errno.EMLINK):
            raise
        raise not_a_file(file, file.lstat().st_mode) from error
    if not stat.S_ISREG(mode := os.fstat(handle).st_mode):
        os.close(handle)
        raise not_a_file(file, mode)
    return FileIO(handle)


def not_a_file(path: Path, mode: int) -> StoreError:
    """Return the error that something is not the file that it should be, by its `st_mode`."""
    return StoreError(f"{path} is a {kind_of_file(mode)}, not a file: it was not read. Copy the run instead.")


def read_at_most(file: Path, limit: int) -> bytes | None:
    """Return what a file holds; None where it is larger than `limit`, of which no more is read, also if it grows."""
    with open_regular(file) as opened:
        size = os.fstat(opened.fileno()).st_size
        if size > limit:
            return None
        parts = []
        while size and (part := opened.read(size)):  # a call returns at most 2 GiB
            parts.append(part)
            size -= len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)
