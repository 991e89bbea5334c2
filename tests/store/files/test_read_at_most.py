"""Reading what may lie: no link is followed, no FIFO waited for, and no more is read than is allowed."""

import os
import sys
from pathlib import Path

import pytest

from fmcluster import StoreError
from fmcluster.store.files import open_regular, read_at_most


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no FIFOs")
@pytest.mark.parametrize("what", ["FIFO", "link", "folder"])
def test_what_is_no_file_is_called_what_it_is(what: str, tmp_path: Path) -> None:
    (tmp_path / "precious").write_bytes(b"precious")
    path = tmp_path / "x"
    {"FIFO": os.mkfifo, "link": lambda path: path.symlink_to("precious"), "folder": Path.mkdir}[what](path)
    with pytest.raises(StoreError, match=rf"x is a {what}, not a file: it was not read"):
        open_regular(path)


def test_a_file_that_is_not_there_is_not(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        open_regular(tmp_path / "x")


def test_no_more_is_read_than_is_allowed(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"12345")
    assert read_at_most(path, 5) == b"12345"
    assert read_at_most(path, 4) is None
    os.truncate(path, 1 << 42)
    assert read_at_most(path, 1 << 40) is None
    path.write_bytes(b"")
    assert read_at_most(path, 0) == b""


def test_what_is_added_while_it_is_read_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After the file's size was asked for, it may become any size."""
    path = tmp_path / "x"
    path.write_bytes(b"12345")
    ask, asked = os.fstat, []

    def growing(handle: int) -> os.stat_result:
        asked.append(ask(handle))
        if len(asked) == 2:  # whether it is a file, and how large
            os.truncate(path, 1 << 40)
        return asked[-1]

    monkeypatch.setattr(os, "fstat", growing)
    assert read_at_most(path, 5) == b"12345"
    assert path.stat().st_size == 1 << 40
