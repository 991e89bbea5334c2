"""Channel evolution: the feature maps of one image, a row for each channel and a column for each snapshot."""

from collections.abc import Iterable
from typing import Literal

import numpy as np
from matplotlib.figure import Figure

from .drawing import (
    INK,
    PicturedLayer,
    as_tiles,
    aspect_of,
    brief,
    channel_activity,
    check_choice,
    check_sample,
    chosen_channels,
    draw_tile,
    layer_text,
    notes,
    page,
    sample_name,
    scales_of,
    snapshot_titles,
    snapshots_of,
    span,
)


def channel_evolution(
    layer: PicturedLayer,
    *,
    sample: int = 0,
    channels: Iterable[int] | None = None,
    scale: Literal["shared", "channel"] = "shared",
) -> Figure:
    """Draw how the feature maps of one image change: a row for each channel, a column for each snapshot.

    Parameters
    ----------
    layer : Layer
        A layer of a run.
    sample : int, default 0
        Index of the image in the data set.
    channels : iterable of int, optional
        Which channels; by default the eight with the greatest root mean square over all images and snapshots.
    scale : {"shared", "channel"}, default "shared"
        One scale for all feature maps, or one for each channel.

    Returns
    -------
    Figure
        Not kept by pyplot: show it as the last value of a cell, or call its `savefig`. Of more than 16 snapshots
        at most 16 are drawn, evenly spread, the first and the last among them.

    Raises
    ------
    ValueError
        If there is no such sample or channel.
    """
    table = snapshots_of(layer)
    titles = snapshot_titles(table, separator="\n")
    shown = brief(len(table), at_most=16)
    numbers = [int(table["snapshot"].iloc[position]) for position in shown]
    check_choice("scale", scale, choices=("shared", "channel"))
    check_sample(layer, sample)
    if channels is None:
        activity = channel_activity(layer, [int(number) for number in table["snapshot"]])
        chosen = [int(channel) for channel in (-activity).sort_values(kind="stable").index[:8]]
        which = "the channel" if len(chosen) == 1 else f"the {len(chosen)} channels"
        which += " most active over all images"
    else:
        chosen = chosen_channels(layer, channels)
        which = "1 channel" if len(chosen) == 1 else f"{len(chosen)} channels"

    reads = [
        as_tiles(layer.read(snapshot=number, samples=sample, channels=chosen), axes=layer.dimensions)
        for number in numbers
    ]
    maps = np.stack(reads, axis=1)
    scales = scales_of(layer, maps, scale=scale)
    aspect = aspect_of(maps[0])
    side = float(np.clip(8.5 / len(numbers), 0.62, 1.1))
    heading, naming = 0.42, 0.35 + 0.08 * len(str(max(chosen)))
    pitch_x, pitch_y = side + 0.08, side * aspect + 0.08

    part = "" if len(shown) == len(table) else f" ({len(shown)} of them drawn)"
    figure, panel, _ = page(
        layer,
        sample=sample,
        headline=f"{layer_text(layer.label)} over {span(table)}{part}",
        subtitle=f"{layer.quantity.capitalize()} of {which}, on {sample_name(layer, sample)}",
        note=notes(maps.reshape(-1, *maps.shape[2:]), scales),
        panel=(naming + len(numbers) * pitch_x, heading + len(chosen) * pitch_y),
        scale=scales[0],
        relative=scale == "channel",
    )
    for column, position in enumerate(shown):
        middle = naming + column * pitch_x + side / 2
        panel.text(middle, heading - 0.06, titles[position], fontsize=8, color=INK, ha="center", va="bottom")
    for row, channel in enumerate(chosen):
        top = heading + row * pitch_y
        panel.text(
            naming - 0.08,
            top + side * aspect / 2,
            f"ch {channel}",
            fontsize=8,
            color=INK,
            ha="right",
            va="center",
        )
        for column, tile in enumerate(maps[row]):
            draw_tile(panel, tile, at=(naming + column * pitch_x, top, side, side * aspect), scale=scales[row])
    return figure
