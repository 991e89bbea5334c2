"""Responses of a layer's channels: kept while its images are compared, so that all is decoded once."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from ...vectors import Box, DrawnPositions, Vectors, new_block
from .._results import Array, Labels

MOST_POSITIONS, DRAWN_POSITIONS = 1 << 17, 1 << 15
_MOST_VALUES = 1 << 24  # of a snapshot


def positions_to_draw(*, n_channels: int, n_images: int, n_positions: int) -> int | None:
    """Return of how many positions of each image channels are measured; None: of all.

    Up to 131,072 positions of all images together are all taken, and up to 16.8 million responses; of more, 32,768 are
    drawn, or as many as make 16.8 million responses. The standard error that this adds to a correlation r is at most
    ``(1 - r**2) / sqrt(32768)``: 0.0055 of unrelated channels, 0.0005 at 0.95.

    Examples
    --------
    >>> positions_to_draw(n_channels=64, n_images=40, n_positions=112 * 112)
    819
    """
    most = _MOST_VALUES // n_channels
    if n_images * n_positions <= min(MOST_POSITIONS, most):
        return None
    return max(1, min(n_positions, min(DRAWN_POSITIONS, most) // n_images))


@dataclass(frozen=True, eq=False)
class Responses:
    """What a layer's channels answer at one snapshot.

    Attributes
    ----------
    values : ndarray of shape (n_channels, n_images, n_positions), float32
        At all positions of each image, or at those drawn.
    low, high : ndarray of shape (n_channels,), float64
        Smallest and largest value at all positions.
    """

    values: npt.NDArray[np.float32]
    low: Array
    high: Array

    def vectors(self, of: Vectors, snapshot: int) -> Vectors:
        """Return them as the `channel` view of one snapshot, so that they are read like what lies on a disk."""
        source = _Held(self.values, of.source.snapshots, of.layer)
        return Vectors(source, "channel", (snapshot,), np.arange(self.values.shape[1]))


class Collector:
    """Takes the responses of a snapshot out of blocks of the `sample` view, as these are read.

    Parameters
    ----------
    vectors : Vectors
        The `channel` view, of `DrawnPositions` where these are drawn.
    """

    def __init__(self, vectors: Vectors) -> None:
        source = vectors.source
        size, height, width = source.feature_map_shape
        self._at: list[Labels] | None = None
        if isinstance(source, DrawnPositions):
            _, height, width = source.source.feature_map_shape
            self._at = [source.of_sample(sample) for sample in vectors.samples.tolist()]
        self._height, self._width = height, width
        self._shape = (size, len(vectors.samples), vectors.n_features // len(vectors.samples))
        self._known: dict[tuple[int, int], tuple[Labels, Labels, Labels]] = {}
        self.start()

    def start(self) -> None:
        """Begin with another snapshot."""
        self._values = new_block(self._shape)
        self._low, self._high = np.full(self._shape[0], np.inf), np.full(self._shape[0], -np.inf)

    def take(self, box: Box, block: npt.NDArray[np.float32]) -> None:
        """Look at a block: ndarray of shape (n_images, n_features), of the channels and lines of a box."""
        size, n_images, _ = self._shape
        channels = slice(*box.get("c", slice(None)).indices(size)[:2])
        first, last, _ = box.get("h", slice(None)).indices(self._height)
        start, stop = first * self._width, last * self._width
        maps = block.reshape(n_images, channels.stop - channels.start, -1)
        np.minimum(self._low[channels], maps.min(axis=0).min(axis=1), out=self._low[channels])
        np.maximum(self._high[channels], maps.max(axis=0).max(axis=1), out=self._high[channels])
        if self._at is None:
            self._values[channels, :, start:stop] = maps.transpose(1, 0, 2)
            return
        into, image, at = self._drawn(start, stop)
        here = image * maps[0].size + at  # of the first channel, in the block
        flat = block.reshape(-1)
        for number, channel in enumerate(range(channels.start, channels.stop)):
            self._values[channel].reshape(-1)[into] = flat.take(here + number * (stop - start))

    def _drawn(self, start: int, stop: int) -> tuple[Labels, Labels, Labels]:
        """Return which of the responses of a channel lie from one position to another; of which image, and where."""
        if (start, stop) not in self._known:
            assert self._at is not None
            into, images, come_from = [], [], []
            for image, at in enumerate(self._at):
                first, last = np.searchsorted(at, [start, stop])
                into.append(image * len(at) + np.arange(first, last))
                images.append(np.full(last - first, image))
                come_from.append(at[first:last] - start)
            self._known[start, stop] = np.concatenate(into), np.concatenate(images), np.concatenate(come_from)
        return self._known[start, stop]

    @property
    def responses(self) -> Responses:
        """What was taken since `start`."""
        return Responses(self._values, self._low, self._high)


@dataclass(frozen=True, eq=False)
class _Held:
    """Responses as a source of vectors, whose images are numbered from 0."""

    values: npt.NDArray[np.float32]
    snapshots: pd.DataFrame
    label: str

    @property
    def feature_map_shape(self) -> tuple[int, int, int]:
        return len(self.values), 1, self.values.shape[2]

    @property
    def channels(self) -> Labels:
        return np.arange(len(self.values))

    def read_feature_maps(
        self, *, snapshot: int, samples: Labels, channels: slice, rows: slice
    ) -> npt.NDArray[np.float32]:
        return self.values[channels][:, samples].transpose(1, 0, 2)[:, :, None][:, :, rows]
