"""Flow: how members of clusters move from snapshot to snapshot, as an alluvial picture."""

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import PathPatch, Rectangle
from matplotlib.path import Path

from ..analysis import NOISE
from .drawing import (
    FAINT,
    INK,
    Counts,
    axes_or_new,
    brief,
    cluster_name,
    cluster_palette,
    count_members,
    inches,
    layer_text,
    mark_transitions,
    points_per_unit,
    snapshot_titles,
    spread,
    text_width,
)

if TYPE_CHECKING:
    from ..analysis import History

NODE = 0.09

Row = npt.NDArray[np.float64]
Middles = dict[tuple[int, int, int], tuple[float, float]]  # of bands, by snapshot and both clusters


def flow(history: "History", *, transitions: bool = True, ax: Axes | None = None) -> Axes:
    """Draw the flow of members between clusters as bands between snapshots.

    The height of a node is the number of its members, and that of a band the number of rows that take it. Bands
    have the color of the cluster they come from; those of rows that moved are stronger (to become noise, or to
    cease to be, is no move). Clusters keep their order, from the lowest label at the top to noise at the bottom.

    Parameters
    ----------
    history : History
        Tracked clusters of two or more snapshots.
    transitions : bool, default True
        Mark where clusters appear, vanish, split or merge, as the history has it, and draw a line through the bands
        in which they survive.
    ax : Axes, optional
        Where to draw; by default a new figure.

    Returns
    -------
    Axes
        Measured in rows from the top; a band's gid is ``"from_snapshot,from_cluster,to_cluster"``, a node's is
        ``"snapshot,cluster"``; marks have the name of their transition, as have the lines of what survives.

    Raises
    ------
    ValueError
        If there is one snapshot only.
    """
    clusters = history.clusters
    counts = count_members(history)
    snapshots, labels, table = counts.snapshots, counts.labels, counts.table
    sizes = counts.sizes.to_numpy(dtype=np.float64)
    gap = float(sizes.sum(axis=1).max()) * min(0.035, 0.4 / len(labels))
    tops = np.cumsum(sizes, axis=1) - sizes + gap * np.arange(len(labels))

    width = float(np.clip(1.0 * len(snapshots) + 2.2, 7.0, 16.0))
    ax = axes_or_new(ax, width=width, height=float(np.clip(0.3 * len(labels), 4.6, 12.0)))
    ax.set_xlim(-0.1, len(snapshots) - 0.9)
    ax.set_ylim(float((tops + sizes).max()) + gap, -gap)
    colors = cluster_palette(clusters.labels)
    upper = pd.DataFrame(tops, index=snapshots, columns=labels)
    middles = _draw_bands(ax, history.flow, tops=upper, colors=colors)
    for (column, number), members in np.ndenumerate(sizes):
        if members:
            corner, gid = (column - NODE / 2, tops[column, number]), f"{snapshots[column]},{labels[number]}"
            node = Rectangle(corner, NODE, members, fc=colors[labels[number]], ec="none", zorder=3, gid=gid)
            ax.add_patch(node)
    marks = _mark(ax, history.transitions, upper=upper, counts=counts, middles=middles) if transitions else []
    count = len(clusters.rows) // len(snapshots)
    title = f"{layer_text(clusters.layer)}: flow of the {count} rows of the {clusters.view} view between clusters"
    _dress(ax, title=title, titles=snapshot_titles(table, separator="\n"))
    if marks:
        _put_marks(ax, marks)
    for column, side in ((0, -1), (len(snapshots) - 1, 1)):
        _name_nodes(ax, tops[column], sizes=sizes[column], labels=labels, at=column, side=side)
    return ax


def _draw_bands(ax: Axes, moves: pd.DataFrame, *, tops: pd.DataFrame, colors: dict[int, str]) -> Middles:
    """Draw a band for each row of `moves`; `tops` has the upper end of each node, by snapshot and cluster.

    Return where the middle of each band begins and ends, by snapshot and both clusters.
    """
    middles: Middles = {}
    column = {snapshot: number for number, snapshot in enumerate(tops.index.tolist())}
    order = {label: number for number, label in enumerate(int(str(column)) for column in tops.columns)}
    leaving, arriving = (tops.to_numpy(dtype=np.float64).copy() for _ in range(2))
    names = ["from_snapshot", "from_cluster", "to_cluster", "count"]
    rows = [tuple(int(value) for value in row) for row in moves[names].itertuples(index=False)]
    # In the order of the clusters at both ends, so that the bands of one node do not cross at the node.
    for snapshot, source, target, count in sorted(rows, key=lambda row: (row[0], order[row[1]], order[row[2]])):
        if count == 0:
            continue
        left, start, end = column[snapshot], order[source], order[target]
        band = _band(left, leaving[left, start], arriving[left + 1, end], height=count)
        middles[snapshot, source, target] = (leaving[left, start] + count / 2, arriving[left + 1, end] + count / 2)
        leaving[left, start] += count
        arriving[left + 1, end] += count
        moved = source != target and NOISE not in (source, target)
        alpha, gid = 0.6 if moved else 0.28, f"{snapshot},{source},{target}"
        ax.add_patch(PathPatch(band, fc=colors[source], ec="none", alpha=alpha, gid=gid, zorder=1 + alpha))
    return middles


def _mark(
    ax: Axes, transitions: pd.DataFrame, *, upper: pd.DataFrame, counts: Counts, middles: Middles
) -> list[Line2D]:
    """Mark what becomes of clusters; return entries of a legend."""
    if transitions.empty:
        return []
    order = {snapshot: number for number, snapshot in enumerate(counts.snapshots)}
    survivors = transitions[transitions["transition"] == "survive"]
    columns = ["from_snapshot", "from_cluster", "to_cluster"]
    found = []
    for snapshot, before, after in survivors[columns].astype(int).itertuples(index=False):
        # A label may survive, and all its members be others.
        if (snapshot, before, after) in middles:
            line = _curve(order[snapshot], *middles[snapshot, before, after])
            ax.add_patch(PathPatch(line, fc="none", ec=INK, lw=0.8, alpha=0.75, zorder=2.5, gid="survive"))
            found = [Line2D([], [], color=INK, lw=0.8, alpha=0.75, label="survives")]
    centers = (upper + counts.sizes / 2).stack().to_dict()
    step = inches(ax)[0] * 72 / len(order)
    return found + mark_transitions(
        ax,
        transitions,
        across=lambda snapshot, label: float(centers[snapshot, label]),
        order=order,
        end=NODE / 2 + 0.06,
        size=float(np.clip(0.09 * step, 4.0, 6.5)),
    )


def _curve(column: int, start: float, end: float) -> Path:
    """Return the way of a band, without its height."""
    left, right = column + NODE / 2, column + 1 - NODE / 2
    middle = (left + right) / 2
    return Path([(left, start), (middle, start), (middle, end), (right, end)], [Path.MOVETO, *[Path.CURVE4] * 3])


def _put_marks(ax: Axes, marks: list[Line2D]) -> None:
    """Put a legend of the marks between the title and the axes."""
    ax.set_title(ax.get_title(loc="left"), fontsize=11, color=INK, loc="left", parse_math=False, pad=22)
    above: dict[str, Any] = {"loc": "lower left", "bbox_to_anchor": (0.0, 1.0), "borderaxespad": 0.2}
    ax.legend(handles=marks, ncols=len(marks), frameon=False, fontsize=8, columnspacing=1.4, handletextpad=0.4, **above)


def _band(column: int, start: float, end: float, *, height: float) -> Path:
    """Return a band of constant vertical height from one node to the next."""
    upper = [(float(x), float(y)) for x, y in np.asarray(_curve(column, start, end).vertices)]
    lower = [(x, y + height) for x, y in reversed(upper)]
    codes = [Path.MOVETO, *[Path.CURVE4] * 3, Path.LINETO, *[Path.CURVE4] * 3, Path.CLOSEPOLY]
    return Path([*upper, *lower, upper[0]], codes)


def _dress(ax: Axes, *, title: str, titles: list[str]) -> None:
    """Give the axes a title, ticks that name the snapshots and no frame."""
    ax.set_title(title, fontsize=11, color=INK, loc="left", parse_math=False)
    room = max(text_width(each, size=8) for each in titles)
    shown = brief(len(titles), at_most=max(2, int(inches(ax)[0] / room)))
    ax.set_xticks(shown, [titles[number] for number in shown], fontsize=8, color=INK)
    ax.tick_params(length=0)
    ax.set_yticks([])
    ax.spines[:].set_visible(False)
    how = "a node is as high as its cluster has members; bands have the color they come from"
    ax.set_xlabel(how, fontsize=8, color=FAINT)


def _name_nodes(ax: Axes, tops: Row, *, sizes: Row, labels: list[int], at: int, side: int) -> None:
    """Write name and size beside the nodes of a snapshot, on its left (-1) or right (1), apart enough to be read."""
    there = np.flatnonzero(sizes)
    middles = spread(tops[there] + sizes[there] / 2, apart=9.0 / points_per_unit(ax))
    for number, middle in zip(there, middles, strict=True):
        text = f"{cluster_name(labels[number])} ({int(sizes[number])})"
        x, align = at + side * (NODE / 2 + 0.04), "right" if side < 0 else "left"
        ax.text(x, middle, text, fontsize=8, color=INK, ha=align, va="center")
