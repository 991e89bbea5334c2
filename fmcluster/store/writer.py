"""The commit protocol: a snapshot's data, flushed; then the root's consolidated metadata, replaced atomically."""

import json
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import zarr
from filelock import FileLock, Timeout

from ..errors import StoreError
from .arrays import chunk_key, chunk_keys, shard_shape
from .disk import flush, replace_file
from .format import KEY, STATISTICS, VERSION, LayerSpec, create_array, create_layer
from .names import escape
from .pipeline import array_from_metadata
from .root import checked_attributes, root_metadata

Mode = Literal["x", "a", "w"]
Node = dict[str, Any]

_UNFINISHED = root_metadata({"format": VERSION, "unfinished": True}, {})


class RunWriter:
    """The one writer of a run.

    Snapshots are written one after the other: `write` for every batch of every layer, then `commit`, or `discard`.
    Nothing of a snapshot is visible to a reader before `commit` has returned.

    Parameters
    ----------
    path : path-like
        The run's folder, on a local file system.
    mode : {"x", "a", "w"}
        "x" makes a new run and refuses an existing one, "a" goes on after the last whole snapshot of an existing
        one (or makes a new one), "w" replaces an existing one.

    Raises
    ------
    FileExistsError
        With "x", where something exists at `path`; with "w", where it is not a run.
    StoreError
        Where another writer is at work on the run, or the run to go on with is damaged.
    """

    def __init__(self, path: str | Path, *, mode: Mode = "x") -> None:
        self.path = Path(path)
        self._lock = FileLock(f"{self.path}.lock", thread_local=False)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            raise StoreError(
                f"{self.path} is being written by another process or recorder. A run has one writer at a time: "
                f"wait until it has finished, or record into another path."
            ) from None
        try:
            self._nodes: dict[str, Node] = {}
            self._visible: set[str] = set()
            self._arrays: dict[str, zarr.Array[Any]] = {}
            self._blank: set[str] = set()
            self.attributes: dict[str, Any] = {}
            if self._make_room(mode):
                self._resume()
        except BaseException:
            self.close()
            raise

    def _make_room(self, mode: Mode) -> bool:
        """Prepare the folder; return whether there is a run in it to go on with."""
        if mode not in ("x", "a", "w"):
            raise ValueError(f'mode is {mode!r}; expected "x" (new), "a" (go on) or "w" (replace)')
        found = self._what_is_there()
        if found == "other":
            raise FileExistsError(
                f"{self.path} exists and is not a run of this package; it is left as it is. Pass another path."
            )
        if found == "run" and mode == "x":
            raise FileExistsError(
                f'{self.path} already holds a run. Pass mode="a" to go on with it, mode="w" to replace it, '
                f"or another path."
            )
        if found == "unfinished" or (found == "run" and mode == "w"):
            self._remove()
        return found == "run" and mode == "a"

    def _what_is_there(self) -> Literal["nothing", "unfinished", "run", "other"]:
        if not self.path.exists():
            return "nothing"
        if not self.path.is_dir():
            return "other"
        names = {child.name for child in self.path.iterdir()}
        if "zarr.json" not in names:
            return "unfinished" if names <= {"zarr.json.partial"} else "other"
        attributes = self._read_root().get("attributes", {})
        if KEY not in attributes:
            return "other"
        return "unfinished" if attributes[KEY].get("unfinished") else "run"

    def _read_root(self) -> Node:
        try:
            root: Node = dict(json.loads((self.path / "zarr.json").read_bytes()))
        except (ValueError, TypeError) as error:
            raise StoreError(
                f"{self.path} cannot be written: its zarr.json is damaged ({error}). Nothing was changed; "
                f"record into another path, or remove the folder."
            ) from error
        return root

    def _remove(self) -> None:
        """Remove the run; if this is interrupted, what is left is still known for a run that holds nothing."""
        if (self.path / "zarr.json").exists():
            replace_file(self.path / "zarr.json", _UNFINISHED)
        for child in self.path.iterdir():
            if child.is_dir():
                shutil.rmtree(child)
        shutil.rmtree(self.path)

    def _resume(self) -> None:
        root = self._read_root()
        self.attributes = checked_attributes(str(self.path), root["attributes"])
        self._nodes = root["consolidated_metadata"]["metadata"]
        self._visible = set(self._nodes)
        for file in self.path.rglob("*.partial"):
            if file.is_file():
                file.unlink()
        self._forget_uncommitted()
        self._catch_up()

    @property
    def n_snapshots(self) -> int:
        """Number of committed snapshots."""
        return len(self.attributes.get("commits", []))

    @property
    def is_new(self) -> bool:
        """Whether `create` has still to be called."""
        return not self.attributes

    def create(self, specs: Sequence[LayerSpec], *, n_samples: int, shard_samples: int, kind: str) -> None:
        """Lay out a new run: its layers, without snapshots."""
        self.path.mkdir(parents=True, exist_ok=True)
        replace_file(self.path / "zarr.json", _UNFINISHED)
        root = self._root()
        for name, shape in (("epoch", (0,)), ("step", (0,)), ("index", (0, n_samples))):
            create_array(root, name, dimensions=("snapshot", "sample")[: len(shape)], shape=shape, dtype="int64")
        names = np.array(STATISTICS)
        create_array(root, "statistic", dimensions=("statistic",), shape=names.shape, dtype=str)[...] = names
        paths = [f"layers/{escape(spec.name)}" for spec in specs]
        for path, spec in zip(paths, specs, strict=True):
            group = root.create_group(path, attributes={"name": spec.name, "module": spec.module})
            create_layer(group, spec, n_samples=n_samples, shard_samples=shard_samples)
        self._adopt(["epoch", "step", "index", "statistic", "layers", *paths])
        self._adopt([f"{path}/{leaf}" for path in paths for leaf in ("activation", "statistics")])
        self.attributes = {
            "format": VERSION,
            "kind": kind,
            "layers": [spec.name for spec in specs],
            "commits": [],
            "sessions": [],
        }
        self._replace_root()

    def describe_session(self, provenance: Mapping[str, Any]) -> None:
        """Record what made the snapshots from here on."""
        record = {"first_snapshot": self.n_snapshots, **provenance}
        self.attributes["sessions"].append(record)

    def add_static(
        self,
        path: str,
        values: npt.NDArray[Any],
        *,
        dimensions: tuple[str, ...],
        offset: int = 0,
        length: int | None = None,
    ) -> None:
        """Write (a batch of) an array that does not change with time; visible from the next commit on.

        Parameters
        ----------
        path : str
            Where it lies in the hierarchy: a group's name, a slash, and its own.
        values : ndarray of shape (n_items, ...)
            What to write.
        dimensions : tuple of str
            Names of the axes.
        offset : int
            Position of the first item; a multiple of the first batch's length.
        length : int, optional
            Items in all; by default those of `values`.
        """
        parent, name = path.rsplit("/", 1)
        group = self._root().require_group(parent)
        if offset == 0:
            create_array(
                group,
                name,
                dimensions=dimensions,
                shape=(len(values) if length is None else length, *values.shape[1:]),
                dtype=str if values.dtype.kind in "OU" else values.dtype,
                chunks=tuple(max(1, n) for n in values.shape),
            )
            self._adopt([parent, path])
        array = group[name]
        assert isinstance(array, zarr.Array)
        # black pictures and missing labels are all fill value; they are written, so that absent means damaged
        box = slice(offset, offset + len(values))
        array.with_config({"write_empty_chunks": True})[box] = values
        flush([*(self.path / path / key for key in chunk_keys(array, box)), self.path / path])

    def write(self, layer: str, *, offset: int, values: npt.NDArray[Any]) -> None:
        """Write a batch of a layer's activations into the snapshot under way.

        Parameters
        ----------
        layer : str
            The layer's name.
        offset : int
            Slot of the first sample; a multiple of the shard's samples.
        values : ndarray of shape (n_samples of a shard, or what is left, ...)
            In the layer's stored dtype.
        """
        path = f"layers/{escape(layer)}/activation"
        array = self._growing(path)
        array[self.n_snapshots, offset : offset + len(values)] = values
        key = chunk_key(self.n_snapshots, offset // shard_shape(array)[1], *(0 for _ in values.shape[1:]))
        if not (self.path / path / key).exists():
            if not np.isnan(values).all():
                raise StoreError(f"layer {layer!r}: the samples from slot {offset} on were written but are not on disk")
            self._blank.add(f"{path}/{key}")

    def commit(
        self,
        *,
        epoch: int,
        step: int,
        index: npt.NDArray[np.int64],
        statistics: Mapping[str, npt.NDArray[np.float64]],
        metrics: Mapping[str, float],
        clipped: Mapping[str, int],
    ) -> None:
        """Make the snapshot under way visible, all of it at once.

        Parameters
        ----------
        epoch, step : int
            Its coordinates: the epoch, and the optimizer steps so far.
        index : ndarray of shape (n_samples,), int64
            The dataset index of the sample in each slot.
        statistics : mapping of str to ndarray of shape (6, n_channels), float64
            Per layer, in the order of `STATISTICS`.
        metrics : mapping of str to float
            Numbers to keep beside the snapshot.
        clipped : mapping of str to int
            How many values of a layer were clipped to what its dtype can hold.
        """
        now = self.n_snapshots
        for path, value in (("epoch", epoch), ("step", step), ("index", index)):
            self._growing(path)[now] = value
        for layer, values in statistics.items():
            self._growing(f"layers/{escape(layer)}/statistics")[now] = values
        for name, number in metrics.items():
            self._growing(self._metric(name))[now] = number
        record: dict[str, Any] = {"absent": self._flush_snapshot(now)}
        if any(clipped.values()):
            record["clipped"] = {layer: count for layer, count in clipped.items() if count}
        self.attributes["commits"].append(record)
        self._resize(now + 1)
        try:
            self._replace_root()
        except BaseException:
            self.attributes["commits"].pop()
            self._resize(now)
            raise
        self._arrays.clear()
        self._blank.clear()
        with suppress(OSError):  # the snapshot is whole; the next commit, or who goes on, tries again
            self._catch_up()

    def discard(self) -> None:
        """Remove what was written of the snapshot under way."""
        self._arrays.clear()
        self._nodes = {path: node for path, node in self._nodes.items() if path in self._visible}
        self._blank.clear()
        self._forget_uncommitted()

    def close(self) -> None:
        """Release the lock; another writer may go on."""
        self._lock.release()

    def __enter__(self) -> "RunWriter":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _root(self) -> zarr.Group:
        return zarr.open_group(self.path, mode="r+", use_consolidated=False)

    def _growing(self, path: str) -> zarr.Array[Any]:
        """Return an array as it will be once the snapshot under way is committed; nothing of this is on the disk."""
        if path not in self._arrays:
            node = self._nodes[path]
            shape = [self.n_snapshots + 1, *node["shape"][1:]]
            self._arrays[path] = array_from_metadata(self.path, path, metadata={**node, "shape": shape})
        return self._arrays[path]

    def _metric(self, name: str) -> str:
        path = f"metrics/{escape(name)}"
        if path not in self._nodes:
            create_array(
                self._root().require_group("metrics"),
                escape(name),
                dimensions=("snapshot",),
                shape=(0,),
                dtype="float64",
                attributes={"name": name},
            )
            self._adopt(["metrics", path])
            for snapshot, commit in enumerate(self.attributes["commits"]):
                commit["absent"][path] = [chunk_key(snapshot)]
        return path

    def _adopt(self, paths: Sequence[str]) -> None:
        """Take nodes that were just created into what the next commit shows."""
        for path in paths:
            self._nodes[path] = json.loads((self.path / path / "zarr.json").read_bytes())
            flush([self.path / path / "zarr.json", self.path / path])

    def _over_time(self) -> dict[str, Node]:
        return {
            path: node
            for path, node in self._nodes.items()
            if node["node_type"] == "array" and node["dimension_names"][0] == "snapshot"
        }

    def _resize(self, n_snapshots: int) -> None:
        for node in self._over_time().values():
            node["shape"][0] = n_snapshots

    def _flush_snapshot(self, snapshot: int) -> dict[str, list[str]]:
        """Flush a snapshot's chunks; return, for each array, the keys of those that hold nothing but fill values."""
        absent: dict[str, list[str]] = {}
        for path in self._over_time():
            folder = self.path / path
            expected = chunk_keys(self._growing(path), slice(snapshot, snapshot + 1))
            present = [key for key in expected if (folder / key).exists()]
            flush([*(folder / key for key in present), folder])
            if missing := sorted(set(expected) - set(present)):
                if path.endswith("/activation") and (lost := [k for k in missing if f"{path}/{k}" not in self._blank]):
                    raise StoreError(f"{path}/{lost[0]} was not written, or is gone; the snapshot is not whole")
                absent[path] = missing
        return absent

    def _replace_root(self) -> None:
        replace_file(self.path / "zarr.json", root_metadata(self.attributes, self._nodes))
        self._visible = set(self._nodes)

    def _catch_up(self) -> None:
        """Bring each array's own metadata to the committed number of snapshots, for who opens it by itself."""
        for path, node in self._over_time().items():
            replace_file(self.path / path / "zarr.json", json.dumps(node, indent=1).encode())

    def _forget_uncommitted(self) -> None:
        for path in self._over_time():
            for chunk in (self.path / path).glob("c.*"):
                if int(chunk.name.split(".")[1]) >= self.n_snapshots:
                    chunk.unlink()
