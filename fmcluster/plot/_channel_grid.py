"""Channel grid: the feature maps of one image at one snapshot, beside the image."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Literal

from matplotlib.figure import Figure

from ..analysis import NOISE
from .drawing import (
    PicturedLayer,
    as_tiles,
    aspect_of,
    channel_activity,
    check_choice,
    check_sample,
    chosen_channels,
    describe_grid,
    draw_sheet,
    find_snapshot,
    labels_at,
    layer_text,
    notes,
    page,
    plan_sheet,
    scales_of,
    snapshot_titles,
    snapshots_of,
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

    Black is zero, warm colors are positive and cold colors negative. Feature maps that are constant are hatched.

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
        Feature maps in a row; by default as many as make the grid about square.
    scale : {"shared", "channel"}, default "shared"
        One scale for all feature maps, or one for each, which shows faint patterns but not how strong they are.

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

    drawn = as_tiles(layer.read(snapshot=number, samples=sample, channels=chosen), axes=layer.dimensions)
    sheet = plan_sheet(chosen, columns=columns, aspect=aspect_of(drawn), labels=labels if order == "cluster" else None)
    scales = scales_of(layer, drawn, scale=scale)
    framed = [channel for channel in chosen if channel in representatives.values()]
    note = [notes(drawn, scales)]
    if framed:
        note.append("Framed: the representative of its cluster, the channel nearest to the mean of its members.")
    figure, panel, _ = page(
        layer,
        sample=sample,
        headline=f"{layer_text(layer.label)} at {snapshot_titles(table)[position]}",
        subtitle=describe_grid(layer, chosen, sample=sample, order=order),
        note=" ".join(filter(None, note)),
        panel=sheet.size,
        scale=scales[0],
        relative=scale == "channel",
    )
    draw_sheet(panel, sheet, tiles=drawn, scales=scales, labels=labels, framed=framed)
    return figure


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
