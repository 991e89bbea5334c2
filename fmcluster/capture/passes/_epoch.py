"""Live epoch: the samples of an epoch that is being recorded, in order of arrival."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..inputs import Index
from ..weights import NormalizationInputs
from ..writing import PendingSnapshot
from ._context import SnapshotContext


@dataclass(eq=False)
class LiveEpoch:
    """What is known of an epoch so far.

    Attributes
    ----------
    snapshot : PendingSnapshot
        What becomes of it.
    index : ndarray of shape (n_slots,), int64
        The dataset index of the sample in each slot of this process; -1: none yet.
    scale : ndarray of shape (n_slots,), float64
        What the loss was multiplied with.
    normalized : NormalizationInputs
        What the BatchNorms were given.
    count, n_batches, n_whole : int
        Slots that are filled, batches that were begun, and those of them that filled the slots.
    context : SnapshotContext, optional
        Where its rows go, once the layers are known.
    """

    snapshot: PendingSnapshot
    index: Index
    scale: npt.NDArray[np.float64]
    normalized: NormalizationInputs
    count: int = 0
    n_batches: int = 0
    n_whole: int = 0
    context: SnapshotContext | None = None

    @property
    def stop(self) -> int:
        """The slot of the snapshot after the last that is filled; where no context is known, counted from 0."""
        return self.count + (0 if self.context is None else self.context.first)
