"""Churn: the share of rows that changed cluster from each snapshot to the next."""

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.patches import Patch
from matplotlib.ticker import PercentFormatter

from ._trajectories import PLAIN
from .drawing import (
    FAINT,
    INK,
    axes_or_new,
    brief_ticks,
    dress_curve,
    layer_text,
    points_per_unit,
    snapshot_table,
    snapshot_titles,
    text_width,
)

if TYPE_CHECKING:
    from ..analysis import History


_LIMITS = {
    "churn_noise_floor": ("#de8f05", "-", "noise floor: no change at all"),
    "churn_noise_floor_limit": ("#de8f05", (0, (1, 1)), "the most that any halving gives: not more is no finding"),
    "churn_null": (FAINT, (0, (2, 1)), "null: labels with nothing in common"),
}


def churn(history: "History", *, ax: Axes | None = None) -> Axes:
    """Draw the share of rows that changed cluster in each step from one snapshot to the next.

    How much is much is seen beside the noise floor, what clusters of the same rows differ by with no change at all, and
    its limit, the most that they differ by, and the null, what labels with nothing in common would have.

    Parameters
    ----------
    history : History
        Tracked clusters of two or more snapshots. Its steps' noise floor, limit and null are drawn
        where they are known.
    ax : Axes, optional
        Where to draw; by default a new figure.

    Returns
    -------
    Axes

    Raises
    ------
    ValueError
        If there is one snapshot only.
    """
    steps = history.steps
    if len(steps) == 0:
        raise ValueError("received the history of 1 snapshot; expected 2 or more: record more snapshots")
    clusters = history.clusters
    table = snapshot_table(clusters.rows)
    names = dict(zip(table["snapshot"], snapshot_titles(table, separator="\n"), strict=True))
    share = steps["churn"].to_numpy(dtype=np.float64)
    indices = np.arange(len(steps))
    what = f"{layer_text(clusters.layer)}: {clusters.view} view, rows that changed cluster since the previous snapshot"
    width = max(float(np.clip(0.7 * len(steps) + 1, 6.4, 14.0)), min(text_width(what, size=11) + 0.6, 16.0))
    ax = axes_or_new(ax, width=width, height=3.6)
    ax.bar(indices, share, width=0.55, color=PLAIN)
    marks, marked = _mark_limits(ax, steps, source=history.noise_floor)
    highest = float(np.nanmax([share, *marked.T], initial=0.0))
    ax.set_ylim(0, min(1.12 if marks else 1.05, max(0.05, 1.2 * highest)))
    if len(steps) <= 20:
        _write_shares(ax, share, marked=marked)
    ends = [names[snapshot] for snapshot in steps["to_snapshot"]]
    shown = brief_ticks(ax, ends)
    ax.set_xticks(shown, [ends[index] for index in shown])
    ax.set_xlim(-0.4, len(steps) - 0.6)
    ax.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    legend = [Patch(color=PLAIN, label="churn"), *marks] if marks else []
    dress_curve(ax, title=what, x="snapshot", y="rows that changed cluster (%)", legend=legend)
    return ax


def _mark_limits(
    ax: Axes, steps: pd.DataFrame, *, source: str | None
) -> tuple[list[LineCollection], npt.NDArray[np.float64]]:
    """Draw noise floor and null across the bars, where known; return the marks and all values, a column each."""
    marks = []
    values = np.full((len(steps), len(_LIMITS)), np.nan)
    for number, (column, (color, style, label)) in enumerate(_LIMITS.items()):
        if column not in steps or bool(steps[column].isna().all()):
            continue
        values[:, number] = steps[column].to_numpy(dtype=np.float64)
        if column == "churn_noise_floor" and source:
            label += f" ({source})"
        known = np.flatnonzero(np.isfinite(values[:, number]))
        heights = values[known, number]
        width = 1.4 if column.endswith("limit") else 2.2
        line = ax.hlines(heights, known - 0.4, known + 0.4, color=color, ls=style, lw=width, label=label, gid=column)
        marks.append(line)
    return marks, values


def _write_shares(ax: Axes, share: npt.NDArray[np.float64], *, marked: npt.NDArray[np.float64]) -> None:
    """Write each share above its bar, and above the marks that would cross the text."""
    text = 12.0 / points_per_unit(ax)
    for index, value in enumerate(share):
        if not np.isfinite(value):
            continue
        foot = value
        for mark in np.sort(marked[index][np.isfinite(marked[index])]):
            if foot - text / 4 < mark < foot + text * 1.1:
                foot = mark
        ax.annotate(
            f"{value:.0%}",
            (index, foot),
            xytext=(0, 3),
            textcoords="offset points",
            ha="center",
            fontsize=8,
            color=INK,
        )
