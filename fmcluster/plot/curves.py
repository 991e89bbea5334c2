"""Single curves: churn, metrics of the training, explained variance."""

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator, PercentFormatter

from .canvas import FAINT, INK, RULE, axes_or_new
from .snapshots import brief, snapshot_table, snapshot_titles

if TYPE_CHECKING:
    from fmcluster.analysis.results import History, Scores

LINE = "#0173b2"


def churn(history: "History", *, ax: Axes | None = None) -> Axes:
    """Draw the share of rows that changed cluster in each step from one snapshot to the next.

    Parameters
    ----------
    history : History
        Tracked clusters of two or more snapshots.
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
    ax = axes_or_new(ax, width=float(np.clip(0.7 * len(steps) + 1, 6.4, 14.0)), height=3.6)
    ax.bar(places, share, width=0.55, color=LINE)
    highest = float(np.nanmax(share, initial=0.0))
    ax.set_ylim(0, min(1.05, max(0.05, 1.2 * highest)))
    for place, value in zip(places, share, strict=True):
        if np.isfinite(value) and len(steps) <= 20:
            ax.annotate(
                f"{value:.0%}",
                (place, value),
                xytext=(0, 3),
                textcoords="offset points",
                ha="center",
                fontsize=8,
                color=INK,
            )
    shown = brief(len(steps), at_most=14)
    ax.set_xticks(shown, [names[steps["to_snapshot"].iloc[place]] for place in shown])
    ax.set_xlim(-0.4, len(steps) - 0.6)
    ax.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    what = f"{clusters.layer}: {clusters.view} view, rows that changed cluster since the previous snapshot"
    _dress(ax, title=what, x="snapshot", y="rows that changed cluster (%)")
    return ax


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
    _dress(ax, title=f"{name.capitalize()} while training, {last} at the end", x=what, y=unit)
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
    _dress(ax, title=what, x="number of components", y="explained variance, cumulative (%)")
    return ax


def _dress(ax: Axes, *, title: str, x: str, y: str) -> None:
    ax.set_title(title, fontsize=11, color=INK, loc="left", parse_math=False)
    ax.set_xlabel(x, fontsize=9, color=FAINT)
    ax.set_ylabel(y, fontsize=9, color=FAINT)
    ax.tick_params(labelsize=8, color=RULE, labelcolor=INK)
    ax.spines[["top", "right"]].set_visible(False)
    ax.spines[["left", "bottom"]].set_color(RULE)
    ax.grid(axis="y", color="#ececec", lw=0.7)
    ax.set_axisbelow(True)
