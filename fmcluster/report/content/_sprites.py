"""Sprites: sheets of small feature maps, from which the page shows any channel at every snapshot."""

import base64
import io
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from math import prod

import numpy as np
import numpy.typing as npt
from PIL import Image

from ...plot.drawing import Scale, as_tiles, brief, sample_name, scale_of
from ...store import Run
from ._feature_maps import Picture, input_picture
from ._layer_content import LayerContent

MOST_IMAGES, MOST_COLUMNS = 3, 20
SHADES = 32
SHEETS_BYTES = 4 << 20  # of all sheets of a page: with plotly and the rest, it stays under 15 MB
_LARGEST, _SMALLEST = 32, 4
_WEBP_SIDE = 16383
_ROWS_AT_ONCE = 32
_ROWS_TRIED, _SURELY = 16, 0.6  # rows by which the size of a sheet is foretold, and how much of that it has at least

Pixels = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Sheet:
    """The feature maps of all channels on one image, or of all rows that are feature maps themselves.

    Attributes
    ----------
    title : str
        The image's name, or what is on the sheet; not escaped.
    image : Picture or None
        The image, where there is one and the run has it.
    uri : str
        The sheet.
    """

    title: str
    image: Picture | None
    uri: str


@dataclass(frozen=True)
class Sprites:
    """The feature maps of a layer as pictures that are cut into tiles: tile ``row * columns + column``, line by line.

    Attributes
    ----------
    sheets : tuple of Sheet
        One for each image; one, where rows are feature maps.
    height, width : int
        Of a tile, in pixels.
    across : int
        Tiles in a line of a sheet.
    columns : tuple of int
        The snapshots that are columns, counted from 0.
    """

    sheets: tuple[Sheet, ...]
    height: int
    width: int
    across: int
    columns: tuple[int, ...]


def choose_images(run: Run, *, sample: int | None) -> list[int]:
    """Return up to three images that every snapshot holds, by dataset index: the one asked for, then other classes."""
    known = run.common_samples(range(len(run)))
    if sample is None or not len(known):
        return []
    labels = run.samples["label"].reindex(known).to_numpy() if "label" in run.samples else np.zeros(len(known))
    chosen = [sample]
    seen = {labels[known.tolist().index(sample)]}
    for index, label in zip(known.tolist(), labels, strict=True):
        if len(chosen) < MOST_IMAGES and label not in seen:
            chosen.append(index)
            seen.add(label)
    rest = [index for index in known.tolist() if index not in chosen]
    return chosen + rest[: MOST_IMAGES - len(chosen)]


def make_sprites(content: LayerContent, *, samples: list[int], max_bytes: int) -> Sprites | None:
    """Draw every row at every snapshot (at most twenty), as small as the budget asks.

    A channel is drawn on some images, a row that is a feature map on its own. Every row has a scale of its own, the
    same at all snapshots and on all images.

    Parameters
    ----------
    content : LayerContent
        The results.
    samples : list of int
        The images for channels, by dataset index.
    max_bytes : int
        How many bytes the sheets may take in the page. Tiles are made smaller until they fit.

    Returns
    -------
    Sprites or None
        None where rows have no feature maps, there is no image, or not even the smallest tiles fit.
    """
    of_channels = content.scores.identity == ["channel"]
    if not samples or not (of_channels or content.scores.identity == ["sample", "channel"]):
        return None
    layer, count = content.layer, content.scores.n_snapshots
    columns = brief(count, at_most=MOST_COLUMNS) if count > 1 else [0]
    maps = _read_channels(content, columns, samples) if of_channels else _read_rows(content, columns)
    signed = bool((layer.statistics["min"] < 0).any())
    with ThreadPoolExecutor(thread_name_prefix="fmcluster-pictures") as threads:
        scales = list(threads.map(lambda row: scale_of(maps[:, row], signed=signed), range(maps.shape[1])))
    per_pixel = 0.0  # bytes that the last tiles took, which were too large; smaller ones have no less in a pixel
    for tile in dict.fromkeys(_tiles(maps.shape[-2:])):
        across = max(1, _WEBP_SIDE // (tile[1] * len(columns))) * len(columns)
        if -(-content.n_rows * len(columns) // across) * tile[0] > _WEBP_SIDE or per_pixel * prod(tile) > max_bytes:
            continue
        if _least_bytes(maps, scales, tile=tile) > max_bytes:
            continue
        sheets, expected = _draw_sheets(_shrink(maps, tile), scales, across=across, max_bytes=max_bytes)
        if sheets:
            break
        per_pixel = expected / prod(tile)
    else:
        return None
    about = [(sample_name(layer, sample), input_picture(layer, sample)) for sample in samples]
    if not of_channels:
        about = [("the feature map", None)]
    return Sprites(
        sheets=tuple(Sheet(title, image, uri) for (title, image), uri in zip(about, sheets, strict=True)),
        height=tile[0],
        width=tile[1],
        across=across,
        columns=tuple(columns),
    )


def _read_channels(content: LayerContent, columns: list[int], samples: list[int]) -> Floats:
    """Return feature maps of shape (n_samples, n_rows, n_columns, height, width), float32."""
    channels = content.scores.rows["channel"].to_numpy()[: content.n_rows].tolist()
    layer, maps = content.layer, None
    for column, ordinal in enumerate(columns):
        values = layer.read(snapshot=content.vectors.snapshots[ordinal], samples=samples, channels=channels)
        for number in range(len(samples)):
            tiles = as_tiles(values[number : number + 1], axes=layer.dimensions)
            if maps is None:
                maps = np.empty((len(samples), len(tiles), len(columns), *tiles.shape[1:]), np.float32)
            maps[number, :, column] = tiles
    assert maps is not None
    return maps


def _read_rows(content: LayerContent, columns: list[int]) -> Floats:
    """Return rows that are feature maps, no larger than a tile: (1, n_rows, n_columns, height, width), float32."""
    vectors = content.vectors
    height, width = vectors.feature_shape
    down, along = (_nearest(length) for length in (height, width))
    maps = np.empty((1, content.n_rows, len(columns), len(down), len(along)), np.float32)
    for column, snapshot in enumerate(columns):
        for start, block in vectors.at([vectors.snapshots[snapshot]]).row_blocks(max_bytes=1 << 26):
            tiles = block.reshape(-1, height, width)[:, down[:, None], along]
            maps[0, start : start + len(tiles), column] = tiles
    return maps


def _tiles(shape: tuple[int, ...]) -> Iterator[tuple[int, int]]:
    """Yield sizes of tiles, (height, width), from the largest that feature maps of a shape need to the smallest."""
    height, width = shape
    side = _LARGEST
    while True:
        yield min(height, side), min(width, side)
        if side <= _SMALLEST:
            return
        side = max(_SMALLEST, side * 3 // 4)


def _nearest(length: int, side: int = _LARGEST) -> npt.NDArray[np.int64]:
    """Return which lines of a feature map are kept, where it is larger than a tile."""
    side = min(length, side)
    return ((np.arange(side) + 0.5) * length / side).astype(np.int64)


def _shrink(maps: Floats, tile: tuple[int, int]) -> Floats:
    """Return feature maps of the size of a tile: the nearest position of each, so that no new value arises."""
    down, along = (_nearest(length, side) for length, side in zip(maps.shape[-2:], tile, strict=True))
    return maps[..., down[:, None], along]


def _draw_sheets(maps: Floats, scales: Sequence[Scale], *, across: int, max_bytes: int) -> tuple[list[str], float]:
    """Return a sheet for each image, and about how many bytes they take: none where these are more than they may."""
    shades, palette = _shade(maps, scales)
    first = _encode(_lay(shades[0], across), palette)
    expected = len(first) * (1 + 0.8 * (len(shades) - 1))  # the others are about as large
    if expected > max_bytes:
        return [], expected
    with ThreadPoolExecutor(thread_name_prefix="fmcluster-pictures") as threads:
        sheets = [first, *threads.map(lambda each: _encode(_lay(each, across), palette), shades[1:])]
    size = sum(map(len, sheets))
    return (sheets if size <= max_bytes else []), size


def _least_bytes(maps: Floats, scales: Sequence[Scale], *, tile: tuple[int, int]) -> float:
    """Return fewer bytes than sheets of such tiles take, by some of the rows on one image; 0 where rows are few."""
    step = len(scales) // _ROWS_TRIED
    if step < 2:
        return 0.0
    shades, palette = _shade(_shrink(maps[:1, ::step], tile), scales[::step])
    per_row = len(_encode(_lay(shades[0], maps.shape[2]), palette)) / shades.shape[1]
    return float(_SURELY * per_row * len(scales) * len(maps))


def _shade(maps: Floats, scales: Sequence[Scale]) -> tuple[Pixels, list[tuple[int, int, int]]]:
    """Return shades of the shape of the feature maps, each row on its scale, and the colors they stand for.

    The last color is that of values which are not finite.
    """
    shades = np.empty(maps.shape, np.uint8)
    ends = np.array([(scale.norm.vmin, scale.norm.vmax) for scale in scales], np.float64)
    for start in range(0, maps.shape[1], _ROWS_AT_ONCE):
        here = maps[:, start : start + _ROWS_AT_ONCE]
        low, high = ends[start : start + _ROWS_AT_ONCE].T[:, :, None, None, None]
        finite = np.isfinite(here)
        along = np.clip((np.where(finite, here, 0.0) - low) / (high - low), 0, 1)
        shades[:, start : start + _ROWS_AT_ONCE] = np.where(finite, np.round((SHADES - 1) * along), SHADES)
    colors = scales[0].colors
    ramp = np.round(255 * colors(np.linspace(0, 1, SHADES))[:, :3]).astype(int)
    bad = np.round(255 * np.array(colors.get_bad()[:3])).astype(int)
    palette = [(int(red), int(green), int(blue)) for red, green, blue in [*ramp, bad]]
    return shades, palette


def _lay(shades: Pixels, across: int) -> Pixels:
    """Return tiles of shape (n_channels, n_columns, height, width) side by side, line by line."""
    tile = shades.shape[2:]
    flat = shades.reshape(-1, *tile)
    lines = -(-len(flat) // across)
    sheet = np.zeros((lines * across, *tile), np.uint8)
    sheet[: len(flat)] = flat
    return sheet.reshape(lines, across, *tile).transpose(0, 2, 1, 3).reshape(lines * tile[0], across * tile[1])


def _encode(sheet: Pixels, palette: list[tuple[int, int, int]]) -> str:
    """Return a sheet without loss: tiles of a few pixels would run into one another."""
    image = Image.fromarray(np.asarray(palette, np.uint8)[sheet])
    file = io.BytesIO()
    image.save(file, format="webp", lossless=True, quality=20, method=3)  # more effort saves no bytes here
    return "data:image/webp;base64," + base64.b64encode(file.getvalue()).decode("ascii")
