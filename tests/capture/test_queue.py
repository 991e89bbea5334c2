"""The queue between capture and the writer: bounded, in order, and nothing is dropped."""

import threading
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import fmcluster as fm
from fmcluster.capture.queue import WriteQueue
from fmcluster.store import RunWriter, verify


@settings(max_examples=40, deadline=None)
@given(sizes=st.lists(st.integers(0, 50), max_size=30), limit=st.integers(1, 60))
def test_order_is_kept_and_the_limit_too(sizes: list[int], limit: int) -> None:
    queue, done = WriteQueue(max_pending_bytes=limit), []
    for number, size in enumerate(sizes):
        queue.put(lambda number=number: done.append(number), nbytes=size)
    queue.close()
    assert done == list(range(len(sizes)))
    assert queue.peak_bytes <= max([limit, *sizes])


def test_a_full_queue_makes_who_puts_wait() -> None:
    queue, may_go, done = WriteQueue(max_pending_bytes=10), threading.Event(), []

    def work(name: str) -> None:
        may_go.wait(10)
        done.append(name)

    queue.put(lambda: work("a"), nbytes=6)
    queue.put(lambda: work("b"), nbytes=4)
    third = threading.Thread(target=lambda: queue.put(lambda: work("c"), nbytes=1))
    third.start()
    third.join(0.1)
    assert third.is_alive()
    assert done == []
    may_go.set()
    third.join(10)
    queue.wait()
    assert done == ["a", "b", "c"]
    assert queue.peak_bytes == 10
    queue.close()


def test_an_item_larger_than_the_queue_passes_alone() -> None:
    queue, may_go = WriteQueue(max_pending_bytes=10), threading.Event()
    queue.put(lambda: may_go.wait(10), nbytes=99)
    second = threading.Thread(target=lambda: queue.put(lambda: None, nbytes=1))
    second.start()
    second.join(0.1)
    assert second.is_alive()
    may_go.set()
    second.join(10)
    queue.close()
    assert queue.peak_bytes == 99


@pytest.mark.parametrize("limit", [1, 2000, 2**29])
def test_a_slow_disk_makes_capture_wait_and_drops_nothing(
    limit: int, net: nn.Module, data: list, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, order = RunWriter.write, []

    def slow(writer: RunWriter, layer: str, *, offset: int, values: Any) -> None:
        time.sleep(0.002)
        order.append((writer.n_snapshots, offset, layer))
        write(writer, layer, offset=offset, values=values)

    monkeypatch.setattr(RunWriter, "write", slow)
    with fm.Recorder(net, tmp_path / "run.zarr", probe=data, batch_size=4, max_pending_bytes=limit) as recorder:
        for epoch in range(3):
            recorder.snapshot(epoch=epoch)
        largest = 4 * 6 * 6 * 6 * 2
        pictures = 4 * 12 * 12 * 3
        assert 0 < recorder.peak_pending_bytes <= max(limit, largest, pictures)
    run = fm.open_run(tmp_path / "run.zarr")
    assert len(run) == 3
    assert verify(run) == []
    expected = [(k, offset, name) for k in range(3) for offset in (0, 4, 8) for name in run.layers]
    assert order == expected


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
    before = threading.active_count()
    with fm.Recorder(net, tmp_path / "run.zarr", probe=data) as recorder:
        recorder.snapshot(epoch=0)
    names = [thread.name for thread in threading.enumerate() if thread.name.startswith("fmcluster")]
    assert names == [], before
