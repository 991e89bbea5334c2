"""Private interfaces of zarr, and its settings of the whole process (checked with zarr 3.1.6).

``tests/store/test_compat.py`` says which one a new version has changed.

Small arrays are written by zarr's own pipeline. It does not read them here: it unpacks whatever a file holds before it
compares how much that is. `read_shard` and `decode_chunk` take memory for what an array's metadata says.
"""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from copy import deepcopy
from importlib.util import find_spec
from pathlib import Path
from socket import gethostname
from threading import RLock
from typing import Any

import zarr
from zarr.abc.store import RangeByteRequest, Store
from zarr.core.buffer import default_buffer_prototype
from zarr.core.group import AsyncGroup, GroupMetadata
from zarr.core.sync import sync
from zarr.storage import FsspecStore, LocalStore, StorePath

from ..errors import StoreError
from .files import BucketStore, is_bucket, not_a_file, read_at_most, walk

# zarr's settings are global: two threads that change and restore them at once would leave them changed
_SETTINGS = RLock()


def open_store(path: str) -> Store:
    """Return the store at a local path or a URL, for reading."""
    if "://" in path:
        if is_bucket(path) and find_spec("obstore") is not None:
            return BucketStore(path)
        try:
            return FsspecStore.from_url(path, read_only=True)
        except (ImportError, ValueError) as error:
            raise StoreError(
                f"{path} cannot be reached: {error}. A run at a URL needs fsspec and what that uses for such URLs; "
                f"install it for s3:// with pip install 'fmcluster[s3]'"
            ) from error
    return LocalStore(Path(path).absolute(), read_only=True)  # as workers in other folders are told it


@contextmanager
def careful_pipeline() -> Iterator[None]:
    """Within the block, arrays are opened with zarr's own pipeline; they keep it after."""
    with _SETTINGS, zarr.config.set({"codec_pipeline.path": "zarr.core.codec_pipeline.BatchedCodecPipeline"}):
        yield


def array_from_metadata(root: Path, path: str, *, metadata: dict[str, Any]) -> zarr.Array[Any]:
    """Return an array to write to, with the metadata given, whatever its own file says."""
    with careful_pipeline():
        return zarr.Array.from_dict(StorePath(LocalStore(root), path), metadata)


def group_from_metadata(store: Store, metadata: dict[str, Any]) -> zarr.Group:
    """Return the group at the root of a store, with the metadata given, its consolidated metadata among them."""
    described = GroupMetadata.from_dict(deepcopy(metadata))  # zarr takes some of it out
    return zarr.Group(AsyncGroup(metadata=described, store_path=StorePath(store)))


def open_group(path: str, root: dict[str, Any]) -> zarr.Group:
    """Return the hierarchy that a root describes; read again, it might show a snapshot that was committed meanwhile.

    Raises
    ------
    StoreError
        Where the root is JSON, and not a group's.
    """
    try:
        return group_from_metadata(open_store(path), root)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise StoreError(f"{path} cannot be opened, its zarr.json is damaged: {error}") from error


def read_bytes(store: Store, key: str, *, at_most: int) -> bytes | None:
    """Return what lies at a key of a store; None where there is nothing, StoreError where it is too much, or a link."""
    if isinstance(store, LocalStore):  # at once, not by way of zarr's event loop
        file = store.root / key
        try:
            content = read_at_most(file, at_most)
        except (FileNotFoundError, NotADirectoryError):
            return None
        if content is None:
            raise StoreError(f"{file} is larger than {at_most >> 20} MiB; nothing was read")
        return content or None
    try:
        if sync(store.getsize(key)) > at_most:
            raise StoreError(f"{key} in {store} is larger than {at_most >> 20} MiB; nothing was read")
    except FileNotFoundError as error:
        why = error.__cause__
        if isinstance(why, OSError) and not isinstance(why, FileNotFoundError):
            raise why from None  # fsspec says of a host that it did not reach, too, that nothing is there
        return None
    found = sync(store.get(key, prototype=default_buffer_prototype()))
    return None if found is None else found.to_bytes()


def read_range(store: Store, key: str, *, start: int, stop: int) -> bytes:
    """Return the bytes from `start` to before `stop` of what lies at a key of a store that is not on this machine."""
    found = sync(store.get(key, prototype=default_buffer_prototype(), byte_range=RangeByteRequest(start, stop)))
    return b"" if found is None else found.to_bytes()


def stored_bytes(array: zarr.Array[Any], key: str) -> int:
    """Return the size of one of an array's files; 0 where it is absent or empty."""
    if isinstance(array.store, LocalStore):
        return _size(array.store.root / array.path / key)
    try:
        return sync(array.store.getsize(f"{array.path}/{key}"))
    except FileNotFoundError:
        return 0


def require_folder(store: Store) -> None:
    """See that the folder of a store is there, before a file of it is said to be missing.

    Raises
    ------
    StoreError
        Where it is not: on a worker that does not see the run, or after the run was removed.
    """
    if isinstance(store, LocalStore) and not store.root.is_dir():
        raise StoreError(
            f"{gethostname()} sees no folder {store.root}: the run is not there any more, or this is a worker on "
            f"another machine. Workers have to see a run at the path that it was opened at: put it on a file system "
            f"that all of them share, or open it by a URL."
        )


def list_files(store: Store) -> dict[str, int]:
    """Return the names and sizes of all files of a store, in one listing; links are none."""
    if isinstance(store, LocalStore):
        sizes, start = {}, len(str(store.root)) + 1
        for entry in walk(store.root):
            with suppress(FileNotFoundError):  # replaced by its writer meanwhile
                if entry.is_file(follow_symlinks=False):
                    sizes[entry.path[start:].replace(os.sep, "/")] = entry.stat(follow_symlinks=False).st_size
        return sizes
    if isinstance(store, BucketStore):
        return store.sizes()
    assert isinstance(store, FsspecStore)
    listed = sync(store.fs._find(store.path, detail=True))
    start = len(store.path.rstrip("/")) + 1
    return {name[start:]: int(about["size"]) for name, about in listed.items()}


def _size(file: Path) -> int:
    """Return the size of a file; 0 where there is none."""
    try:
        about = file.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return 0
    if not stat.S_ISREG(about.st_mode):
        raise not_a_file(file, about.st_mode)
    return about.st_size
