"""Opening of a storage: by what a path or a URL names."""

import os

from ..files import is_bucket, local_path, whole_url
from ._bucket import Bucket
from ._folder import Folder
from ._storage import Storage


def open_storage(path: str | os.PathLike[str], *, locked: bool = True) -> Storage:
    """Return where a run is to be kept.

    Parameters
    ----------
    path : path-like
        A folder of this machine, or the URL of one in an object store.
    locked : bool
        Whether to take the run's lock.

    Raises
    ------
    ValueError
        For a URL of no object store.
    StoreError
        Where another writer holds the lock.
    """
    where = run_location(path)
    return Bucket(where, locked=locked) if is_bucket(where) else Folder(where, locked=locked)


def run_location(path: str | os.PathLike[str]) -> str:
    """Return the path or the URL that a run is to be recorded into; nothing is opened.

    Raises
    ------
    ValueError
        For a URL of no object store.

    Examples
    --------
    >>> from pathlib import Path
    >>> run_location(Path("s3://bucket/run.zarr"))  # of which `Path` takes a slash
    's3://bucket/run.zarr'
    """
    where = whole_url(path)
    return where if is_bucket(where) else os.fspath(local_path(path))
