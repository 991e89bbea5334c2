"""Vectors: the rows of a view of feature maps, and reading some of them.

A view is an einops pattern over ``n c h w`` (sample, channel, height, width). The rows of all snapshots are stacked,
snapshot by snapshot. Nothing is read before a block is asked for.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from math import prod

import numpy as np
import numpy.typing as npt
import pandas as pd

from ._blocks import adds_up, copy_block, new_block
from ._scaling import Matrix, Scale, Scaling, apply_scale, moments_of, scale_of
from ._source import RowPart, Source
from ._tiles import Tile, cut_tile, itemsize_of, lengths_of, unit_bytes, units_of
from ._views import Box, parse_view, split_box

_DECODED_BYTES = 16 << 20
_AXES = {"n": "sample", "c": "channel", "h": "y", "w": "x"}


@dataclass(frozen=True, eq=False)
class Vectors:
    """The rows of a view over the snapshots of a layer, not yet read.

    Made by `Layer.vectors`.

    Attributes
    ----------
    view : str
        A name in `VIEWS`, or an einops pattern.
    snapshots : tuple of int
        Numbers of the snapshots, in order.
    samples : ndarray of shape (n_samples,), int64
        Dataset indices of the samples.
    drawn : ndarray of int64 or None
        The rows drawn, as positions in the view; the same in every snapshot. None: all.
    scaling : {"none", "centered", "unit"}
        What is done to each row: nothing, its mean subtracted, or divided by its Euclidean norm. A row of zeros stays
        one.
    left_out : ndarray of int64
        Dataset indices of the samples that some of the snapshots hold and some do not, which no row is made of.
    excluded : DataFrame or None
        The rows that `without_nonfinite` left out: one line for each snapshot in which such a row is not finite.
    checked : bool
        Whether values that are not finite are an error.
    """

    source: Source
    view: str
    snapshots: tuple[int, ...]
    samples: npt.NDArray[np.int64]
    drawn: npt.NDArray[np.int64] | None = None
    scaling: Scaling = "none"
    left_out: npt.NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    excluded: pd.DataFrame | None = None
    checked: bool = True

    @property
    def layer(self) -> str:
        """What the layer is called."""
        return self.source.label

    @cached_property
    def rows_per_snapshot(self) -> int:
        """Number of rows in each snapshot."""
        return len(self.drawn) if self.drawn is not None else self._size(self.row_axes)

    @cached_property
    def n_features(self) -> int:
        """Length of a row."""
        return self._size(self.feature_axes)

    @property
    def feature_shape(self) -> tuple[int, ...]:
        """Lengths of the axes that the features are, in their order."""
        return tuple(self._sizes[axis] for axis in self.feature_axes)

    @property
    def shape(self) -> tuple[int, int]:
        """Rows over all snapshots, and features."""
        return len(self.snapshots) * self.rows_per_snapshot, self.n_features

    def __repr__(self) -> str:
        missing = (
            f"; {len(self.left_out)} samples are not in every snapshot, and left out" if len(self.left_out) else ""
        )
        return f"<Vectors {self.view} of {self.layer}: {self.shape[0]} rows of {self.shape[1]} features{missing}>"

    @cached_property
    def rows(self) -> pd.DataFrame:
        """Labels of the rows: snapshot, epoch, step, then sample, channel, y, x as the view has them."""
        ordinals = {axis: np.arange(self._sizes[axis]) for axis in "hw"}
        ids = {"n": self.samples, "c": self.source.channels, **ordinals}
        grid = np.meshgrid(*(ids[axis] for axis in self.row_axes), indexing="ij")
        within = {_AXES[axis]: values.ravel() for axis, values in zip(self.row_axes, grid, strict=True)}
        if self.drawn is not None:
            within = {name: values[self.drawn] for name, values in within.items()}
        time = self.source.snapshots.set_index("snapshot").loc[list(self.snapshots)].reset_index()
        count = len(self.snapshots)
        return pd.DataFrame(
            {name: np.repeat(column.to_numpy(), self.rows_per_snapshot) for name, column in time.items()}
            | {name: np.tile(values, count) for name, values in within.items()}
        )

    def feature_parts(self, *, max_bytes: int) -> list[Box]:
        """Cut the features into parts that can be read by themselves, by `read_features`.

        Parameters
        ----------
        max_bytes : int
            About how large a block of all rows may be. At least one line of one feature map of all rows is read.
        """
        return list(self._boxes(self.feature_axes, max_bytes, copies=len(self.snapshots)))

    def read_features(self, part: Box, scale: Scale = (None, None)) -> Matrix:
        """Read some features of all rows: ndarray of shape (n_rows, n_features of the part), float32.

        `scale` is what `scale_rows` makes of the moments of all parts.
        """
        block = new_block((self.shape[0], self._size_in(part, self.feature_axes)))
        for order, snapshot in enumerate(self.snapshots):
            here = block[order * self.rows_per_snapshot :][: self.rows_per_snapshot]
            if self.drawn is None:
                self._read(snapshot, part, out=here)
            else:
                here[:] = self._read(snapshot, part)[self.drawn]
        return apply_scale(self._finite(block, 0), scale)

    def feature_tiles(self, *, block_bytes: int, tile_bytes: int = 0) -> list[Tile]:
        """Cut the features into parts that `read_tile` reads, whose blocks are about as large as `block_bytes`.

        Parameters
        ----------
        block_bytes : int
            About how large a block of all rows may be, as float32.
        tile_bytes : int
            About how much of all rows may be held as it is stored, so that chunks need not be decoded for each block.
        """
        limit = max(block_bytes, tile_bytes * 4 // itemsize_of(self.source))
        copies, axes = len(self.snapshots), self.feature_axes
        return [
            cut_tile(box, axes, sizes=self._sizes, copies=copies, block_bytes=block_bytes)
            for box in self._boxes(axes, limit, copies=copies)
        ]

    @property
    def whole_feature_bytes(self) -> tuple[int, int]:
        """Bytes of the least features of all rows that read no chunk twice: as float32, and as stored. 0: not known."""
        copies = len(self.snapshots)
        size = unit_bytes(self.feature_axes, sizes=self._sizes, units=units_of(self.source), copies=copies)
        return size, size * itemsize_of(self.source) // 4

    def read_tile(self, tile: Tile, scale: Scale = (None, None), *, reuse: bool = False) -> Iterator[Matrix]:
        """Yield a tile's blocks, ndarray (n_rows, n_features of the block), float32; by `reuse`, in the same memory."""
        if len(tile.blocks) == 1:
            yield self.read_features(tile.box, scale)
            return
        order = self.row_axes + self.feature_axes
        held = [self._read_maps(snapshot, tile.box) for snapshot in self.snapshots]
        memory = new_block((0,))
        for box in tile.blocks:
            cut = tuple(box.get(axis, slice(None)) for axis in "nchw")
            shape = (self.shape[0], prod(held[0][cut].shape) // self._size(self.row_axes))
            if not reuse or len(memory) < prod(shape):
                memory = new_block((prod(shape),))
            block = memory[: prod(shape)].reshape(shape)
            for number, maps in enumerate(held):
                here = block[number * self.rows_per_snapshot :][: self.rows_per_snapshot]
                turned = maps[cut].transpose(["nchw".index(axis) for axis in order])
                out = here if self.drawn is None else new_block((self._size(self.row_axes), block.shape[1]))
                copy_block(turned, out.reshape(turned.shape), of=prod(self.shape))
                if self.drawn is not None:
                    here[:] = out[self.drawn]
            yield apply_scale(self._finite(block, 0), scale)

    def row_moments(self, part: Box) -> npt.NDArray[np.float64]:
        """Return each row's sum and sum of squares over a part of the features: ndarray of shape (2, n_rows)."""
        return np.stack(moments_of(self.read_features(part)))

    def tile_moments(self, tile: Tile) -> npt.NDArray[np.float64]:
        """Return each row's sum and sum of squares over a tile: ndarray of shape (2, n_rows)."""
        return np.asarray(sum(np.stack(moments_of(block)) for block in self.read_tile(tile)))

    def scale_rows(self, moments: npt.NDArray[np.float64]) -> Scale:
        """Return what is subtracted from each row and what it is multiplied with, by its moments over all features."""
        return scale_of(moments[0], moments[1], n_features=self.n_features, scaling=self.scaling)

    def feature_blocks(self, *, max_bytes: int) -> Iterator[Matrix]:
        """Yield all rows, a block of the features at a time: ndarray (n_rows, n_features of the block), float32."""
        parts = self.feature_parts(max_bytes=max_bytes)
        scale: Scale = (None, None)
        if self.scaling != "none":
            moments = np.zeros((2, self.shape[0]))
            for part in parts:
                moments += self.row_moments(part)
            scale = self.scale_rows(moments)
        for part in parts:
            yield self.read_features(part, scale)

    def row_parts(self, *, max_bytes: int) -> list[RowPart]:
        """Cut the rows into parts that can be read by themselves, by `read_rows`.

        Parameters
        ----------
        max_bytes : int
            About how large a block of whole rows may be.
        """
        parts = []
        for order, snapshot in enumerate(self.snapshots):
            start, seen = order * self.rows_per_snapshot, 0
            for box in self._boxes(self.row_axes, max_bytes):
                count, picked = self._size_in(box, self.row_axes), None
                if self.drawn is not None:
                    picked = self.drawn[(self.drawn >= seen) & (self.drawn < seen + count)] - seen
                    seen += count
                    count = len(picked)
                if count:
                    parts.append(RowPart(snapshot, start, box, picked))
                    start += count
        return parts

    def read_rows(self, part: RowPart) -> Matrix:
        """Read some rows whole: ndarray of shape (n_rows of the part, n_features), float32."""
        block = self._read(part.snapshot, part.box)
        if part.picked is not None:
            block = block[part.picked]
        block = self._finite(block, part.start)
        if self.scaling == "none":
            return block
        return apply_scale(block, self.scale_rows(np.stack(moments_of(block))))

    def row_blocks(self, *, max_bytes: int) -> Iterator[tuple[int, Matrix]]:
        """Yield whole rows, a block of them at a time: the position of its first row, and the block, float32."""
        for part in self.row_parts(max_bytes=max_bytes):
            yield part.start, self.read_rows(part)

    def at(self, snapshots: Sequence[int]) -> "Vectors":
        """Return the same rows at some of the snapshots, by their numbers."""
        unknown = [number for number in snapshots if number not in self.snapshots]
        if unknown or not len(snapshots):
            raise ValueError(f"snapshots is {list(snapshots)}; expected some of {list(self.snapshots)}")
        return replace(self, snapshots=tuple(snapshots))

    def without_nonfinite(self, *, max_bytes: int = 1 << 26) -> "Vectors":
        """Leave out, in all snapshots, the rows that are not finite in one of them. Reads everything once.

        Returns
        -------
        Vectors
            Its `excluded` names the rows that were left out, and where they are not finite.

        Raises
        ------
        ValueError
            Where no row is left.
        """
        bad = self.nonfinite_rows(max_bytes=max_bytes)
        if not bad.any():
            return self
        some = bad.any(axis=0)
        if some.all():
            raise ValueError(
                f"every row of the {self.view} view of {self.layer} holds NaN or infinite values somewhere"
                + ("" if "c" in self.row_axes else "; take the channel view, of which those that are finite stay")
            )
        drawn = np.arange(self.rows_per_snapshot) if self.drawn is None else self.drawn
        return replace(self, drawn=drawn[~some], excluded=self.rows[bad.ravel()].reset_index(drop=True))

    def nonfinite_rows(self, *, max_bytes: int = 1 << 26) -> npt.NDArray[np.bool_]:
        """Say which rows are not finite, ndarray of shape (n_snapshots, rows_per_snapshot). Reads everything once."""
        bad = np.zeros((len(self.snapshots), self.rows_per_snapshot), dtype=bool)
        for order, snapshot in enumerate(self.snapshots):
            here = replace(self, snapshots=(snapshot,), scaling="none", checked=False)
            if self.rows_per_snapshot > self.n_features:
                for start, block in here.row_blocks(max_bytes=max_bytes):
                    bad[order, start : start + len(block)] |= ~np.isfinite(block).all(axis=1)
            else:
                for block in here.feature_blocks(max_bytes=max_bytes):
                    bad[order] |= ~np.isfinite(block).all(axis=1)
        return bad

    def to_numpy(self) -> Matrix:
        """Read everything: ndarray of shape (n_rows, n_features), float32."""
        out = np.empty(self.shape, np.float32)
        for start, block in self.row_blocks(max_bytes=1 << 26):
            out[start : start + len(block)] = block
        return out

    @property
    def row_axes(self) -> str:
        """Which of the axes n, c, h, w the rows are."""
        return parse_view(self.view)[0]

    @property
    def feature_axes(self) -> str:
        """Which of the axes n, c, h, w the features are."""
        return parse_view(self.view)[1]

    @cached_property
    def _sizes(self) -> dict[str, int]:
        return dict(zip("nchw", (len(self.samples), *self.source.feature_map_shape), strict=True))

    def _size(self, axes: str) -> int:
        return prod(self._sizes[axis] for axis in axes)

    def _size_in(self, box: Box, axes: str) -> int:
        lengths = lengths_of(box, self._sizes)
        return prod(lengths[axis] for axis in axes)

    def _boxes(self, axes: str, max_bytes: int, copies: int = 1) -> Iterator[dict[str, slice]]:
        """Cut `axes`, the first of them first, so that `copies` boxes of float32 stay under `max_bytes`.

        The width is never cut: less than a line of a feature map is not worth a read. Neither are axes that come after
        it, or the boxes would not follow one another.
        """
        sizes, units = self._sizes, units_of(self.source)
        size = 4 * copies * prod(sizes.values())
        return split_box({}, list(axes.partition("w")[0]), sizes=sizes, size=size, limit=max_bytes, units=units)

    def _read(self, snapshot: int, box: Box, *, out: Matrix | None = None) -> Matrix:
        lengths = lengths_of(box, self._sizes)
        order = self.row_axes + self.feature_axes
        if out is None:
            rows = prod(lengths[axis] for axis in self.row_axes)
            out = new_block((rows, prod(lengths.values()) // rows))
        blocks = np.moveaxis(out.reshape([lengths[axis] for axis in order]), order.index("n"), 0)
        for start, maps in self._maps(snapshot, box):
            turned = maps.transpose(["nchw".index(axis) for axis in "n" + order.replace("n", "")])
            copy_block(turned, blocks[start : start + len(maps)], of=prod(self.shape))
        return out

    def _maps(self, snapshot: int, box: Box) -> Iterator[tuple[int, npt.NDArray[np.floating]]]:
        """Yield feature maps of a box, some samples at a time, and the position of the first of these."""
        start, stop, _ = box.get("n", slice(None)).indices(len(self.samples))
        # whole chunks are decoded, of all that is read at once
        step = max(1, _DECODED_BYTES // (2 * prod(self.source.feature_map_shape)))
        if unit := units_of(self.source).get("n"):
            step = unit.align(step)
        for first in range(start, stop, step):
            here = slice(first, min(first + step, stop))
            yield first - start, self._read_maps(snapshot, {**box, "n": here})

    def _read_maps(self, snapshot: int, box: Box) -> npt.NDArray[np.floating]:
        """Return feature maps of a box as they are stored."""
        return self.source.read_feature_maps(
            snapshot=snapshot,
            samples=self.samples[box.get("n", slice(None))],
            channels=box.get("c", slice(None)),
            rows=box.get("h", slice(None)),
        )

    def _finite(self, block: Matrix, start: int) -> Matrix:
        if self.checked and not adds_up(block) and not np.isfinite(block).all():
            row = start + int(np.flatnonzero(~np.isfinite(block).all(axis=1))[0])
            labels = ", ".join(f"{name} {value}" for name, value in self.rows.iloc[row].items())
            raise ValueError(
                f"{self.layer} holds NaN or infinite values, first at {labels}. The network itself produced them "
                f"(see `statistics`, column nonfinite), or gave nothing there; leave out such rows with "
                f"vectors.without_nonfinite(), their snapshots with snapshots=[...], or their "
                f"samples with samples=[...]."
            )
        return block


def make_vectors(
    source: Source,
    view: str,
    *,
    snapshots: Sequence[int],
    samples: npt.NDArray[np.int64],
    n_rows: int | None,
    scaling: Scaling,
    random_state: int,
    left_out: npt.NDArray[np.int64] | None = None,
) -> Vectors:
    """Check the arguments of `Layer.vectors` and draw its rows."""
    parse_view(view)
    if scaling not in ("none", "centered", "unit"):
        raise ValueError(f"scaling is {scaling!r}; expected 'none', 'centered' or 'unit'")
    missing = np.empty(0, np.int64) if left_out is None else left_out
    vectors = Vectors(source, view, tuple(snapshots), samples, None, scaling, missing)
    if n_rows is None or n_rows >= vectors.rows_per_snapshot:
        return vectors
    if n_rows < 1:
        raise ValueError(f"n_rows is {n_rows}; expected at least 1")
    drawn = np.random.default_rng(random_state).choice(vectors.rows_per_snapshot, n_rows, replace=False)
    return replace(vectors, drawn=np.sort(drawn))
