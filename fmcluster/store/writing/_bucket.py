"""Bucket of a run: its files made in a folder of this machine, put into an object store, and the root last."""

import json
import tempfile
from collections.abc import Collection, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path
from threading import Lock
from typing import Any

from ...errors import StoreError, Unreachable
from ..files import (
    LARGEST_PUT,
    BucketLock,
    ConflictError,
    get_object,
    has_object,
    holds_parts_of_runs,
    list_bucket,
    open_bucket,
    put_object,
    remove_objects,
    stage,
)
from ..format import LARGEST, UNFINISHED, parse_root
from ._storage import Content, check_own, content_of_root, files_from, snapshot_of

_AT_ONCE = 8  # requests


class Bucket:
    """Keeps a run in an object store; see `Storage`.

    Files are made in the folder for temporary ones and put from there: shards by the threads that made them, all else
    with the commit, which ends with a put of the root that succeeds only while the one before lies there. Files of a
    snapshot are put where nothing lies, so that of two writers one fails, whatever has become of the lock.

    Parameters
    ----------
    url : str
        Where the run lies, such as ``s3://bucket/run.zarr``.
    locked : bool
        Whether to take the run's lock.

    Raises
    ------
    ImportError
        Where obstore is not installed.
    StoreError
        Where another writer holds the lock.
    Unreachable
        Where the store does not answer.
    """

    def __init__(self, url: str, *, locked: bool = True) -> None:
        self.name = url.rstrip("/")
        try:
            import obstore  # noqa: F401
        except ImportError as error:
            raise ImportError("recording into an object store needs obstore: pip install 'fmcluster[s3]'") from error
        self._bucket = open_bucket(self.name)
        self._lock = BucketLock(self.name) if locked else None
        self._made = ExitStack()
        self._root: Any = "nothing"  # by what a put knows the root that lies there
        self._content: bytes | None = None  # of that root
        self._unsure: bytes | None = None  # of one that was put, and nobody knows whether it lies there
        self._late: list[Path] = []
        self._put: set[str] = set()  # files of the pending snapshot
        self._staged: list[Path] = []
        self._staged_before: list[Path] = []
        self._guard = Lock()
        try:
            name = self.name.rpartition("/")[2]
            self.folder = self._made.enter_context(stage(Path(tempfile.gettempdir()) / name))
        except BaseException:
            self.close()
            raise

    def content(self) -> Content:
        """Say what lies there."""
        found = get_object(self._bucket, "zarr.json", url=self.name, at_most=LARGEST)
        if found is not None:
            return content_of_root(parse_root(self.name, found.content))
        names = list_bucket(self._bucket, url=self.name)
        if not names:
            return "nothing"
        return "unfinished" if holds_parts_of_runs(names) else "other"

    def resume(self, root: Mapping[str, Any]) -> None:
        """Make the metadata here that lies there."""
        found = get_object(self._bucket, "zarr.json", url=self.name, at_most=LARGEST)
        if found is None or json.loads(found.content) != root:
            raise StoreError(f"{self.name} was written by another process at this moment. Try again.")
        self._root, self._content = found.tag, found.content
        (self.folder / "zarr.json").write_bytes(found.content)
        for path, node in root["consolidated_metadata"]["metadata"].items():
            (self.folder / path).mkdir(parents=True, exist_ok=True)
            (self.folder / path / "zarr.json").write_bytes(json.dumps(node, indent=2).encode())

    def join(self, root: Mapping[str, Any]) -> None:
        """Make the metadata here that lies there."""
        self.resume(root)

    def create(self) -> None:
        """Put the root of a run that holds nothing."""
        self.keep_root(UNFINISHED)

    def keep_part(self, file: Path, *, read_again: bool = False) -> None:
        """Put a file of the pending snapshot."""
        self._put_file(file)
        with self._guard:
            self._staged.append(file)
        if not read_again:
            with file.open("wb"):  # what lies there need not take room here
                pass

    def keep(self, paths: Iterable[Path], *, replaces: bool = False) -> None:
        """Put files."""
        files = [path for path in paths if path.is_file()]
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            for _ in pool.map(lambda file: self._put_file(file, replaces=replaces), files):
                pass
        self._staged += [file for file in files if snapshot_of(file.name) >= 0 and not replaces]

    def keep_nodes(self, nodes: Mapping[str, bytes]) -> None:
        """Put the metadata of arrays at the end: the root has it, and each would be one more request a snapshot."""
        for path, content in nodes.items():
            (self.folder / path / "zarr.json").write_bytes(content)
        self._late = [self.folder / path / "zarr.json" for path in nodes]

    def keep_root(self, content: bytes) -> None:
        """Put the root, while the one before lies there."""
        self._check_lock()
        self._find_out()
        try:
            self._root = put_object(self._bucket, "zarr.json", content=content, url=self.name, over=self._root)
        except ConflictError as error:
            raise self._written_by_another() from error
        except Unreachable:
            self._unsure = content
            found = get_object(self._bucket, "zarr.json", url=self.name, at_most=LARGEST)
            self._unsure = None
            if found is None or found.content != content:
                raise
            self._root = found.tag
        self._content = content
        (self.folder / "zarr.json").write_bytes(content)

    def committed(self) -> None:
        """Remove what was made here, but for what may be read until the next commit."""
        for file in self._staged_before:
            file.unlink(missing_ok=True)
        self._staged_before = [file for file in self._staged if file.exists()]
        self._staged = []
        self._put.clear()

    def has(self, name: str) -> bool:
        """Whether a file of the pending snapshot was put, here or by another process."""
        return name in self._put or has_object(self._bucket, name, url=self.name)

    def read(self, name: str) -> bytes:
        """Return what a file holds."""
        file = self.folder / name
        if file.exists() and file.stat().st_size:
            return file.read_bytes()
        found = get_object(self._bucket, name, url=self.name, at_most=LARGEST_PUT)
        if found is None:
            raise FileNotFoundError(f"there is no {name} in {self.name}")
        return found.content

    def remove(self, names: Iterable[str]) -> None:
        """Remove files of the pending snapshot."""
        self._remove(self._put.intersection(names))  # of others, such as blank shards, nothing lies there

    def remove_from(self, snapshot: int, *, arrays: Iterable[str]) -> None:
        """Remove the files of a snapshot and of those after it."""
        self._find_out()
        over_time = set(arrays)
        for file in files_from(snapshot, folder=self.folder, arrays=over_time):
            file.unlink(missing_ok=True)
        there = list_bucket(self._bucket, url=self.name)
        late = (name for name in there if snapshot_of(name) >= snapshot and name.rpartition("/")[0] in over_time)
        self._remove(list(late))

    def remove_run(self) -> None:
        """Remove all objects, the root last, which says by then that the run holds nothing."""
        self._check_lock()
        there = list_bucket(self._bucket, url=self.name)
        for name in there:
            check_own(name, run=self.name)
        put_object(self._bucket, "zarr.json", content=UNFINISHED, url=self.name, over="anything")
        remove_objects(self._bucket, (name for name in there if name != "zarr.json"), url=self.name)
        remove_objects(self._bucket, ["zarr.json"], url=self.name)
        self._root, self._content = "nothing", None

    def close(self) -> None:
        """Put what waits for the end, let go of the lock, and remove what was made here."""
        with suppress(StoreError):  # each run is whole without it; resuming puts it again
            self._find_out()
            self.keep(self._late, replaces=True)
        self._late = []
        self._made.close()
        if self._lock is not None:
            self._lock.close()

    def _remove(self, names: Collection[str]) -> None:
        remove_objects(self._bucket, names, url=self.name)
        self._put.difference_update(names)
        for name in names:
            (self.folder / name).unlink(missing_ok=True)

    def _put_file(self, file: Path, *, replaces: bool = False) -> None:
        self._check_lock()
        name = file.relative_to(self.folder).as_posix()
        again = replaces or name in self._put
        try:
            put_object(
                self._bucket, name, content=file.read_bytes(), url=self.name, over="anything" if again else "nothing"
            )
        except ConflictError as error:
            raise self._written_by_another() from error
        except StoreError:
            self._put.add(name)  # it may lie there
            raise
        if not replaces:
            self._put.add(name)

    def _check_lock(self) -> None:
        if self._lock is not None:
            self._lock.check()

    def _find_out(self) -> None:
        """Where it is not known which root lies there, ask; one that the writer took for lost is put back."""
        if self._unsure is None:
            return
        found = get_object(self._bucket, "zarr.json", url=self.name, at_most=LARGEST)
        if found is not None and found.content == self._unsure:
            self._root = found.tag
            if self._content is not None:
                self._root = put_object(self._bucket, "zarr.json", content=self._content, url=self.name, over=found.tag)
        self._unsure = None

    def _written_by_another(self) -> StoreError:
        return StoreError(
            f"{self.name} was written by another process meanwhile, and is as that one left it. Record into another "
            f"path, or resume it once nobody else writes there."
        )
