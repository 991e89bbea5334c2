"""Write queue: writer threads, and what they are to do in which order."""

import os
from collections import deque
from collections.abc import Callable
from threading import Condition, Thread

Work = Callable[[], None]


def n_writer_threads() -> int:
    """Return how many threads write: half of the processors, two at least and four at most."""
    return min(4, max(2, (os.cpu_count() or 2) // 2))


class WriteQueue:
    """Runs what it is given on a few threads, and some of it alone.

    Parameters
    ----------
    n_threads : int, optional
        By default `n_writer_threads`: one encodes while another waits for the disk.
    """

    def __init__(self, *, n_threads: int | None = None) -> None:
        self._waiting: deque[tuple[Work, bool]] = deque()
        self._running = 0
        self._alone = False
        self._closed = False
        self._error: BaseException | None = None
        self._changed = Condition()
        count = n_threads or n_writer_threads()
        self._threads = [Thread(target=self._run, name=f"fmcluster-writer-{k}", daemon=True) for k in range(count)]
        for thread in self._threads:
            thread.start()

    def put(self, work: Work, *, alone: bool = False) -> None:
        """Queue `work`, which must not raise: where it does all the same, `wait` says so, and the rest is done.

        Alone: after all that was queued before, and before all that is queued later.
        """
        with self._changed:
            self._waiting.append((work, alone))
            self._changed.notify_all()

    def wait(self) -> None:
        """Return when everything queued so far is done; raise what was raised meanwhile."""
        with self._changed:
            self._changed.wait_for(lambda: not self._waiting and not self._running)
            error, self._error = self._error, None
        if error is not None:
            raise error

    def close(self) -> None:
        """Finish what is queued and end the threads."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def _may_start(self) -> bool:
        if not self._waiting or self._alone:
            return False
        return not self._running or not self._waiting[0][1]

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._may_start() or (self._closed and not self._waiting))
                if not self._may_start():
                    return
                work, alone = self._waiting.popleft()
                self._running += 1
                self._alone = alone
                self._changed.notify_all()
            try:
                work()
            except BaseException as error:  # a thread that ended here would let all wait for ever
                self._error = self._error or error
            finally:
                with self._changed:
                    self._running -= 1
                    if alone:
                        self._alone = False
                    self._changed.notify_all()
            del work  # it holds the memory that it wrote
