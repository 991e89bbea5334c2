"""One layer of a run."""

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from ..vectors import Scaling, Vectors, make_vectors
from .format import STATISTICS

if TYPE_CHECKING:
    from .run import Run

Selection = int | slice | Sequence[int] | npt.NDArray[np.integer] | None


class Layer:
    """The feature maps of one layer, over the snapshots of a run. Made by ``run[name]``.

    Attributes
    ----------
    name : str
        The module's name in the model.
    """

    def __init__(self, run: "Run", name: str) -> None:
        self.name = name
        self._run = run
        self._path = run.layer_path(name)
        self._array = run.stored(f"{self._path}/activation")

    @property
    def shape(self) -> tuple[int, ...]:
        """Length of each axis: (snapshot, sample, channel, height, width), or fewer for other modules."""
        return self._array.shape

    @property
    def dimensions(self) -> tuple[str, ...]:
        """Names of the axes."""
        return tuple(self._array.array.metadata.dimension_names)  # type: ignore[union-attr, arg-type]

    @property
    def dtype(self) -> np.dtype[Any]:
        """Stored dtype."""
        return np.dtype(self._array.array.dtype)

    @property
    def nbytes(self) -> int:
        """Bytes of all snapshots, uncompressed."""
        return int(np.prod(self.shape)) * self.dtype.itemsize

    @property
    def module(self) -> str:
        """Class of the module."""
        return str(self._run.group_attributes(self._path)["module"])

    @property
    def n_channels(self) -> int:
        """Number of channels."""
        return self.shape[self.dimensions.index("channel")]

    @property
    def map_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of one sample's feature maps; tokens count as height."""
        if len(self.shape) == 5:
            return self.shape[2], self.shape[3], self.shape[4]
        return self.n_channels, (self.shape[2] if len(self.shape) == 4 else 1), 1

    @property
    def snapshots(self) -> pd.DataFrame:
        """One row per snapshot: snapshot, epoch, step."""
        return self._run.snapshots

    @property
    def samples(self) -> pd.DataFrame:
        """One row per sample, by its index in the data set."""
        return self._run.samples

    @property
    def statistics(self) -> pd.DataFrame:
        """Per snapshot and channel, over the finite values before any reduction or cast.

        Columns ``snapshot, epoch, step, channel, mean, std, min, max, zeros`` (share, 0 to 1), ``nonfinite`` (count).
        """
        values = self._run.stored(f"{self._path}/statistics").read()
        channel = np.tile(np.arange(self.n_channels), len(values))
        frame = self.snapshots.loc[self.snapshots.index.repeat(self.n_channels)].reset_index(drop=True)
        columns = dict(zip(STATISTICS, values.transpose(1, 0, 2).reshape(len(STATISTICS), -1), strict=True))
        return frame.assign(channel=channel, **columns)

    def __repr__(self) -> str:
        axes = ", ".join(f"{name}: {n}" for name, n in zip(self.dimensions, self.shape, strict=True))
        return f"<Layer {self.name} ({self.module}): {axes}; {self.dtype}>"

    def read(
        self,
        *,
        epoch: int | None = None,
        snapshot: int | None = None,
        samples: Selection = None,
        channels: Selection = None,
    ) -> npt.NDArray[Any]:
        """Read feature maps.

        Parameters
        ----------
        epoch, snapshot : int, optional
            Which snapshot; of an epoch, the last. Without either, all of them.
        samples : int, slice or sequence of int, optional
            Dataset indices, in the order wanted. All by default, in slot order.
        channels : int, slice or sequence of int, optional
            All by default. A single int keeps the axis, for samples as for channels.

        Returns
        -------
        ndarray of shape (n_samples, n_channels, height, width)
            In the stored dtype; (n_samples, n_channels) or (n_samples, n_tokens, n_channels) for layers without
            maps. Without `epoch` and `snapshot`, an axis of snapshots comes first.

        Raises
        ------
        ValueError
            Where there is no such epoch, snapshot, sample or channel.
        StoreError
            Where the stored data is damaged.
        """
        if epoch is None and snapshot is None:
            self._run.resolve(snapshot=0)
            every = [self.read(snapshot=k, samples=samples, channels=channels) for k in range(self.shape[0])]
            return np.stack(every)
        number = self._run.resolve(epoch=epoch, snapshot=snapshot)
        slots = self._run.slots(number, self._sample_ids(number, samples))
        picked = _positions(channels, self.n_channels, f"channel of {self.name}")
        box = slice(int(picked.min()), int(picked.max()) + 1) if len(picked) else slice(0, 0)
        axis = self.dimensions.index("channel") - 1
        rest = tuple(box if a == axis else slice(None) for a in range(1, len(self.shape) - 1))
        return np.take(self._read_slots(number, slots, rest), picked - box.start, axis=axis)

    def read_maps(
        self, *, snapshot: int, samples: npt.NDArray[np.int64], channels: slice, rows: slice
    ) -> npt.NDArray[np.floating]:
        """Read maps of shape (n_samples, n_channels, height, width), whatever axes the layer has."""
        slots = self._run.slots(snapshot, samples)
        rest = {5: (channels, rows), 4: (rows, channels), 3: (channels,)}[len(self.shape)]
        values = self._read_slots(snapshot, slots, rest)
        if values.ndim == 4:
            return values
        if values.ndim == 3:
            return values.transpose(0, 2, 1)[..., None]
        return values[..., None, None]

    def display(self, sample: int) -> npt.NDArray[np.uint8] | None:
        """Return a picture of an input, ndarray of shape (height, width, 3), uint8; None where the run has none."""
        return self._run.display(sample)

    def vectors(
        self,
        view: str,
        *,
        snapshots: Sequence[int] | None = None,
        samples: Sequence[int] | None = None,
        n_rows: int | None = None,
        scaling: Scaling = "none",
        random_state: int = 0,
    ) -> Vectors:
        """Flatten the feature maps to vectors; nothing is read yet.

        Parameters
        ----------
        view : {"channel", "map", "sample", "position"} or str
            What a row is: a channel's response to all samples, one feature map, one sample, or one place of one
            sample. Or an einops pattern from ``n c h w`` to rows and features.
        snapshots : sequence of int, optional
            Numbers of the snapshots; all by default.
        samples : sequence of int, optional
            Dataset indices; all by default.
        n_rows : int, optional
            Draw so many rows of each snapshot, once, the same in every snapshot. All by default.
        scaling : {"none", "centred", "unit"}
            What is done to each row.
        random_state : int
            Seed of the draw.

        Returns
        -------
        Vectors
            Rows of all snapshots, snapshot by snapshot.

        Raises
        ------
        ValueError
            For a view, snapshot or sample that does not exist.
        StoreError
            Where the run holds no snapshot yet.
        """
        self._run.resolve(snapshot=0)
        numbers = range(self.shape[0]) if snapshots is None else snapshots
        chosen = [self._run.resolve(snapshot=number) for number in numbers]
        for name, given in (("snapshots", chosen), ("samples", samples)):
            if given is not None and len(given) == 0:
                raise ValueError(f"{name} is empty; pass at least one, or None for all")
        if any(later <= earlier for earlier, later in pairwise(chosen)):
            raise ValueError(f"snapshots is {chosen}; expected each once, in order, so that what follows is in time")
        return make_vectors(
            self,
            view,
            snapshots=chosen,
            samples=self._common_samples(chosen, samples),
            n_rows=n_rows,
            scaling=scaling,
            random_state=random_state,
        )

    def _common_samples(self, snapshots: Sequence[int], samples: Sequence[int] | None) -> npt.NDArray[np.int64]:
        if samples is None:
            return self._run.sample_ids(snapshots[0])
        wanted = _integers(samples, "samples")
        for number in snapshots:
            self._run.slots(number, wanted)
        return wanted

    def _sample_ids(self, snapshot: int, samples: Selection) -> Sequence[int] | None:
        if samples is None:
            return None
        if isinstance(samples, slice):
            return [int(i) for i in self._run.sample_ids(snapshot)[samples]]
        return [int(i) for i in _integers(samples, "samples")]

    def _read_slots(self, snapshot: int, slots: npt.NDArray[np.int64], rest: tuple[slice, ...]) -> npt.NDArray[Any]:
        """Read slots in the order given: stretches of neighbours in one read each."""
        ordered, back = np.unique(slots, return_inverse=True)
        stretches = np.split(ordered, np.flatnonzero(np.diff(ordered) > 1) + 1)
        boxes = [slice(int(s[0]), int(s[-1]) + 1) if len(s) else slice(0, 0) for s in stretches]
        parts = [self._array.read(snapshot, box, *rest) for box in boxes]
        values = parts[0] if len(parts) == 1 else np.concatenate(parts)
        return values if np.array_equal(back, np.arange(len(values))) else values[back]


def _positions(selection: Selection, length: int, what: str) -> npt.NDArray[np.int64]:
    if selection is None:
        return np.arange(length)
    if isinstance(selection, slice):
        return np.arange(length)[selection]
    picked = _integers(selection, "channels")
    outside = picked[(picked < 0) | (picked >= length)]
    if len(outside):
        raise ValueError(f"there is no {what} {outside[0]}; it has {length}, numbered 0 to {length - 1}")
    return picked


def _integers(selection: int | Sequence[int] | npt.NDArray[np.integer], what: str) -> npt.NDArray[np.int64]:
    """Return what was asked for as numbers; a mask is not taken for the numbers 0 and 1."""
    picked = np.atleast_1d(np.asarray(selection))
    if picked.ndim != 1 or (picked.size and picked.dtype.kind not in "iu"):
        raise TypeError(
            f"{what} is of dtype {picked.dtype} and shape {picked.shape}; expected integers, in one row "
            f"(of a mask: np.flatnonzero(mask), or run.samples.index[mask])"
        )
    return picked.astype(np.int64)
