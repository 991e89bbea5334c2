"""Stacked runs: one layer of several runs as one layer with all their snapshots."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from ..store import Layer
from ..vectors import Unit, Vectors, make_vectors
from ._results import Labels


@dataclass(frozen=True, eq=False)
class StackedLayers:
    """A source of vectors: the snapshots of the first run, then those of the second, and so on.

    Attributes
    ----------
    layers : tuple of Layer
        The layer of each run, of one shape.
    """

    layers: tuple[Layer, ...]

    @property
    def label(self) -> str:
        """What the layer is called in the first run."""
        return self.layers[0].label

    @cached_property
    def snapshots(self) -> pd.DataFrame:
        """One row per snapshot: ``snapshot`` (counted through all runs), ``epoch``, ``step``, ``run`` (its number)."""
        frames = [layer.snapshots.assign(run=run) for run, layer in enumerate(self.layers)]
        frame = pd.concat(frames, ignore_index=True)
        return frame.assign(snapshot=np.arange(len(frame)))

    @property
    def feature_map_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of one sample's feature maps."""
        return self.layers[0].feature_map_shape

    @property
    def channels(self) -> Labels:
        """The channels' numbers."""
        return self.layers[0].channels

    @property
    def units(self) -> Mapping[str, Unit]:
        """What is decoded at once in the first run, as in its layer."""
        return self.layers[0].units

    @property
    def dtype(self) -> np.dtype[Any]:
        """The widest stored dtype."""
        return np.result_type(*(layer.dtype for layer in self.layers))

    def read_feature_maps(
        self, *, snapshot: int, samples: Labels, channels: slice, rows: slice
    ) -> npt.NDArray[np.floating]:
        """Read from the run that the snapshot is of: ndarray of shape (n_samples, n_channels, height, width)."""
        for layer in self.layers:
            if snapshot < len(layer.snapshots):
                return layer.read_feature_maps(snapshot=snapshot, samples=samples, channels=channels, rows=rows)
            snapshot -= len(layer.snapshots)
        raise ValueError(
            f"the runs have {len(self.snapshots)} snapshots in all; the number asked for is {snapshot + 1} too high"
        )

    def vectors(self, view: str, *, snapshots: Sequence[int] | None = None, samples: Labels) -> Vectors:
        """Flatten the feature maps of all runs to vectors, as `Layer.vectors` does."""
        numbers = range(len(self.snapshots)) if snapshots is None else snapshots
        return make_vectors(self, view, snapshots=numbers, samples=samples, n_rows=None, scaling="none", random_state=0)
