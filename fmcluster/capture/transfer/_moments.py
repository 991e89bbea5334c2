"""Moments: sums per channel that add up across batches, and the six statistics that they give."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class Moments:
    """Sums over the finite values of each channel.

    Attributes
    ----------
    values : ndarray of shape (7, n_channels), float64
        Count, sum, sum of squares, minimum, maximum, number of zeros, number of non-finite values.
    overflow : float
        The value of largest magnitude that the stored dtype cannot hold; 0 where it holds all of them.
    n_overflow : int
        How many it cannot hold.
    """

    values: npt.NDArray[np.float64]
    overflow: float = 0.0
    n_overflow: int = 0

    def __add__(self, other: "Moments") -> "Moments":
        a, b = self.values, other.values
        values = a + b
        values[3], values[4] = np.minimum(a[3], b[3]), np.maximum(a[4], b[4])
        overflow = max(self.overflow, other.overflow, key=abs)
        return Moments(values, overflow, self.n_overflow + other.n_overflow)

    def statistics(self) -> npt.NDArray[np.float64]:
        """Return mean, standard deviation (of the population), minimum, maximum, share of zeros, non-finite count.

        Returns
        -------
        ndarray of shape (6, n_channels), float64
            NaN where a channel has no finite value.
        """
        count, total, squares, low, high, zeros, nonfinite = self.values
        empty = count == 0
        n = np.where(empty, 1, count)
        mean = total / n
        variance = np.where(low == high, 0, np.maximum(squares / n - mean**2, 0))
        out = np.stack([mean, np.sqrt(variance), low, high, zeros / n, nonfinite])
        out[:5, empty] = np.nan
        return out


def no_statistics(n_channels: int) -> npt.NDArray[np.float64]:
    """Return the statistics of nothing, as of a gradient that no layer got."""
    out = np.full((6, n_channels), np.nan)
    out[5] = 0
    return out
