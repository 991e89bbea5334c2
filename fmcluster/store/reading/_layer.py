"""Layer of a run: its feature maps over the snapshots, read by epoch, sample and channel."""

from collections.abc import Sequence
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from ...vectors import Scaling, Unit, Vectors, draw_positions, make_vectors, new_block
from ..format import STATISTICS, STATISTICS_OF, Quantity, array_path, shard_shape, statistics_path, unscale
from ._description import LayerDescription
from ._slots import Selection, boxes, integers, ranges
from ._snapshots import Snapshots

_NOT_POSITIONS = ("snapshot", "sample", "channel")


class Layer(LayerDescription):
    """The feature maps of one layer, over the snapshots of a run. Made by ``run[name]``.

    Attributes
    ----------
    name : str
        The module's name in the model.
    quantity : {"activation", "gradient"}
        Whether these are the layer's outputs, or the gradients of the loss with respect to them.
    """

    def __init__(self, run: Snapshots, name: str, *, quantity: Quantity = "activation") -> None:
        super().__init__(run, name)
        self.quantity = quantity
        self._array = run.stored(array_path(name, quantity))

    @property
    def label(self) -> str:
        """What the layer is called in titles: ``"conv1"``, or ``"conv1 gradient"``."""
        return self.name if self.quantity == "activation" else f"{self.name} {self.quantity}"

    @property
    def quantities(self) -> tuple[Quantity, ...]:
        """What the run holds of this layer: ``"activation"``, and maybe ``"gradient"``."""
        return tuple(quantity for quantity in STATISTICS_OF if self._run.holds(array_path(self.name, quantity)))

    @property
    def gradient(self) -> "Layer":
        """The gradients of the loss with respect to the layer's outputs, as a layer of their own.

        Raises
        ------
        ValueError
            Where the run holds none.
        """
        if "gradient" not in self.quantities:
            raise ValueError(
                f"{self._run.path} holds no gradients of layer {self.name!r}; "
                f'record them with Recorder(..., record=("activation", "gradient"))'
            )
        return Layer(self._run, self.name, quantity="gradient")

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
    def n_channels(self) -> int:
        """Number of channels that were kept."""
        return self.shape[self.dimensions.index("channel")]

    @cached_property
    def channels(self) -> npt.NDArray[np.int64]:
        """The module's numbers of the channels that were kept, in their order: ndarray of (n_channels,), int64."""
        path = f"{self._path}/channel"
        return self._run.stored(path).read() if self._run.holds(path) else np.arange(self.n_channels)

    @property
    def output_shape(self) -> tuple[int, ...]:
        """Shape of one sample's output, channels first where it has feature maps."""
        return self._parsed_shape("output", n_axes=len(self.shape) - 2) or self.shape[2:]

    @property
    def returned_shape(self) -> tuple[int, ...]:
        """Shape of one row as the module returned it, before its channels were moved, or rows laid beside others."""
        return self._parsed_shape("returned") or self.output_shape

    @property
    def feature_map_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of one sample's feature maps.

        Tokens and steps of time count as height; the frames of a video lie under one another.
        """
        rest = [n for n, name in zip(self.shape, self.dimensions, strict=True) if name not in _NOT_POSITIONS]
        return (
            self.n_channels,
            int(np.prod(rest[:-1])) if len(rest) > 1 else (rest or [1])[0],
            (rest[-1] if len(rest) > 1 else 1),
        )

    @property
    def units(self) -> dict[str, Unit]:
        """What is decoded at once: by axis, ``n`` for samples and ``c`` for channels."""
        chunks, files = self._array.array.chunks, shard_shape(self._array.array)
        channel = self.dimensions.index("channel")
        return {"n": Unit(chunks[1], files[1]), "c": Unit(chunks[channel], files[channel])}

    @property
    def n_output_channels(self) -> int:
        """Number of channels of the module's output, kept or not."""
        return self.output_shape[self.dimensions.index("channel") - 2]

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
        values = self._run.stored(statistics_path(self.name, self.quantity)).read()
        channel = np.tile(self.channels, len(values))
        frame = self.snapshots.loc[self.snapshots.index.repeat(self.n_channels)].reset_index(drop=True)
        columns = dict(zip(STATISTICS, values.transpose(1, 0, 2).reshape(len(STATISTICS), -1), strict=True))
        return frame.assign(channel=channel, **columns)

    def identity(self, snapshots: Sequence[int]) -> dict[str, Any]:
        """Return what tells the layer at snapshots from any other, without reading it; see `Run.identity`."""
        return self._run.identity(snapshots)

    def __repr__(self) -> str:
        axes = ", ".join(f"{name}: {n}" for name, n in zip(self.dimensions, self.shape, strict=True))
        return f"<Layer {self.label} ({self.module}): {axes}; {self.dtype}>"

    def read(
        self,
        *,
        epoch: int | None = None,
        snapshot: int | None = None,
        samples: Selection = None,
        channels: Selection = None,
        unscaled: bool = False,
    ) -> npt.NDArray[Any]:
        """Read feature maps.

        Parameters
        ----------
        epoch, snapshot : int, optional
            Which snapshot; of an epoch, the last. Without either, all of them.
        samples : int, slice or sequence of int, optional
            Dataset indices, in the order wanted; of a sample that a snapshot holds several times, the last. All by
            default, in slot order (a slice is of these); of several snapshots of a live run, those that all of them
            hold, by index.
        channels : int, slice or sequence of int, optional
            The module's numbers of channels, in the order wanted; a slice is of those that were kept. All by default.
            A single int keeps the axis, for samples as for channels.
        unscaled : bool
            Divide gradients by the loss scale that was recorded with each sample: what the loss was multiplied with
            (``torch.amp.GradScaler``). By default they are read as they were stored.

        Returns
        -------
        ndarray of shape (n_samples, n_channels, height, width)
            In the stored dtype; (n_samples, n_channels) or (n_samples, n_tokens, n_channels) for layers without
            feature maps. Without `epoch` and `snapshot`, an axis of snapshots comes first.

        Raises
        ------
        ValueError
            Where there is no such epoch, snapshot, sample or channel. With `unscaled`, where the layer's values are
            not gradients, or the loss scale of a sample is not known.
        StoreError
            Where the stored data is damaged.
        """
        picked = self.channel_indices(channels)
        if unscaled and self.quantity != "gradient":
            raise ValueError(
                f"unscaled=True was passed for the {self.quantity} of layer {self.name!r}; only gradients have a loss "
                f"scale: read layer.gradient, or leave unscaled out"
            )
        if epoch is None and snapshot is None:
            self._run.resolve(snapshot=0)
            numbers = range(self.shape[0])
            chosen = samples if samples is None or isinstance(samples, slice) else integers(samples, "samples")
            if chosen is None or isinstance(chosen, slice):
                chosen = self._run.common_samples(numbers)[chosen or slice(None)]
            return np.stack([self._read_part(k, self._run.slots(k, chosen), picked, unscaled) for k in numbers])
        number = self._run.resolve(epoch=epoch, snapshot=snapshot)
        if samples is None or isinstance(samples, slice):
            return self._read_part(number, self._run.slots(number)[samples or slice(None)], picked, unscaled)
        return self._read_part(number, self._run.slots(number, integers(samples, "samples")), picked, unscaled)

    def read_feature_maps(
        self, *, snapshot: int, samples: npt.NDArray[np.int64], channels: slice, rows: slice
    ) -> npt.NDArray[np.floating]:
        """Read feature maps of shape (n_samples, n_channels, height, width), whatever axes the layer has."""
        slots = self._run.slots(snapshot, samples)
        axes = self.dimensions[2:]
        if axes == ("channel",):
            return self._read_slots(snapshot, slots, (channels,))[..., None, None]
        if axes == ("token", "channel"):
            return self._read_slots(snapshot, slots, (rows, channels)).transpose(0, 2, 1)[..., None]
        if axes == ("channel", "time"):
            return self._read_slots(snapshot, slots, (channels, rows))[..., None]
        if axes == ("channel", "height", "width"):
            return self._read_slots(snapshot, slots, (channels, rows))
        height = self.shape[4]  # of a frame
        first, last, _ = rows.indices(self.feature_map_shape[1])
        frames = slice(first // height, -(-last // height))
        values = self._read_slots(snapshot, slots, (channels, frames))
        lines = values.reshape(*values.shape[:2], -1, values.shape[-1])
        return lines[:, :, first - frames.start * height : last - frames.start * height]

    def display(self, sample: int) -> npt.NDArray[np.uint8] | None:
        """Return a picture of an input, ndarray of shape (height, width, 3), uint8; None where the run has none."""
        return self._run.display(sample)

    def vectors(
        self,
        view: str,
        *,
        snapshots: Sequence[int] | None = None,
        samples: Sequence[int] | npt.NDArray[np.integer] | None = None,
        n_rows: int | None = None,
        n_positions: int | None = None,
        scaling: Scaling = "none",
        random_state: int = 0,
    ) -> Vectors:
        """Flatten the feature maps to vectors; nothing is read yet.

        Parameters
        ----------
        view : {"channel", "feature_map", "sample", "position"} or str
            What a row is: a channel's response to all samples, one feature map, one sample, or one position
            in one sample. Or an einops pattern from ``n c h w`` to rows and features.
        snapshots : sequence of int, optional
            Numbers of the snapshots; all by default.
        samples : sequence of int, optional
            Dataset indices; by default all that every one of the snapshots holds: in slot order, those of a live run
            by index.
        n_rows : int, optional
            Draw so many rows of each snapshot, once, the same in every snapshot. All by default.
        n_positions : int, optional
            Of the channel view, draw so many positions of each image: others for each, the same for every channel and
            in every snapshot. All by default. The correlation of two rows over N positions in all is then off by
            ``(1 - r**2) / sqrt(N)`` (standard error).
        scaling : {"none", "centered", "unit"}
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
        chosen = [self._run.resolve(snapshot=snapshot) for snapshot in numbers]
        for name, given in (("snapshots", chosen), ("samples", samples)):
            if given is not None and len(given) == 0:
                raise ValueError(f"{name} is empty; pass at least one, or None for all")
        if any(later <= earlier for earlier, later in pairwise(chosen)):
            raise ValueError(f"snapshots is {chosen}; expected each once, in order, so that each step goes forward")
        return make_vectors(
            draw_positions(self, view, n_positions=n_positions, random_state=random_state),
            view,
            snapshots=chosen,
            samples=self._samples_in_all(chosen, samples),
            n_rows=n_rows,
            scaling=scaling,
            random_state=random_state,
            left_out=self._run.left_out(chosen) if samples is None else None,
        )

    def _samples_in_all(
        self, snapshots: Sequence[int], samples: Sequence[int] | npt.NDArray[np.integer] | None
    ) -> npt.NDArray[np.int64]:
        if samples is None:
            return self._run.common_samples(snapshots)
        wanted = integers(samples, "samples")
        for snapshot in snapshots:
            self._run.slots(snapshot, wanted)
        return wanted

    def channel_indices(self, channels: Selection) -> npt.NDArray[np.int64]:
        """Return the indices of channels along the stored axis, by their numbers; a slice is of those kept.

        Raises
        ------
        TypeError
            For what is not a list of integers.
        ValueError
            For a channel that was not recorded.
        """
        indices = np.arange(self.n_channels)
        if channels is None:
            return indices
        if isinstance(channels, slice):
            return indices[channels]
        wanted = integers(channels, "channels")
        index_of = dict(zip(self.channels.tolist(), indices.tolist(), strict=True))
        if unknown := [number for number in wanted.tolist() if number not in index_of]:
            raise ValueError(
                f"there is no channel {unknown[0]} of {self.label}; "
                f"{self.n_channels} were recorded: {ranges(self.channels)}"
            )
        return np.array([index_of[number] for number in wanted.tolist()], dtype=np.int64)

    def _read_part(
        self, snapshot: int, slots: npt.NDArray[np.int64], channels: npt.NDArray[np.int64], unscaled: bool
    ) -> npt.NDArray[Any]:
        """Read slots and channels, by their indices in the array, in the order given."""
        box = slice(int(channels.min()), int(channels.max()) + 1) if len(channels) else slice(0, 0)
        axis = self.dimensions.index("channel") - 1
        rest = tuple(box if a == axis else slice(None) for a in range(1, len(self.shape) - 1))
        values = self._read_slots(snapshot, slots, rest)
        if not np.array_equal(channels, np.arange(box.start, box.stop)):
            values = np.take(values, channels - box.start, axis=axis)
        if unscaled:
            return unscale(values, self._run.loss_scale(snapshot)[slots], path=self._run.path, snapshot=snapshot)
        return values

    def _read_slots(self, snapshot: int, slots: npt.NDArray[np.int64], rest: tuple[slice, ...]) -> npt.NDArray[Any]:
        """Read slots in the order given, each shard once, however they are scattered."""
        shape = self.shape[2:]
        lengths = [len(range(*part.indices(n))) for part, n in zip(rest, shape, strict=False)]
        lengths += shape[len(rest) :]
        wanted = np.unique(slots)
        chunk, shard = self._array.array.chunks[1], shard_shape(self._array.array)[1]
        cover = list(boxes(wanted, n_slots=self.shape[1], chunk=chunk, shard=shard, widen=lengths == list(shape)))
        if len(cover) == 1 and np.array_equal(slots, np.arange(cover[0].start, cover[0].stop)):
            return self._array.read(snapshot, cover[0], *rest)
        out = new_block((len(slots), *lengths), self.dtype)
        for box in cover:
            for start in range(box.start, box.stop, shard):  # a shard at most is held beside what is asked for
                stop = min(start + shard, box.stop)
                values = self._array.read(snapshot, slice(start, stop), *rest)
                here = np.flatnonzero((slots >= start) & (slots < stop))
                out[here] = values[slots[here] - start]
        return out
