"""Stages: nothing of them stays, not even of a process that was killed; and nothing else goes."""

import errno
import os
from contextlib import nullcontext
from pathlib import Path

import pytest

from fmcluster.store import stage
from fmcluster.store.files import _stage
from tests.store.killed import kill_inside


def names(folder: Path) -> list[str]:
    return sorted(each.name for each in folder.iterdir())


@pytest.mark.parametrize("error", [None, ValueError, KeyboardInterrupt])
def test_nothing_stays(error: type[BaseException] | None, tmp_path: Path) -> None:
    with pytest.raises(error) if error else nullcontext(), stage(tmp_path / "out") as folder:
        (folder / "file").write_text("half")
        assert [each.is_dir() for each in tmp_path.iterdir()] == [True]
        if error is not None:
            raise error
    assert names(tmp_path) == []


@pytest.mark.skipif(not hasattr(os, "fork"), reason="what kills is POSIX's")
def test_what_a_killed_process_left_goes_with_the_next_stage_of_the_same_target(tmp_path: Path) -> None:
    kill_inside(tmp_path / "a.png", write="a.png")
    kill_inside(tmp_path / "b.png", write="b.png")
    assert len(names(tmp_path)) == 2
    with stage(tmp_path / "a.png"):
        assert len(names(tmp_path)) == 2
    assert [name.startswith(".b.png.") for name in names(tmp_path)] == [True]


def test_what_a_living_process_holds_stays(tmp_path: Path) -> None:
    with stage(tmp_path / "out") as first:
        (first / "file").write_text("whole")
        with stage(tmp_path / "out") as second:
            assert second != first
        assert (first / "file").read_text() == "whole"


def test_what_is_not_provably_a_stage_stays(tmp_path: Path) -> None:
    made = {
        ".out.abcdefgh.fmcluster/lock": "",  # with something else in it
        ".out.abcdefgh.fmcluster/mine.txt": "precious",
        ".out.ijklmnop.fmcluster/new/file": "precious",  # without a lock
        ".out.abc.fmcluster/lock": "",  # names that no stage has
        ".out.ABCDEFGH.fmcluster/lock": "",
        ".out.qrstuvwx.fmcluster": "a file",
        ".other.abcdefgh.fmcluster/lock": "",
    }
    for name, content in made.items():
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).write_text(content)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "lock").touch()
    (tmp_path / ".out.yyyyyyyy.fmcluster").symlink_to(tmp_path / "elsewhere")  # a link to what looks like one
    (tmp_path / ".out.zzzzzzzz.fmcluster").mkdir()
    (tmp_path / ".out.zzzzzzzz.fmcluster" / "lock").symlink_to(tmp_path / "elsewhere" / "lock")
    before = sorted(tmp_path.rglob("*"))
    with stage(tmp_path / "out"):
        pass
    assert sorted(tmp_path.rglob("*")) == before


def test_a_folder_of_another_user_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    left = tmp_path / ".out.abcdefgh.fmcluster"
    left.mkdir()
    (left / "lock").touch()
    monkeypatch.setattr(os, "geteuid", lambda: left.stat().st_uid + 1, raising=False)
    with stage(tmp_path / "out"):
        pass
    assert left.exists()
    monkeypatch.undo()
    with stage(tmp_path / "out"):
        pass
    assert not left.exists()


def test_where_the_disk_knows_no_locks_it_writes_and_nothing_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = tmp_path / ".out.abcdefgh.fmcluster"
    left.mkdir()
    (left / "lock").touch()

    def refuse(*_: object, **__: object) -> None:
        raise NotImplementedError("FileSystem does not appear to support flock")

    monkeypatch.setattr(_stage.FileLock, "acquire", refuse)
    with stage(tmp_path / "out") as folder:
        assert names(folder.parent) == ["new"]
    assert names(tmp_path) == [left.name]


def test_a_folder_that_another_process_took_for_an_abandoned_one_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    acquire, removed = _stage.FileLock.acquire, []

    def attempt(lock: _stage.FileLock, *args: object, **kwargs: object) -> object:
        if not removed:
            removed.append(Path(lock.lock_file).parent)
            removed[0].rmdir()
        return acquire(lock, *args, **kwargs)

    monkeypatch.setattr(_stage.FileLock, "acquire", attempt)
    with stage(tmp_path / "out") as folder:
        assert removed == [folder.parent]
        (folder / "file").write_text("whole")
        with stage(tmp_path / "out"):
            pass
        assert (folder / "file").exists()
    assert names(tmp_path) == []


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EFBIG, errno.EDQUOT])
def test_of_a_disk_without_room_the_target_is_named(code: int, tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"out'$") as raised, stage(tmp_path / "out"):
        raise OSError(code, os.strerror(code))
    assert raised.value.filename == str(tmp_path / "out")
    with pytest.raises(FileNotFoundError) as other, stage(tmp_path / "out"):
        (tmp_path / "absent").read_text()
    assert other.value.filename == str(tmp_path / "absent")
