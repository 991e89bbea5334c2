"""Pictures that move from snapshot to snapshot: the map of a view, and the feature maps of one image."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt
from matplotlib.animation import FuncAnimation
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from ._channel_grid import channel_activity, describe_grid, labels_at, scales_of
from ._embedding import check_same_rows, cluster_marks, dress, place_legend, point_area, ratio_of
from .drawing import (
    FAINT,
    INK,
    RULE,
    PicturedLayer,
    as_tiles,
    aspect_of,
    check_choice,
    check_sample,
    chosen_channels,
    cluster_palette,
    draw_sheet,
    inch_axes,
    new_figure,
    notes,
    page,
    plan_sheet,
    snapshot_table,
    snapshot_titles,
    snapshots_of,
    text_width,
)

if TYPE_CHECKING:
    from ..analysis import Clusters, Embedding

PLAIN = "#0173b2"
MOVING = 60  # milliseconds a frame
RESTING = 8  # frames at each snapshot
SHOWN = 900  # milliseconds a snapshot of a grid

Positions = npt.NDArray[np.float64]


class Animation(FuncAnimation):
    """A `matplotlib.animation.FuncAnimation` that may be dropped before it was shown."""

    def __del__(self) -> None:
        """Say nothing: matplotlib would warn of an animation that was neither shown nor saved."""


def animate_embedding(
    embedding: "Embedding",
    clusters: "Clusters | None" = None,
    *,
    between: int = 10,
) -> FuncAnimation:
    """Let the rows of a map move from snapshot to snapshot.

    Rows rest at each snapshot and go straight to where they are at the next. Only the rests are data: what is between
    them is there for the eye to follow.

    Parameters
    ----------
    embedding : Embedding
        A map of two or more snapshots.
    clusters : Clusters, optional
        Colors each row by its cluster; on its way to another one it goes over to that one's color.
    between : int, default 10
        Frames from one snapshot to the next.

    Returns
    -------
    FuncAnimation
        Save it: ``animation.save("map.gif", writer="pillow")``, or ``"map.mp4"`` where ffmpeg is installed. Its
        frames are places among the snapshots: 0 is the first one, 0.5 half way to the second.

    Raises
    ------
    ValueError
        If there is one snapshot only, `between` is negative, or `clusters` labels other rows than the map has.
    """
    check_same_rows(embedding, clusters)
    table = snapshot_table(embedding.rows)
    if len(table) < 2:
        raise ValueError("received a map of 1 snapshot; expected 2 or more: record more, or draw `embedding` instead")
    if between < 0:
        raise ValueError(f"received between={between}; expected 0 or more frames from one snapshot to the next")
    titles = snapshot_titles(table)
    places = embedding.by_snapshot(embedding.values)
    colors, marks = _colors(embedding, clusters)

    what = f"{embedding.layer}: {embedding.view} view, "
    longest = max(text_width(what + title, size=11) for title in titles)
    beside = 1.5 * (1 + len(marks) // 26) if marks else 0.3
    wide = max(5.2, longest)
    tall = wide * ratio_of(embedding)
    figure = new_figure(width=0.4 + wide + beside, height=0.45 + tall + 1.35)
    ax = inch_axes(figure, left=0.4, top=0.45, width=wide, height=tall)
    dress(ax, embedding)
    points = ax.scatter(
        places[0][:, 0], places[0][:, 1], s=point_area(len(places[0])), c=colors[0], linewidths=0, alpha=0.85
    )
    title = ax.set_title(what + titles[0], fontsize=11, color=INK, loc="left", parse_math=False)
    if marks:
        place_legend(ax, marks)
    cursor = _timeline(figure, titles, left=0.4, top=0.45 + tall + 0.72, width=wide)

    def draw(frame: float) -> list[Artist]:
        before = min(int(frame), len(places) - 2)
        share = frame - before
        share = share * share * (3 - 2 * share)  # starts and stops gently
        points.set_offsets((1 - share) * places[before] + share * places[before + 1])
        points.set_facecolor([tuple(row) for row in (1 - share) * colors[before] + share * colors[before + 1]])
        title.set_text(what + titles[round(frame)])
        cursor.set_xdata([frame])
        return [points, title, cursor]

    return Animation(figure, draw, frames=_frames(len(places), between), interval=MOVING, init_func=lambda: [points])


def animate_grid(
    layer: PicturedLayer,
    *,
    sample: int = 0,
    channels: Iterable[int] | None = None,
    order: Literal["index", "activity"] = "index",
    clusters: "Clusters | None" = None,
    columns: int | None = None,
    scale: Literal["shared", "channel"] = "shared",
) -> FuncAnimation:
    """Let the feature maps of one image change from snapshot to snapshot.

    Parameters
    ----------
    layer : Layer
        A layer of a run.
    sample : int, default 0
        Index of the image in the data set.
    channels : iterable of int, optional
        Which channels; all by default.
    order : {"index", "activity"}, default "index"
        Draw the channels as given, or by their root mean square over all images and snapshots, greatest first. They
        keep their places.
    clusters : Clusters, optional
        Made by `fmcluster.cluster` of the `channel` view and all snapshots: each number gets the color of its
        channel's cluster.
    columns : int, optional
        Maps in a row; by default as many as make the grid about square.
    scale : {"shared", "channel"}, default "shared"
        One scale for all maps, or one for each channel. Either is the same at all snapshots.

    Returns
    -------
    FuncAnimation
        A frame for each snapshot, which the title names. Save it: ``animation.save("grid.gif", writer="pillow")``, or
        ``"grid.mp4"`` where ffmpeg is installed.

    Raises
    ------
    TypeError
        For what is not a layer.
    ValueError
        If there is no such sample or channel, or the clusters are not of this layer's channels at all snapshots.
    """
    table = snapshots_of(layer)
    check_choice("scale", scale, choices=("shared", "channel"))
    check_choice("order", order, choices=("index", "activity"))
    check_sample(layer, sample)
    numbers = [int(number) for number in table["snapshot"]]
    chosen = chosen_channels(layer, channels)
    if order == "activity":
        activity = channel_activity(layer, numbers)
        chosen.sort(key=lambda channel: -float(activity[channel]))
    labels = [{} if clusters is None else labels_at(clusters, layer, snapshot=number) for number in numbers]
    reads = [as_tiles(layer.read(snapshot=number, samples=sample, channels=chosen)) for number in numbers]
    maps = np.stack(reads, axis=1)
    scales = scales_of(layer, maps, scale=scale)
    sheet = plan_sheet(chosen, columns=columns, aspect=aspect_of(reads[0]))
    titles = [f"{layer.label} at {title}" for title in snapshot_titles(table)]
    said = [notes(tiles, scales) for tiles in reads]
    figure, panel, (headline, foot) = page(
        layer,
        sample=sample,
        headline=max(titles, key=len),
        subtitle=describe_grid(layer, chosen, sample=sample, order=order),
        note=max(said, key=len),
        panel=sheet.size,
        scale=scales[0],
        relative=scale == "channel",
    )
    width = figure.get_size_inches()[0]
    left = 0.2 + text_width(max(titles, key=len), size=13) + 0.4
    cursor = None
    if len(titles) > 1 and width - left > 1.6:
        cursor = _timeline(figure, [], left=left, top=0.12, width=min(width - left - 0.4, 4.0), count=len(titles))

    def draw(position: int) -> list[Artist]:
        for artist in [*panel.images, *panel.patches, *panel.texts]:
            artist.remove()
        draw_sheet(panel, sheet, maps=reads[position], scales=scales, labels=labels[position])
        headline.set_text(titles[position])
        foot.set_text(said[position])
        if cursor is not None:
            cursor.set_xdata([position])
        return [headline, foot]

    # The first frame is there at once, for who draws the figure itself.
    draw(0)
    return Animation(figure, draw, frames=range(len(titles)), interval=SHOWN, init_func=lambda: [headline])


def _frames(count: int, between: int) -> list[float]:
    """Return the places among `count` snapshots, with rests at each, the last one twice as long."""
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


def _timeline(
    figure: Figure, titles: list[str], *, left: float, top: float, width: float, count: int | None = None
) -> Line2D:
    """Draw a line with a dot for each snapshot; return the mark that moves along it."""
    count = count or len(titles)
    ax: Axes = inch_axes(figure, left=left, top=top, width=width, height=0.2)
    ax.set_axis_off()
    ax.set_xlim(-0.02 * (count - 1), 1.02 * (count - 1))
    ax.set_ylim(-1, 1)
    ax.plot([0, count - 1], [0, 0], color=RULE, lw=1.2, zorder=1)
    ax.plot(range(count), [0] * count, ls="", marker="o", ms=3.5, color=FAINT, zorder=2)
    if titles:
        ends: tuple[tuple[int, Literal["left", "right"]], ...] = ((0, "left"), (count - 1, "right"))
        for place, side in ends:
            ax.text(place, -1.1, titles[place], fontsize=8, color=FAINT, ha=side, va="top")
    (cursor,) = ax.plot([0], [0], ls="", marker="o", ms=8, color=INK, zorder=3, clip_on=False, gid="now")
    return cursor
