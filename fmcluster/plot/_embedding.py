"""Maps of the rows of a view, colored by cluster or by time."""

from collections.abc import Sequence
from math import ceil
from typing import TYPE_CHECKING

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
import seaborn  # noqa: F401  (registers the color map "crest")
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from .drawing import (
    FAINT,
    INK,
    NOISE,
    RULE,
    axes_or_new,
    brief,
    cluster_name,
    cluster_palette,
    find_snapshot,
    new_figure,
    snapshot_table,
    snapshot_titles,
    span,
    text_width,
)

if TYPE_CHECKING:
    from ..analysis import Clusters, Embedding


def embedding(
    embedding: "Embedding",
    clusters: "Clusters | None" = None,
    *,
    snapshot: int | None = None,
    epoch: int | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw the map of one snapshot, or of all of them, as a scatter plot.

    Parameters
    ----------
    embedding : Embedding
        The map.
    clusters : Clusters, optional
        Colors the rows by cluster; without them rows are colored by snapshot.
    snapshot, epoch : int, optional
        A snapshot by its number, or the last one of an epoch. By default the rows of all snapshots are drawn.
    ax : Axes, optional
        Where to draw; by default a new figure.

    Returns
    -------
    Axes

    Raises
    ------
    ValueError
        If there is no such snapshot, or `clusters` labels other rows than the map has.
    """
    check_same_rows(embedding, clusters)
    table = snapshot_table(embedding.rows)
    every = epoch is None and snapshot is None
    position = None if every else find_snapshot(table, epoch=epoch, snapshot=snapshot)
    colors = row_colors(embedding, clusters)
    ax = map_axes(ax, embedding)
    _scatter(ax, embedding, colors=colors, position=position)
    when = span(table) if position is None else snapshot_titles(table)[position]
    ax.set_title(
        f"{embedding.layer}: {embedding.view} view, {when}", fontsize=11, color=INK, loc="left", parse_math=False
    )
    dress(ax, embedding)
    place_legend(ax, legend_marks(embedding, clusters))
    return ax


def embedding_grid(embedding: "Embedding", clusters: "Clusters | None" = None) -> Figure:
    """Draw one map per snapshot, all on the same axes and in the same colors.

    Parameters
    ----------
    embedding : Embedding
        The map.
    clusters : Clusters, optional
        Colors the rows by cluster; without them rows are colored by snapshot.

    Returns
    -------
    Figure
        Not kept by pyplot: show it as the last value of a cell, or call its `savefig`. Of more than 20 snapshots
        at most 20 are drawn, evenly spread, the first and the last among them.

    Raises
    ------
    ValueError
        If `clusters` labels other rows than the map has.
    """
    check_same_rows(embedding, clusters)
    table = snapshot_table(embedding.rows)
    titles = snapshot_titles(table)
    shown = brief(len(table), at_most=20)
    columns = min(len(shown), 5 if len(shown) > 9 else 3)
    rows = ceil(len(shown) / columns)
    colors = row_colors(embedding, clusters)
    part = "" if len(shown) == len(table) else f" ({len(shown)} of them drawn)"
    title = f"{embedding.layer}: {embedding.view} view in {embedding.method}, {span(table)}{part}"
    # Without clusters the titles of the panels say all that a legend would.
    marks = legend_marks(embedding, clusters) if clusters is not None else []
    side = 2.5 if columns > 2 else 3.6
    height = rows * (side * ratio_of(embedding) + 0.3) + 0.9
    legend_columns = ceil(len(marks) / max(1, int(height / 0.2)))
    width = columns * side + 0.3 + 1.3 * legend_columns
    figure = new_figure(width=max(width, text_width(title, size=12) + 0.3), height=height)
    figure.set_layout_engine("constrained")
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for panel, position in zip(panels, shown, strict=False):
        _scatter(panel, embedding, colors=colors, position=position, shrink=0.5)
        panel.set_title(titles[position], fontsize=9, color=INK, loc="left", pad=3)
        dress(panel, embedding)
        panel.set_xlabel("")
        panel.set_ylabel("")
    for panel in panels[len(shown) :]:
        panel.set_axis_off()
    figure.suptitle(title, fontsize=12, color=INK, x=0.01, ha="left", parse_math=False)
    figure.supxlabel(str(embedding.faithfulness), fontsize=8, color=FAINT)
    if marks:
        figure.legend(handles=marks, loc="outside right upper", frameon=False, fontsize=8, ncols=legend_columns)
    return figure


def map_axes(ax: Axes | None, embedding: "Embedding") -> Axes:
    """Return `ax`, or the axes of a new figure of the proportions of the map, with room for a legend."""
    return axes_or_new(ax, width=7.4, height=5.6 * ratio_of(embedding) + 0.9)


def ratio_of(embedding: "Embedding") -> float:
    """Return height over width of the map, within what a figure can take."""
    (left, right), (bottom, top) = limits(embedding.values)
    return float(np.clip((top - bottom) / (right - left), 0.45, 1.25))


def place_legend(ax: Axes, marks: list[Line2D]) -> None:
    """Put a legend of these entries to the right of the axes."""
    columns = 1 + len(marks) // 26
    ax.legend(handles=marks, loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False, fontsize=8, ncols=columns)


def row_colors(embedding: "Embedding", clusters: "Clusters | None") -> list[str]:
    """Return a color for every row: its cluster's, or its snapshot's."""
    if clusters is None:
        ages = age_palette(embedding.n_snapshots)
        return [ages[i] for i in np.repeat(np.arange(len(ages)), len(embedding.rows) // len(ages))]
    palette = cluster_palette(clusters.labels)
    return [palette[int(label)] for label in clusters.labels]


def legend_marks(embedding: "Embedding", clusters: "Clusters | None") -> list[Line2D]:
    """Return the entries of a legend that says what the colors of `row_colors` stand for."""
    if clusters is None:
        titles = snapshot_titles(snapshot_table(embedding.rows))
        ages = age_palette(len(titles))
        return [_dot(ages[i], titles[i]) for i in brief(len(titles), at_most=9)]
    return cluster_marks(clusters.labels, palette=cluster_palette(clusters.labels))


def cluster_marks(labels: npt.NDArray[np.int64], *, palette: dict[int, str]) -> list[Line2D]:
    """Return one entry of a legend per cluster that occurs, noise last."""
    present = [int(label) for label in np.unique(labels)]
    present = [label for label in present if label != NOISE] + [NOISE] * (NOISE in present)
    return [_dot(palette[label], cluster_name(label)) for label in present]


def check_same_rows(embedding: "Embedding", clusters: "Clusters | None") -> None:
    """Raise ValueError unless `clusters` has a label for every row of the map."""
    if clusters is None:
        return
    clusters.check_same_rows(embedding)


def limits(values: npt.NDArray[np.float64]) -> Sequence[tuple[float, float]]:
    """Return (low, high) for x and for y with a margin, for all snapshots together."""
    low, high = values.min(axis=0), values.max(axis=0)
    margin = np.maximum(0.06 * (high - low).max(), 1e-9)
    return [(float(a - margin), float(b + margin)) for a, b in zip(low, high, strict=True)]


def dress(ax: Axes, embedding: "Embedding") -> None:
    """Give the axes of a map limits, frame and labels; positions in a map have no unit, so there are no ticks."""
    horizontal, vertical = limits(embedding.values)
    ax.set_xlim(*horizontal)
    ax.set_ylim(*vertical)
    ax.set_aspect("equal", adjustable="box")
    ax.set_xticks([])
    ax.set_yticks([])
    ax.spines[:].set_color(RULE)
    ax.set_xlabel(f"{embedding.method} 1\n{embedding.faithfulness}", fontsize=8, color=FAINT)
    ax.set_ylabel(f"{embedding.method} 2", fontsize=8, color=FAINT)


def _scatter(ax: Axes, embedding: "Embedding", *, colors: list[str], position: int | None, shrink: float = 1.0) -> None:
    """Draw the rows of one snapshot, or of all, in their own order."""
    points = embedding.values
    if position is not None:
        size = len(points) // embedding.n_snapshots
        part = slice(position * size, (position + 1) * size)
        points, colors = points[part], colors[part]
    area = point_area(len(points), shrink=shrink)
    ax.scatter(points[:, 0], points[:, 1], s=area, c=colors, linewidths=0, alpha=0.85)


def point_area(count: int, *, shrink: float = 1.0) -> float:
    """Return the area of a dot, in square points, with which so many can be told apart."""
    return float(np.clip(shrink * 6000 / count, 3, shrink * 30))


def age_palette(count: int) -> list[str]:
    """Return one color per snapshot, from light (early) to dark (late)."""
    return [to_hex(color) for color in mpl.colormaps["crest"](np.linspace(0, 1, count))]


def _dot(color: str, label: str) -> Line2D:
    return Line2D([], [], ls="", marker="o", ms=6, mec="none", color=color, label=label)
