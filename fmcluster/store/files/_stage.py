"""Stages: folders in which something is written before it is put where it belongs, and of which nothing stays."""

import errno
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

_LONGEST = 40  # characters of the name that are kept; four bytes each at most, and a file system takes 255
_SUFFIX = ".fmcluster"
_LOCK, _CONTENT = "lock", "new"
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextmanager
def stage(target: str | os.PathLike[str]) -> Iterator[Path]:
    """Within the block, write into the empty folder that it gets, on the same disk as `target`.

    What is not moved away in the block is removed after it. A process that is killed removes nothing: what such ones
    left of the same target goes when the next stage of it begins. Each is known by its name, its owner, its content,
    and a lock that the system takes from a process which ends; what a living process holds stays, and so does
    everything where the disk knows no locks.

    Parameters
    ----------
    target : path-like
        What is written; the stage lies beside it.

    Yields
    ------
    Path
        A folder.

    Raises
    ------
    OSError
        Where nothing can be written there; of a disk without room, it names `target`.
    """
    final = Path(target)
    prefix = f".{final.name[:_LONGEST]}."
    _remove_abandoned(final.parent, prefix=prefix)
    try:
        made, lock = _make(final.parent, prefix=prefix)
        try:
            content = made / _CONTENT
            content.mkdir()
            yield content
        finally:
            shutil.rmtree(made / _CONTENT, ignore_errors=True)
            lock.release()
            shutil.rmtree(made, ignore_errors=True)
    except OSError as error:
        if error.errno in _NO_ROOM:
            error.filename = str(final)
        raise


def _make(folder: Path, *, prefix: str) -> tuple[Path, FileLock]:
    """Make a folder that nobody has, and the lock in it, held wherever the disk knows locks."""
    made = Path(tempfile.mkdtemp(prefix=prefix, suffix=_SUFFIX, dir=folder))
    lock = _lock_in(made)
    try:
        lock.acquire(timeout=0)  # makes the folder anew where another process took it, empty, for one that was left
    except (OSError, NotImplementedError):
        (made / _LOCK).unlink(missing_ok=True)  # what has no lock is never taken for abandoned
    return made, lock


def _lock_in(made: Path) -> FileLock:
    return FileLock(made / _LOCK, thread_local=False)


def _remove_abandoned(folder: Path, *, prefix: str) -> None:
    """Remove what processes that were killed left beside a target."""
    name = re.compile(re.escape(prefix) + r"[a-z0-9_]{8}" + re.escape(_SUFFIX))
    with suppress(OSError):  # of a folder that may not be listed
        for found in [Path(entry.path) for entry in os.scandir(folder) if name.fullmatch(entry.name)]:
            if _is_ours(found):
                _remove_if_free(found)


def _is_ours(found: Path) -> bool:
    """Whether something is a stage of this user's, by what is in it."""
    if found.is_symlink() or not found.is_dir() or {each.name for each in found.iterdir()} - {_LOCK, _CONTENT}:
        return False
    return not hasattr(os, "geteuid") or found.stat().st_uid == os.geteuid()


def _remove_if_free(found: Path) -> None:
    with suppress(OSError):
        found.rmdir()  # where nothing is in it yet
        return
    lock = _lock_in(found)
    if (found / _LOCK).is_symlink() or not (found / _LOCK).is_file():
        return
    with suppress(Timeout, OSError, NotImplementedError):
        lock.acquire(timeout=0)
        shutil.rmtree(found / _CONTENT, ignore_errors=True)
        lock.release()
        shutil.rmtree(found, ignore_errors=True)
