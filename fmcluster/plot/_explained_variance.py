"""Explained variance: how much of it the first components hold together."""

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator, PercentFormatter

from ._trajectories import PLAIN
from .drawing import axes_or_new, dress_curve, layer_text

if TYPE_CHECKING:
    from ..analysis import Scores


def explained_variance(scores: "Scores", *, ax: Axes | None = None) -> Axes:
    """Draw the share of the variance that the first components explain together.

    Parameters
    ----------
    scores : Scores
        Principal component scores.
    ax : Axes, optional
        Where to draw; by default a new figure.

    Returns
    -------
    Axes
    """
    together = np.cumsum(scores.explained_variance_ratio)
    count = np.arange(1, len(together) + 1)
    ax = axes_or_new(ax, width=6.4, height=3.6)
    ax.plot(count, together, color=PLAIN, marker="o", ms=3.5, lw=1.5)
    ax.set_ylim(0, 1.03)
    ax.set_xlim(min(0.5, 1 - 0.02 * len(count)), len(count) + max(0.5, 0.02 * len(count)))
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    kept = f"{len(together)} components" if len(together) != 1 else "1 component"
    what = f"{layer_text(scores.layer)}: {scores.view} view, {kept} hold {together[-1]:.1%} of the variance"
    dress_curve(ax, title=what, x="number of components", y="explained variance, cumulative (%)")
    return ax
