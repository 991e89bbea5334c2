"""Opening stores and arrays, with the `zarrs` codec pipeline where it can read the store."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from threading import RLock
from typing import Any

import zarr
from zarr.abc.store import Store
from zarr.core.sync import sync
from zarr.storage import FsspecStore, LocalStore, StorePath

# zarr's settings are global: two threads that change and restore them at once would leave them changed
_SETTINGS = RLock()


def open_store(path: str) -> Store:
    """Return the store at a local path or a URL, for reading."""
    if "://" in path:
        return FsspecStore.from_url(path, read_only=True)
    return LocalStore(path, read_only=True)


def codec_pipeline(store: Store) -> AbstractContextManager[None]:
    """Within the block, arrays of `store` are opened with the fastest pipeline that knows it; they keep it after."""
    return _zarrs({}) if isinstance(store, LocalStore) else nullcontext()


@contextmanager
def _zarrs(settings: dict[str, Any]) -> Iterator[None]:
    import zarrs  # noqa: F401  registers the pipeline

    with _SETTINGS, zarr.config.set({"codec_pipeline.path": "zarrs.ZarrsCodecPipeline", **settings}):
        yield


def array_from_metadata(root: Path, path: str, metadata: dict[str, Any]) -> zarr.Array[Any]:
    """Return an array to write to, with the metadata given, whatever its own file says.

    It encodes on one thread: several would put the chunks of a shard in the order in which they happen to be done, and
    the same values would not give the same bytes.
    """
    with _zarrs({"threading.max_workers": 1}):
        return zarr.Array.from_dict(StorePath(LocalStore(root), path), metadata)


def stored_bytes(array: zarr.Array[Any], key: str) -> int:
    """Return the size of one of an array's files; 0 where it is absent or empty."""
    try:
        return sync(array.store.getsize(f"{array.path}/{key}"))
    except FileNotFoundError:
        return 0
