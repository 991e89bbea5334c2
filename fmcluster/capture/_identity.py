"""The probe's samples: what they were when first seen, and whether they still are."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import CaptureError
from ._datasets import paths
from ._probe_set import Probe, ProbeBatch


class Identity:
    """Remembers a digest per sample, and compares every later pass over the probe with it.

    Parameters
    ----------
    probe : Probe
        The probe.
    digests : ndarray of shape (n_samples, 32), uint8, or None
        What is stored of it already.

    Attributes
    ----------
    stored : bool
        Whether the run holds (or is about to hold) the samples' table.
    """

    def __init__(self, probe: Probe, digests: npt.NDArray[np.uint8] | None) -> None:
        self._probe = probe
        self._paths = paths(probe.dataset)
        self._digests = digests
        self.stored = digests is not None

    def check(self, batch: ProbeBatch) -> None:
        """Raise `CaptureError` where a sample is not what it was."""
        if self._digests is None:
            return
        before = self._digests[batch.offset : batch.offset + len(batch)]
        changed = np.flatnonzero((batch.digests != before).any(axis=1))
        if len(changed):
            sample = batch.offset + int(changed[0])
            where = f" ({self._paths[sample]})" if self._paths else ""
            raise CaptureError(
                f"probe sample {sample}{where} is not what it was in the first snapshot. Epochs can only be compared "
                f"on the same inputs: give the probe evaluation transforms, without random crops or flips."
            )

    def remember(self, batches: Sequence[ProbeBatch]) -> None:
        """Keep the digests of a complete pass; raise `CaptureError` where it was not complete."""
        shown = sum(map(len, batches))
        if shown != self._probe.n_samples:
            raise CaptureError(
                f"the probe gave {shown} samples, but its data set has {self._probe.n_samples}; pass a data set whose "
                f"items are all there"
            )
        if self._digests is None:
            self._digests = np.concatenate([batch.digests for batch in batches])

    def tables(self, batches: Sequence[ProbeBatch]) -> dict[str, npt.NDArray[Any]]:
        """Return what the run keeps of the samples: arrays of n_samples rows, by name."""
        tables: dict[str, npt.NDArray[Any]] = {
            "sample": np.arange(self._probe.n_samples),
            "label": np.concatenate([batch.labels for batch in batches]),
            "digest": np.concatenate([batch.digests for batch in batches]),
        }
        if self._paths is not None:
            tables["path"] = np.array(self._paths)
        return tables
