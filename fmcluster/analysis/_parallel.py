"""Parallel work: parts of it one after the other, or on any executor."""

import os
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache, partial, reduce
from importlib import import_module
from importlib.metadata import version
from itertools import islice
from typing import Any, TypeVar

import numpy as np
from threadpoolctl import ThreadpoolController

from ..errors import Unreachable
from ._compat import dask_client, start_method
from ._results import Array

RUN = 4  # items whose sum is taken by itself

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
        Threads, processes, or a Dask client's (``client.get_executor()``); by default everything happens here. Twice
        as many items as the machine has cores are under way at a time, or as the cluster has threads and one more, so
        that what waits to be used stays small.
        A memory budget is that of each worker. Matrix products of a worker take one thread: workers are what runs
        beside one another.

    Raises
    ------
    ValueError
        For processes that are forked: they inherit the locks of this one's threads, and wait for them forever. For
        workers of a Dask cluster with another version of fmcluster, or none, which would end, and be waited for.

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
    work = partial(_alone, function)
    # of threads of our own no more than can be worked on: what waits is memory
    most = executor.most if isinstance(executor, _OwnThreads) else _threads_of(executor)
    with blas_in_one_thread():
        try:
            for item in items:
                if len(waiting) >= most:
                    yield _result(waiting.popleft(), executor=executor)
                waiting.append(executor.submit(work, item))
            while waiting:
                yield _result(waiting.popleft(), executor=executor)
        finally:
            for future in waiting:
                future.cancel()


def sum_each(
    function: Callable[[Item], Array], items: Sequence[Item], *, shape: tuple[int, ...], executor: Executor
) -> Array:
    """Return the sum of ``function(item)`` over all items: ndarray of `shape`, float64.

    Sums of `RUN` items are taken, and then the sum of these, always in the order of the items, so that they are the
    same on any executor. On a Dask cluster each worker has a share of items that follow one another: workers add up
    what is theirs, hand on few sums, and one matrix comes back.
    """
    if is_cluster(executor) and items:
        return _result(_sum_on_cluster(function, items, executor=executor), executor=executor)
    total, parts = np.zeros(shape), run_each(function, items, executor=executor)
    for part in parts:
        for other in islice(parts, RUN - 1):
            part += other
        total += part
    return total


def _sum_on_cluster(function: Callable[[Item], Array], items: Sequence[Item], *, executor: Executor) -> Any:
    """Return the future of the sum of ``function(item)``, which workers of a Dask cluster add up among themselves."""
    client, work, most = dask_client(executor), partial(_alone, function), _threads_of(executor)
    workers = sorted(client.nthreads())
    share = -(-len(items) // len(workers))
    under_way: deque[Any] = deque()
    parts: dict[int, Any] = {}
    sums: dict[int, Any] = {}  # by run
    reached = list(range(0, len(items), RUN))  # by run: the next item that is added
    for at in sorted(range(len(items)), key=lambda at: (at % share, at)):  # each worker's first, each one's second
        if len(under_way) >= most:  # what was asked for long ago is done, before more is asked for
            under_way.popleft().exception()
        owner = workers[at // share]
        parts[at] = client.submit(work, items[at], pure=False, workers=[owner], allow_other_workers=True)
        under_way.append(parts[at])
        run = at // RUN
        while reached[run] in parts and reached[run] // RUN == run:
            part = parts.pop(reached[run])
            sums[run] = client.submit(_add, sums[run], part, pure=False) if run in sums else part
            reached[run] += 1
    return reduce(partial(client.submit, _add, pure=False), (sums[run] for run in range(len(reached))))


def _add(total: Array, part: Array) -> Array:
    return total + part


@dataclass(frozen=True, eq=False)
class OnCluster:
    """What workers of a Dask cluster have made, which stays where it was made.

    Attributes
    ----------
    executor : concurrent.futures.Executor
        The client's.
    made : list of distributed.Future
        Each is one thing.
    """

    executor: Executor
    made: list[Any]

    @property
    def workers(self) -> list[str]:
        """Addresses of the workers."""
        return sorted(dask_client(self.executor).nthreads())

    def each(self, function: Callable[[Any], Part]) -> list[Part]:
        """Return ``function(made)`` of each: only that comes to the client."""
        found = [dask_client(self.executor).submit(_alone, function, one, pure=False) for one in self.made]
        return [_result(future, executor=self.executor) for future in found]

    def add_up(
        self, parts: Sequence[Item], *, cut: Callable[[Any, Item], Any], add: Callable[[Array, list[Any]], Array]
    ) -> Array:
        """Return ``total = add(total, [cut(made, part) of each])`` over the parts, in order, from a total of 0.

        Workers have a share of the parts each, and what is cut off for them goes there and nowhere else.
        """
        client, workers = dask_client(self.executor), self.workers
        total: Any = np.zeros(())
        for at, part in enumerate(parts):
            pieces = [client.submit(cut, one, part, pure=False) for one in self.made]
            owner = workers[at * len(workers) // len(parts)]
            total = client.submit(
                _alone_with, add, total, pieces, pure=False, workers=[owner], allow_other_workers=True
            )
        return np.array(_result(total, executor=self.executor))  # what came may not be written to


def is_cluster(executor: Executor) -> bool:
    """Say whether an executor is that of a Dask client."""
    return dask_client(executor) is not None


def keep_each(function: Callable[[Item], Any], items: Iterable[Item], *, executor: Executor) -> OnCluster:
    """Have a Dask cluster make ``function(item)`` of every item, and leave that where it was made."""
    _threads_of(executor)  # which refuses workers of another version
    work = partial(_alone, function)
    return OnCluster(executor, [dask_client(executor).submit(work, item, pure=False) for item in items])


def _threads_of(executor: Executor) -> int:
    """Return how many items are under way at a time: as many as a Dask cluster has threads, and one that waits."""
    client = dask_client(executor)
    if client is None:
        return 2 * (os.cpu_count() or 1)
    threads: dict[str, int] = client.nthreads()
    _check_versions(client, frozenset(threads))
    return max(1, sum(threads.values())) + 1


@lru_cache(maxsize=1)
def _check_versions(client: Any, workers: frozenset[str]) -> None:
    """Raise `ValueError` where workers have another version of fmcluster; of the same workers, they are asked once."""
    here = version("fmcluster")
    found = client.run(version, "fmcluster", workers=sorted(workers), on_error="return")
    for worker, there in sorted(found.items()):
        if isinstance(there, ModuleNotFoundError) or (isinstance(there, str) and there != here):
            has = f"fmcluster {there}" if isinstance(there, str) else "no fmcluster"
            raise ValueError(
                f"the Dask worker {worker} has {has}, and this process fmcluster {here}; install the same version on "
                f"all workers, and start them again"
            )


@contextmanager
def own_threads(executor: Executor | None, *, most: int) -> Iterator[Executor | None]:
    """Yield an executor: the one given, or else threads for as long as this lasts; None where one would do.

    Parameters
    ----------
    executor : concurrent.futures.Executor or None
        The user's.
    most : int
        How many threads there may be. There is one for a core at most.
    """
    most = min(most, os.cpu_count() or 1)
    if executor is not None or most < 2:
        yield executor
        return
    with _OwnThreads(most) as threads:
        yield threads


class _OwnThreads(ThreadPoolExecutor):
    def __init__(self, most: int) -> None:
        super().__init__(most, thread_name_prefix="fmcluster-worker")
        self.most = most + 1  # one waits for the next that is free


def alone_in_thread() -> None:
    """Have OpenMP, and torch with it, take one thread for what this thread asks for, from now on.

    Each thread has a number of its own. A reader with as many as the machine has cores would have them wait, busily,
    for one another and for whoever works on what it reads.
    """
    _await_torch()
    _libraries().limit(limits=1, user_api="openmp")


@contextmanager
def blas_in_one_thread() -> Iterator[None]:
    """Have BLAS take one thread, as long as this lasts.

    It has one number of threads for all of a process, and what else sets it while this lasts leaves it at one. So does
    whoever hands work to threads, before the first of them begins.
    """
    with _libraries().limit(limits=1, user_api="blas"):
        yield


@contextmanager
def in_one_thread() -> Iterator[None]:
    """Have BLAS, OpenMP and torch take one thread each, as long as this lasts.

    In many small products the threads of BLAS wait, busily, for those of torch that read, and take several times as
    long.
    """
    _await_torch()
    with _libraries().limit(limits=1):
        yield


def _result(future: "Future[Part]", *, executor: Executor) -> Part:
    """Return what a worker found; what one of a Dask cluster did not reach is told as that of a worker."""
    try:
        return future.result()
    except Unreachable as error:
        if dask_client(executor) is not None:
            error.add_note("A worker of the Dask cluster did not reach it: what is set here has to be set there, too.")
        raise


def _alone(function: Callable[[Item], Part], item: Item) -> Part:
    with in_one_thread():
        return function(item)


def _alone_with(function: Callable[[Array, list[Any]], Array], total: Array, pieces: list[Any]) -> Array:
    with in_one_thread():
        return function(total, pieces)


def _libraries() -> ThreadpoolController:
    """Return what sets the number of threads of the libraries that are loaded; to look for them takes milliseconds."""
    return _find_libraries(len(sys.modules))


@lru_cache(maxsize=1)
def _find_libraries(_n_modules: int) -> ThreadpoolController:
    return ThreadpoolController()


def _await_torch() -> None:
    if "torch" in sys.modules:  # it would set its own number of threads at its first use in this thread
        import_module("torch").get_num_threads()  # waits where another thread is just importing it


def _refuse_forks(executor: Executor) -> None:
    if start_method(executor) == "fork":
        raise ValueError(
            "the executor forks its processes, and a fork of a process with threads can hang; make it with "
            'ProcessPoolExecutor(mp_context=multiprocessing.get_context("spawn"))'
        )
