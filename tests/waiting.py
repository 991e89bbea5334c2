"""Waiting for a page in a browser: until something holds, and until nothing moves."""

import time
from collections.abc import Callable
from typing import Any

import numpy as np

SECONDS = 60.0


def until(page: Any, check: Callable[[], None]) -> None:
    """Repeat a check until it raises no AssertionError; raise its last one after a minute."""
    end = time.monotonic() + SECONDS
    while True:
        try:
            return check()
        except AssertionError:
            if time.monotonic() > end:
                raise
        page.wait_for_timeout(100)


def at_rest(page: Any, read: Callable[[], np.ndarray]) -> np.ndarray:
    """Return what is read once five readings in a row, half a second in all, are the same."""
    end, last, same = time.monotonic() + SECONDS, read(), 1
    while same < 5:
        assert time.monotonic() < end, f"still moving after {SECONDS:g} s"
        page.wait_for_timeout(125)
        now = read()
        same = same + 1 if np.array_equal(now, last) else 1
        last = now
    return last
