"""Pages as files: what is said where one cannot be written."""

import errno
from pathlib import Path

import pytest

from fmcluster.report._files import checked_target


@pytest.mark.parametrize(
    ("number", "advice"),
    [
        (errno.EMFILE, r"too many open files\. Once this process may open more files \(ulimit -n\), write it again$"),
        (errno.EROFS, "of the folder .*; choose another with -o or the path$"),
    ],
    ids=["files", "folder"],
)
def test_the_advice_fits_the_fault(number: int, advice: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**_: object) -> None:
        raise OSError(number, {errno.EMFILE: "Too many open files"}.get(number, "Read-only file system"))

    monkeypatch.setattr("fmcluster.report._files.TemporaryFile", refuse)
    with pytest.raises(OSError, match=advice):
        checked_target(tmp_path / "page.html")
