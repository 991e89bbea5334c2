"""Lock of a run: a file beside its folder, which its one writer holds."""

import os
import stat
from collections.abc import Sequence
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

from filelock import FileLock, Timeout

from ...errors import StoreError
from ._bucket_lock import is_locked
from ._disk import kind_of_file
from ._object_store import is_bucket

_PATIENCE = 0.2  # seconds; whoever asks for a writer holds the lock for less than a thousandth


def take_lock(path: Path) -> FileLock:
    """Return the lock of the run at a path, held: a run has one writer at a time.

    Raises
    ------
    OSError
        Where there can be no lock.
    StoreError
        Where another writer holds it, or something else than a file has its name.
    """
    if (mode := _mode_of(f"{path}.lock")) is not None and not stat.S_ISREG(mode):
        raise StoreError(
            f"{path}.lock is a {kind_of_file(mode)}, and the run's lock has to be a file: nothing was changed. Remove "
            f"it, or record into another path."
        )
    lock = FileLock(f"{path}.lock", thread_local=False)
    try:
        lock.acquire(timeout=_PATIENCE, poll_interval=_PATIENCE / 20)
    except Timeout as error:
        os.close(os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT))  # an error, where it is not held but cannot be made
        raise StoreError(
            f"{path} is being written by another process or recorder. A run has one writer at a time: wait until it "
            f"has finished, or record into another path."
        ) from error
    return lock


def free_lock(lock: FileLock, *, run: Path, made: Sequence[Path]) -> None:
    """Release the lock of a run; where there is no run, its file goes, and so do the folders that were made for it.

    Whoever has opened the file meanwhile finds that it was removed, and begins anew (filelock 3.21).
    """
    ended = lock.is_locked and not run.exists()
    with suppress(OSError):  # of a system that removes no open files
        if ended:
            Path(lock.lock_file).unlink()
    lock.release()
    with suppress(OSError):  # something else lies there by now
        for folder in made if ended else ():
            folder.rmdir()


def has_writer(path: str) -> bool:
    """Whether a run is being written at this moment, as far as its lock tells: on this machine, or in a bucket."""
    if "://" in path:
        return is_bucket(path) and find_spec("obstore") is not None and is_locked(path)
    file = Path(f"{path}.lock")
    if not stat.S_ISREG(_mode_of(str(file)) or 0) or not os.access(file, os.W_OK):
        return False
    lock = FileLock(file, thread_local=False)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return True
    except OSError:  # of a file system that knows no locks
        return False
    lock.release()
    return False


def _mode_of(path: str) -> int | None:
    """Return what lies at a path, and not where a link leads to; None where nothing does."""
    try:
        return os.lstat(path).st_mode
    except OSError:
        return None
