"""Animated embedding: the rows of a view move from snapshot to snapshot."""

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from matplotlib.animation import FuncAnimation
from matplotlib.artist import Artist
from matplotlib.colors import to_rgb
from matplotlib.lines import Line2D

from ._trajectories import PLAIN
from .drawing import (
    INK,
    Animation,
    Span,
    add_legend,
    check_same_rows,
    cluster_marks,
    cluster_palette,
    draw_timeline,
    dress_embedding,
    embedding_limits,
    inch_axes,
    layer_text,
    new_figure,
    point_area,
    ratio_of,
    snapshot_table,
    snapshot_titles,
    text_width,
)

if TYPE_CHECKING:
    from ..analysis import Clusters, Embedding


MOVING = 60  # milliseconds a frame

RESTING = 8  # frames at each snapshot

Positions = npt.NDArray[np.float64]


def animate_embedding(
    embedding: "Embedding",
    clusters: "Clusters | None" = None,
    *,
    between: int = 10,
) -> FuncAnimation:
    """Let the rows of an embedding move from snapshot to snapshot.

    Rows rest at each snapshot and go straight to where they are at the next. Only the rests are data: what is between
    them is there for the eye to follow. A snapshot that reaches far beyond the others has wider axes, which go over to
    theirs as the rows do; what is under the picture says so.

    Parameters
    ----------
    embedding : Embedding
        An embedding of two or more snapshots.
    clusters : Clusters, optional
        Colors each row by its cluster; on its way to another one it goes over to that one's color.
    between : int, default 10
        Frames from one snapshot to the next.

    Returns
    -------
    FuncAnimation
        Save it: ``animation.save("embedding.gif", writer="pillow")``, or ``"embedding.mp4"`` where ffmpeg is
        installed. Its frames are positions among the snapshots: 0 is the first one, 0.5 half way to the second.

    Raises
    ------
    ValueError
        If there is one snapshot only, `between` is negative, or `clusters` labels other rows than the embedding has.
    """
    check_same_rows(embedding, clusters)
    table = snapshot_table(embedding.rows)
    if len(table) < 2:
        raise ValueError(
            "received an embedding of 1 snapshot; expected 2 or more: record more, or draw `embedding` instead"
        )
    if between < 0:
        raise ValueError(f"received between={between}; expected 0 or more frames from one snapshot to the next")
    titles = snapshot_titles(table)
    indices = embedding.by_snapshot(embedding.values)
    colors, marks = _colors(embedding, clusters)

    what = f"{layer_text(embedding.layer)}: {embedding.view} view, "
    longest = max(text_width(what + title, size=11) for title in titles)
    beside = 1.5 * (1 + len(marks) // 26) if marks else 0.3
    wide = max(5.2, longest)
    tall = wide * ratio_of(embedding)
    figure = new_figure(width=0.4 + wide + beside, height=0.45 + tall + 1.35)
    ax = inch_axes(figure, left=0.4, top=0.45, width=wide, height=tall)
    dress_embedding(ax, embedding)
    points = ax.scatter(
        indices[0][:, 0], indices[0][:, 1], s=point_area(len(indices[0])), c=colors[0], linewidths=0, alpha=0.85
    )
    title = ax.set_title(what + titles[0], fontsize=11, color=INK, loc="left", parse_math=False)
    if marks:
        add_legend(ax, marks)
    cursor = draw_timeline(figure, titles, left=0.4, top=0.45 + tall + 0.72, width=wide)

    limits = embedding_limits(embedding)
    corners = np.array([_corners(limits.at(position), ratio=tall / wide) for position in range(len(indices))])

    def draw(frame: float) -> list[Artist]:
        before = min(int(frame), len(indices) - 2)
        share = frame - before
        share = share * share * (3 - 2 * share)  # starts and stops gently
        if limits.apart:
            dress_embedding(ax, embedding, position=round(frame))
            (left, bottom), (right, top) = (1 - share) * corners[before] + share * corners[before + 1]
            ax.set(xlim=(left, right), ylim=(bottom, top))
        points.set_offsets((1 - share) * indices[before] + share * indices[before + 1])
        points.set_facecolor([tuple(row) for row in (1 - share) * colors[before] + share * colors[before + 1]])
        title.set_text(what + titles[round(frame)])
        cursor.set_xdata([frame])
        return [points, title, cursor]

    return Animation(figure, draw, frames=_frames(len(indices), between), interval=MOVING, init_func=lambda: [points])


def _corners(limits: tuple[Span, Span], *, ratio: float) -> Positions:
    """Return the lower left and the upper right corner of limits that are widened to this height over width."""
    low, high = np.array(limits).T
    sides = high - low
    wider = np.maximum(sides, [sides[1] / ratio, sides[0] * ratio])
    return np.array([(low + high - wider) / 2, (low + high + wider) / 2])


def _frames(count: int, between: int) -> list[float]:
    """Return the positions among `count` snapshots, with rests at each, the last one twice as long."""
    frames: list[float] = []
    for snapshot in range(count - 1):
        frames += [float(snapshot)] * RESTING
        frames += [snapshot + step / (between + 1) for step in range(1, between + 1)]
    return frames + [float(count - 1)] * 2 * RESTING


def _colors(embedding: "Embedding", clusters: "Clusters | None") -> tuple[Positions, list[Line2D]]:
    """Return colors of shape (n_snapshots, n_rows, 3), and the entries of a legend."""
    size = len(embedding.rows) // embedding.n_snapshots
    if clusters is None:
        return np.tile(to_rgb(PLAIN), (embedding.n_snapshots, size, 1)), []
    palette = cluster_palette(clusters.labels)
    colors = np.array([to_rgb(palette[int(label)]) for label in clusters.labels])
    shaped: Positions = embedding.by_snapshot(colors)
    return shaped, cluster_marks(clusters.labels, palette=palette)
