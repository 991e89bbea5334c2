"""Writer of a run: a snapshot's shards, and the commit that makes it visible.

A commit is: data flushed to the disk, then the root's consolidated metadata replaced atomically.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import zarr

from ..format import (
    CHECKSUMS,
    KEY,
    LOSS_SCALE,
    VERSION,
    LayerSpec,
    Quantity,
    RunKind,
    ShardLayout,
    WeightSpec,
    array_path,
    check_loss_scale,
    checksum_of,
    chunk_key,
    chunk_keys,
    committed_root,
    encode_files,
    holds_feature_maps,
    holds_weights,
    metric_path,
    record_digest,
    root_metadata,
    shard_layout,
    statistics_path,
)
from ._create import Mode, apply_mode, check_layout, create_array, create_arrays, create_weights
from ._nodes import Nodes
from ._open_storage import open_storage
from ._pending import PendingShards
from ._pending_weights import PendingWeights
from ._storage import Storage


class RunWriter:
    """The one writer of a run.

    Snapshots are written one after the other: `write` for every batch of every layer, then `commit`, or `discard`.
    Nothing of a snapshot is visible to a reader before `commit` has returned.

    Parameters
    ----------
    path : path-like
        The run's folder on a local file system, or the URL of one in an object store.
    mode : {"x", "a", "w"}
        "x" makes a new run and refuses an existing one, "a" resumes an existing one after its last whole snapshot (or
        makes a new one), "w" replaces an existing one.

    Attributes
    ----------
    name : str
        Path or URL of the run.
    path : Path
        The folder in which its files are made: the run's own, where that is on a local file system.
    storage : Storage
        Where the run is kept.
    attributes : dict
        What the root says of the run; empty before `create`.
    shards : PendingShards
        Writes the shards of feature maps, and knows which were written, here or by another process.
    weights : PendingWeights
        Writes the parts of the model's parameters and buffers, all of them before the commit.

    Raises
    ------
    ValueError
        For a URL of no object store.
    FileExistsError
        With "x", where something exists at `path`; with "w", where it is not a run.
    StoreError
        Where another writer has the run open, or the run to resume is damaged.
    """

    def __init__(self, path: str | Path, *, mode: Mode = "x") -> None:
        self._write_to(open_storage(path))
        try:
            if apply_mode(self.storage, mode):
                self._resume()
        except BaseException:
            self.close()
            raise

    def _write_to(self, storage: Storage) -> None:
        self.storage = storage
        self.name, self.path = storage.name, storage.folder
        self._nodes = Nodes(storage)
        self.shards = PendingShards(storage)
        self.weights = PendingWeights(storage, self._nodes)
        self.attributes: dict[str, Any] = {}

    def _resume(self) -> None:
        root = committed_root(self.name)
        self.attributes = root["attributes"][KEY]
        self.storage.resume(root)
        self._nodes.resume(root["consolidated_metadata"]["metadata"], self.attributes["constant"])

    @property
    def n_snapshots(self) -> int:
        """Number of committed snapshots."""
        return len(self.attributes.get("commits", []))

    @property
    def is_new(self) -> bool:
        """Whether `create` has still to be called."""
        return not self.attributes

    def create(
        self,
        specs: Sequence[LayerSpec],
        *,
        n_samples: int,
        shard_samples: int,
        kind: RunKind,
        weights: Sequence[WeightSpec] = (),
        normalizations: Mapping[str, int] | None = None,
    ) -> None:
        """Create a new run: its layers, without snapshots.

        Parameters
        ----------
        specs : sequence of LayerSpec
            The layers, in forward order.
        n_samples : int
            Slots for samples in a snapshot.
        shard_samples : int
            How many of them lie in one file.
        kind : {"probe", "live"}
            Whether every snapshot holds the same samples in the same slots, or samples as they arrive.
        weights : sequence of WeightSpec
            The parameters and buffers, in the model's order; none by default.
        normalizations : mapping of str to int, optional
            By module name, the number of channels of each normalization whose inputs are described.
        """
        if kind not in ("probe", "live"):
            raise ValueError(f"kind is {kind!r}; expected 'probe' or 'live'")
        check_layout(specs, n_samples=n_samples, shard_samples=shard_samples)
        self.storage.create()
        paths = create_arrays(self._root(), specs, n_samples=n_samples, shard_samples=shard_samples)
        paths += create_weights(self._root(), weights, normalizations=normalizations or {})
        self._nodes.adopt(paths)
        self.attributes = {"format": VERSION, "kind": kind, "layers": [spec.name for spec in specs]}
        self.attributes |= {"commits": [], "sessions": []}
        beside = {"weights": [spec.name for spec in weights], "normalizations": list(normalizations or {})}
        self.attributes.update({key: names for key, names in beside.items() if names})
        try:
            self.replace_root()
        except BaseException:
            self.attributes = {}  # there is no run yet
            raise

    def tidy(self) -> None:
        """Remove what an earlier session left uncommitted, once it is known that this one goes on with its run."""
        self._remove_pending()
        self._nodes.catch_up()

    def describe_session(self, provenance: Mapping[str, Any]) -> None:
        """Record what made the snapshots from here on."""
        self.attributes["sessions"].append({"first_snapshot": self.n_snapshots, **provenance})

    def add_static(
        self,
        path: str,
        values: npt.NDArray[Any],
        *,
        dimensions: tuple[str, ...],
        offset: int = 0,
        length: int | None = None,
    ) -> None:
        """Write (a batch of) an array that does not change from snapshot to snapshot; visible from the next commit on.

        Parameters
        ----------
        path : str
            The array's path: a group's name, a slash, and its own.
        values : ndarray of shape (n_items, ...)
            What to write.
        dimensions : tuple of str
            Names of the axes.
        offset : int
            Index of the first item; a multiple of the first batch's length.
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
            self._nodes.constant.pop(path, None)
            self._nodes.adopt([path] if parent in self._nodes else [parent, path])
        array = group[name]
        assert isinstance(array, zarr.Array)
        # black pictures and missing labels are all fill value; they are written, so that absent means damaged
        box = slice(offset, offset + len(values))
        array.with_config({"write_empty_chunks": True})[box] = values
        written = [self.path / path / key for key in chunk_keys(array, box)]
        self.storage.keep([*written, self.path / path], replaces=True)
        self._nodes.vouch_for(path, written)

    def write(
        self, layer: str, *, offset: int, values: npt.NDArray[Any] | None, quantity: Quantity = "activation"
    ) -> None:
        """Write a shard of a layer into the pending snapshot, and flush it to the disk.

        Several threads may do so at once, each another shard. A shard that is written again is replaced.

        Parameters
        ----------
        layer : str
            The layer's name.
        offset : int
            Slot of the first sample; a multiple of the shard's samples.
        values : ndarray of shape (n_samples, ...), or None
            In the stored dtype, at most a shard of them; the slots left over hold NaN. None: all do, and there is no
            file.
        quantity : {"activation", "gradient"}
            What they are.

        Raises
        ------
        ValueError
            For feature maps that the layer cannot hold.
        OSError
            Where they cannot be written.
        """
        path = array_path(layer, quantity)
        if path not in self._nodes:
            raise ValueError(f"{self.name} has no array for the {quantity} of layer {layer!r}; name it in `create`")
        self.shards.write(path, values, snapshot=self.n_snapshots, offset=offset, layout=self._layout(path))

    @property
    def digest(self) -> str:
        """The root's SHA-256 of itself, as it is on the disk."""
        return str(committed_root(self.name)["attributes"][KEY]["digest"])

    def commit(
        self,
        *,
        epoch: int,
        step: int,
        index: npt.NDArray[np.int64],
        statistics: Mapping[tuple[str, Quantity], npt.NDArray[np.float64]],
        metrics: Mapping[str, float],
        clipped: Mapping[str, int],
        loss_scale: npt.NDArray[np.float64] | None = None,
        beside: Mapping[str, npt.NDArray[np.float64]] | None = None,
    ) -> None:
        """Make the pending snapshot visible, all of it at once.

        Parameters
        ----------
        epoch, step : int
            Its coordinates: the epoch, and the optimizer steps so far.
        index : ndarray of shape (n_samples,), int64
            The dataset index of the sample in each slot; -1 where there is none.
        statistics : mapping of (str, str) to ndarray of shape (6, n_channels), float64
            Per layer and quantity, in the order of `STATISTICS`.
        metrics : mapping of str to float
            Numbers to keep beside the snapshot.
        clipped : mapping of str to int
            How many values of a layer were clipped to what its dtype can hold.
        loss_scale : ndarray of shape (n_samples,), float64, optional
            What the loss was multiplied with before its gradients were computed, for the sample in each slot: positive,
            1 where it was not scaled, NaN where it is not known. By default it is known of none.
        beside : mapping of str to ndarray, float64, optional
            By the path of any other array over time, its values at this snapshot.

        Raises
        ------
        ValueError
            For an index or a loss scale that the run cannot hold.
        StoreError
            Where a shard was neither written nor left blank, though there are samples in its slots; or a part of a
            parameter or buffer was not written.
        """
        now = self.n_snapshots
        n_slots = self._nodes["index"]["shape"][1]
        if index.shape != (n_slots,) or index.dtype.kind != "i":
            raise ValueError(f"index is of {index.dtype} and shape {index.shape}; expected integers of ({n_slots},)")
        if loss_scale is not None:
            has_gradients = any(path.endswith("/gradient") and holds_feature_maps(path) for path in self._nodes.known)
            check_loss_scale(self.name, loss_scale, n_slots=n_slots, has_gradients=has_gradients)
            self._growing(LOSS_SCALE)[now] = np.where(index >= 0, loss_scale, np.nan)
        for path, value in (("epoch", epoch), ("step", step), ("index", index)):
            self._growing(path)[now] = value
        for (layer, quantity), values in statistics.items():
            self._growing(statistics_path(layer, quantity))[now] = values
        for name, number in metrics.items():
            self._growing(self._metric(name))[now] = number
        for path, values in (beside or {}).items():
            self._growing(path)[now] = values
        record: dict[str, Any] = {"epoch": epoch, "step": step, "checksums": self._flush_snapshot(now, index)}
        if any(clipped.values()):
            record["clipped"] = {layer: count for layer, count in clipped.items() if count}
        try:
            self.attributes["commits"].append(record)
            self._nodes.resize(now + 1)
            self.replace_root()
        except BaseException:
            del self.attributes["commits"][now:]
            self._nodes.resize(now)
            raise
        self._nodes.forget_arrays()
        self.shards.clear()
        self.weights.clear()
        with suppress(Exception):  # the snapshot is whole; the next commit, or whoever resumes the run, tries again
            self.storage.committed()
            self._nodes.catch_up()

    def discard(self) -> None:
        """Remove what was written of the pending snapshot."""
        self._nodes.hide()
        self.shards.clear()
        self.weights.clear()
        self._remove_pending()

    def close(self) -> None:
        """Release the lock, so that another writer may open the run; where nothing was recorded, nothing is left."""
        self.storage.close()

    def __enter__(self) -> "RunWriter":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _remove_pending(self) -> None:
        self.storage.remove_from(self.n_snapshots, arrays=self._nodes.over_time())

    def _root(self) -> zarr.Group:
        return zarr.open_group(self.path, mode="r+", use_consolidated=False)

    def _growing(self, path: str) -> zarr.Array[Any]:
        """Return an array as it will be once the pending snapshot is committed; nothing of this is on the disk."""
        return self._nodes.growing(path, n_snapshots=self.n_snapshots + 1)

    def _layout(self, path: str) -> ShardLayout:
        return shard_layout(self._nodes[path], path=f"{self.name}/{path}")

    def _metric(self, name: str) -> str:
        path = metric_path(name)
        if path not in self._nodes:
            group = self._root().require_group("metrics")  # the snapshots so far have no file in the new array
            about = {"name": name}
            leaf, axes = path.rpartition("/")[2], ("snapshot",)
            create_array(group, leaf, dimensions=axes, shape=(0,), dtype="float64", attributes=about)
            self._nodes.adopt(["metrics", path])
        return path

    def _flush_snapshot(self, snapshot: int, index: npt.NDArray[np.int64]) -> str:
        """Write the checksums of a snapshot's files, flush them all; return the digest of the checksums."""
        files: dict[str, dict[str, str]] = {}
        unflushed = []
        for path in sorted(set(self._nodes.over_time()) - {CHECKSUMS}):
            folder = self.path / path
            if holds_feature_maps(path):
                files[path] = self.shards.checksums(path, snapshot=snapshot, index=index, layout=self._layout(path))
            elif holds_weights(path):
                files[path] = self.weights.checksums(path)
            else:
                keys = chunk_keys(self._growing(path), slice(snapshot, snapshot + 1))
                written = [
                    folder / key for key in keys if (folder / key).exists()
                ]  # of fill values, no file is written
                unflushed += written
                files[path] = {file.name: checksum_of(file) for file in written}
            unflushed.append(folder)
        self._growing(CHECKSUMS)[snapshot] = encode_files(files)
        record = self.path / CHECKSUMS / chunk_key(snapshot)
        self.storage.keep([*unflushed, record, record.parent])
        return record_digest(record.read_bytes())

    def replace_root(self) -> None:
        """Write the root as it is now; what it says is then what a reader sees."""
        self.attributes["constant"] = dict(sorted(self._nodes.constant.items()))
        self.storage.keep_root(root_metadata(self.attributes, self._nodes.known))
        self._nodes.show()
