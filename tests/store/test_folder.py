"""A run in a folder of this machine: what lies there, and what is removed of it."""

from pathlib import Path

import pytest

from fmcluster import StoreError
from fmcluster.store import open_run
from fmcluster.store._folder import Folder


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

    monkeypatch.setattr("fmcluster.store._folder.shutil.rmtree", full)
    with pytest.raises(OSError, match="broken off"):
        Folder(stored, locked=False).remove_run()
    assert Folder(stored, locked=False).content() == "unfinished"
    with pytest.raises(StoreError, match="was interrupted before it was created"):
        open_run(stored)
