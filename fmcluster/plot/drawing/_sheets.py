"""Pages of feature maps: titles, input image, color bar, and a sheet of tiles in one block or cluster by cluster."""

from collections.abc import Iterable
from dataclasses import dataclass
from math import ceil, sqrt
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.text import Text

from ._figures import FAINT, INK, inch_panel, inch_text, new_figure, text_width
from ._layers import PicturedLayer, sample_name
from ._palette import cluster_name, cluster_palette
from ._tiles import Scale, Tiles, draw_color_bar, draw_input, draw_tile

MARGIN = 0.2
TITLE = 0.75
PICTURE = 1.7
BAR = 0.95
NOTE = 0.35
HEADING = 0.3
BETWEEN = 0.1
WITHOUT = "in no cluster"


@dataclass(frozen=True)
class Sheet:
    """Where tiles stand.

    Attributes
    ----------
    channels : tuple of int
        The numbers of the channels, in the order in which they are drawn.
    corners : tuple of (left, top)
        Of each tile, in inches.
    headings : tuple of (text, label, left, top)
        Of each group; the label is None for what is in no cluster. Empty where there are no groups.
    tile : tuple of (width, height)
        In inches.
    size : tuple of (width, height)
        Of the whole sheet, in inches.
    letters : float
        Size of the channels' numbers, in points.
    """

    channels: tuple[int, ...]
    corners: tuple[tuple[float, float], ...]
    headings: tuple[tuple[str, int | None, float, float], ...]
    tile: tuple[float, float]
    size: tuple[float, float]
    letters: float


def aspect_of(tiles: Tiles) -> float:
    """Return height over width of a tile; tiles one pixel high or wide are drawn as squares."""
    height, width = tiles.shape[-2:]
    return 1.0 if 1 in (height, width) else float(np.clip(height / width, 0.25, 4.0))


def plan_sheet(
    channels: Iterable[int], *, columns: int | None, aspect: float, labels: dict[int, int] | None = None
) -> Sheet:
    """Arrange tiles in rows from the upper left.

    Parameters
    ----------
    channels : iterable of int
        In the order in which they are drawn.
    columns : int, optional
        Tiles in a row; by default as many as make the sheet about square.
    aspect : float
        Height over width of a tile.
    labels : dict of int to int, optional
        The cluster of each channel: those of one cluster, which follow one another, get rows and a heading of their
        own. By default one block.

    Raises
    ------
    ValueError
        For less than one column.
    """
    if columns is not None and columns < 1:
        raise ValueError(f"received columns={columns}; expected 1 or more: leave it out for a square grid")
    chosen = list(channels)
    groups: dict[int | None, list[int]] = {}
    for channel in chosen:
        groups.setdefault(None if labels is None else labels.get(channel), []).append(channel)
    # Groups leave rows half empty, so that a sheet of several has to be wider to be square.
    square = ceil(sqrt(len(chosen) + 2 * (len(groups) - 1)))
    wide = min(columns or square, max(len(members) for members in groups.values()))
    side = float(np.clip(7.0 / wide, 0.42, 1.0))
    letters = float(np.clip(side * 11, 5.5, 8.0))
    pitch_x, pitch_y = side + 0.06, side * aspect + letters / 72 + 0.07
    corners: list[tuple[float, float]] = []
    headings: list[tuple[str, int | None, float, float]] = []
    across, top, down, limit = 0.0, 0.0, 0.0, wide * pitch_x
    for label, members in groups.items():
        heading, taken = 0.0, min(len(members), wide) * pitch_x
        if labels is not None:
            name = WITHOUT if label is None else cluster_name(label)
            text = f"{name}: 1 channel" if len(members) == 1 else f"{name}: {len(members)} channels"
            heading, taken = HEADING - 0.06, max(taken, text_width(text, size=9) + 0.35)
            # Small groups stand side by side; one that fills several rows begins a line of its own.
            if across + taken > limit or len(members) > wide:
                across, top = 0.0, down + BETWEEN * bool(corners)
            headings.append((text, label, across, top))
        for index in range(len(members)):
            row, column = divmod(index, wide)
            corners.append((across + column * pitch_x, top + heading + (row + 1) * pitch_y - side * aspect))
        rows = ceil(len(members) / wide)
        across = across + taken if rows == 1 else limit
        down = max(down, top + heading + rows * pitch_y)
    width = max(limit, *(left + text_width(text, size=9) + 0.35 for text, _, left, _ in headings), 0.0)
    ordered = tuple(channel for members in groups.values() for channel in members)
    return Sheet(ordered, tuple(corners), tuple(headings), (side, side * aspect), (width, down), letters)


def draw_sheet(
    panel: Axes, sheet: Sheet, *, tiles: Tiles, scales: list[Scale], labels: dict[int, int], framed: Iterable[int] = ()
) -> None:
    """Draw a tile for each channel of the sheet, with its number, and the headings of groups.

    Parameters
    ----------
    panel : Axes
        Measured in inches from the upper left corner.
    sheet : Sheet
        What stands where.
    tiles : ndarray of shape (n_channels, height, width), float32
        In the order of the sheet.
    scales : list of Scale
        One for each feature map.
    labels : dict of int to int
        The cluster of each channel; where there are no headings, its color stands beside the number. Empty for none.
    framed : iterable of int
        The channels that get a frame, with the gid ``"representative"``.
    """
    palette, size = cluster_palette(labels.values()), sheet.letters
    wide, tall = sheet.tile
    for text, label, left, top in sheet.headings:
        at = left
        if label is not None:
            panel.add_patch(Rectangle((left, top + 0.03), 0.13, 0.13, color=palette[label], lw=0, gid="group"))
            at += 0.19
        panel.text(at, top + 0.095, text, fontsize=9, color=INK, ha="left", va="center", gid="group")
    marked = set(framed)
    for channel, (left, top), tile, scale in zip(sheet.channels, sheet.corners, tiles, scales, strict=True):
        draw_tile(panel, tile, at=(left, top, wide, tall), scale=scale)
        at = left
        if channel in labels and not sheet.headings:
            at += 0.8 * size / 72
            badge = (left, top - 0.02 - 0.75 * size / 72)
            panel.add_patch(Rectangle(badge, 0.6 * size / 72, 0.75 * size / 72, color=palette[labels[channel]], lw=0))
        weight = "bold" if channel in marked else "normal"
        panel.text(
            at, top - 0.02, str(channel), fontsize=size, color=INK, ha="left", va="bottom", fontweight=weight, zorder=4
        )
        if channel in marked:
            index = (left + 0.02, top + 0.02), wide - 0.04, tall - 0.04
            for line, edge in ((4.2, "white"), (2.6, palette[labels[channel]])):
                panel.add_patch(Rectangle(*index, fill=False, ec=edge, lw=line, zorder=3, gid="representative"))


def page(
    layer: PicturedLayer,
    *,
    sample: int,
    headline: str,
    subtitle: str,
    note: str,
    panel: tuple[float, float],
    scale: Scale,
    relative: bool,
) -> tuple[Figure, Any, tuple[Text, Text]]:
    """Lay out titles, input image, an empty panel, color bar and note; all in inches.

    Parameters
    ----------
    layer : PicturedLayer
        What is drawn.
    sample : int
        The image.
    headline, subtitle, note : str
        The texts above and below.
    panel : tuple of (width, height)
        Size of the panel.
    scale : Scale
        What the color bar shows.
    relative : bool
        Whether every channel has a scale of its own.

    Returns
    -------
    figure : Figure
        The page.
    panel : Axes
        Measured in inches from its upper left corner.
    texts : tuple of Text
        The headline and the note.
    """
    width, height = panel
    picture = layer.display(sample)
    aside = PICTURE + 0.35 if picture is not None else 0.0
    body = max(height, PICTURE + 0.2 if picture is not None else 0.0, 2.2)
    words = max(text_width(headline, size=13), text_width(subtitle, size=9.5), text_width(note, size=8))
    total = max(aside + width + 0.25 + BAR, words)
    figure = new_figure(width=total + 2 * MARGIN, height=TITLE + body + NOTE + MARGIN)
    title = inch_text(figure, headline, left=MARGIN, top=0.15, size=13)
    inch_text(figure, subtitle, left=MARGIN, top=0.42, size=9.5, color=FAINT)
    foot = inch_text(figure, note, left=MARGIN, top=TITLE + body + 0.18, size=8, color=FAINT)
    if picture is not None:
        name = f"input: {sample_name(layer, sample)}"
        if text_width(name, size=9) > aside:  # the subtitle says it whole
            name = f"input: sample {sample}"
        draw_input(figure, picture, left=MARGIN, top=TITLE + 0.2, side=PICTURE, title=name)
    left = MARGIN + aside
    draw_color_bar(
        figure,
        left=left + width + 0.2,
        top=TITLE + 0.2,
        height=min(body - 0.3, 3.2),
        scale=scale,
        relative=relative,
        quantity=layer.quantity,
    )
    return figure, inch_panel(figure, left=left, top=TITLE, width=width, height=height), (title, foot)


def describe_grid(layer: PicturedLayer, channels: list[int], *, sample: int, order: str) -> str:
    """Say what a grid shows: ``"Activation of 64 channels, on sample 0; numbers are channels"``."""
    count = "1 channel" if len(channels) == 1 else f"{len(channels)} channels"
    most = {"activity": ", most active first", "cluster": ", cluster by cluster"}.get(order, "")
    return f"{layer.quantity.capitalize()} of {count}{most}, on {sample_name(layer, sample)}; numbers are channels"
