"""Comparison: how similar the layers of several runs are, which channels match, and their metrics side by side."""

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, PercentFormatter

from .drawing import (
    FAINT,
    INK,
    MISSING,
    RULE,
    cluster_palette,
    color_map,
    dress_curve,
    finite_stretches,
    layer_text,
    metric_title,
    name_columns,
    new_figure,
    recorded_metrics,
    scale_start,
    text_width,
    write_values,
)

if TYPE_CHECKING:
    from ..analysis import Comparison

MOST_METRICS = 4
_WRITTEN = 14  # columns in which values are written


def compare(comparison: "Comparison") -> Figure:
    """Draw how similar the layers of runs are from epoch to epoch, how well channels match, and the metrics.

    Parameters
    ----------
    comparison : Comparison
        Made by `fmcluster.compare`.

    Returns
    -------
    Figure
        For each run that run 0 is compared with, a row: on the left, the debiased CKA of each layer with itself in run
        0, at the last snapshot of each epoch that both have, or, where they have none in common, at the last of either;
        on the right, the correlations of matched channels at the last snapshots (dot: median; thick: the middle half;
        thin: from 5 to 95 %; how many channels of run 0 have a match). Below, up to four metrics of all runs.
    """
    others = [int(run) for run in comparison.runs["run"]][1:]
    layers = list(dict.fromkeys(comparison.frame["layer"]))
    tables = {other: comparison.side_by_side(other) for other in others}
    names = recorded_metrics(comparison.metrics)[:MOST_METRICS]
    margin = max(text_width(layer_text(name), size=8) for name in layers)
    height = 0.3 * max(len(layers), 4) + 1.6
    most = max(table.shape[1] for table in tables.values())
    left = float(np.clip(0.45 * most, 3.0, 8.0)) + margin
    right = 3.6 + max(0.0, margin - 1.0)
    heights = [height] * len(others) + ([2.6] if names else [])
    figure = new_figure(width=left + right + 1.4, height=sum(heights) + 0.9)
    figure.set_layout_engine("constrained", h_pad=0.12, w_pad=0.12)
    rows = figure.subfigures(len(heights), 1, height_ratios=heights, squeeze=False)[:, 0]
    for part, (other, table) in zip(rows, tables.items(), strict=False):
        similar, matched = part.subplots(1, 2, width_ratios=[left, right])
        _draw_similarity(similar, table, other=other)
        _draw_matches(matched, comparison.matches, layers=layers, other=other)
    if names:
        panels = rows[-1].subplots(1, len(names), squeeze=False)[0]
        for name, ax in zip(names, panels, strict=True):
            _draw_metric(ax, comparison.metrics, name)
        marks = [
            Line2D([], [], color=_color(run), marker="o", ms=4, label=f"run {run}: {name}")
            for run, name in zip(comparison.runs["run"], comparison.runs["name"], strict=True)
        ]
        figure.legend(handles=marks, loc="outside lower left", ncols=min(len(marks), 3), frameon=False, fontsize=8)
    return figure


def _draw_similarity(ax: Axes, table: pd.DataFrame, *, other: int) -> None:
    values = table.to_numpy(dtype=np.float64)
    lowest = scale_start(values)
    mesh = ax.pcolormesh(np.ma.masked_invalid(values), norm=Normalize(lowest, 1), cmap=color_map("mako"))
    ax.set_facecolor(MISSING)
    if values.shape[1] <= _WRITTEN:
        write_values(ax, values, dark_below=lowest + 0.6 * (1 - lowest))
    pairs = [(int(pair[0]), int(pair[1])) for pair in table.columns]
    common = all(here == there for here, there in pairs)
    along = "epoch" if common else f"epoch of run 0 | of run {other}"
    dress_curve(ax, title=f"CKA of each layer, run {other} with run 0", x=along, y="")
    ax.grid(visible=False)
    _name_layers(ax, list(table.index))
    name_columns(ax, [str(here) if common else f"{here} | {there}" for here, there in pairs])
    ax.spines[:].set_visible(False)
    figure = ax.get_figure()
    assert figure is not None
    scale = figure.colorbar(mesh, ax=ax, fraction=0.05, pad=0.02)
    scale.set_label("CKA (1: the same but for rotation)", fontsize=8, color=FAINT)
    scale.ax.tick_params(labelsize=8, color=RULE, labelcolor=INK)
    scale.outline.set_visible(False)


def _draw_matches(ax: Axes, matches: pd.DataFrame, *, layers: list[str], other: int) -> None:
    found = matches[matches["other_run"] == other]
    color = _color(other)
    for order, layer in enumerate(layers):
        of_layer = found[found["layer"] == layer]
        known = of_layer["correlation"].dropna().to_numpy(dtype=np.float64)
        height = order + 0.5
        if len(known):
            low, first, middle, third, high = np.quantile(known, [0.05, 0.25, 0.5, 0.75, 0.95])
            ax.plot([low, high], [height, height], color=color, lw=1.2)
            ax.plot([first, third], [height, height], color=color, lw=4.5, solid_capstyle="butt")
            ax.plot([middle], [height], marker="o", ms=5, color="white", mec=color, mew=1.5, clip_on=False)
        text = f"{len(known)} of {len(of_layer)}" if len(of_layer) else "of unlike shape"
        ax.annotate(
            text, (1.0, height), xycoords=ax.get_yaxis_transform(), xytext=(7, 0), textcoords="offset points",
            va="center", fontsize=8, color=FAINT, annotation_clip=False,
        )  # fmt: skip
    dress_curve(ax, title="Matched channels at the last snapshots", x="correlation of matched channels", y="")
    ax.set_xlim(min(0.0, ax.get_xlim()[0]), 1)
    _name_layers(ax, layers)
    ax.grid(visible=False, axis="y")
    ax.grid(visible=True, axis="x", color="#ececec", lw=0.7)


def _draw_metric(ax: Axes, frame: pd.DataFrame, name: str) -> None:
    title, is_share = metric_title(name)
    for run, rows in frame.groupby("run"):
        known = rows[rows[name].notna()].drop_duplicates("epoch", keep="last")
        for part in finite_stretches(known[name]):
            of_part = known.iloc[part]
            ax.plot(of_part["epoch"], of_part[name], color=_color(int(str(run))), marker="o", ms=4, lw=1.6)
    if is_share:
        ax.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=None))
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    dress_curve(ax, title=f"{title[0].upper()}{title[1:]}", x="epoch", y=f"{title} (%)" if is_share else title)


def _name_layers(ax: Axes, layers: list[str]) -> None:
    ax.set_ylim(len(layers), 0)
    ax.set_yticks(np.arange(len(layers)) + 0.5, list(map(layer_text, layers)), parse_math=False)
    ax.tick_params(axis="y", length=0)


def _color(run: int) -> str:
    return cluster_palette(max(10, run + 1))[run]
