"""A run in a folder of this machine: what lies there, and what is removed of it."""

import errno
import os
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from fmcluster import StoreError
from fmcluster.store import RunWriter, open_run, verify
from fmcluster.store.files import _disk
from fmcluster.store.writing._folder import Folder


def test_what_lies_in_a_folder(tmp_path: Path, stored: Path) -> None:
    assert Folder(tmp_path / "none", locked=False).content() == "nothing"
    (tmp_path / "file").touch()
    assert Folder(tmp_path / "file", locked=False).content() == "other"
    (tmp_path / "pictures").mkdir()
    assert Folder(tmp_path / "pictures", locked=False).content() == "unfinished"  # empty
    (tmp_path / "pictures/cat.png").touch()
    assert Folder(tmp_path / "pictures", locked=False).content() == "other"
    assert Folder(stored, locked=False).content() == "run"


def test_a_run_is_removed_from_a_folder_and_nothing_beside_it(tmp_path: Path, stored: Path) -> None:
    (tmp_path / "beside").touch()
    Folder(stored, locked=False).remove_run()
    assert [path.name for path in tmp_path.iterdir()] == ["beside"]


def test_of_one_that_breaks_off_what_is_left_holds_nothing(stored: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: object) -> None:
        raise OSError("broken off")

    monkeypatch.setattr("fmcluster.store.writing._folder.shutil.rmtree", full)
    with pytest.raises(OSError, match="broken off"):
        Folder(stored, locked=False).remove_run()
    assert Folder(stored, locked=False).content() == "unfinished"
    with pytest.raises(StoreError, match="was interrupted before it was created"):
        open_run(stored)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
def test_a_shard_that_cannot_be_flushed_does_not_count(
    code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, contents: ModuleType
) -> None:
    def fail(_: int) -> None:
        raise OSError(code, os.strerror(code))

    with RunWriter(tmp_path / "run.zarr") as writer:
        writer.create(contents.SPECS, n_samples=contents.N_SAMPLES, shard_samples=contents.SHARD, kind="probe")
        contents.write_maps(writer, 0)
        values = contents.activation(contents.SPECS[0], 0)[: contents.SHARD]
        with monkeypatch.context() as patch:
            patch.setattr("fmcluster.store.writing._folder.flushes_at_once", lambda _: False)
            patch.setattr(os, "fsync", fail)
            with pytest.raises(OSError, match=os.strerror(code)):
                writer.write("conv1", offset=0, values=values)
        one = {"epoch": 0, "step": 0, "index": np.arange(contents.N_SAMPLES), "metrics": {}, "clipped": {}}
        with pytest.raises(StoreError, match=r"c\.0\.0\.0\.0\.0 was not written, or is gone"):
            writer.commit(statistics=contents.all_statistics(0), **one)
        writer.write("conv1", offset=0, values=values)
        writer.commit(statistics=contents.all_statistics(0), **one)
    assert verify(open_run(tmp_path / "run.zarr")) == []


def test_a_commit_that_readers_see_is_one_though_the_disk_failed_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, contents: ModuleType
) -> None:
    """The folder cannot be flushed once the new root is in it: were the snapshot given up, a root would name it."""
    path, flushed = tmp_path / "run.zarr", _disk.flush
    contents.record(path, mode="x", n_snapshots=1)

    def fail(paths: object) -> None:
        listed = list(paths)
        if listed == [path]:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        flushed(listed)

    with monkeypatch.context() as patch:
        patch.setattr(_disk, "flush", fail)
        contents.record(path, mode="a", n_snapshots=3)
    run = open_run(path)
    assert len(run) == 3
    assert verify(run) == []


def test_a_root_that_could_not_be_replaced_is_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, contents: ModuleType
) -> None:
    path = tmp_path / "run.zarr"
    contents.record(path, mode="x", n_snapshots=1)
    before = (path / "zarr.json").read_bytes()

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("fmcluster.store.writing._folder.replace_file", full)
    with pytest.raises(OSError, match="No space"):
        Folder(path, locked=False).keep_root(before + b" ")
    assert (path / "zarr.json").read_bytes() == before
