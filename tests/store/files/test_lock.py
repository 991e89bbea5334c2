"""The lock of a run: a writer holds it, and whoever reads can tell a recording that has begun from one that ended."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event, Thread

import pytest

from fmcluster import StoreError
from fmcluster.errors import NoSnapshotYet
from fmcluster.store import LayerSpec, RunWriter, open_run
from fmcluster.store.files._lock import has_writer
from fmcluster.store.format._metadata import UNFINISHED

BEGUN = "holds no whole snapshot yet: its recording has begun and goes on"


def nothing(path: Path, writer: RunWriter) -> None:
    """The writer has the lock, and has made nothing."""


def folder(path: Path, writer: RunWriter) -> None:
    path.mkdir()


def unfinished(path: Path, writer: RunWriter) -> None:
    path.mkdir()
    (path / "zarr.json").write_bytes(UNFINISHED)


def laid_out(path: Path, writer: RunWriter) -> None:
    writer.create([LayerSpec("fc", (2,), "float16", "Linear")], n_samples=2, shard_samples=2, kind="probe")


STATES = {
    nothing: (FileNotFoundError, "there is no run at"),
    folder: (FileNotFoundError, r"holds no zarr\.json"),
    unfinished: (StoreError, r"was interrupted .* Record it again"),
    laid_out: (StoreError, r"no whole snapshot yet; record one with Recorder\.snapshot"),
}


def read(path: Path) -> None:
    open_run(path).resolve(snapshot=0)


@pytest.mark.parametrize("state", STATES, ids=lambda state: state.__name__)
def test_a_recording_that_has_begun_is_told_from_one_that_ended(state: Callable[..., None], tmp_path: Path) -> None:
    path = tmp_path / "run.zarr"
    with RunWriter(path) as writer:
        state(path, writer)
        with pytest.raises(NoSnapshotYet, match=BEGUN):
            read(path)
    kind, message = STATES[state]
    with pytest.raises(kind, match=message) as caught:
        read(path)
    assert not isinstance(caught.value, NoSnapshotYet)


def test_a_run_that_has_snapshots_is_read_whoever_writes(stored: Path) -> None:
    with RunWriter(stored, mode="a"):
        run = open_run(stored)
        assert run.is_being_written
        assert run.resolve(snapshot=0) == 0
    assert not run.is_being_written


def test_a_damaged_run_is_damaged_also_while_it_is_written(stored: Path) -> None:
    with RunWriter(stored, mode="a"):
        (stored / "zarr.json").write_text("{")
        with pytest.raises(StoreError, match="is damaged") as caught:
            open_run(stored)
    assert not isinstance(caught.value, NoSnapshotYet)


@contextmanager
def asked_all_the_time(path: Path) -> Iterator[list[bool]]:
    stop, answers = Event(), []

    def ask() -> None:
        while not stop.is_set():
            answers.append(has_writer(str(path)))

    asking = Thread(target=ask)
    asking.start()
    try:
        yield answers
    finally:
        stop.set()
        asking.join()


@pytest.mark.slow
def test_who_asks_keeps_no_writer_out(tmp_path: Path) -> None:
    path = tmp_path / "run.zarr"
    with asked_all_the_time(path) as answers:
        for _ in range(30):
            with RunWriter(path):
                before = len(answers)
                while len(answers) < before + 2:
                    continue
                assert answers[-1]
    assert not has_writer(str(path))


def test_asking_leaves_no_file(tmp_path: Path) -> None:
    assert not has_writer(str(tmp_path / "run.zarr"))
    assert list(tmp_path.iterdir()) == []


def test_a_writer_that_wrote_nothing_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "er" / "run.zarr"
    with RunWriter(path):
        assert has_writer(str(path))
        (tmp_path / "deep" / "other").touch()
    assert not (tmp_path / "deep" / "er").exists()
    assert (tmp_path / "deep" / "other").exists()


def test_one_writer_at_a_time_also_where_each_takes_the_lock_away(tmp_path: Path) -> None:
    path, inside, most, entered = tmp_path / "run.zarr", [], [], []

    def write() -> None:
        for _ in range(50):
            with suppress(StoreError), RunWriter(path):
                inside.append(1)
                most.append(len(inside))
                entered.append(1)
                inside.pop()

    writers = [Thread(target=write) for _ in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert len(entered) > 50
    assert max(most) == 1


def test_a_run_that_ended_while_it_was_asked_for_is_read(
    stored: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the look at the root and the look at the lock, the writer has laid out, committed and left."""
    path = tmp_path / "new.zarr"

    def ended(_path: str) -> bool:
        shutil.copytree(stored, path)
        return False

    monkeypatch.setattr("fmcluster.store.format._check_root.has_writer", ended)
    assert len(open_run(path)) == 3


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="needs a folder in which nothing can be made")
def test_a_place_where_no_lock_can_be_made_is_not_taken_for_one_that_is_held() -> None:
    with pytest.raises(OSError, match=r"/proc/self/run\.zarr\.lock"):
        RunWriter("/proc/self/run.zarr")
