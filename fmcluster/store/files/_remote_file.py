"""Remote file: one in a store that is not on this machine, of which parts are fetched as they are read."""

import os
from types import TracebackType

from zarr.abc.store import Store

from .._compat import read_range


class RemoteFile:
    """A file to seek and read in; each read is one request.

    Parameters
    ----------
    store : zarr.abc.store.Store
        Where it lies.
    key : str
        Its name there.
    size : int
        Its length in bytes.
    """

    def __init__(self, store: Store, key: str, *, size: int) -> None:
        self._store, self._key, self._size = store, key, size
        self._at = 0

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        """Go to a position, counted from the beginning or the end; return it, from the beginning."""
        self._at = offset + (self._size if whence == os.SEEK_END else 0)
        return self._at

    def read(self, size: int, /) -> bytes:
        """Return the next bytes."""
        found = read_range(self._store, self._key, start=self._at, stop=self._at + size)
        self._at += len(found)
        return found

    def __enter__(self) -> "RemoteFile":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        """Nothing is held open."""
