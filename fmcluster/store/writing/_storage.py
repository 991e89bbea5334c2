"""Storage: where a run is kept while it is written, a folder of this machine or an object store."""

import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, Protocol

from ..format import KEY, is_own

Content = Literal["nothing", "unfinished", "run", "other"]


class Storage(Protocol):
    """Where a run is kept; its files are made in a folder of this machine, and kept from there.

    What was kept outlives the process and the machine's loss of power. Names of files are paths within the run.

    Attributes
    ----------
    name : str
        What the user calls the run: a path, or a URL.
    folder : Path
        In which its files are made.
    """

    name: str
    folder: Path

    def content(self) -> Content:
        """Say what lies there."""

    def resume(self, root: Mapping[str, Any]) -> None:
        """Make ready to write into the run that lies there, and has this root."""

    def join(self, root: Mapping[str, Any]) -> None:
        """Make ready to write shards into the run that another process, its writer, has created with this root."""

    def create(self) -> None:
        """Make ready to write a run where none lies."""

    def keep_part(self, file: Path, *, read_again: bool = False) -> None:
        """Keep a file of the pending snapshot, by the next `keep` at the latest; several threads may do so at once.

        `read_again` says that `read` will be asked for it until the next snapshot is committed.
        """

    def keep(self, paths: Iterable[Path], *, replaces: bool = False) -> None:
        """Keep files, all that was made of the pending snapshot, and the folders named.

        `replaces` says that they may have been kept before, with other content.
        """

    def keep_nodes(self, nodes: Mapping[str, bytes]) -> None:
        """Keep the metadata of arrays, by their paths; what was kept before may be back after a loss of power."""

    def keep_root(self, content: bytes) -> None:
        """Keep the root: a reader sees the old one or the new one."""

    def committed(self) -> None:
        """Note that the root that was kept last names all files of the pending snapshot."""

    def has(self, name: str) -> bool:
        """Whether a file of the pending snapshot is there."""

    def read(self, name: str) -> bytes:
        """Return what a file holds; raise `OSError` or `StoreError` where it cannot be read."""

    def remove(self, names: Iterable[str]) -> None:
        """Remove files of the pending snapshot, those of them that are there."""

    def remove_from(self, snapshot: int, *, arrays: Iterable[str]) -> None:
        """Remove the files of a snapshot, and of those after it, of arrays over time."""

    def remove_run(self) -> None:
        """Remove all of the run; where this is interrupted, what is left is recognized as one that holds nothing.

        Raises
        ------
        FileExistsError
            Where there is more than a run. Nothing is removed then.
        """

    def close(self) -> None:
        """Let go of the run, so that another writer may open it."""


def content_of_root(root: Mapping[str, Any]) -> Content:
    """Say what a root is of."""
    attributes = root.get("attributes")
    known = attributes.get(KEY) if isinstance(attributes, dict) else None
    if not isinstance(known, dict):
        return "other"
    return "unfinished" if known.get("unfinished") else "run"


def check_own(name: str, *, run: str) -> None:
    """See that a file is one that a run has, before it is removed with it: whatever the root says.

    Raises
    ------
    FileExistsError
        Where it is somebody else's.
    """
    if not is_own(name):
        raise FileExistsError(
            f"{run} holds a file that is none of a run's, {name}, which would be removed with it: nothing was changed. "
            f"Move the file away, or pass another path."
        )


def files_from(snapshot: int, *, folder: Path, arrays: Iterable[str]) -> Iterator[Path]:
    """Yield the files of a snapshot, and of those after it, of arrays over time in a run's folder."""
    for path in arrays:
        within = folder / path
        for name in os.listdir(within) if within.is_dir() else ():  # noqa: PTH208  of thousands of files, five times as fast
            if snapshot_of(name) >= snapshot:
                yield within / name


def snapshot_of(name: str) -> int:
    """Return the number of the snapshot that a file of an array over time belongs to; -1 for other files.

    Examples
    --------
    >>> snapshot_of("layers/conv1/activation/c.12.0.0.0.0"), snapshot_of("epoch/zarr.json")
    (12, -1)
    """
    leaf = name.rpartition("/")[2]
    number = leaf[2:].partition(".")[0] if leaf.startswith("c.") else ""
    return int(number) if number.isdecimal() else -1
