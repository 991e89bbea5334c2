"""Drawn positions: a source of vectors with some of the positions of each feature map of another."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ._source import PartialSource, Source
from ._views import Unit, parse_view

_DECODED_BYTES = 16 << 20


@dataclass(frozen=True, eq=False)
class DrawnPositions(PartialSource):
    """Some positions of each image, drawn at random without putting back: others for each image, the same for all else.

    That they are others for each image makes the images independent of one another, so that what varies over images
    (`correlate_pairs` tells how much) holds what the draw adds. That they are the same at every snapshot and for every
    channel keeps distances between rows what they are, but for the positions that are not there.

    Attributes
    ----------
    source : Source
        The whole.
    count : int
        How many of each image.
    random_state : int
        Seed of the draw.
    """

    count: int
    random_state: int = 0

    @property
    def feature_map_shape(self) -> tuple[int, int, int]:
        """Channels, one line, and the positions in it."""
        return self.source.feature_map_shape[0], 1, self.count

    @property
    def units(self) -> Mapping[str, Unit]:
        """What of each of the axes n and c is decoded at once."""
        units: Mapping[str, Unit] = getattr(self.source, "units", {})
        return units

    @property
    def dtype(self) -> np.dtype[np.floating]:
        """The type of a stored value."""
        return np.dtype(getattr(self.source, "dtype", np.float32))

    def of_sample(self, sample: int) -> npt.NDArray[np.int64]:
        """Return the positions of an image, by its dataset index, in order: ndarray of shape (count,), int64."""
        _, height, width = self.source.feature_map_shape
        rng = np.random.default_rng([self.random_state, sample])
        return np.sort(rng.choice(height * width, self.count, replace=False)).astype(np.int64)

    def read_feature_maps(
        self, *, snapshot: int, samples: npt.NDArray[np.int64], channels: slice, rows: slice
    ) -> npt.NDArray[np.floating]:
        """Read ndarray of shape (n_samples, n_channels, 1, count); whole feature maps are decoded for it."""
        shape = self.source.feature_map_shape
        n_channels = len(range(*channels.indices(shape[0])))
        out = np.empty((len(samples), n_channels, 1, self.count), self.dtype)
        step = max(1, _DECODED_BYTES // (self.dtype.itemsize * n_channels * shape[1] * shape[2]))
        for start in range(0, len(samples), step):
            here = samples[start : start + step]
            maps = self.source.read_feature_maps(snapshot=snapshot, samples=here, channels=channels, rows=slice(None))
            for at, sample in enumerate(here.tolist(), start):
                flat = maps[at - start].reshape(n_channels, -1)
                np.take(flat, self.of_sample(sample), axis=1, out=out[at, :, 0], mode="clip")
        return out[:, :, rows]


def draw_positions(source: Source, view: str, *, n_positions: int | None, random_state: int) -> Source:
    """Return a source with so many positions of each image; the source itself where there are no more.

    Raises
    ------
    ValueError
        For fewer than one, or a view whose rows are of one image or position.
    """
    _, height, width = source.feature_map_shape
    if n_positions is None:
        return source
    if n_positions < 1:
        raise ValueError(f"n_positions is {n_positions}; expected at least 1")
    if parse_view(view)[0] != "c":
        raise ValueError(
            f"n_positions is {n_positions}, and the view is {view!r}; positions are drawn of the channel view, where "
            f"a row has all images and positions: leave n_positions out, or draw rows (n_rows)"
        )
    return source if n_positions >= height * width else DrawnPositions(source, n_positions, random_state)
