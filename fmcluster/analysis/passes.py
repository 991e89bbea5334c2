"""Heavy work in parts: one after the other, or on any executor."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Part = TypeVar("Part")


def run_each(
    function: Callable[[Item], Part], items: Iterable[Item], *, executor: Executor | None = None
) -> Iterator[Part]:
    """Yield ``function(item)`` for every item, in order.

    Parameters
    ----------
    function : callable
        At the top level of a module (or a `functools.partial` of such a one), so that processes can be handed it.
    items : iterable
        What it is called with; of an executor of processes, what can be pickled.
    executor : concurrent.futures.Executor, optional
        Threads, processes, or a Dask client's (``client.get_executor()``); by default everything happens here. A few
        more items than the machine has cores are under way at a time, so that what waits to be used stays small.
        A memory budget is that of each worker.

    Raises
    ------
    ValueError
        For processes that are forked: they inherit the locks of this one's threads, and wait for them forever.

    Yields
    ------
    object
        What the function returned. Numbers do not depend on the executor: parts are the same, and so is their order.
    """
    if executor is None:
        yield from map(function, items)
        return
    _refuse_forks(executor)
    waiting: deque[Future[Part]] = deque()
    most = 2 * (os.cpu_count() or 1)
    try:
        for item in items:
            if len(waiting) >= most:
                yield waiting.popleft().result()
            waiting.append(executor.submit(function, item))
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()


def _refuse_forks(executor: Executor) -> None:
    how = getattr(executor, "_mp_context", None) if isinstance(executor, ProcessPoolExecutor) else None
    if how is not None and how.get_start_method() == "fork":
        raise ValueError(
            "the executor forks its processes, and a fork of a process with threads can hang; make it with "
            'ProcessPoolExecutor(mp_context=multiprocessing.get_context("spawn"))'
        )
