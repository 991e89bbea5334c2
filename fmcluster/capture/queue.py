"""A writer thread behind a bounded queue: who captures waits when too much is pending; nothing is dropped."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Condition


class WriteQueue:
    """Runs what it is given in order, on one thread.

    Parameters
    ----------
    max_pending_bytes : int
        `put` waits while more than this is pending; a single larger item passes alone.
    """

    def __init__(self, *, max_pending_bytes: int) -> None:
        self.max_pending_bytes = max_pending_bytes
        self.peak_bytes = 0
        self._pending = 0
        self._changed = Condition()
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="fmcluster-writer")

    def put(self, work: Callable[[], None], *, nbytes: int = 0) -> None:
        """Queue `work`, which must not raise, and which keeps `nbytes` of memory alive until it is done."""
        with self._changed:
            self._changed.wait_for(lambda: not self._pending or self._pending + nbytes <= self.max_pending_bytes)
            self._pending += nbytes
            self.peak_bytes = max(self.peak_bytes, self._pending)

        def run() -> None:
            try:
                work()
            finally:
                with self._changed:
                    self._pending -= nbytes
                    self._changed.notify_all()

        self._thread.submit(run)

    def wait(self) -> None:
        """Return when everything queued so far is done."""
        self._thread.submit(lambda: None).result()

    def close(self) -> None:
        """Finish what is queued and end the thread."""
        self._thread.shutdown(wait=True)
