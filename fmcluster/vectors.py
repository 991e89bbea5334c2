"""Views: which axes of the feature maps are rows, and which are features.

A view is an einops pattern over ``n c h w`` (sample, channel, height, width). The rows of all snapshots are stacked,
snapshot by snapshot. Nothing is read before `Vectors.feature_blocks` or `Vectors.row_blocks` is iterated.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cached_property
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt
import pandas as pd

Matrix = npt.NDArray[np.float32]
Scaling = Literal["none", "centred", "unit"]

VIEWS = {
    "channel": "n c h w -> c (n h w)",
    "map": "n c h w -> (n c) (h w)",
    "sample": "n c h w -> n (c h w)",
    "position": "n c h w -> (n h w) c",
}
_AXES = {"n": "sample", "c": "channel", "h": "y", "w": "x"}
_PATTERN = re.compile(r"\s*n c h w\s*->\s*(\w|\([\w ]+\))\s+(\w|\([\w ]+\))\s*")


class Source(Protocol):
    """What vectors are drawn from: a stored layer."""

    @property
    def label(self) -> str:
        """What the layer is called: its name, and of what it is where that is not its activations."""

    @property
    def snapshots(self) -> pd.DataFrame:
        """One row per snapshot: snapshot, epoch, step."""

    @property
    def map_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of one sample's feature maps."""

    @property
    def channels(self) -> npt.NDArray[np.int64]:
        """The channels' numbers."""

    def read_maps(
        self, *, snapshot: int, samples: npt.NDArray[np.int64], channels: slice, rows: slice
    ) -> npt.NDArray[np.floating]:
        """Read ndarray of shape (n_samples, n_channels, height, width).

        `channels` cuts what there is of them, whatever their numbers; `rows` cuts the height.
        """


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
    scaling : {"none", "centred", "unit"}
        What is done to each row: nothing, its mean subtracted, or divided by its Euclidean norm.
    """

    source: Source
    view: str
    snapshots: tuple[int, ...]
    samples: npt.NDArray[np.int64]
    drawn: npt.NDArray[np.int64] | None = None
    scaling: Scaling = "none"

    @property
    def layer(self) -> str:
        """What the layer is called."""
        return self.source.label

    @property
    def rows_per_snapshot(self) -> int:
        """Number of rows in each snapshot."""
        return len(self.drawn) if self.drawn is not None else self._size(self._row_axes)

    @property
    def n_features(self) -> int:
        """Length of a row."""
        return self._size(self._feature_axes)

    @property
    def shape(self) -> tuple[int, int]:
        """Rows over all snapshots, and features."""
        return len(self.snapshots) * self.rows_per_snapshot, self.n_features

    def __repr__(self) -> str:
        return f"<Vectors {self.view} of {self.layer}: {self.shape[0]} rows of {self.shape[1]} features>"

    @cached_property
    def rows(self) -> pd.DataFrame:
        """Labels of the rows: snapshot, epoch, step, then sample, channel, y, x as the view has them."""
        places = {axis: np.arange(self._sizes[axis]) for axis in "hw"}
        ids = {"n": self.samples, "c": self.source.channels, **places}
        grid = np.meshgrid(*(ids[axis] for axis in self._row_axes), indexing="ij")
        within = {_AXES[axis]: values.ravel() for axis, values in zip(self._row_axes, grid, strict=True)}
        if self.drawn is not None:
            within = {name: values[self.drawn] for name, values in within.items()}
        time = self.source.snapshots.set_index("snapshot").loc[list(self.snapshots)].reset_index()
        count = len(self.snapshots)
        return pd.DataFrame(
            {name: np.repeat(column.to_numpy(), self.rows_per_snapshot) for name, column in time.items()}
            | {name: np.tile(values, count) for name, values in within.items()}
        )

    def feature_blocks(self, *, max_bytes: int) -> Iterator[Matrix]:
        """Yield all rows, a block of the features at a time.

        Parameters
        ----------
        max_bytes : int
            About how large a block may be. At least one line of one map of all rows is read.

        Yields
        ------
        ndarray of shape (n_rows, n_features of the block), float32
        """
        yield from self._scaled_feature_blocks(max_bytes, *self._row_scale(max_bytes))

    def row_blocks(self, *, max_bytes: int) -> Iterator[tuple[int, Matrix]]:
        """Yield whole rows, a block of the rows at a time.

        Yields
        ------
        start : int
            Position of the block's first row.
        block : ndarray of shape (n_rows of the block, n_features), float32
        """
        for order, snapshot in enumerate(self.snapshots):
            start, drawn = order * self.rows_per_snapshot, 0
            for box in self._boxes(self._row_axes, max_bytes):
                block = self._read(snapshot, box)
                if self.drawn is not None:
                    here = self.drawn[(self.drawn >= drawn) & (self.drawn < drawn + len(block))] - drawn
                    drawn += len(block)
                    block = block[here]
                if len(block):
                    block = self._finite(block, start)
                    offset, factor = _scale_of(*_moments(block), self.n_features, self.scaling)
                    yield start, _apply(block, offset, factor)
                    start += len(block)

    def to_numpy(self) -> Matrix:
        """Read everything: ndarray of shape (n_rows, n_features), float32."""
        out = np.empty(self.shape, np.float32)
        for start, block in self.row_blocks(max_bytes=1 << 26):
            out[start : start + len(block)] = block
        return out

    @property
    def _row_axes(self) -> str:
        return parse_view(self.view)[0]

    @property
    def _feature_axes(self) -> str:
        return parse_view(self.view)[1]

    @property
    def _sizes(self) -> dict[str, int]:
        return dict(zip("nchw", (len(self.samples), *self.source.map_shape), strict=True))

    def _size(self, axes: str) -> int:
        return int(np.prod([self._sizes[axis] for axis in axes]))

    def _boxes(self, axes: str, max_bytes: int, copies: int = 1) -> Iterator[dict[str, slice]]:
        """Cut `axes`, the first of them first, so that `copies` boxes of float32 stay under `max_bytes`.

        The width is never cut: less than a line of a map is not worth a read. Neither are axes that come after it,
        or the boxes would not follow one another.
        """
        sizes = {axis: self._sizes[axis] for axis in "nchw"}
        bytes_of_one = 4 * copies * int(np.prod(list(sizes.values())))
        return _split({}, list(axes.partition("w")[0]), sizes, bytes_of_one, max_bytes)

    def _read(self, snapshot: int, box: Mapping[str, slice]) -> Matrix:
        maps = self.source.read_maps(
            snapshot=snapshot,
            samples=self.samples[box.get("n", slice(None))],
            channels=box.get("c", slice(None)),
            rows=box.get("h", slice(None)),
        )
        order = ["nchw".index(axis) for axis in self._row_axes + self._feature_axes]
        rows = int(np.prod([maps.shape[i] for i in order[: len(self._row_axes)]]))
        return maps.transpose(order).reshape(rows, -1).astype(np.float32)

    def _scaled_feature_blocks(self, max_bytes: int, offset: Matrix | None, factor: Matrix | None) -> Iterator[Matrix]:
        for box in self._boxes(self._feature_axes, max_bytes, copies=len(self.snapshots)):
            parts = []
            for snapshot in self.snapshots:
                part = self._read(snapshot, box)
                parts.append(part if self.drawn is None else part[self.drawn])
            block = parts[0] if len(parts) == 1 else np.concatenate(parts)
            yield _apply(self._finite(block, 0), offset, factor)

    def _row_scale(self, max_bytes: int) -> tuple[Matrix | None, Matrix | None]:
        if self.scaling == "none":
            return None, None
        total = np.zeros(self.shape[0])
        squares = np.zeros(self.shape[0])
        for block in self._scaled_feature_blocks(max_bytes, None, None):
            add, add_squares = _moments(block)
            total += add
            squares += add_squares
        return _scale_of(total, squares, self.n_features, self.scaling)

    def _finite(self, block: Matrix, start: int) -> Matrix:
        if not np.isfinite(block).all():
            row = start + int(np.flatnonzero(~np.isfinite(block).all(axis=1))[0])
            labels = ", ".join(f"{name} {value}" for name, value in self.rows.iloc[row].items())
            raise ValueError(
                f"{self.layer} holds NaN or infinite values, first at {labels}. The network itself produced them "
                f"(see `statistics`, column nonfinite), or gave nothing there; leave out their snapshots with "
                f"snapshots=[...], or their samples with samples=[...]."
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
) -> Vectors:
    """Check the arguments of `Layer.vectors` and draw its rows."""
    parse_view(view)
    if scaling not in ("none", "centred", "unit"):
        raise ValueError(f"scaling is {scaling!r}; expected 'none', 'centred' or 'unit'")
    vectors = Vectors(source, view, tuple(snapshots), samples, None, scaling)
    if n_rows is None or n_rows >= vectors.rows_per_snapshot:
        return vectors
    if n_rows < 1:
        raise ValueError(f"n_rows is {n_rows}; expected at least 1")
    drawn = np.random.default_rng(random_state).choice(vectors.rows_per_snapshot, n_rows, replace=False)
    return Vectors(source, view, tuple(snapshots), samples, np.sort(drawn), scaling)


def parse_view(view: str) -> tuple[str, str]:
    """Return the row axes and the feature axes of a view, as letters of ``nchw``.

    Examples
    --------
    >>> parse_view("channel"), parse_view("n c h w -> (n c) (h w)")
    (('c', 'nhw'), ('nc', 'hw'))
    """
    match = _PATTERN.fullmatch(VIEWS.get(view, view))
    groups = [re.sub(r"\W", "", group) for group in match.groups()] if match else []
    if sorted("".join(groups)) != sorted("nchw"):
        near = get_close_matches(view, VIEWS, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise ValueError(
            f"{view!r} is not a view; {hint}expected one of {', '.join(VIEWS)}, "
            f'or an einops pattern such as "n c h w -> (n c) (h w)"'
        )
    return groups[0], groups[1]


def _split(
    box: dict[str, slice], axes: Sequence[str], sizes: Mapping[str, int], size: int, limit: int
) -> Iterator[dict[str, slice]]:
    if size <= limit or not axes:
        yield box
        return
    axis, *others = axes
    length = sizes[axis]
    step = max(1, limit * length // size)
    for start in range(0, length, step):
        stop = min(start + step, length)
        yield from _split({**box, axis: slice(start, stop)}, others, sizes, size // length * (stop - start), limit)


def _moments(block: Matrix) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    return block.sum(axis=1, dtype=np.float64), np.einsum("ij,ij->i", block, block, dtype=np.float64)


def _scale_of(
    total: npt.NDArray[np.float64], squares: npt.NDArray[np.float64], n_features: int, scaling: Scaling
) -> tuple[Matrix | None, Matrix | None]:
    if scaling == "centred":
        return (total / n_features).astype(np.float32)[:, None], None
    if scaling == "unit":
        norm = np.sqrt(squares)
        return None, np.divide(1, norm, out=np.zeros_like(norm), where=norm > 0).astype(np.float32)[:, None]
    return None, None


def _apply(block: Matrix, offset: Matrix | None, factor: Matrix | None) -> Matrix:
    if offset is not None:
        block = block - offset
    if factor is not None:
        block = block * factor
    return block
