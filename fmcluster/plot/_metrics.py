"""Metrics: what was recorded of the training beside the snapshots, over the optimizer steps."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from ._trajectories import PLAIN
from .drawing import IDENTITY, RULE, brief, dress_curve, finite_stretches, metric_title, new_figure, recorded_metrics


def metrics(frame: pd.DataFrame, *, columns: Sequence[str] | None = None) -> Figure:
    """Draw the metrics of a training over its optimizer steps, a panel each.

    Parameters
    ----------
    frame : DataFrame
        A run's `metrics`: columns ``snapshot``, ``epoch``, ``step`` and one per metric.
    columns : sequence of str, optional
        Which metrics, in this order; by default all that have a value. One with "accuracy" in its name is taken for a
        share and drawn in percent.

    Returns
    -------
    Figure
        Panels below each other. Steps along x, with a line at the end of each epoch; where no steps were recorded,
        snapshots.

    Raises
    ------
    ValueError
        If there is no such metric, or it has no value; if none is recorded.
    """
    recorded = recorded_metrics(frame)
    if not recorded:
        if held := [str(name) for name in frame.columns if name not in IDENTITY]:
            raise ValueError(
                f"the run's metrics ({', '.join(held[:5])}) hold no finite value: there is nothing to draw"
            )
        raise ValueError("the run has no metrics; pass metrics={...} to `Recorder.snapshot` to record some")
    chosen = recorded if columns is None else list(columns)
    if unknown := [name for name in chosen if name not in recorded]:
        raise ValueError(
            f"received the column {unknown[0]!r}; expected a metric with values: choose one of "
            f"{', '.join(map(repr, recorded))}"
        )
    if not chosen:
        raise ValueError(f"received no columns; expected one or more of {', '.join(map(repr, recorded))}")
    figure = new_figure(width=7.0, height=3.2 * len(chosen) + 0.4)
    figure.set_layout_engine("constrained")
    panels = figure.subplots(len(chosen), squeeze=False)[:, 0]
    for name, ax in zip(chosen, panels, strict=True):
        _draw_metric(ax, frame, name)
    return figure


def _draw_metric(ax: Axes, frame: pd.DataFrame, name: str) -> None:
    stepped = bool(frame["step"].notna().all()) and bool(frame["step"].is_monotonic_increasing)
    stepped = stepped and frame["step"].is_unique
    along = frame["step" if stepped else "snapshot"]
    ends = frame.assign(along=along).groupby("epoch", sort=True)["along"].max()
    for border in ends:
        ax.axvline(float(border), color=RULE, lw=0.8, zorder=0)
    for part in finite_stretches(frame[name]):
        ax.plot(along.iloc[part], frame[name].iloc[part], color=PLAIN, marker="o", ms=5, lw=1.8)
    shown = brief(len(ends), at_most=10) if len(ends) > 1 else [0]
    ax.set_xticks([float(ends.iloc[i]) for i in shown], [f"{int(ends.iloc[i])}\nepoch {ends.index[i]}" for i in shown])
    title, is_share = metric_title(name)
    if is_share:
        ax.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=None))
    last = float(frame[name].dropna().iloc[-1])
    end = "infinite" if np.isinf(last) else f"{last:.1%}" if is_share else f"{last:.3g}"
    what = ("optimizer steps" if stepped else "snapshot") + ", lines at the end of each epoch"
    dress_curve(
        ax,
        title=f"{title[0].upper()}{title[1:]} while training, {end} at the end",
        x=what,
        y=f"{title} (%)" if is_share else title,
    )
