"""Source of vectors: what they are drawn from, and some of its rows."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
import pandas as pd

from ._views import Box


class Source(Protocol):
    """What vectors are drawn from: a stored layer.

    It may say more: `units`, by axis (``n``, ``c``) what of it is decoded at once, and the `dtype` of what it stores.
    """

    @property
    def label(self) -> str:
        """What the layer is called: its name, and of what it is where that is not its activations."""

    @property
    def snapshots(self) -> pd.DataFrame:
        """One row per snapshot: snapshot, epoch, step."""

    @property
    def feature_map_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of one sample's feature maps."""

    @property
    def channels(self) -> npt.NDArray[np.int64]:
        """The channels' numbers."""

    def read_feature_maps(
        self, *, snapshot: int, samples: npt.NDArray[np.int64], channels: slice, rows: slice
    ) -> npt.NDArray[np.floating]:
        """Read ndarray of shape (n_samples, n_channels, height, width).

        `channels` cuts what there is of them, whatever their numbers; `rows` cuts the height.
        """


@dataclass(frozen=True, eq=False)
class PartialSource:
    """What a source with a part of another takes over from it.

    Attributes
    ----------
    source : Source
        The whole.
    """

    source: Source

    @property
    def label(self) -> str:
        """What the layer is called."""
        return self.source.label

    @property
    def snapshots(self) -> pd.DataFrame:
        """One row per snapshot: snapshot, epoch, step."""
        return self.source.snapshots

    @property
    def channels(self) -> npt.NDArray[np.int64]:
        """The channels' numbers."""
        return self.source.channels


@dataclass(frozen=True, eq=False)
class RowPart:
    """Some rows of one snapshot.

    Attributes
    ----------
    snapshot : int
        Its number.
    start : int
        Position of the first of the rows among those of all snapshots.
    box : dict
        Which samples, channels and lines they are.
    picked : ndarray of int64 or None
        Which of the rows of the box, by position; None: all.
    """

    snapshot: int
    start: int
    box: Box
    picked: npt.NDArray[np.int64] | None
