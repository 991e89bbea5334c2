"""Committed files of a run: which files its commits vouch for, and with which checksums."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from zarr.abc.store import Store

from ...errors import StoreError
from .._compat import read_bytes, require_folder
from ._arrays import chunk_key
from ._check_root import LARGEST
from ._checksums import Files, check_files, checksum_at_end, record_digest
from ._format import CHECKSUMS


class CommittedFiles:
    """What the commits of a run vouch for; the checksums of a snapshot are read when they are first asked for.

    Parameters
    ----------
    run : str
        Where the run lies, for messages.
    store : zarr.abc.store.Store
        Where its files are.
    commits : sequence of mapping
        One per snapshot, with the SHA-256 of its checksums.
    constant : mapping
        The checksums of the arrays that do not change from snapshot to snapshot.
    """

    def __init__(self, run: str, *, store: Store, commits: Sequence[Mapping[str, Any]], constant: Files) -> None:
        self._run = run
        self._store = store
        self._commits = commits
        self._constant = constant
        self._known: dict[int, Files] = {}

    def constant(self, path: str, *, key: str) -> str | None:
        """Return the checksums of a file of an array without an axis of snapshots; None: there is no such file."""
        return self._constant.get(path, {}).get(key)

    def at(self, snapshot: int, *, path: str, key: str) -> str | None:
        """Return the checksums of a file of a snapshot; None: it holds nothing but fill values, and does not exist.

        Raises
        ------
        StoreError
            Where the snapshot's checksums are not those that were committed.
        """
        return self.files(snapshot).get(path, {}).get(key)

    def files(self, snapshot: int | None) -> Files:
        """Return all files of a snapshot, or with None those of arrays without an axis of snapshots; see `at`."""
        if snapshot is None:
            return self._constant
        if snapshot not in self._known:
            self._known[snapshot] = self._read(snapshot)
        return self._known[snapshot]

    def _read(self, snapshot: int) -> Files:
        name = f"{CHECKSUMS}/{chunk_key(snapshot)}"
        record = read_bytes(self._store, name, at_most=LARGEST) or b""
        if not record:
            require_folder(self._store)
        if record_digest(record) != self._commits[snapshot]["checksums"]:
            raise StoreError(
                f"{self._run} is damaged: {name} is {'not the file that was committed' if record else 'missing'}. It "
                f"vouches for the other files of snapshot {snapshot}, so that none of these is read; restore it from a "
                f"copy. `fmcluster verify` lists all damage."
            )
        try:
            # one string: their number and its length before it, a checksum after it
            files = json.loads(record[8:-4].decode())
            check_files(files)
        except (ValueError, TypeError, AttributeError, RecursionError) as error:
            raise StoreError(f"{self._run} is damaged: {name} holds no checksums ({error}).") from error
        return {**files, CHECKSUMS: {chunk_key(snapshot): checksum_at_end(record)}}
