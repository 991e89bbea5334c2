"""Lifelines: when clusters are there, and what becomes of them."""

from collections.abc import Iterator
from itertools import groupby
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from ..analysis import NOISE
from .drawing import (
    INK,
    axes_or_new,
    brief_ticks,
    cluster_name,
    cluster_palette,
    count_members,
    dress_curve,
    inches,
    layer_text,
    mark_transitions,
    points_per_unit,
    snapshot_titles,
    text_width,
)

if TYPE_CHECKING:
    from ..analysis import History

END = 0.18
LINE_OF_TEXT = 11.0
Stop = tuple[int, int]  # snapshot and label


def lifelines(history: "History", *, ax: Axes | None = None) -> Axes:
    """Draw a line for each cluster, from the snapshot where it comes to be to the one where it ends.

    A line is as thick as the cluster has members. Lines keep to the lane of their label, and have its color; noise,
    which is no cluster, is the lowest, and has no marks. Clusters of all snapshots at once, or of one epoch, are there
    as long as their label has members; between, where it has none for a time, they are dotted. Clusters of each
    snapshot are followed by their members: a line ends where most of them do not go on together, even where the next
    line in its lane has the same name, and a cluster that survives by another name goes over to the lane of that.

    Parameters
    ----------
    history : History
        Tracked clusters of two or more snapshots.
    ax : Axes, optional
        Where to draw; by default a new figure.

    Returns
    -------
    Axes
        Measured in snapshots from 0, and in rows from the top. A line's gid is ``"snapshot,cluster"`` of where it
        begins, noise has ``"noise"``; marks have the name of their transition, and the links from what splits or
        merges to its parts or heir ``"split"`` and ``"merge"``, too.

    Raises
    ------
    ValueError
        If there is one snapshot only.
    """
    clusters = history.clusters
    counts = count_members(history)
    snapshots, sizes = counts.snapshots, counts.sizes

    lasting = int(history.lives["died"].isna().sum())
    count = f"{len(history.lives)} clusters" if len(history.lives) != 1 else "1 cluster"
    title = f"{layer_text(clusters.layer)}: lives of {count} of the {clusters.view} view, {lasting} there at the end"
    width = max(float(np.clip(0.7 * len(snapshots) + 2, 7.0, 14.0)), min(text_width(title, size=11) + 0.6, 16.0))
    ax = axes_or_new(ax, width=width, height=float(np.clip(0.32 * len(counts.labels) + 1.6, 3.4, 12.0)))
    lanes, bottom = _lanes(sizes, lines_of_text=inches(ax)[1] * 72 / LINE_OF_TEXT)
    ax.set_ylim(bottom, 0)
    ax.set_xlim(-2 * END, len(snapshots) - 1 + 2 * END)

    order = {snapshot: stop for stop, snapshot in enumerate(snapshots)}
    colors = cluster_palette(clusters.labels)
    lines = list(_lines(history.transitions, sizes=sizes))
    if clusters.fit != "each":
        _draw_gaps(ax, lines, lanes=lanes, order=order, colors=colors)
    for line in lines:
        _draw_line(ax, line, sizes=sizes, lanes=lanes, order=order, colors=colors)
    if NOISE in counts.labels:
        noise = [(snapshot, NOISE) for snapshot in snapshots]
        _draw_line(ax, noise, sizes=sizes, lanes=lanes, order=order, colors=colors)
    marks = _draw_marks(ax, history.transitions, lanes=lanes, order=order, colors=colors)

    named = _apart(lanes, by=0.99 * LINE_OF_TEXT / points_per_unit(ax))
    for label in named:
        members = int(sizes.iloc[-1][label])
        if members:
            where = (len(snapshots) - 1 + END, lanes[label])
            offset: dict[str, Any] = {"xytext": (4, 0), "textcoords": "offset points"}
            ax.annotate(str(members), where, **offset, fontsize=8, color=INK, va="center", annotation_clip=False)
    apart = clusters.fit == "each"
    which = "of each snapshot, followed by their members" if apart else "the same in all snapshots"
    what = f"snapshot\na line is as thick as its cluster has members (at the end: on the right)\nclusters {which}"
    dress_curve(ax, title=title, x=what, y="", legend=marks)
    ax.grid(visible=False)
    ax.spines[:].set_visible(False)
    ax.tick_params(length=0)
    ax.set_yticks([lanes[label] for label in named], [cluster_name(label) for label in named])
    titles = snapshot_titles(counts.table, separator="\n")
    shown = brief_ticks(ax, titles)
    ax.set_xticks(shown, [titles[stop] for stop in shown])
    return ax


def _lanes(sizes: pd.DataFrame, *, lines_of_text: float) -> tuple[dict[int, float], float]:
    """Return the middle of each label's lane, and where the last ends.

    A lane is as wide as its label has members at most, and a line of text wider while there is room for so many.
    """
    widest = sizes.max().to_numpy(dtype=np.float64)
    between = float(widest.sum()) / max(lines_of_text - len(widest), 0.43 * len(widest))
    lower = np.cumsum(widest + between)
    middles = lower - (widest + between) / 2
    return {int(str(label)): float(at) for label, at in zip(sizes.columns, middles, strict=True)}, float(lower[-1])


def _apart(lanes: dict[int, float], *, by: float) -> list[int]:
    """Return the labels whose lanes are so far apart that each can be named."""
    named: list[int] = []
    for label, middle in lanes.items():
        if not named or middle - lanes[named[-1]] >= by:
            named.append(label)
    return named


def _lines(transitions: pd.DataFrame, *, sizes: pd.DataFrame) -> Iterator[list[Stop]]:
    """Yield the stops of each cluster while it survives: snapshots and labels, in order."""
    survivors = transitions[transitions["transition"] == "survive"]
    columns = ["from_snapshot", "from_cluster", "to_snapshot", "to_cluster"]
    follows: dict[Stop, Stop] = {
        (int(start), int(before)): (int(end), int(after))
        for start, before, end, after in survivors[columns].itertuples(index=False)
    }
    later = set(follows.values())
    for snapshot, members in sizes.iterrows():
        for label in members.index[members > 0]:
            stop = (int(str(snapshot)), int(str(label)))
            if stop in later or stop[1] == NOISE:
                continue
            line = [stop]
            while line[-1] in follows:
                line.append(follows[line[-1]])
            yield line


def _draw_line(
    ax: Axes,
    line: list[Stop],
    *,
    sizes: pd.DataFrame,
    lanes: dict[int, float],
    order: dict[int, int],
    colors: dict[int, str],
) -> None:
    """Draw one line, as thick as it has members; where it changes its label, it goes over to that lane."""
    gid = "noise" if line[0][1] == NOISE else "{},{}".format(*line[0])
    runs = [list(run) for _, run in groupby(line, key=lambda stop: stop[1])]
    for number, run in enumerate(runs):
        label = run[0][1]
        along = [float(order[snapshot]) for snapshot, _ in run]
        half = [_members(sizes, stop) / 2 for stop in run]
        middle = [lanes[label]] * len(run)
        if number == 0:
            along, half, middle = [along[0] - END, *along], [half[0], *half], [middle[0], *middle]
        if number == len(runs) - 1:
            along, half, middle = [*along, along[-1] + END], [*half, half[-1]], [*middle, middle[-1]]
        else:
            following = runs[number + 1][0]
            along.append(float(order[following[0]]))
            half.append(_members(sizes, following) / 2)
            middle.append(lanes[following[1]])
        lower, upper = np.subtract(middle, half), np.add(middle, half)
        # An edge keeps a cluster of few members in sight; noise may have none.
        color, edge = colors[label], 0.0 if label == NOISE else 0.8
        ax.fill_between(along, lower, upper, facecolor=color, edgecolor=color, lw=edge, zorder=2, gid=gid)


def _members(sizes: pd.DataFrame, stop: Stop) -> float:
    snapshot, label = stop
    return float(sizes[label].to_numpy(dtype=np.float64)[sizes.index.get_loc(snapshot)])


def _draw_gaps(
    ax: Axes, lines: list[list[Stop]], *, lanes: dict[int, float], order: dict[int, int], colors: dict[int, str]
) -> None:
    """Dot the lane of a label between its lines."""
    ended: dict[int, int] = {}
    for line in lines:
        start, label = line[0]
        if label in ended:
            span = [order[ended[label]] + END, order[start] - END]
            ax.plot(span, [lanes[label]] * 2, ls=":", lw=1.2, color=colors[label], gid="gap", zorder=1)
        ended[label] = line[-1][0]


def _draw_marks(
    ax: Axes, transitions: pd.DataFrame, *, lanes: dict[int, float], order: dict[int, int], colors: dict[int, str]
) -> list[Line2D]:
    """Mark what is no survival, link what splits to its parts and what merges to its heir; return legend entries."""
    step = inches(ax)[0] * 72 / len(order)
    room = points_per_unit(ax) * float(np.median(np.diff([0.0, *lanes.values()])))
    size = max(2.5, min(float(np.clip(0.28 * step, 4.5, 7.0)), room))
    for what in ("split", "merge"):
        rows = transitions[transitions["transition"] == what]
        columns = ["from_snapshot", "from_cluster", "to_snapshot", "to_cluster"]
        for start, before, end, after in rows[columns].itertuples(index=False):
            ends = [order[int(start)] + END, order[int(end)] - END]
            lane = [lanes[int(before)], lanes[int(after)]]
            ax.plot(ends, lane, lw=1.3, color=colors[int(before)], zorder=1.5, gid=what)
    return mark_transitions(ax, transitions, across=lambda _, cluster: lanes[cluster], order=order, end=END, size=size)
