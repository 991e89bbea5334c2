"""Vectors without a store: a source that holds its maps in memory."""

from collections.abc import Callable

import numpy as np
import pytest
from array_source import ArraySource

from fmcluster.vectors import Vectors, make_vectors


@pytest.fixture
def vectors_of() -> Callable[..., Vectors]:
    def make(maps: np.ndarray, view: str = "channel", **options: object) -> Vectors:
        defaults = {
            "snapshots": range(len(maps)),
            "samples": np.arange(maps.shape[1]),
            "n_rows": None,
            "scaling": "none",
            "random_state": 0,
        }
        return make_vectors(ArraySource(maps), view, **(defaults | options))

    return make
