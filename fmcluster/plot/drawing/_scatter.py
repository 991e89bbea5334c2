"""Scatter plots: axes, colors and legends of pictures of an embedding."""

from typing import TYPE_CHECKING

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
import seaborn  # noqa: F401  (registers the color map "crest")
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.lines import Line2D

from ...analysis import NOISE
from ._figures import FAINT, RULE, axes_or_new
from ._limits import Limits, limits_of
from ._palette import cluster_name, cluster_palette
from ._snapshots import brief, snapshot_table, snapshot_titles

if TYPE_CHECKING:
    from ...analysis import Clusters, Embedding


def embedding_axes(ax: Axes | None, embedding: "Embedding", *, position: int | None = None) -> Axes:
    """Return `ax`, or the axes of a new figure of the proportions of the embedding, with room for a legend."""
    return axes_or_new(ax, width=8.0, height=5.6 * ratio_of(embedding, position=position) + 0.9)


def ratio_of(embedding: "Embedding", *, position: int | None = None) -> float:
    """Return height over width of the embedding (at one snapshot), within what a figure can take."""
    (left, right), (bottom, top) = embedding_limits(embedding).at(position)
    return float(np.clip((top - bottom) / (right - left), 0.45, 1.25))


def add_legend(ax: Axes, marks: list[Line2D]) -> None:
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
    """Raise ValueError unless `clusters` has a label for every row of the embedding."""
    if clusters is None:
        return
    clusters.check_same_rows(embedding)


def dress_embedding(ax: Axes, embedding: "Embedding", *, position: int | None = None) -> None:
    """Give the axes of an embedding limits, frame and labels; positions in it have no unit, so there are no ticks.

    The limits are those for one snapshot, or for all of them together; the label of the x axis says what they leave
    out.
    """
    limits, titles = embedding_limits(embedding), snapshot_titles(snapshot_table(embedding.rows))
    horizontal, vertical = limits.at(position)
    ax.set_xlim(*horizontal)
    ax.set_ylim(*vertical)
    ax.set_aspect("equal", adjustable="box", anchor="W")  # beside it is the legend
    ax.set_xticks([])
    ax.set_yticks([])
    ax.spines[:].set_color(RULE)
    note = limits.note_at(position, titles=titles)
    label = f"{embedding.method} 1\n{embedding.faithfulness}" + (f"\n{note}" if note else "")
    ax.set_xlabel(label, fontsize=8, color=FAINT)
    ax.set_ylabel(f"{embedding.method} 2", fontsize=8, color=FAINT)


def embedding_limits(embedding: "Embedding") -> Limits:
    """Return where the axes of an embedding end."""
    return limits_of(embedding.by_snapshot(embedding.values))


def scatter_rows(
    ax: Axes, embedding: "Embedding", *, colors: list[str], position: int | None, shrink: float = 1.0
) -> None:
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
