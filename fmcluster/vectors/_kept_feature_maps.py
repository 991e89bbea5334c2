"""Kept feature maps: a source of vectors that holds what it has read of another, as it is stored."""

import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from math import prod
from threading import Lock

import numpy as np
import numpy.typing as npt

from ._source import PartialSource, Source
from ._tiles import itemsize_of
from ._vectors import Vectors

Maps = npt.NDArray[np.floating]


@dataclass(frozen=True, eq=False)
class KeptFeatureMaps(PartialSource):
    """All of another source at some snapshots and samples: read once, when it is first asked for, and held.

    Attributes
    ----------
    source : Source
        Where it is read.
    numbers : tuple of int
        The snapshots.
    samples : ndarray of shape (n_samples,), int64
        Dataset indices of the samples.
    """

    numbers: tuple[int, ...]
    samples: npt.NDArray[np.int64]
    _held: dict[int, Maps] = field(default_factory=dict, init=False, repr=False)
    _lock: Lock = field(default_factory=Lock, init=False, repr=False)

    @property
    def feature_map_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of one sample's feature maps."""
        return self.source.feature_map_shape

    @property
    def dtype(self) -> np.dtype[np.floating]:
        """The type of a stored value."""
        return np.dtype(getattr(self.source, "dtype", np.float32))

    def read_feature_maps(self, *, snapshot: int, samples: npt.NDArray[np.int64], channels: slice, rows: slice) -> Maps:
        """Return ndarray of shape (n_samples, n_channels, height, width): a view, where samples lie side by side."""
        maps = self._all()[snapshot][:, channels, rows]
        first = int(np.flatnonzero(self.samples == samples[0])[0])
        if np.array_equal(self.samples[first : first + len(samples)], samples):
            return maps[first : first + len(samples)]
        row_of = {sample: row for row, sample in enumerate(self.samples.tolist())}
        return maps[[row_of[sample] for sample in samples.tolist()]]

    def _all(self) -> Mapping[int, Maps]:
        with self._lock:
            if not self._held:
                read = partial(
                    self.source.read_feature_maps, samples=self.samples, channels=slice(None), rows=slice(None)
                )
                with ThreadPoolExecutor(min(os.cpu_count() or 1, len(self.numbers))) as threads:
                    found = threads.map(lambda number: read(snapshot=number), self.numbers)
                    self._held.update(zip(self.numbers, found, strict=True))
            return self._held


def keep(vectors: Vectors, *, max_bytes: int) -> Vectors:
    """Return the same vectors, which stay in memory once they were read, for what goes over them several times.

    Where they would take more than `max_bytes` as they are stored, these are returned as they are.
    """
    values = len(vectors.snapshots) * len(vectors.samples) * prod(vectors.source.feature_map_shape)
    if values * itemsize_of(vectors.source) > max_bytes:
        return vectors
    return replace(vectors, source=KeptFeatureMaps(vectors.source, vectors.snapshots, vectors.samples))


def unkept(source: Source) -> Source:
    """Return what is kept, where it is a source of this kind."""
    return source.source if isinstance(source, KeptFeatureMaps) else source
