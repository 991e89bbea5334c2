"""Run for reading: its whole snapshots, its samples and metrics, and its layers."""

import os
from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import zarr

from ...errors import NoSnapshotYet, StoreError
from .._compat import careful_pipeline, list_files, open_group
from ..files import has_writer, whole_url
from ..format import (
    KEY,
    LOSS_SCALE,
    CommittedFiles,
    Files,
    RunKind,
    StoredArray,
    array_path,
    check_no_links,
    committed_root,
    identify,
    layer_path,
    no_snapshot_yet,
    shard_shape,
)
from ._diverged import find_diverged
from ._finite_part import Finiteness, FinitePart
from ._last_of_epoch import last_of_epoch
from ._layer import Layer
from ._layer_expression import layer_expression
from ._recorded_weights import RecordedWeights
from ._samples import check_index, extent, sample_table, samples_in_common
from ._slots import last_slots, ranges

if TYPE_CHECKING:
    import xarray


def open_run(path: str | os.PathLike[str]) -> "Run":
    """Open a run for reading.

    Parameters
    ----------
    path : path-like
        The run's folder, or its URL (``s3://...``: ``pip install 'fmcluster[s3]'``).

    Returns
    -------
    Run
        The snapshots that were whole when the run was opened.

    Raises
    ------
    FileNotFoundError
        Where there is nothing at `path`.
    StoreError
        Where there is no run, or one of a newer format; `NoSnapshotYet` where a recorder is laying one out.
    """
    return Run(whole_url(path))


class Run(RecordedWeights):
    """The snapshots of one training run, as they were when it was opened.

    Made by `open_run`. `run[name]` is a `Layer`. What it holds of the model is described at `RecordedWeights`.

    Attributes
    ----------
    path : str
        The run's folder or URL.
    name : str
        The last part of it.
    kind : {"probe", "live"}
        Whether every snapshot holds the same samples in the same slots, or training samples as they arrived.
    layers : list of str
        Names of the layers, in forward order.
    epochs : list of int
        The epochs that have a snapshot, in order, each once.
    snapshots : DataFrame
        One row per snapshot: ``snapshot`` (its number), ``epoch``, ``step`` (optimizer steps so far).
    samples : DataFrame
        One row per sample, indexed by ``sample``, its index in the data set: ``label`` (-1 where it is not known),
        and where they are known ``class_name``, ``path`` and ``digest`` (SHA-256, hexadecimal).
    metrics : DataFrame
        One row per snapshot: ``snapshot``, ``epoch``, ``step``, and a column per metric, NaN where it has none. One
        that was logged as ``epoch``, ``step``, ``snapshot`` or ``run`` has ``(metric)`` after its name.
    classes : tuple of str
        Class names by label, where the data set had any.
    nodes : dict
        The Zarr metadata of each group and array, by its path in the hierarchy.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        root = committed_root(path)
        self._attributes: dict[str, Any] = root["attributes"][KEY]
        self.nodes: dict[str, dict[str, Any]] = root["consolidated_metadata"]["metadata"]
        if self.is_local:
            check_no_links(Path(path), nodes=self.nodes)
        self._group = open_group(path, root)
        about = {name: self._attributes[name] for name in ("commits", "constant")}
        self._commits = CommittedFiles(path, store=self._group.store, **about)
        self._indices: dict[int, npt.NDArray[np.int64]] = {}
        self.finiteness = Finiteness(self)
        self.kind: RunKind = self._attributes.get("kind", "probe")
        self.layers: list[str] = list(self._attributes["layers"])
        self.classes: tuple[str, ...] = tuple(self._attributes.get("classes", ()))

    @property
    def name(self) -> str:
        """The last part of its path."""
        return self.path.rstrip("/").rpartition("/")[2] or self.path

    @cached_property
    def snapshots(self) -> pd.DataFrame:
        """The snapshots' numbers, epochs and steps."""
        commits = self._attributes["commits"]
        known = {name: np.array([commit[name] for commit in commits], np.int64) for name in ("epoch", "step")}
        return pd.DataFrame({"snapshot": np.arange(len(commits)), **known})

    @property
    def epochs(self) -> list[int]:
        """The epochs that have a snapshot."""
        return [int(epoch) for epoch in self.snapshots["epoch"].unique()]

    @cached_property
    def samples(self) -> pd.DataFrame:
        """What is known of each sample, by its index in the data set."""
        return sample_table(self)

    def diverged(self, *, layers: Sequence[str] | None = None) -> pd.DataFrame:
        """Return the snapshots at which layers (all by default) gave NaN or infinite values.

        Returns
        -------
        DataFrame
            Columns ``snapshot, epoch, step, layers`` (how many gave such values), ``first`` (the first of them).
        """
        return find_diverged(self, self.layers if layers is None else layers)

    def finite_part(self, *, layers: Sequence[str] | None = None) -> FinitePart:
        """Return what can be analyzed: layers (those asked for are all kept), snapshots, samples; see `FinitePart`."""
        return self.finiteness.part(layers, chosen=layers is not None)

    def finite_snapshots(self, *, layers: Sequence[str] | None = None) -> list[int]:
        """Return the numbers of the snapshots of `finite_part`; ValueError where there is none."""
        return self.finite_part(layers=layers).snapshots

    @cached_property
    def metrics(self) -> pd.DataFrame:
        """The numbers recorded beside the snapshots."""
        frame = self.snapshots.copy()
        if self.holds("metrics"):
            for name, array in sorted(self._group["metrics"].arrays()):  # type: ignore[union-attr]
                column = str(array.attrs["name"])
                while column in (*frame, "run"):  # tables of several runs say by it which one
                    column += " (metric)"
                frame[column] = self.stored(f"metrics/{name}").read()
        return frame

    @property
    def provenance(self) -> list[dict[str, Any]]:
        """What made the snapshots: one record per recording session, with its ``first_snapshot``."""
        return list(self._attributes["sessions"])

    @property
    def nbytes(self) -> int:
        """Bytes of all activations and gradients, uncompressed."""
        each = ((name, quantity) for name in self.layers for quantity in self[name].quantities)
        return sum(Layer(self, name, quantity=quantity).nbytes for name, quantity in each)

    @property
    def is_local(self) -> bool:
        """Whether the run lies in a folder of this machine, rather than at a URL."""
        return "://" not in self.path

    @property
    def is_being_written(self) -> bool:
        """Whether a recorder has it open at this moment, as far as this machine can tell."""
        return has_writer(self.path)

    @property
    def nbytes_stored(self) -> int:
        """Bytes of the run's files (a local run only)."""
        return self.bytes_below("")

    def bytes_below(self, folder: str) -> int:
        """Return the bytes of the files in one of a local run's folders, such as ``layers/``; with "", of all."""
        return sum(size for name, size in list_files(self._group.store).items() if name.startswith(folder))

    def __iter__(self) -> Iterator[str]:
        """Go through the names of the layers."""
        return iter(self.layers)

    def __getitem__(self, name: str) -> Layer:
        if name not in self.layers:
            near = get_close_matches(str(name), self.layers, n=3, cutoff=0.5)
            hint = f"did you mean {', '.join(near)}?" if near else f"it has: {', '.join(self.layers)}"
            raise KeyError(f"{self.path} has no layer {name!r}; {hint}")
        return Layer(self, name)

    def match(self, patterns: Sequence[str]) -> list[str]:
        """Return the names of the layers that match any of the patterns, in the order of the run.

        Parameters
        ----------
        patterns : sequence of str
            Names, or patterns in which ``*`` and ``?`` stop at dots, as those of a recorder's `layers`.

        Returns
        -------
        list of str

        Raises
        ------
        KeyError
            Where a pattern matches no layer.
        """
        found: set[str] = set()
        for pattern in patterns:
            expression = layer_expression(pattern)
            if not (names := [name for name in self.layers if name == pattern or expression.fullmatch(name)]):
                return [self[pattern].name]  # raises, naming the layers that are near
            found.update(names)
        return [name for name in self.layers if name in found]

    def __contains__(self, name: object) -> bool:
        return name in self.layers

    def __len__(self) -> int:
        return len(self.snapshots)

    def __repr__(self) -> str:
        return f"<Run {self.path}: {len(self)} snapshots of {len(self.layers)} layers, {self.n_samples} samples>"

    @property
    def n_samples(self) -> int:
        """Number of sample slots in a snapshot."""
        return int(self.stored("index").shape[1])

    @property
    def shard_samples(self) -> int:
        """How many samples lie in one file."""
        array = self.stored(array_path(self.layers[0], "activation")).array
        return shard_shape(array)[1]

    def to_xarray(self) -> "xarray.DataTree":
        """Return the run as a DataTree, named dimensions and lazily read.

        `xarray.open_datatree(path, engine="zarr")` gives the same of a whole run without this package. What is read of
        this one is compared with what was committed, and takes no more memory than it has: damage is a `StoreError`.
        """
        from ._data_tree import data_tree

        return data_tree(self)

    def resolve(self, *, epoch: int | None = None, snapshot: int | None = None) -> int:
        """Return the number of the snapshot asked for; of an epoch, the last one.

        Raises
        ------
        ValueError
            Where the run has no such epoch or snapshot, both were given, or neither.
        TypeError
            Where it is no integer.
        """
        if not len(self):
            if self.is_being_written:
                raise NoSnapshotYet(no_snapshot_yet(self.path))
            raise StoreError(f"{self.path} holds no whole snapshot yet; record one with Recorder.snapshot")
        if (epoch is None) == (snapshot is None):
            raise ValueError(f"pass either an epoch or a snapshot; received epoch={epoch}, snapshot={snapshot}")
        for name, number in (("epoch", epoch), ("snapshot", snapshot)):
            if number is not None and (isinstance(number, bool) or not isinstance(number, int | np.integer)):
                raise TypeError(f"{name} is {number!r}; expected an integer")
        if snapshot is not None:
            if not 0 <= snapshot < len(self):
                raise ValueError(f"snapshot {snapshot} is not in the run; it has 0 to {len(self) - 1}")
            return int(snapshot)
        assert epoch is not None
        found = last_of_epoch(self.snapshots["epoch"], epoch)
        if found is None:
            raise ValueError(f"no snapshot was taken in epoch {epoch}; the run has epochs {ranges(self.epochs)}")
        return found

    def slots(self, snapshot: int, samples: npt.NDArray[np.int64] | None = None) -> npt.NDArray[np.int64]:
        """Return the slots in which a snapshot holds samples, ndarray of shape (n_samples,), int64.

        Those of all its samples by default. Of a sample that it holds several times, the last.

        Raises
        ------
        ValueError
            Where the snapshot has no such sample.
        """
        index = self._index(snapshot)
        if samples is None:
            return np.flatnonzero(index >= 0)
        slots = last_slots(index, samples)
        if (slots < 0).any():
            raise ValueError(
                f"snapshot {snapshot} has no sample {samples[slots < 0][0]}; it {extent(self.sample_ids(snapshot))}"
            )
        return slots

    def loss_scale(self, snapshot: int) -> npt.NDArray[np.float64]:
        """Return what the loss was multiplied with before its gradients were computed, by the slot of each sample.

        Returns
        -------
        ndarray of shape (n_slots,), float64
            1 where the loss was not scaled; NaN where nothing was recorded.
        """
        if not self.holds(LOSS_SCALE):
            return np.full(self.n_samples, np.nan)
        return self.stored(LOSS_SCALE).read(snapshot)

    def common_samples(self, snapshots: Sequence[int]) -> npt.NDArray[np.int64]:
        """Return the dataset indices that all the snapshots hold: in slot order, in a live run ascending.

        Raises
        ------
        ValueError
            Where there are none.
        """
        if self.kind == "probe":
            return self.sample_ids(snapshots[0])
        return samples_in_common(self, snapshots)

    def left_out(self, snapshots: Sequence[int]) -> npt.NDArray[np.int64]:
        """Return the dataset indices that some of the snapshots hold, but not all: ndarray of int64, ascending."""
        if self.kind == "probe":
            return np.empty(0, np.int64)
        held = np.unique(np.concatenate([self.sample_ids(snapshot) for snapshot in snapshots]))
        return np.setdiff1d(held, self.common_samples(snapshots))

    def identity(self, snapshots: Sequence[int]) -> dict[str, Any]:
        """Return what tells snapshots from any others, without reading them: JSON; see `identify`."""
        return identify(self._attributes, self.nodes, snapshots=snapshots)

    def _index(self, snapshot: int) -> npt.NDArray[np.int64]:
        """Return a snapshot's row of `index`, read once: every read of feature maps needs it."""
        if snapshot not in self._indices:
            self._indices[snapshot] = check_index(self, self.stored("index").read(snapshot))
        return self._indices[snapshot]

    def sample_ids(self, snapshot: int) -> npt.NDArray[np.int64]:
        """Return the dataset indices of a snapshot's samples, in slot order."""
        index = self._index(snapshot)
        return index[index >= 0]

    def display(self, sample: int) -> npt.NDArray[np.uint8] | None:
        """Return a picture of a sample's input, ndarray (height, width, 3), uint8; None where there is none."""
        if not self.holds("inputs/display"):
            return None
        where = np.flatnonzero(self.samples.index == sample)
        if not len(where):
            raise ValueError(f"the run has no sample {sample}; it holds {len(self.samples)}")
        return self.stored("inputs/display").read(int(where[0]))

    @property
    def array_paths(self) -> list[str]:
        """The paths of all arrays in the hierarchy."""
        return sorted(path for path, node in self.nodes.items() if node["node_type"] == "array")

    def committed_files(self, snapshot: int | None = None) -> Files:
        """Return the files that a snapshot's commit vouches for; by default those that do not change."""
        return self._commits.files(snapshot)

    def holds(self, path: str) -> bool:
        """Whether there is an array or group at a path in the hierarchy."""
        return path in self._group

    def group_attributes(self, path: str) -> dict[str, Any]:
        """Return the attributes of one of the run's groups; with "", those of the root."""
        return (self._group[path] if path else self._group).attrs.asdict()

    def stored(self, path: str) -> StoredArray:
        """Return one of the run's arrays, by its path in the hierarchy."""
        try:
            with careful_pipeline():
                array = self._group[path]
        except KeyError:
            raise StoreError(f"{self.path} is damaged: its metadata does not name {path}") from None
        assert isinstance(array, zarr.Array)
        return StoredArray(array, run=self.path, vouched=self._commits)

    def layer_path(self, name: str) -> str:
        """Return the path of a layer's group in the hierarchy."""
        return layer_path(name)
