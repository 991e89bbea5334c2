"""Metrics: what was recorded of the training beside the snapshots, over the optimizer steps."""

from typing import TYPE_CHECKING

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import PercentFormatter

from ._trajectories import PLAIN
from .drawing import RULE, axes_or_new, brief, dress_curve

if TYPE_CHECKING:
    pass


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
    ax.plot(along[known], frame.loc[known, column], color=PLAIN, marker="o", ms=5, lw=1.8)
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
