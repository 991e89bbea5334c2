"""Feature maps as small pictures inside the page: strips over the snapshots, and the classic grid."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure
from PIL import Image

from ...plot import channel_grid
from ...plot.drawing import Scale, Tiles, as_tiles, brief, is_dead, sample_name, scale_of
from ...store import Layer
from ._layer_content import LayerContent

TILE, GAP = 64, 4
MOST_COLUMNS, MOST_CHANNELS, CHANGED = 12, 100, 4

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Picture:
    """A picture inside the page.

    Attributes
    ----------
    uri : str
        The picture itself, as a ``data:`` URI.
    width, height : int
        In pixels.
    alt : str
        What it shows, in words; not escaped.
    """

    uri: str
    width: int
    height: int
    alt: str


@dataclass(frozen=True)
class Strip:
    """One channel on one image, a tile for each snapshot.

    Attributes
    ----------
    channel : int
        The channel.
    cluster : int or None
        The cluster its row is in at the last snapshot; None in views whose rows are not channels.
    limit : float
        The activation at the upper end of its scale.
    picture : Picture
        The tiles, side by side.
    """

    channel: int
    cluster: int | None
    limit: float
    picture: Picture


@dataclass(frozen=True)
class Grid:
    """The classic picture; `caption` says in words which channels are in it."""

    caption: str
    picture: Picture


@dataclass(frozen=True)
class Strips:
    """The strips of one layer, each on a scale of its own, from the first snapshot to the last.

    Attributes
    ----------
    sample : int
        The image that the network saw.
    sample_name : str
        Its name, such as ``"sample 3 (bees)"``; not escaped.
    image : Picture or None
        The image, where the run has it.
    titles : tuple of str
        The snapshots shown.
    typical : tuple of Strip
        The representative of each cluster; in views whose rows are not channels, empty.
    changed : tuple of Strip
        The channels whose response changed most.
    ramp : tuple of str
        Colors of the scale, from its lower end to its upper.
    signed : bool
        Whether the scales run from minus their limit; otherwise they run from 0.
    n_dead : int
        How many of the tiles are constant.
    """

    sample: int
    sample_name: str
    image: Picture | None
    titles: tuple[str, ...]
    typical: tuple[Strip, ...]
    changed: tuple[Strip, ...]
    ramp: tuple[str, ...]
    signed: bool
    n_dead: int


def make_strips(content: LayerContent, *, sample: int) -> Strips:
    """Draw the representative channel of each cluster, and the channels that changed most, at every snapshot.

    Parameters
    ----------
    content : LayerContent
        The results.
    sample : int
        The image on which the channels are shown.
    """
    layer, last = content.layer, content.labels[-1]
    typical: list[tuple[int, int | None]] = []
    changed: list[tuple[int, int | None]]
    if content.scores.identity == ["channel"]:
        channel_of = content.scores.rows["channel"].to_numpy()[: content.n_rows]
        typical = [(int(channel_of[row]), label) for label, row in content.representatives.items()]
        order = np.argsort(-content.change, kind="stable")
        changed = [(int(channel_of[row]), int(last[row])) for row in order[:CHANGED]]
    else:
        ends = content.vectors.snapshots[0], content.vectors.snapshots[-1]
        changed = [(channel, None) for channel in _most_changed(layer, ends=ends)]
    wanted = typical + changed
    shown = brief(content.scores.n_snapshots, at_most=MOST_COLUMNS) if content.scores.n_snapshots > 1 else [0]
    numbers = [content.vectors.snapshots[ordinal] for ordinal in shown]
    channels = [channel for channel, _ in wanted]
    reads = [
        as_tiles(layer.read(snapshot=number, samples=sample, channels=channels), axes=layer.dimensions)
        for number in numbers
    ]
    maps = np.stack(reads, axis=1)
    signed = bool((layer.statistics["min"] < 0).any())
    titles, name = tuple(content.titles[ordinal] for ordinal in shown), sample_name(layer, sample)
    strips = []
    for (channel, label), tiles in zip(wanted, maps, strict=True):
        scale = scale_of(tiles, signed=signed)
        alt = (
            f"Feature maps of channel {channel} of {layer.name} on {name}, from {titles[0]} to {titles[-1]}; "
            f"largest activation {_greatest(tiles[0]):.3g} at first, {_greatest(tiles[-1]):.3g} at last"
        )
        strips.append(
            Strip(
                channel,
                label,
                scale.limit,
                encode_picture(_side_by_side(tiles, scale), alt, lossless=max(tiles.shape[1:]) < TILE // 2),
            )
        )
    shades = scale_of(maps, signed=signed).colors(np.linspace(0, 1, 9))
    return Strips(
        sample=sample,
        sample_name=name,
        image=input_picture(layer, sample),
        titles=titles,
        typical=tuple(strips[: len(typical)]),
        changed=tuple(strips[len(typical) :]),
        ramp=tuple("#" + bytes(np.round(255 * shade[:3]).astype(np.uint8)).hex() for shade in shades),
        signed=signed,
        n_dead=sum(is_dead(tile) for tiles in maps for tile in tiles),
    )


def make_grid(layer: Layer, *, sample: int, snapshot: int) -> Grid:
    """Draw the classic picture: the channels (at most the first hundred) at a snapshot, beside the image."""
    count = min(layer.n_channels, MOST_CHANNELS)
    figure = channel_grid(layer, snapshot=snapshot, sample=sample, channels=layer.channels[:count].tolist())
    which = (
        f"All {count} channels" if count == layer.n_channels else f"The first {count} of {layer.n_channels} channels"
    )
    alt = f"Feature maps of {count} channels of {layer.name} on {sample_name(layer, sample)} at the last snapshot"
    return Grid(which, figure_picture(figure, alt))


def figure_picture(figure: Figure, alt: str, *, dpi: int = 110, lossless: bool = False) -> Picture:
    """Return a figure as a picture inside the page."""
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=dpi)
    with Image.open(file) as image:
        return encode_picture(np.asarray(image.convert("RGB")), alt, lossless=lossless)


def input_picture(layer: Layer, sample: int) -> Picture | None:
    """Return the image that the network saw, or None where the run does not have it."""
    pixels = layer.display(sample)
    if pixels is None:
        return None
    small = max(pixels.shape[:2]) <= TILE
    return encode_picture(pixels, f"The input image: {sample_name(layer, sample)}", lossless=small)


def _most_changed(layer: Layer, *, ends: tuple[int, int]) -> list[int]:
    """Return the channels whose mean activation changed most, from the stored statistics."""
    means = layer.statistics.pivot(index="snapshot", columns="channel", values="mean")
    first, last = (means.iloc[number] for number in ends)
    change = (last - first).abs().fillna(0.0)
    return [int(channel) for channel in (-change).sort_values(kind="stable").index[: 2 * CHANGED]]


def _side_by_side(tiles: Tiles, scale: Scale) -> Pixels:
    """Return tiles of shape (n, height, width) as one picture of squares, (TILE, n * TILE + gaps, 4)."""
    sheet = np.zeros((TILE, len(tiles) * (TILE + GAP) - GAP, 4), np.uint8)
    for ordinal, tile in enumerate(tiles):
        left = ordinal * (TILE + GAP)
        sheet[:, left : left + TILE] = _hatching() if is_dead(tile) else _colored(tile, scale)
    return sheet


def _colored(tile: Tiles, scale: Scale) -> Pixels:
    shades = scale.colors(scale.norm(np.ma.masked_invalid(tile.astype(np.float64))), bytes=True)
    image = Image.fromarray(np.asarray(shades, dtype=np.uint8))
    small = max(tile.shape) <= TILE
    return np.asarray(image.resize((TILE, TILE), Image.Resampling.NEAREST if small else Image.Resampling.BOX))


def _hatching() -> Pixels:
    """Return the square that stands for a constant feature map: gray stripes, on light paper as on dark."""
    across = np.add.outer(np.arange(TILE), np.arange(TILE)) % 12
    square = np.zeros((TILE, TILE, 4), np.uint8)
    square[..., :3] = 128
    square[..., 3] = np.where(across < 2, 200, 40)
    return square


def _greatest(tile: Tiles) -> float:
    finite = tile[np.isfinite(tile)]
    return float(finite.max()) if finite.size else float("nan")


def encode_picture(pixels: Pixels, alt: str, *, lossless: bool = True) -> Picture:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format="webp", lossless=lossless, quality=80, method=4)
    uri = "data:image/webp;base64," + base64.b64encode(file.getvalue()).decode("ascii")
    return Picture(uri=uri, width=pixels.shape[1], height=pixels.shape[0], alt=alt)


def gradient(ramp: Sequence[str]) -> str:
    """Return colors as a gradient of a style sheet."""
    return f"linear-gradient(to right, {', '.join(ramp)})"
