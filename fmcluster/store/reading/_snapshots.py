"""Snapshots: what a layer asks of the run that it is of."""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pandas as pd

from ..format import StoredArray


class Snapshots(Protocol):
    """What a layer asks of its run; see `Run` for each."""

    path: str

    @property
    def snapshots(self) -> pd.DataFrame:
        """One row per snapshot: snapshot, epoch, step."""

    @property
    def samples(self) -> pd.DataFrame:
        """One row per sample, by its index in the data set."""

    def resolve(self, *, epoch: int | None = None, snapshot: int | None = None) -> int:
        """Return the number of the snapshot asked for."""

    def slots(self, snapshot: int, samples: npt.NDArray[np.int64] | None = None) -> npt.NDArray[np.int64]:
        """Return the slots in which a snapshot holds samples."""

    def loss_scale(self, snapshot: int) -> npt.NDArray[np.float64]:
        """Return the loss scale of each slot."""

    def common_samples(self, snapshots: Sequence[int]) -> npt.NDArray[np.int64]:
        """Return the dataset indices that all the snapshots hold."""

    def left_out(self, snapshots: Sequence[int]) -> npt.NDArray[np.int64]:
        """Return the dataset indices that some of the snapshots hold, but not all."""

    def display(self, sample: int) -> npt.NDArray[np.uint8] | None:
        """Return a picture of a sample's input."""

    def identity(self, snapshots: Sequence[int]) -> dict[str, Any]:
        """Return what tells the snapshots from any others, without reading them."""

    def holds(self, path: str) -> bool:
        """Whether there is an array or group at a path."""

    def group_attributes(self, path: str) -> dict[str, Any]:
        """Return the attributes of a group."""

    def stored(self, path: str) -> StoredArray:
        """Return an array."""
