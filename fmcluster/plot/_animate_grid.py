"""Animated channel grid: the feature maps of one image change from snapshot to snapshot."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Literal

import numpy as np
from matplotlib.animation import FuncAnimation
from matplotlib.artist import Artist

from .drawing import (
    Animation,
    PicturedLayer,
    as_tiles,
    aspect_of,
    channel_activity,
    check_choice,
    check_sample,
    chosen_channels,
    describe_grid,
    draw_sheet,
    draw_timeline,
    labels_at,
    layer_text,
    notes,
    page,
    plan_sheet,
    scales_of,
    snapshot_titles,
    snapshots_of,
    text_width,
)

if TYPE_CHECKING:
    from ..analysis import Clusters


SHOWN = 900  # milliseconds a snapshot of a grid


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
        keep their positions.
    clusters : Clusters, optional
        Made by `fmcluster.cluster` of the `channel` view and all snapshots: each number gets the color of its
        channel's cluster.
    columns : int, optional
        Feature maps in a row; by default as many as make the grid about square.
    scale : {"shared", "channel"}, default "shared"
        One scale for all feature maps, or one for each channel. Either is the same at all snapshots.

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
    reads = [
        as_tiles(layer.read(snapshot=number, samples=sample, channels=chosen), axes=layer.dimensions)
        for number in numbers
    ]
    maps = np.stack(reads, axis=1)
    scales = scales_of(layer, maps, scale=scale)
    sheet = plan_sheet(chosen, columns=columns, aspect=aspect_of(reads[0]))
    titles = [f"{layer_text(layer.label)} at {title}" for title in snapshot_titles(table)]
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
        cursor = draw_timeline(figure, [], left=left, top=0.12, width=min(width - left - 0.4, 4.0), count=len(titles))

    def draw(position: int) -> list[Artist]:
        for artist in [*panel.images, *panel.patches, *panel.texts]:
            artist.remove()
        draw_sheet(panel, sheet, tiles=reads[position], scales=scales, labels=labels[position])
        headline.set_text(titles[position])
        foot.set_text(said[position])
        if cursor is not None:
            cursor.set_xdata([position])
        return [headline, foot]

    # The first frame is there at once, for who draws the figure itself.
    draw(0)
    return Animation(figure, draw, frames=range(len(titles)), interval=SHOWN, init_func=lambda: [headline])
