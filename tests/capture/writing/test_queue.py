"""The queue between capture and the disk: nothing is dropped, and what has to be alone is."""

import threading
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import fmcluster as fm
from fmcluster.capture.writing._queue import WriteQueue
from fmcluster.store import RunWriter, verify


def within(seconds: float, holds: Callable[[], bool]) -> bool:
    """Whether something comes to hold in time."""
    end = time.monotonic() + seconds
    while not holds() and time.monotonic() < end:
        time.sleep(0.005)
    return holds()


@settings(max_examples=30, deadline=None)
@given(alone=st.lists(st.booleans(), max_size=30))
def test_one_thread_keeps_the_order(alone: list[bool]) -> None:
    queue, done = WriteQueue(n_threads=1), []
    for number, by_itself in enumerate(alone):
        queue.put(lambda number=number: done.append(number), alone=by_itself)
    queue.close()
    assert done == list(range(len(alone)))


@settings(max_examples=30, deadline=None)
@given(
    work=st.lists(st.tuples(st.booleans(), st.sampled_from([0, 0, 0.001])), max_size=40), n_threads=st.integers(1, 4)
)
def test_all_is_done_once_and_what_is_alone_divides_before_from_after(work: list, n_threads: int) -> None:
    queue, events, lock = WriteQueue(n_threads=n_threads), [], threading.Lock()

    def do(number: int, seconds: float) -> None:
        with lock:
            events.append((number, "begins"))
        time.sleep(seconds)
        with lock:
            events.append((number, "ends"))

    for number, (alone, seconds) in enumerate(work):
        queue.put(lambda number=number, seconds=seconds: do(number, seconds), alone=alone)
    queue.wait()
    assert sorted(events) == sorted((n, what) for n in range(len(work)) for what in ("begins", "ends"))
    for number, (alone, _) in enumerate(work):
        if alone:
            begin, end = events.index((number, "begins")), events.index((number, "ends"))
            assert end == begin + 1
            assert {n for n, _ in events[:begin]} == set(range(number))
    queue.close()


@pytest.mark.parametrize("n_threads", [None, 2, 3])
def test_what_need_not_be_alone_goes_on_at_once(n_threads: int | None) -> None:
    """One encodes while another waits for the disk: each waits here until the others have begun."""
    queue, met = WriteQueue(n_threads=n_threads), threading.Barrier(n_threads or 2)
    done: list[int] = []
    for number in range(met.parties):
        queue.put(lambda number=number: (met.wait(10), done.append(number)))
    queue.close()
    assert sorted(done) == list(range(met.parties))


def test_waiting_ends_when_all_is_done_and_not_before() -> None:
    queue, may_go, done = WriteQueue(n_threads=2), threading.Event(), []
    for number in range(4):
        queue.put(lambda number=number: (may_go.wait(10), done.append(number)))
    patient = threading.Thread(target=queue.wait)
    patient.start()
    patient.join(0.1)
    assert patient.is_alive()
    may_go.set()
    patient.join(10)
    assert not patient.is_alive()
    assert sorted(done) == [0, 1, 2, 3]
    queue.close()


def test_closing_finishes_what_is_queued_and_ends_the_threads() -> None:
    queue, may_go, done = WriteQueue(n_threads=2), threading.Event(), []
    queue.put(lambda: may_go.wait(10))
    for number in range(5):
        queue.put(lambda number=number: done.append(number), alone=number == 2)
    closing = threading.Thread(target=queue.close)
    closing.start()
    closing.join(0.1)
    assert closing.is_alive()
    may_go.set()
    closing.join(10)
    assert sorted(done) == [0, 1, 2, 3, 4]
    assert done.index(2) == 2
    assert [thread.name for thread in threading.enumerate() if thread.name.startswith("fmcluster-writer")] == []


def test_what_raises_although_it_must_not_ends_no_thread() -> None:
    queue, done = WriteQueue(n_threads=2), []
    for alone in (True, False, True):
        queue.put(lambda: 1 / 0, alone=alone)
    queue.put(lambda: done.append(1))
    with pytest.raises(ZeroDivisionError):
        queue.wait()
    assert done == [1]
    queue.wait()
    queue.close()


def test_what_was_written_is_let_go_while_the_queue_is_idle() -> None:
    class Held:
        pass

    held = Held()
    alive = weakref.ref(held)
    queue = WriteQueue()
    queue.put(lambda held=held: None)
    del held
    queue.wait()
    assert within(10, lambda: alive() is None)
    queue.close()


@pytest.mark.slow
@pytest.mark.parametrize("limit", [1, 2000, 2**29])
def test_a_slow_disk_makes_capture_wait_and_drops_nothing(
    limit: int, net: nn.Module, data: list, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, order = RunWriter.write, []

    def slow(writer: RunWriter, layer: str, *, offset: int, **what: Any) -> None:
        time.sleep(0.002)
        order.append((writer.n_snapshots, offset, layer))
        write(writer, layer, offset=offset, **what)

    monkeypatch.setattr(RunWriter, "write", slow)
    with fm.Recorder(net, tmp_path / "run.zarr", probe=data, batch_size=4, max_pending_bytes=limit) as recorder:
        for epoch in range(3):
            recorder.snapshot(epoch=epoch)
        largest = 4 * 6 * 6 * 6 * 2
        assert 0 < recorder.peak_pending_bytes <= max(limit, largest)
    run = fm.open_run(tmp_path / "run.zarr")
    assert len(run) == 3
    assert verify(run) == []
    values = run["layer1"].read()
    assert (values == values[0]).all()
    assert not np.isnan(values).any()
    assert sorted(order) == sorted((k, offset, name) for k in range(3) for offset in (0, 4, 8) for name in run.layers)
    assert [k for k, _, _ in order] == sorted(k for k, _, _ in order)


@pytest.mark.slow
def test_capture_waits_for_a_disk_that_stands_still_where_there_is_no_room(
    net: nn.Module, data: list, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    may_write, write = threading.Event(), RunWriter.write
    monkeypatch.setattr(RunWriter, "write", lambda *a, **k: (may_write.wait(20), write(*a, **k)))
    with fm.Recorder(net, tmp_path / "run.zarr", probe=data, batch_size=4, max_pending_bytes=2000) as recorder:
        capture = threading.Thread(target=lambda: recorder.snapshot(epoch=0))
        capture.start()
        capture.join(0.3)
        assert capture.is_alive()
        assert recorder.peak_pending_bytes <= 2000
        may_write.set()
        capture.join(20)
        assert not capture.is_alive()
    assert len(fm.open_run(tmp_path / "run.zarr")) == 1


def test_capture_does_not_wait_where_there_is_room(
    net: nn.Module, data: list, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    may_write = threading.Event()
    write = RunWriter.write
    monkeypatch.setattr(RunWriter, "write", lambda *a, **k: (may_write.wait(10), write(*a, **k)))
    with fm.Recorder(net, tmp_path / "run.zarr", probe=data) as recorder:
        for epoch in range(2):
            recorder.snapshot(epoch=epoch)
        assert len(fm.open_run(tmp_path / "run.zarr")) == 0
        may_write.set()
        recorder.flush()
        assert len(fm.open_run(tmp_path / "run.zarr")) == 2


def test_the_threads_end_with_the_block(net: nn.Module, data: list, tmp_path: Path) -> None:
    with fm.Recorder(net, tmp_path / "run.zarr", probe=data) as recorder:
        recorder.snapshot(epoch=0)
        names = [thread.name for thread in threading.enumerate() if thread.name.startswith("fmcluster-writer")]
        assert names
    names = [thread.name for thread in threading.enumerate() if thread.name.startswith("fmcluster-writer")]
    assert names == []
