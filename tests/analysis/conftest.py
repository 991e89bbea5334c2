"""Vectors without a store: a source that holds its maps in memory; and executors."""

import multiprocessing
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor

import numpy as np
import pytest

from fmcluster.vectors._vectors import Vectors, make_vectors
from tests.analysis.array_source import ArraySource


@pytest.fixture
def vectors_of() -> Callable[..., Vectors]:
    def make(maps: np.ndarray, view: str = "channel", **options: object) -> Vectors:
        defaults = {
            "snapshots": range(len(maps)),
            "samples": np.arange(maps.shape[1]),
            "n_rows": None,
            "scaling": "none",
            "random_state": 0,
        }
        return make_vectors(ArraySource(maps), view, **(defaults | options))

    return make


@pytest.fixture(
    scope="module",
    params=["threads", pytest.param("processes", marks=pytest.mark.slow), pytest.param("dask", marks=pytest.mark.slow)],
)
def executor(request: pytest.FixtureRequest) -> Iterator[Executor]:
    """Each kind that passes take, with more than one worker."""
    if request.param == "threads":
        with ThreadPoolExecutor(3) as threads:
            yield threads
    elif request.param == "processes":
        with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as processes:
            yield processes
    else:
        yield request.getfixturevalue("cluster")


@pytest.fixture(scope="module")
def cluster() -> Iterator[Executor]:
    """Two workers of a Dask cluster, as the command line has them."""
    distributed = pytest.importorskip("distributed", reason="the extra [dask] is not installed")
    with (
        distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0") as workers,
        distributed.Client(workers, set_as_default=False) as client,
    ):
        yield client.get_executor()
