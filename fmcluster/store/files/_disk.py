"""Durable files: what is written is on the disk before anything points to it."""

import ctypes
import os
import re
import stat
import sys
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

from ...errors import StoreError

# Local file systems, by their number (statfs(2)), that write all they hold when asked to once. Of others, such as NFS
# and those in user space, files are flushed one by one: their servers promise something for a file alone.
_KNOWN = {0xEF53, 0x58465342, 0x9123683E, 0x794C7630, 0x01021994, 0xF2F52010, 0x2FC12FC1}
# ext4 (unless it is mounted with noauto_da_alloc), btrfs, tmpfs, ZFS
_ORDERED = {0xEF53, 0x9123683E, 0x01021994, 0x2FC12FC1}
_DEEPEST = 16  # folders in one another; a run has three
_REPORTS_ERRORS = (5, 8)  # the kernel since which syncfs says that writing failed


def replace_file(path: Path, content: bytes) -> None:
    """Put `content` at `path` so that a reader, or a machine that loses power, sees the old file or the new one."""
    partial = _removed(path.with_name(f"{path.name}.partial"))
    with partial.open("xb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
    flush([path.parent])


def replace_unawaited(path: Path, content: bytes) -> None:
    """Do as `replace_file` does, but wait for the disk only where the file could else be neither the old nor the new.

    For what may be the old one after a loss of power.
    """
    partial = _removed(path.with_name(f"{path.name}.partial"))
    with partial.open("xb") as file:
        file.write(content)
    if not orders_renames(path.parent):
        flush([partial])
    partial.replace(path)


def _removed(partial: Path) -> Path:
    """Return a path at which nothing lies any more: what lay there may be a link to what is not to be written."""
    partial.unlink(missing_ok=True)
    return partial


def kind_of_file(mode: int) -> str:
    """Return what a path leads to, by its `st_mode`.

    Examples
    --------
    >>> kind_of_file(0o100644), kind_of_file(0o010644)
    ('file', 'FIFO')
    """
    kinds = {
        stat.S_IFREG: "file",
        stat.S_IFDIR: "folder",
        stat.S_IFLNK: "link",
        stat.S_IFIFO: "FIFO",
        stat.S_IFSOCK: "socket",
    }
    return kinds.get(stat.S_IFMT(mode), "device")


def walk(folder: str | os.PathLike[str]) -> Iterator[os.DirEntry[str]]:
    """Yield what lies in a folder and those below, each listed once; links are yielded, and not followed.

    Raises
    ------
    StoreError
        Where folders lie deeper in one another than any of a run's do.
    """
    waiting = [(os.fspath(folder), 0)]
    while waiting:
        here, depth = waiting.pop()
        if depth > _DEEPEST:
            raise StoreError(
                f"{folder} holds folders {depth} deep in one another, and a run's are three: nothing was read or "
                f"changed. Copy the run instead."
            )
        try:
            with os.scandir(here) as entries:
                for entry in entries:
                    yield entry
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append((entry.path, depth + 1))
        except FileNotFoundError:  # removed by its writer meanwhile
            if not depth:
                raise


def flush_below(folder: Path, paths: Iterable[Path]) -> None:
    """Flush files and folders that lie below a folder to the disk, all at once where the system can."""
    if flushes_at_once(folder):
        _flush_file_system(folder)
    else:
        flush(paths)


def flush(paths: Iterable[Path]) -> None:
    """Flush files or folders to the disk."""
    for path in paths:
        if path.is_dir() and os.name == "nt":  # Windows opens no folders
            continue
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def flushes_at_once(folder: Path) -> bool:
    """Whether `flush_below` takes one call there, so that files need not be flushed as they are written."""
    return _kind_of(folder) in _KNOWN


def orders_renames(folder: Path) -> bool:
    """Whether a file that replaces another is on the disk before its new name is, without being flushed."""
    return _kind_of(folder) in _ORDERED


def _kind_of(folder: Path) -> int | None:
    """Return the number of a folder's file system; None where it is not known."""
    system, about = _system(), ctypes.create_string_buffer(512)
    if system is None or system.statfs(os.fsencode(folder), about):
        return None
    return int.from_bytes(about.raw[: ctypes.sizeof(ctypes.c_long)], sys.byteorder) & 0xFFFFFFFF


def _flush_file_system(folder: Path) -> None:
    """Write everything that a folder's file system holds in memory to the disk."""
    system = _system()
    handle = os.open(folder, os.O_RDONLY)
    try:
        if system is None or system.syncfs(handle):
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code), str(folder))
    finally:
        os.close(handle)


@cache
def _system() -> ctypes.CDLL | None:
    """Return the C library, where it has `syncfs`, and the kernel tells of errors by it."""
    if sys.platform != "linux":
        return None
    kernel = re.match(r"(\d+)\.(\d+)", os.uname().release)
    library = ctypes.CDLL(None, use_errno=True)
    new_enough = kernel is not None and (int(kernel[1]), int(kernel[2])) >= _REPORTS_ERRORS
    return library if new_enough and hasattr(library, "syncfs") and hasattr(library, "statfs") else None
