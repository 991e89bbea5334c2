"""Files of results beside a run: in a folder of this machine, or in an object store."""

from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Protocol

from ..store import read_object, write_object
from ._results import MAX_BYTES


def results_beside(run: str) -> str:
    """Return the folder, or the URL, of the results of a run at a path or a URL."""
    return f"{run.rstrip('/')}.results"


class ResultFiles(Protocol):
    """What holds results, by the names of their files."""

    def path_of(self, name: str) -> str:
        """Return the path, or the URL, of a file."""

    def find(self, name: str) -> Path | BytesIO | None:
        """Return what holds a result, where there is one."""

    def write(self, name: str, make: Callable[[Path], None]) -> None:
        """Keep the file that is made at the path which `make` gets."""


def result_files(where: Path | str) -> ResultFiles:
    """Return the files in a folder, or at a URL."""
    return _InBucket(where) if isinstance(where, str) else _InFolder(where)


class _InFolder:
    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def path_of(self, name: str) -> str:
        return str(self._folder / name)

    def find(self, name: str) -> Path | None:
        path = self._folder / name
        return None if path.is_symlink() or not path.is_file() else path

    def write(self, name: str, make: Callable[[Path], None]) -> None:
        make(self._folder / name)


class _InBucket:
    def __init__(self, url: str) -> None:
        self._url = url

    def path_of(self, name: str) -> str:
        return f"{self._url}/{name}"

    def find(self, name: str) -> BytesIO | None:
        content = read_object(self.path_of(name), at_most=MAX_BYTES)
        return None if content is None else BytesIO(content)

    def write(self, name: str, make: Callable[[Path], None]) -> None:
        with TemporaryDirectory() as folder:
            file = Path(folder) / name
            make(file)
            write_object(self.path_of(name), file.read_bytes())
