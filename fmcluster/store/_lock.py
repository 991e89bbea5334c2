"""Lock of a run: a file beside its folder, which its one writer holds."""

import os
from pathlib import Path

from filelock import FileLock, Timeout

_PATIENCE = 0.2  # seconds; whoever asks for a writer holds the lock for less than a thousandth


def take_lock(path: Path) -> FileLock | None:
    """Return the lock of the run at a path, held; None where another writer holds it.

    Raises
    ------
    OSError
        Where there can be no lock.
    """
    lock = FileLock(f"{path}.lock", thread_local=False)
    try:
        lock.acquire(timeout=_PATIENCE, poll_interval=_PATIENCE / 20)
    except Timeout:
        os.close(os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT))  # an error, where it is not held but cannot be made
        return None
    return lock


def has_writer(path: str) -> bool:
    """Whether a run is being written at this moment, as far as this machine can tell: not of one at a URL."""
    file = Path(f"{path}.lock")
    if "://" in path or not file.is_file() or not os.access(file, os.W_OK):
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
