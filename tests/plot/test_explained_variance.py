"""Explained variance: what each component holds."""

import numpy as np

from fmcluster import plot


def test_explained_variance_is_cumulative(scores):
    ax = plot.explained_variance(scores)
    np.testing.assert_allclose(ax.lines[0].get_ydata(), np.cumsum(scores.explained_variance_ratio))
    assert ax.lines[0].get_xdata().tolist() == list(range(1, 51))
    assert ax.get_title(loc="left") == "layer4: channel view, 50 components hold 93.5% of the variance"
