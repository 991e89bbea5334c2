"""Watching a run: something done again whenever it has new snapshots."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from threading import Event, Thread
from types import FrameType

from ..errors import NoSnapshotYet
from ..store import Run, open_run


def follow(path: str, act: Callable[[Run], None], *, interval: float, stop: Event) -> int:
    """Call `act` with a run now, and again whenever more of its snapshots are committed.

    Parameters
    ----------
    path : str
        Where the run is; it has to exist, but may have no snapshot yet. Where a recorder has begun and not laid it out
        yet, this waits.
    act : callable
        Gets the run with the snapshots that were committed when it was opened, and no others.
    interval : float
        Seconds between two looks.
    stop : threading.Event
        Ends this, once what is being done is done.

    Returns
    -------
    int
        How often it was done.
    """
    done = seen = 0
    while True:
        run = None
        with suppress(NoSnapshotYet):
            run = open_run(path)
        if run is not None and len(run) != seen:
            act(run)
            done, seen = done + 1, len(run)
        if stop.wait(interval):
            return done


@contextmanager
def until_interrupted() -> Iterator[Event]:
    """Run a block until Ctrl-C, which ends it in order: the event that it gets is set, too.

    An exception that is raised by a signal while Python runs a finalizer or a callback is lost, and the block would go
    on; the event is not.
    """
    stop = Event()

    def end(number: int, frame: FrameType | None) -> None:
        Thread(target=stop.set).start()  # in this thread, the event's lock may be held
        if callable(before):
            before(number, frame)
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, end)
    try:
        with suppress(KeyboardInterrupt):
            yield stop
    finally:
        signal.signal(signal.SIGINT, before)
