"""Moments: statistics from sums, and sums that add up."""

import numpy as np

from fmcluster.capture.transfer._moments import Moments, no_statistics


def test_statistics_of_sums_made_by_hand() -> None:
    """Two channels: of 1, 1, 4 and a NaN; and of two infinities."""
    moments = Moments(np.array([[3, 0], [6, 0], [18, 0], [1, np.inf], [4, -np.inf], [0, 0], [1, 2]], float), -7e4, 2)
    np.testing.assert_allclose(moments.statistics()[:, 0], [2, np.sqrt(2), 1, 4, 0, 1])
    np.testing.assert_array_equal(moments.statistics()[:, 1], [np.nan] * 5 + [2])
    both = moments + Moments(np.array([[1, 1], [0, 5], [0, 25], [0, 5], [0, 5], [1, 0], [0, 0]], float), 6.6e4, 1)
    np.testing.assert_allclose(both.statistics()[:, 0], [1.5, 1.5, 0, 4, 0.25, 1])
    np.testing.assert_allclose(both.statistics()[:, 1], [5, 0, 5, 5, 0, 2])
    assert (both.overflow, both.n_overflow) == (-7e4, 3)
    np.testing.assert_array_equal(no_statistics(3), [[np.nan] * 3] * 5 + [[0] * 3])
