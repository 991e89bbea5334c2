"""The classic picture: the feature maps of one image, and how they change from snapshot to snapshot."""

from collections.abc import Iterable
from math import ceil, sqrt
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from .canvas import FAINT, INK, inch_panel, inch_text, new_figure, text_width
from .palette import cluster_palette
from .snapshots import brief, find_snapshot, snapshot_table, snapshot_titles, span
from .tiles import Map, Scale, as_tiles, draw_colour_bar, draw_input, draw_tile, notes, scale_of

if TYPE_CHECKING:
    from fmcluster.analysis.results import Clusters

MARGIN = 0.2
TITLE = 0.75
PICTURE = 1.7
BAR = 0.95
NOTE = 0.35


class PicturedLayer(Protocol):
    """What the pictures need of a layer of a run."""

    @property
    def label(self) -> str:
        """What the layer is called."""

    @property
    def kind(self) -> str:
        """What its maps are: ``"activation"`` or ``"gradient"``."""

    @property
    def channels(self) -> npt.NDArray[np.int64]:
        """The numbers of its channels."""

    @property
    def snapshots(self) -> pd.DataFrame:
        """Columns ``snapshot``, ``epoch``, ``step``."""

    @property
    def samples(self) -> pd.DataFrame:
        """Indexed by sample, with columns ``label`` and ``class_name`` where known."""

    @property
    def statistics(self) -> pd.DataFrame:
        """Columns ``snapshot``, ``channel``, ``mean``, ``std``, ``min`` among others."""

    def read(self, *, snapshot: int, samples: int, channels: list[int]) -> npt.NDArray[Any]:
        """Return the maps, with an axis of length one for the sample."""

    def display(self, sample: int) -> npt.NDArray[np.uint8] | None:
        """Return the input image, ndarray of shape (height, width, 3), or None."""


def channel_grid(
    layer: PicturedLayer,
    *,
    epoch: int | None = None,
    snapshot: int | None = None,
    sample: int = 0,
    channels: Iterable[int] | None = None,
    order: Literal["index", "activity", "cluster"] = "index",
    clusters: "Clusters | None" = None,
    columns: int | None = None,
    scale: Literal["shared", "channel"] = "shared",
) -> Figure:
    """Draw the feature maps of one image side by side, beside the image.

    Black is zero, warm colours are positive and cold colours negative. Maps that are constant are hatched.

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
        Draw the channels as given; by their root mean square over all images, greatest first; or cluster by cluster.
    clusters : Clusters, optional
        Made by `fmcluster.cluster` of the `channel` view: each number gets the colour of its channel's cluster at the
        snapshot. What is in none comes last.
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
        If there is no such epoch, snapshot, sample or channel, or the clusters are not of this layer's channels at it.
    """
    table = _snapshots_of(layer)
    position = find_snapshot(table, epoch=epoch, snapshot=snapshot)
    number = int(table["snapshot"].iloc[position])
    _check_choice("scale", scale, ("shared", "channel"))
    _check_choice("order", order, ("index", "activity", "cluster"))
    if order == "cluster" and clusters is None:
        raise ValueError("received order='cluster' without clusters; pass clusters=fmcluster.cluster(scores, ...)")
    _check_sample(layer, sample)
    chosen = _chosen(layer, channels)
    labels = {} if clusters is None else _labels_at(clusters, layer, number)
    if order == "cluster":
        last = max(labels.values(), default=0) + 1  # what is in no cluster, and noise (-1), come last
        chosen = sorted(chosen, key=lambda channel: labels.get(channel, last) % (last + 1))
    if order == "activity":
        activity = _activity(layer, [number])
        chosen = sorted(chosen, key=lambda channel: -float(activity[channel]))
    if columns is not None and columns < 1:
        raise ValueError(f"received columns={columns}; expected 1 or more: leave it out for a square grid")
    wide = min(columns or ceil(sqrt(len(chosen))), len(chosen))
    tall = ceil(len(chosen) / wide)

    maps = as_tiles(layer.read(snapshot=number, samples=sample, channels=chosen))
    scales = _scales(layer, maps, scale=scale)
    side = float(np.clip(7.0 / wide, 0.42, 1.0))
    size = float(np.clip(side * 11, 5.5, 8.0))
    aspect = _aspect(maps)
    pitch_x, pitch_y = side + 0.06, side * aspect + size / 72 + 0.07

    count = "1 channel" if len(chosen) == 1 else f"{len(chosen)} channels"
    most = {"activity": ", most active first", "cluster": ", cluster by cluster"}.get(order, "")
    palette = cluster_palette(labels.values())
    headline = f"{layer.label} at {snapshot_titles(table)[position]}"
    figure, panel = _page(
        layer,
        sample=sample,
        headline=headline,
        subtitle=f"{layer.kind.capitalize()} of {count}{most}, on {sample_name(layer, sample)}; numbers are channels",
        note=notes(maps, scales),
        panel=(wide * pitch_x, tall * pitch_y),
        scale=scales[0],
        relative=scale == "channel",
    )
    for place, (channel, tile, tile_scale) in enumerate(zip(chosen, maps, scales, strict=True)):
        row, column = divmod(place, wide)
        left, top = column * pitch_x, (row + 1) * pitch_y - side * aspect
        draw_tile(panel, tile, at=(left, top, side, side * aspect), scale=tile_scale)
        at = left
        if channel in labels:
            at += 0.8 * size / 72
            badge = (left, top - 0.02 - 0.75 * size / 72)
            panel.add_patch(Rectangle(badge, 0.6 * size / 72, 0.75 * size / 72, color=palette[labels[channel]], lw=0))
        panel.text(at, top - 0.02, str(channel), fontsize=size, color=INK, ha="left", va="bottom")
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
    table = _snapshots_of(layer)
    titles = snapshot_titles(table, separator="\n")
    shown = brief(len(table), at_most=16)
    numbers = [int(table["snapshot"].iloc[position]) for position in shown]
    _check_choice("scale", scale, ("shared", "channel"))
    _check_sample(layer, sample)
    if channels is None:
        activity = _activity(layer, [int(number) for number in table["snapshot"]])
        chosen = [int(channel) for channel in (-activity).sort_values(kind="stable").index[:8]]
        which = "the channel" if len(chosen) == 1 else f"the {len(chosen)} channels"
        which += " most active over all images"
    else:
        chosen = _chosen(layer, channels)
        which = "1 channel" if len(chosen) == 1 else f"{len(chosen)} channels"

    reads = [as_tiles(layer.read(snapshot=number, samples=sample, channels=chosen)) for number in numbers]
    maps = np.stack(reads, axis=1)
    scales = _scales(layer, maps, scale=scale)
    aspect = _aspect(maps[0])
    side = float(np.clip(8.5 / len(numbers), 0.62, 1.1))
    heading, naming = 0.42, 0.35 + 0.08 * len(str(max(chosen)))
    pitch_x, pitch_y = side + 0.08, side * aspect + 0.08

    part = "" if len(shown) == len(table) else f" ({len(shown)} of them drawn)"
    figure, panel = _page(
        layer,
        sample=sample,
        headline=f"{layer.label} over {span(table)}{part}",
        subtitle=f"{layer.kind.capitalize()} of {which}, on {sample_name(layer, sample)}",
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


def _page(
    layer: PicturedLayer,
    *,
    sample: int,
    headline: str,
    subtitle: str,
    note: str,
    panel: tuple[float, float],
    scale: Scale,
    relative: bool,
) -> tuple[Figure, Any]:
    """Lay out titles, input image, an empty panel of the given size, colour bar and note; all in inches."""
    width, height = panel
    picture = layer.display(sample)
    aside = PICTURE + 0.35 if picture is not None else 0.0
    body = max(height, PICTURE + 0.2 if picture is not None else 0.0, 2.2)
    words = max(text_width(headline, size=13), text_width(subtitle, size=9.5), text_width(note, size=8))
    total = max(aside + width + 0.25 + BAR, words)
    figure = new_figure(width=total + 2 * MARGIN, height=TITLE + body + NOTE + MARGIN)
    inch_text(figure, headline, left=MARGIN, top=0.15, size=13)
    inch_text(figure, subtitle, left=MARGIN, top=0.42, size=9.5, colour=FAINT)
    inch_text(figure, note, left=MARGIN, top=TITLE + body + 0.18, size=8, colour=FAINT)
    if picture is not None:
        name = sample_name(layer, sample)
        draw_input(figure, picture, left=MARGIN, top=TITLE + 0.2, side=PICTURE, title=f"input: {name}")
    left = MARGIN + aside
    bar_height = min(body - 0.3, 3.2)
    draw_colour_bar(
        figure,
        left=left + width + 0.2,
        top=TITLE + 0.2,
        height=bar_height,
        scale=scale,
        relative=relative,
        quantity=layer.kind,
    )
    return figure, inch_panel(figure, left=left, top=TITLE, width=width, height=height)


def _scales(layer: PicturedLayer, maps: Map, *, scale: str) -> list[Scale]:
    """Return a scale for each entry of the first axis of `maps`; with ``"shared"`` the same one for all."""
    # The whole layer decides on the sign, so that all pictures of one layer have the same colours.
    signed = bool((layer.statistics["min"] < 0).any())
    if scale == "shared":
        return [scale_of(maps, signed=signed)] * len(maps)
    return [scale_of(one, signed=signed) for one in maps]


def _activity(layer: PicturedLayer, numbers: list[int]) -> "pd.Series[float]":
    """Return the root mean square of each channel, by its number, over the snapshots, from the stored statistics."""
    statistics = layer.statistics
    statistics = statistics[statistics["snapshot"].isin(numbers)]
    square = (statistics["mean"] ** 2 + statistics["std"] ** 2).groupby(statistics["channel"]).mean()
    return square.reindex(layer.channels).fillna(0.0).astype(np.float64) ** 0.5


def _aspect(maps: Map) -> float:
    """Return height over width of a map; maps one place high or wide are drawn as squares."""
    height, width = maps.shape[-2:]
    return 1.0 if 1 in (height, width) else float(np.clip(height / width, 0.25, 4.0))


def sample_name(layer: PicturedLayer, sample: int) -> str:
    """Return ``"sample 3 (bees)"``, or without the class where it is not known."""
    if "class_name" not in layer.samples.columns:
        return f"sample {sample}"
    name = layer.samples.loc[sample, "class_name"]
    return f"sample {sample} ({name})" if isinstance(name, str) and name else f"sample {sample}"


def _chosen(layer: PicturedLayer, channels: Iterable[int] | None) -> list[int]:
    """Return the channels asked for as a list, or raise ValueError."""
    known = [int(channel) for channel in layer.channels]
    if channels is None:
        return known
    chosen = [int(channel) for channel in channels]
    wrong = [channel for channel in chosen if channel not in known]
    if wrong or not chosen:
        got = f"channel {wrong[0]}" if wrong else "no channel"
        every = len(known) == max(known) - min(known) + 1
        there = f"{min(known)} to {max(known)}" if every else f"the {len(known)} recorded, `layer.channels`"
        raise ValueError(
            f"received {got} for layer {layer.label!r}; expected one or more of {there}: choose among these, or leave "
            f"`channels` out"
        )
    return chosen


def _check_sample(layer: PicturedLayer, sample: int) -> None:
    """Raise ValueError if the layer has no such sample."""
    known = layer.samples.index
    if sample not in known:
        raise ValueError(
            f"received sample={sample}; expected one of the {len(known)} recorded samples ({known.min()} to "
            f"{known.max()}): choose from `layer.samples.index`"
        )


def _labels_at(clusters: "Clusters", layer: PicturedLayer, snapshot: int) -> dict[int, int]:
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


def _snapshots_of(layer: PicturedLayer) -> pd.DataFrame:
    if not hasattr(layer, "snapshots"):
        raise TypeError(f"received {layer!r}; expected a layer of a run: open_run(path)[name]")
    table = snapshot_table(layer.snapshots)
    if table.empty:
        raise ValueError(f"layer {layer.label!r} has no snapshot yet; record one with Recorder.snapshot, then draw it")
    return table


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    """Raise ValueError if `value` is not among `choices`."""
    if value not in choices:
        raise ValueError(
            f"received {name}={value!r}; expected one of {', '.join(map(repr, choices))}: pass one of these"
        )
