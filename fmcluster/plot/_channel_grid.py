"""The classic picture: the feature maps of one image, and how they change from snapshot to snapshot."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from .drawing import (
    INK,
    NOISE,
    Map,
    PicturedLayer,
    Scale,
    as_tiles,
    aspect_of,
    brief,
    check_choice,
    check_sample,
    chosen_channels,
    draw_sheet,
    draw_tile,
    find_snapshot,
    notes,
    page,
    plan_sheet,
    sample_name,
    scale_of,
    snapshot_titles,
    snapshots_of,
    span,
)

if TYPE_CHECKING:
    from ..analysis import Clusters, Scores


def channel_grid(
    layer: PicturedLayer,
    *,
    epoch: int | None = None,
    snapshot: int | None = None,
    sample: int = 0,
    channels: Iterable[int] | None = None,
    order: Literal["index", "activity", "cluster"] = "index",
    clusters: "Clusters | None" = None,
    scores: "Scores | None" = None,
    columns: int | None = None,
    scale: Literal["shared", "channel"] = "shared",
) -> Figure:
    """Draw the feature maps of one image side by side, beside the image.

    Black is zero, warm colors are positive and cold colors negative. Maps that are constant are hatched.

    Parameters
    ----------
    layer : Layer
        A layer of a run.
    epoch, snapshot : int, optional
        The last snapshot of an epoch, or a snapshot by its number. By default the last one.
    sample : int, default 0
        Index of the image in the data set.
    channels : iterable of int, optional
        Which channels; all by default.
    order : {"index", "activity", "cluster"}, default "index"
        Draw the channels as given; by their root mean square over all images, greatest first; or cluster by cluster,
        each with its number and size.
    clusters : Clusters, optional
        Made by `fmcluster.cluster` of the `channel` view: each number gets the color of its channel's cluster at the
        snapshot. What is in none comes last.
    scores : Scores, optional
        What was clustered: the representative of each cluster, the channel nearest to the mean of its members at the
        snapshot, is framed, and comes first in its group.
    columns : int, optional
        Maps in a row; by default as many as make the grid about square.
    scale : {"shared", "channel"}, default "shared"
        One scale for all maps, or one for each, which shows faint patterns but not how strong they are.

    Returns
    -------
    Figure
        Not kept by pyplot: show it as the last value of a cell, or call its `savefig`.

    Raises
    ------
    TypeError
        For what is not a layer.
    ValueError
        If there is no such epoch, snapshot, sample or channel, the clusters are not of this layer's channels at it, or
        the scores not what was clustered.
    """
    table = snapshots_of(layer)
    position = find_snapshot(table, epoch=epoch, snapshot=snapshot)
    number = int(table["snapshot"].iloc[position])
    check_choice("scale", scale, choices=("shared", "channel"))
    check_choice("order", order, choices=("index", "activity", "cluster"))
    if order == "cluster" and clusters is None:
        raise ValueError("received order='cluster' without clusters; pass clusters=fmcluster.cluster(scores, ...)")
    check_sample(layer, sample)
    chosen = chosen_channels(layer, channels)
    if scores is not None and clusters is None:
        raise ValueError("received scores without clusters; pass clusters=fmcluster.cluster(scores, ...) of them")
    labels = {} if clusters is None else labels_at(clusters, layer, snapshot=number)
    representatives = {} if scores is None else _representatives_at(scores, clusters, snapshot=number)
    if order == "cluster":
        standing = set(representatives.values())
        chosen.sort(key=lambda channel: (_rank_of(labels.get(channel)), channel not in standing))
    if order == "activity":
        activity = channel_activity(layer, [number])
        chosen.sort(key=lambda channel: -float(activity[channel]))

    drawn = as_tiles(layer.read(snapshot=number, samples=sample, channels=chosen))
    sheet = plan_sheet(chosen, columns=columns, aspect=aspect_of(drawn), labels=labels if order == "cluster" else None)
    scales = scales_of(layer, drawn, scale=scale)
    framed = [channel for channel in chosen if channel in representatives.values()]
    note = [notes(drawn, scales)]
    if framed:
        note.append("Framed: the representative of its cluster, the channel nearest to the mean of its members.")
    figure, panel, _ = page(
        layer,
        sample=sample,
        headline=f"{layer.label} at {snapshot_titles(table)[position]}",
        subtitle=describe_grid(layer, chosen, sample=sample, order=order),
        note=" ".join(filter(None, note)),
        panel=sheet.size,
        scale=scales[0],
        relative=scale == "channel",
    )
    draw_sheet(panel, sheet, maps=drawn, scales=scales, labels=labels, framed=framed)
    return figure


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
        One scale for all maps, or one for each channel.

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

    reads = [as_tiles(layer.read(snapshot=number, samples=sample, channels=chosen)) for number in numbers]
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
        headline=f"{layer.label} over {span(table)}{part}",
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


def scales_of(layer: PicturedLayer, maps: Map, *, scale: str) -> list[Scale]:
    """Return a scale for each entry of the first axis of `maps`; with ``"shared"`` the same one for all."""
    # The whole layer decides on the sign, so that all pictures of one layer have the same colors.
    signed = bool((layer.statistics["min"] < 0).any())
    if scale == "shared":
        return [scale_of(maps, signed=signed)] * len(maps)
    return [scale_of(one, signed=signed) for one in maps]


def channel_activity(layer: PicturedLayer, numbers: list[int]) -> "pd.Series[float]":
    """Return the root mean square of each channel, by its number, over the snapshots, from the stored statistics."""
    statistics = layer.statistics
    statistics = statistics[statistics["snapshot"].isin(numbers)]
    square = (statistics["mean"] ** 2 + statistics["std"] ** 2).groupby(statistics["channel"]).mean()
    return square.reindex(layer.channels).fillna(0.0).astype(np.float64) ** 0.5


def describe_grid(layer: PicturedLayer, channels: list[int], *, sample: int, order: str) -> str:
    """Say what a grid shows: ``"Activation of 64 channels, on sample 0; numbers are channels"``."""
    count = "1 channel" if len(channels) == 1 else f"{len(channels)} channels"
    most = {"activity": ", most active first", "cluster": ", cluster by cluster"}.get(order, "")
    return f"{layer.quantity.capitalize()} of {count}{most}, on {sample_name(layer, sample)}; numbers are channels"


def _rank_of(label: int | None) -> tuple[int, int]:
    """Put clusters in the order of their labels, then noise, then what is in none."""
    return (2, 0) if label is None else (1, 0) if label == NOISE else (0, label)


def _representatives_at(scores: "Scores", clusters: "Clusters | None", *, snapshot: int) -> dict[int, int]:
    """Return the channel that stands for each cluster at a snapshot."""
    # What computes costs time to load, and most grids need none of it.
    from ..analysis import representatives

    assert clusters is not None
    found = representatives(clusters, scores)
    here = found[found["snapshot"] == snapshot]
    return dict(zip(here["cluster"].tolist(), here["channel"].astype(int).tolist(), strict=True))


def labels_at(clusters: "Clusters", layer: PicturedLayer, *, snapshot: int) -> dict[int, int]:
    """Return the cluster of each channel at a snapshot."""
    if clusters.layer != layer.label or "channel" not in clusters.rows or clusters.identity != ["channel"]:
        raise ValueError(
            f"received clusters of the {clusters.view} view of {clusters.layer!r}; expected some of the channel view "
            f"of {layer.label!r}"
        )
    here = clusters.frame[clusters.frame["snapshot"] == snapshot]
    if here.empty:
        raise ValueError(
            f"the clusters are of snapshots {sorted(set(clusters.rows['snapshot']))}, and not of snapshot {snapshot}; "
            f"draw one of these"
        )
    return dict(zip(here["channel"].astype(int).tolist(), here["cluster"].astype(int).tolist(), strict=True))
