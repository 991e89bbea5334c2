"""Watching a run: something done again whenever it has new snapshots."""

from collections.abc import Callable
from threading import Event

from ..store import Run, open_run


def follow(path: str, act: Callable[[Run], None], *, interval: float, stop: Event) -> int:
    """Call `act` with a run now, and again whenever more of its snapshots are committed.

    Parameters
    ----------
    path : str
        Where the run is; it has to exist, but may have no snapshot yet.
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
        run = open_run(path)
        if len(run) != seen:
            act(run)
            done, seen = done + 1, len(run)
        if stop.wait(interval):
            return done
