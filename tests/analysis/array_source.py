"""A source of vectors that holds its maps in memory."""

import numpy as np
import pandas as pd


class ArraySource:
    """Feature maps of shape (snapshot, sample, channel, height, width), as a layer would give them."""

    def __init__(self, maps: np.ndarray) -> None:
        self.maps = maps
        self.label = "conv"
        count = len(maps)
        self.snapshots = pd.DataFrame({"snapshot": range(count), "epoch": range(count), "step": range(0, 5 * count, 5)})
        self.feature_map_shape = maps.shape[2:]
        self.channels = np.arange(maps.shape[2])
        self.reads = 0

    def read_feature_maps(self, *, snapshot, samples, channels, rows):
        self.reads += 1
        return self.maps[snapshot][samples][:, channels, rows]
