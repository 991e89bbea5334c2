"""Passes over parts, on executors; and what a pass leaves out."""

import multiprocessing
import sys
from collections.abc import Iterator
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from types import ModuleType
from unittest.mock import Mock

import numpy as np
import pytest
from threadpoolctl import ThreadpoolController, threadpool_info, threadpool_limits

from fmcluster.analysis import pca
from fmcluster.analysis._parallel import in_one_thread, own_threads, run_each
from fmcluster.errors import Unreachable


def maps_of(seed: int, shape: tuple[int, ...]) -> np.ndarray:
    return np.maximum(np.random.default_rng(seed).standard_normal(shape), 0).astype(np.float16)


def halve(number: int) -> float:
    return number / 2


@pytest.mark.slow
def test_parts_come_in_order_and_are_taken_as_they_are_needed(executor: Executor) -> None:
    taken = []

    def items() -> Iterator[int]:
        for number in range(200):
            taken.append(number)
            yield number

    parts = run_each(halve, items(), executor=executor)
    assert next(parts) == 0
    assert len(taken) < 100
    assert list(parts) == [number / 2 for number in range(1, 200)]


def test_an_error_in_a_part_is_raised(executor: Executor) -> None:
    with pytest.raises(TypeError):
        list(run_each(halve, [1, "two"], executor=executor))


def reach(_item: int) -> None:
    raise Unreachable("s3://bucket/run.zarr cannot be reached: there are no credentials.")


def test_what_a_worker_of_a_cluster_does_not_reach_is_told_as_that_of_a_worker() -> None:
    cluster = Mock(nthreads=lambda: {"tcp://worker": 1}, run=lambda *_, **__: {})
    with ThreadPoolExecutor(1) as threads:
        with pytest.raises(Unreachable) as here:
            list(run_each(reach, [1], executor=threads))
        assert not hasattr(here.value, "__notes__")
        threads._client = cluster
        with pytest.raises(Unreachable) as there:
            list(run_each(reach, [1], executor=threads))
        assert there.value.__notes__ == [
            "A worker of the Dask cluster did not reach it: what is set here has to be set there, too."
        ]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("view", "options", "method"),
    [
        ("channel", {}, "gram"),
        ("channel", {"scaling": "unit"}, "gram"),
        ("channel", {"scaling": "centered", "n_rows": 5}, "gram"),
        ("feature_map", {}, "covariance"),
        ("feature_map", {"max_bytes": 640_000}, "randomized"),
    ],
)
def test_numbers_do_not_depend_on_the_executor(view, options, method, executor, vectors_of, monkeypatch) -> None:
    monkeypatch.setattr("fmcluster.analysis.components._plan_reading.BLOCK_BYTES", 20_000)
    options = dict(options)
    max_bytes = options.pop("max_bytes", 1 << 30)
    shape = (3, 16, 10, 12, 12) if method != "randomized" else (1, 14, 30, 20, 20)
    vectors = vectors_of(maps_of(0, shape), view, **options)
    here = pca(vectors, n_components=4, components=True, max_bytes=max_bytes)
    there = pca(vectors, n_components=4, components=True, max_bytes=max_bytes, executor=executor)
    assert here.method == there.method == method
    np.testing.assert_allclose(there.singular_values, here.singular_values, rtol=1e-6)
    np.testing.assert_allclose(there.values, here.values, rtol=1e-6, atol=1e-6 * np.abs(here.values).max())
    np.testing.assert_allclose(there.components, here.components, atol=1e-5)
    assert there.error == pytest.approx(here.error, rel=1e-3)


def threads_of_blas(_item: int) -> int:
    return max(each["num_threads"] for each in threadpool_info() if each["user_api"] == "blas")


def test_workers_multiply_with_one_thread_each_and_give_the_others_back(executor: Executor) -> None:
    np.ones((2, 2)) @ np.ones((2, 2))
    with threadpool_limits(2, user_api="blas"):
        assert set(run_each(threads_of_blas, range(6), executor=executor)) == {1}
        assert threads_of_blas(0) == 2
        unfinished = run_each(threads_of_blas, range(6), executor=executor)
        next(unfinished)
        unfinished.close()
        assert threads_of_blas(0) == 2


def test_in_one_thread_nothing_takes_two_and_all_have_theirs_again_after_it() -> None:
    np.ones((2, 2)) @ np.ones((2, 2))
    with threadpool_limits(2):
        with in_one_thread():
            assert {each["num_threads"] for each in threadpool_info()} == {1}
        assert {each["num_threads"] for each in threadpool_info()} == {2}


def test_libraries_are_looked_for_once_until_more_is_loaded(monkeypatch) -> None:
    looked = []
    monkeypatch.setattr(
        "fmcluster.analysis._parallel.ThreadpoolController", lambda: looked.append(True) or ThreadpoolController()
    )
    with ThreadPoolExecutor(1) as threads:
        monkeypatch.setitem(sys.modules, "loaded for the test", ModuleType("first"))
        list(run_each(halve, range(6), executor=threads))
        assert len(looked) == 1
        monkeypatch.setitem(sys.modules, "loaded later for the test", ModuleType("later"))
        list(run_each(halve, range(6), executor=threads))
        assert len(looked) == 2


@pytest.mark.parametrize(("cores", "most", "expected"), [(4, 3, 3), (2, 3, 2), (4, 1, None), (1, 3, None)])
def test_own_threads_are_as_many_as_cores_and_memory_allow(monkeypatch, cores, most, expected) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: cores)
    with own_threads(None, most=most) as threads:
        assert (threads is None) == (expected is None)
        if threads is not None:
            assert threads._max_workers == expected
            assert list(run_each(halve, range(20), executor=threads)) == [number / 2 for number in range(20)]


def test_the_users_executor_comes_before_own_threads() -> None:
    with ThreadPoolExecutor(1) as mine, own_threads(mine, most=8) as used:
        assert used is mine


def test_forked_processes_are_refused() -> None:
    with (
        ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("fork")) as forked,
        pytest.raises(ValueError, match=r"forks its processes.*get_context\(\"spawn\"\)"),
    ):
        list(run_each(halve, [1], executor=forked))
