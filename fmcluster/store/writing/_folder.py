"""Folder of a run on this machine: its lock, and files that are on the disk before anything points to them."""

import os
import shutil
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from ...errors import StoreError
from ..files import (
    flush,
    flush_below,
    flushes_at_once,
    free_lock,
    local_path,
    read_at_most,
    replace_file,
    replace_unawaited,
    take_lock,
    walk,
)
from ..format import UNFINISHED, check_no_links, load_root
from ._storage import Content, check_own, content_of_root, files_from


class Folder:
    """Keeps a run in a folder of this machine; see `Storage`.

    Parameters
    ----------
    path : path-like
        The run's folder.
    locked : bool
        Whether to take the run's lock.

    Raises
    ------
    ValueError
        For a URL.
    StoreError
        Where another writer holds the lock.
    """

    def __init__(self, path: str | os.PathLike[str], *, locked: bool = True) -> None:
        self.folder = local_path(path)
        self.name = str(self.folder)
        self._lock = None
        if not locked:
            return
        self._made = [folder for folder in self.folder.parents if not folder.exists()]  # innermost first
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        self._lock = take_lock(self.folder)

    def content(self) -> Content:
        """Say what lies there."""
        path = self.folder
        if not path.exists():
            return "nothing"
        if not path.is_dir():
            return "other"
        names = {child.name for child in path.iterdir()}
        if "zarr.json" not in names:
            return "unfinished" if names <= {"zarr.json.partial"} else "other"
        return content_of_root(load_root(path))

    def resume(self, root: Mapping[str, Any]) -> None:
        """Remove metadata that was being replaced, also where nothing is left to record."""
        check_no_links(self.folder)
        for entry in list(walk(self.folder)):
            if entry.name.endswith(".partial") and entry.is_file():  # a layer may be called so, too
                Path(entry.path).unlink()

    def join(self, root: Mapping[str, Any]) -> None:
        """Nothing is to be done: what the writer has made lies here."""

    def create(self) -> None:
        """Make the folder, with the root of a run that holds nothing."""
        self.folder.mkdir(parents=True, exist_ok=True)
        replace_file(self.folder / "zarr.json", UNFINISHED)

    def keep_part(self, file: Path, *, read_again: bool = False) -> None:
        """Wait until a file is on the disk, unless the commit does so for all of them in one call."""
        if not flushes_at_once(file.parent):
            flush([file])

    def keep(self, paths: Iterable[Path], *, replaces: bool = False) -> None:
        """Wait until files and folders are on the disk."""
        flush_below(self.folder, paths)

    def keep_nodes(self, nodes: Mapping[str, bytes]) -> None:
        """Replace the metadata of arrays."""
        for path, content in nodes.items():
            replace_unawaited(self.folder / path / "zarr.json", content)

    def keep_root(self, content: bytes) -> None:
        """Replace the root; where the disk fails once the new one is there, readers see that one, and it stays."""
        path = self.folder / "zarr.json"
        try:
            replace_file(path, content)
        except OSError:
            with suppress(OSError, StoreError):
                if read_at_most(path, len(content)) == content:
                    return
            raise

    def committed(self) -> None:
        """Nothing is to be done: files lie where they were made."""

    def has(self, name: str) -> bool:
        """Whether a file is there."""
        return (self.folder / name).exists()

    def read(self, name: str) -> bytes:
        """Return what a file holds."""
        return (self.folder / name).read_bytes()

    def remove(self, names: Iterable[str]) -> None:
        """Remove files."""
        for name in names:
            (self.folder / name).unlink(missing_ok=True)

    def remove_from(self, snapshot: int, *, arrays: Iterable[str]) -> None:
        """Remove the files of a snapshot and of those after it."""
        for file in files_from(snapshot, folder=self.folder, arrays=arrays):
            file.unlink(missing_ok=True)  # a rank removes its own

    def remove_run(self) -> None:
        """Remove the folder, its root last."""
        if self.folder.is_symlink():
            raise FileExistsError(
                f"{self.name} is a link, and what lies elsewhere is not removed: nothing was changed. Pass the folder "
                f"to which it leads, or another path."
            )
        for entry in walk(self.folder):
            if entry.is_file(follow_symlinks=False):
                check_own(os.path.relpath(entry.path, self.folder).replace(os.sep, "/"), run=self.name)
        if (self.folder / "zarr.json").exists():
            replace_file(self.folder / "zarr.json", UNFINISHED)
        for child in self.folder.iterdir():
            if child.is_dir() and not child.is_symlink():
                shutil.rmtree(child)
        shutil.rmtree(self.folder)

    def close(self) -> None:
        """Release the lock; where nothing was recorded, nothing is left."""
        if self._lock is not None:
            free_lock(self._lock, run=self.folder, made=self._made)
