"""Nodes of a run that is being written: the metadata of its groups and arrays, and the files that do not change."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import zarr

from .._compat import array_from_metadata
from ..format import checksum_of
from ._storage import Storage

Node = dict[str, Any]


class Nodes:
    """The groups and arrays of a run that is being written, those that the next commit shows among them.

    Parameters
    ----------
    storage : Storage
        Where the run is kept.

    Attributes
    ----------
    known : dict of str to dict
        By path, the Zarr metadata of each node.
    constant : dict of str to dict
        By the path of an array that does not change from snapshot to snapshot, the checksums of its files.
    """

    def __init__(self, storage: Storage) -> None:
        self.known: dict[str, Node] = {}
        self.constant: dict[str, dict[str, str]] = {}
        self._storage = storage
        self._visible: set[str] = set()
        self._growing: dict[str, zarr.Array[Any]] = {}

    def __getitem__(self, path: str) -> Node:
        return self.known[path]

    def __contains__(self, path: str) -> bool:
        return path in self.known

    def resume(self, known: dict[str, Node], constant: dict[str, dict[str, str]]) -> None:
        """Take over what the root of a run says."""
        self.known, self.constant = known, constant
        self.show()

    def show(self) -> None:
        """Note that the root says all that is known."""
        self._visible = set(self.known)

    def hide(self) -> None:
        """Forget what the root does not say."""
        self.forget_arrays()
        self.known = {path: node for path, node in self.known.items() if path in self._visible}
        self.constant = {path: files for path, files in self.constant.items() if path in self._visible}

    def adopt(self, paths: Sequence[str]) -> None:
        """Add nodes that were just created to those that the next commit shows."""
        unflushed: list[Path] = []
        for path in paths:
            folder = self._storage.folder / path
            self.known[path] = json.loads((folder / "zarr.json").read_bytes())
            unflushed += [*folder.glob("c.*"), folder / "zarr.json", folder]
            if self.known[path].get("dimension_names", ["snapshot"])[0] != "snapshot":
                self.vouch_for(path, folder.glob("c.*"))
        self._storage.keep(unflushed, replaces=True)

    def vouch_for(self, path: str, files: Iterable[Path]) -> None:
        """Note the checksums of files of an array that does not change from snapshot to snapshot."""
        known = self.constant.get(path, {}) | {file.name: checksum_of(file) for file in files}
        self.constant[path] = dict(sorted(known.items()))

    def over_time(self) -> Mapping[str, Node]:
        """Return the arrays whose first axis is of snapshots."""
        return {
            path: node
            for path, node in self.known.items()
            if node["node_type"] == "array" and node["dimension_names"][0] == "snapshot"
        }

    def resize(self, n_snapshots: int) -> None:
        """Let these have so many snapshots; nothing of this is on the disk."""
        for node in self.over_time().values():
            node["shape"][0] = n_snapshots

    def growing(self, path: str, *, n_snapshots: int) -> zarr.Array[Any]:
        """Return an array as it will be with so many snapshots, to write to; its metadata on the disk stays."""
        if path not in self._growing:
            node = self.known[path]
            shape = [n_snapshots, *node["shape"][1:]]
            self._growing[path] = array_from_metadata(self._storage.folder, path, metadata={**node, "shape": shape})
        return self._growing[path]

    def forget_arrays(self) -> None:
        """Let go of the arrays of the snapshot that was written."""
        self._growing.clear()

    def catch_up(self) -> None:
        """Bring each array's own metadata to the committed number of snapshots, for readers that open it by itself."""
        nodes = {path: json.dumps(node, indent=1).encode() for path, node in self.over_time().items()}
        self._storage.keep_nodes(nodes)
