"""Thumbnails: a small picture for each row of a view, on one sheet."""

from math import isqrt

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
import pandas as pd
from PIL import Image

from ..plot.drawing import NOT_FINITE_COLOR, as_tiles, is_dead, scale_of
from ..store import Layer

LARGEST, SMALLEST = 48, 4
MOST_PIXELS = 8192  # a side of a sheet, more of which the projector refuses
CONSTANT = 128  # the gray of a constant feature map

Pixels = npt.NDArray[np.uint8]


def thumbnails(layer: Layer, rows: pd.DataFrame, *, sample: int | None) -> Pixels | None:
    """Draw each row: a channel's feature map, or the image that the row is of.

    Parameters
    ----------
    layer : Layer
        The layer.
    rows : DataFrame
        The rows of a result, snapshot by snapshot.
    sample : int or None
        The image on which channels are shown, where a row is a channel; otherwise it is not used.

    Returns
    -------
    ndarray of shape (n_rows, height, width, 3), uint8, or None
        Feature maps keep their proportions, and every channel has a scale of its own, the same at all snapshots. Zero
        is light, unlike in other pictures: the projector multiplies a picture with the color of its row. Constant
        feature maps are gray. Images are padded to squares. None where a row is neither a channel, a feature map, nor
        of an image of which the run has a picture, or there are more rows than fit on a sheet.
    """
    side = min(LARGEST, MOST_PIXELS // (isqrt(max(len(rows), 1) - 1) + 1))
    if side < SMALLEST or "run" in rows:
        return None
    if "channel" in rows and ("sample" in rows or sample is not None):
        return _channels(layer, rows, sample=sample, side=side)
    if "sample" in rows and layer.display(int(rows["sample"].iloc[0])) is not None:
        known, ordinal = np.unique(rows["sample"].to_numpy(), return_inverse=True)
        return np.stack([_image(layer, int(index), side=side) for index in known])[ordinal]
    return None


def sheet_of(tiles: Pixels) -> Pixels:
    """Lay tiles of shape (n, height, width, 3) line by line on a sheet with as many lines as columns; the rest is 0."""
    count, height, width, colors = tiles.shape
    across = isqrt(count - 1) + 1
    whole = np.zeros((across * across, height, width, colors), np.uint8)
    whole[:count] = tiles
    lined = whole.reshape(across, across, height, width, colors).swapaxes(1, 2)
    return lined.reshape(across * height, across * width, colors)


def _channels(layer: Layer, rows: pd.DataFrame, *, sample: int | None, side: int) -> Pixels:
    """Return the feature map of each row in colors, (n_rows, height, width, 3), at most `side` pixels a side."""
    _, height, width = layer.feature_map_shape
    tall, wide = (max(1, round(length * side / max(height, width))) for length in (height, width))
    size = (tall, wide)
    held = min((height, width), size)  # large feature maps are averaged down first, small ones are colored first
    shown = rows["sample"].to_numpy() if "sample" in rows else np.full(len(rows), sample)
    numbers, whens = rows["channel"].to_numpy(), rows["snapshot"].to_numpy()
    maps = np.empty((len(rows), *held), np.float32)
    alive = np.ones(len(rows), bool)
    for snapshot, index in sorted(set(zip(whens.tolist(), shown.tolist(), strict=True))):
        here = np.flatnonzero((whens == snapshot) & (shown == index))
        tiles = as_tiles(layer.read(snapshot=snapshot, samples=index, channels=numbers[here]), axes=layer.dimensions)
        for ordinal, tile in zip(here, tiles, strict=True):
            alive[ordinal] = not is_dead(tile)
            maps[ordinal] = np.asarray(Image.fromarray(tile).resize((held[1], held[0]), Image.Resampling.BOX))
    signed = bool((layer.statistics["min"] < 0).any())
    colors = mpl.colormaps["vlag" if signed else "rocket_r"].with_extremes(bad=NOT_FINITE_COLOR)
    pixels = np.full((*maps.shape, 3), CONSTANT, np.uint8)
    for channel in np.unique(numbers):
        here = np.flatnonzero(numbers == channel)
        norm = scale_of(maps[here], signed=signed).norm
        shades = np.asarray(colors(norm(np.ma.masked_invalid(maps[here])), bytes=True), dtype=np.uint8)
        pixels[here[alive[here]]] = shades[alive[here], ..., :3]
    down, across = (np.arange(long) * short // long for long, short in zip(size, held, strict=True))
    return pixels[:, down][:, :, across]


def _image(layer: Layer, sample: int, *, side: int) -> Pixels:
    """Return the image of a sample in the middle of a square."""
    square = np.full((side, side, 3), 255, np.uint8)
    picture = Image.fromarray(np.asarray(layer.display(sample)))
    scale = side / max(picture.size)
    width, height = (max(1, round(length * scale)) for length in picture.size)
    small = np.asarray(picture.resize((width, height), Image.Resampling.BOX))
    top, left = (side - height) // 2, (side - width) // 2
    square[top : top + height, left : left + width] = small
    return square
