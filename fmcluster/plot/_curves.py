"""Single curves: churn, metrics of the training, explained variance."""

from collections.abc import Sequence
from math import ceil
from textwrap import fill
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator, PercentFormatter

from .drawing import (
    FAINT,
    INK,
    RULE,
    axes_or_new,
    brief,
    inches,
    points_per_unit,
    snapshot_table,
    snapshot_titles,
    text_width,
)

if TYPE_CHECKING:
    from ..analysis import History, Scores

LINE = "#0173b2"

_LIMITS = {
    "churn_noise_floor": ("#de8f05", "-", "floor: no change at all"),
    "churn_null": (FAINT, (0, (2, 1)), "null: labels with nothing in common"),
}


def churn(history: "History", *, ax: Axes | None = None) -> Axes:
    """Draw the share of rows that changed cluster in each step from one snapshot to the next.

    How much is much is seen beside the floor, what clusters of the same rows differ by with no change at all, and the
    null, what labels with nothing in common would have.

    Parameters
    ----------
    history : History
        Tracked clusters of two or more snapshots. Its steps' floor and null are drawn where they are known.
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
    places = np.arange(len(steps))
    what = f"{clusters.layer}: {clusters.view} view, rows that changed cluster since the previous snapshot"
    width = max(float(np.clip(0.7 * len(steps) + 1, 6.4, 14.0)), min(text_width(what, size=11) + 0.6, 16.0))
    ax = axes_or_new(ax, width=width, height=3.6)
    ax.bar(places, share, width=0.55, color=LINE)
    marks, marked = _mark_limits(ax, steps, source=history.noise_floor)
    highest = float(np.nanmax([share, *marked.T], initial=0.0))
    ax.set_ylim(0, min(1.12 if marks else 1.05, max(0.05, 1.2 * highest)))
    if len(steps) <= 20:
        _write_shares(ax, share, marked=marked)
    ends = [names[snapshot] for snapshot in steps["to_snapshot"]]
    shown = brief_ticks(ax, ends)
    ax.set_xticks(shown, [ends[place] for place in shown])
    ax.set_xlim(-0.4, len(steps) - 0.6)
    ax.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    legend = [Patch(color=LINE, label="churn"), *marks] if marks else []
    dress_curve(ax, title=what, x="snapshot", y="rows that changed cluster (%)", legend=legend)
    return ax


def _mark_limits(
    ax: Axes, steps: pd.DataFrame, *, source: str | None
) -> tuple[list[LineCollection], npt.NDArray[np.float64]]:
    """Draw floor and null across the bars, where they are known; return the marks and all values, a column each."""
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
        line = ax.hlines(heights, known - 0.4, known + 0.4, color=color, ls=style, lw=2.2, label=label, gid=column)
        marks.append(line)
    return marks, values


def _write_shares(ax: Axes, share: npt.NDArray[np.float64], *, marked: npt.NDArray[np.float64]) -> None:
    """Write each share above its bar, and above the marks that would cross the text."""
    text = 12.0 / points_per_unit(ax)
    for place, value in enumerate(share):
        if not np.isfinite(value):
            continue
        foot = value
        for mark in np.sort(marked[place][np.isfinite(marked[place])]):
            if foot - text / 4 < mark < foot + text * 1.1:
                foot = mark
        ax.annotate(
            f"{value:.0%}",
            (place, foot),
            xytext=(0, 3),
            textcoords="offset points",
            ha="center",
            fontsize=8,
            color=INK,
        )


def metrics(frame: pd.DataFrame, *, column: str = "val_accuracy", ax: Axes | None = None) -> Axes:
    """Draw a metric of the training over the optimizer steps.

    Parameters
    ----------
    frame : DataFrame
        A run's `metrics`: columns ``snapshot``, ``epoch``, ``step`` and one per metric.
    column : str, default "val_accuracy"
        Which metric. A name with "accuracy" in it is taken for a share and drawn in percent.
    ax : Axes, optional
        Where to draw; by default a new figure.

    Returns
    -------
    Axes
        Steps along x, with a line at the end of each epoch; where no steps were recorded, snapshots.

    Raises
    ------
    ValueError
        If there is no such metric, or it has no value.
    """
    recorded = [name for name in frame.columns if name not in ("snapshot", "epoch", "step")]
    if column not in recorded or bool(frame[column].isna().all()):
        there = ", ".join(repr(name) for name in recorded) or "none"
        raise ValueError(
            f"received column={column!r}; expected a metric with values (recorded: {there}): choose one of these, "
            f"or pass `metrics` to `Recorder.snapshot`"
        )
    stepped = bool(frame["step"].notna().all()) and bool(frame["step"].is_monotonic_increasing)
    stepped = stepped and frame["step"].is_unique
    along = frame["step" if stepped else "snapshot"]
    ends = frame.assign(along=along).groupby("epoch", sort=True)["along"].max()
    known = frame[column].notna()
    ax = axes_or_new(ax, width=7.0, height=3.6)
    for end in ends:
        ax.axvline(float(end), color=RULE, lw=0.8, zorder=0)
    ax.plot(along[known], frame.loc[known, column], color=LINE, marker="o", ms=5, lw=1.8)
    shown = brief(len(ends), at_most=10)
    ax.set_xticks([float(ends.iloc[i]) for i in shown], [f"{int(ends.iloc[i])}\nepoch {ends.index[i]}" for i in shown])
    name = column.replace("val_", "validation ").replace("_", " ")
    if "accuracy" in column:
        ax.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=None))
        unit = f"{name} (%)"
    else:
        unit = name
    end_value = float(frame.loc[known, column].iloc[-1])
    last = f"{end_value:.1%}" if "accuracy" in column else f"{end_value:.3g}"
    what = ("optimizer steps" if stepped else "snapshot") + ", lines at the end of each epoch"
    dress_curve(ax, title=f"{name.capitalize()} while training, {last} at the end", x=what, y=unit)
    return ax


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
    ax.plot(count, together, color=LINE, marker="o", ms=3.5, lw=1.5)
    ax.set_ylim(0, 1.03)
    ax.set_xlim(min(0.5, 1 - 0.02 * len(count)), len(count) + max(0.5, 0.02 * len(count)))
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    kept = f"{len(together)} components" if len(together) != 1 else "1 component"
    what = f"{scores.layer}: {scores.view} view, {kept} hold {together[-1]:.1%} of the variance"
    dress_curve(ax, title=what, x="number of components", y="explained variance, cumulative (%)")
    return ax


def dress_curve(ax: Axes, *, title: str, x: str, y: str, legend: Sequence[Artist] = ()) -> None:
    """Give the axes a title and names, and between title and picture a legend of these artists."""
    columns, room = 1, 0.0
    if legend:
        widest = max(text_width(str(entry.get_label()), size=8) for entry in legend) + 0.55
        columns = min(len(legend), max(1, int(inches(ax)[0] / widest)))
        room = 14.0 * ceil(len(legend) / columns)
        ax.legend(
            handles=legend,
            loc="lower left",
            bbox_to_anchor=(0, 1),
            ncols=columns,
            frameon=False,
            fontsize=8,
            labelcolor=INK,
            borderaxespad=0.1,
            borderpad=0.2,
            columnspacing=1.4,
        )
    # Names beside the axes take up about a quarter of what a panel has.
    width, height = (length / 0.77 for length in inches(ax))
    ax.set_title(_wrap(title, size=11, to=width), fontsize=11, color=INK, loc="left", parse_math=False, pad=6 + room)
    ax.set_xlabel(_wrap(x, size=9, to=width), fontsize=9, color=FAINT)
    ax.set_ylabel(_wrap(y, size=9, to=height), fontsize=9, color=FAINT)
    ax.tick_params(labelsize=8, color=RULE, labelcolor=INK)
    ax.spines[["top", "right"]].set_visible(False)
    ax.spines[["left", "bottom"]].set_color(RULE)
    ax.grid(axis="y", color="#ececec", lw=0.7)
    ax.set_axisbelow(True)


def _wrap(text: str, *, size: float, to: float) -> str:
    """Break lines of `text`, in a font of `size` points, that are longer than `to` inches."""
    letters = max(12, int(to / text_width("x", size=size)))
    return "\n".join(fill(line, letters, break_on_hyphens=False) for line in text.splitlines())


def brief_ticks(ax: Axes, titles: list[str]) -> list[int]:
    """Return the positions of titles that have room beside one another along the x axis, first and last among them."""
    between = max(text_width(title, size=8) for title in titles) / (inches(ax)[0] / len(titles))
    for at_most in range(len(titles), 2, -1):
        places = brief(len(titles), at_most=at_most)
        if np.diff(places).min() >= between:
            return places
    return brief(len(titles), at_most=2)
