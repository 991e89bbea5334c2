"""Lock of a run in an object store: an object beside it, which its writer renews, and which expires without it."""

import json
import os
import socket
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

from ...errors import StoreError, Unreachable
from ._object_store import ConflictError, get_object, open_bucket, put_object, refuse_whole_bucket, remove_objects

EXPIRES = 300  # seconds after which a lock that is not renewed is nobody's
_RENEWED = 60  # seconds between two renewals
_LARGEST = 1 << 16  # bytes
_PATIENCE = 5  # seconds


class BucketLock:
    """The lock of a run in an object store, held.

    It is an object that is created only where there is none, renewed once a minute by a thread of its own, and
    removed at the end. A process that is killed leaves it behind: five minutes after its last renewal, another writer
    may replace it, in one request that succeeds only if it is still the one that was read; one that sees the same
    processes (on Linux), as soon as that process has ended.

    Parameters
    ----------
    url : str
        Where the run lies; the lock's URL ends in ``.lock``.

    Raises
    ------
    StoreError
        Where another writer holds it.
    Unreachable
        Where the store does not answer.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._bucket, self._key = _beside(url)
        self._owner = {"host": socket.gethostname(), "process": os.getpid(), "sees": _seen(), "id": uuid4().hex}
        self._ended = threading.Event()
        self._lost = False
        self._until = 0.0
        found = get_object(self._bucket, self._key, url=url, at_most=_LARGEST)
        if found is not None and (held := _holder(found.content, now=time.time())):
            raise StoreError(
                f"{url} is being written by another process ({held}). A run has one writer at a time: wait until it "
                f"has finished; or, where that process was killed, {EXPIRES // 60} minutes from its last sign of life."
            )
        self._tag: Any = "nothing" if found is None else found.tag
        try:
            self._put()
        except ConflictError as error:
            raise StoreError(
                f"{url} is being written by another process, which began at this moment. A run has one writer at a "
                f"time: wait until it has finished, or record into another path."
            ) from error
        self._thread = threading.Thread(target=self._renew, name="fmcluster-lock", daemon=True)
        self._thread.start()

    def check(self) -> None:
        """See that the lock is still held.

        Raises
        ------
        StoreError
            Where it has expired, or is another writer's.
        """
        if self._lost or time.time() > self._until:
            raise StoreError(
                f"{self._url} is no longer this writer's: its lock was not renewed for {EXPIRES // 60} minutes (the "
                f"machine slept, or had no network), or was removed. What was committed stays."
            )

    def close(self) -> None:
        """Let go of it."""
        self._ended.set()
        self._thread.join(timeout=_PATIENCE)  # what it may still put fails, once the lock is gone
        if not self._lost and time.time() <= self._until:
            with suppress(Unreachable):  # it expires
                remove_objects(self._bucket, [self._key], url=self._url)

    def _put(self) -> None:
        until = time.time() + EXPIRES
        content = json.dumps({**self._owner, "until": until}).encode()
        self._tag = put_object(self._bucket, self._key, content=content, url=self._url, over=self._tag)
        self._until = until

    def _renew(self) -> None:
        while not self._ended.wait(_RENEWED):
            try:
                self._put()
            except ConflictError:
                self._lost = True
                return
            except Unreachable:  # until it has expired, the next renewal may succeed
                continue


def is_locked(url: str) -> bool:
    """Whether a run in an object store is being written, as far as its lock can be read, and tells."""
    try:
        bucket, key = _beside(url)
        found = get_object(bucket, key, url=url, at_most=_LARGEST)
    except (ValueError, StoreError):
        return False
    return found is not None and bool(_holder(found.content, now=time.time()))


def _beside(url: str) -> tuple[Any, str]:
    """Return the bucket, and the key of the lock in it."""
    refuse_whole_bucket(url)
    above, _, name = url.rpartition("/")
    return open_bucket(above), f"{name}.lock"


def _holder(content: bytes, *, now: float) -> str:
    """Say who holds a lock; nothing where nobody does any more, or where it is none."""
    try:
        said = json.loads(content)
        left, process = float(said["until"]) - now, int(said["process"])
        who = f"process {process} on {' '.join(str(said['host']).split())[:100]}"
        if said.get("sees") == _seen() != "" and _has_ended(process):
            return ""
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError):
        return ""
    return f"{who}, renewed {max(0, EXPIRES - left):.0f} s ago" if left > 0 else ""


def _seen() -> str:
    """Return what two processes have in common that see the same processes; nothing where the system does not say."""
    try:
        return f"{Path('/proc/sys/kernel/random/boot_id').read_text().strip()} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return ""


def _has_ended(process: int) -> bool:
    """Whether there is no process of a number; with a number that was given again, there is one."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return False
