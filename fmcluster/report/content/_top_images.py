"""Top images on the page: thumbnails of the images that a row stands for, or that drive a channel most."""

import base64
import io
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from math import isnan
from typing import Any

import numpy as np
from PIL import Image

from ...analysis import ResultCache, TopImages, relative_centers, top_images
from ...store import Run
from ._layer_content import LayerContent

PER_CHANNEL = 8
SIDE, ACROSS, MOST = 56, 16, 800

Shown = list[list[list[float | int | None]]]  # row, rank: sample, and where in it


@dataclass(frozen=True)
class ShownImages:
    """Images that belong to each row.

    Attributes
    ----------
    title : str
        Why they do.
    rows : list
        Of each row and rank: dataset index, and the position as shares of height and width (None: the whole image).
    """

    title: str
    rows: Shown


@dataclass(frozen=True)
class Thumbnails:
    """Small pictures of inputs: squares of `side` pixels on one sheet, `across` in a line.

    Attributes
    ----------
    uri : str
        The sheet.
    side, across : int
        Pixels of a square, and squares in a line.
    tiles : dict of int to int
        By dataset index, which square is its.
    """

    uri: str
    side: int
    across: int
    tiles: dict[int, int]


def find_top_images(content: LayerContent, *, cache: ResultCache | None, max_bytes: int) -> list[ShownImages]:
    """Return the images of each row.

    Of a channel, the first eight at the first and at the last snapshot; of a row that is of one image, that image,
    and where in it the row is.
    """
    identity = content.scores.identity
    if identity == ["channel"]:
        return _of_channels(content, cache=cache, max_bytes=max_bytes)
    if "sample" not in identity:
        return []
    first = content.scores.rows[identity].iloc[: content.n_rows]
    rows: Shown = [[[int(sample), None, None]] for sample in first["sample"]]
    if {"y", "x"} <= set(identity):
        down, along = relative_centers(content.layer)
        for row, y, x in zip(rows, first["y"], first["x"], strict=True):
            row[0][1:] = [_share(down[y]), _share(along[x])]
    return [ShownImages("the image", rows)]


def _of_channels(content: LayerContent, *, cache: ResultCache | None, max_bytes: int) -> list[ShownImages]:
    layer = content.layer
    found = top_images_of(content, cache=cache, max_bytes=max_bytes)
    # rows of the content are all channels, or some of them drawn
    rows = content.scores.rows["channel"].to_numpy()[: content.n_rows]
    indices = [layer.channels.tolist().index(channel) for channel in rows.tolist()]
    titles = [content.titles[0], content.titles[-1]]
    return [
        ShownImages(
            f"top images at {title}",
            [
                [
                    [int(sample), *map(_share, at)]
                    for sample, at in zip(samples[index], fractions[index], strict=True)
                    if sample >= 0
                ]
                for index in indices
            ],
        )
        for title, samples, fractions in zip(titles, found.samples, found.fractions, strict=False)
    ]


def top_images_of(content: LayerContent, *, cache: ResultCache | None, max_bytes: int) -> TopImages:
    """Return the top images of each channel of the layer, at the first and the last snapshot."""
    layer, every = content.layer, content.vectors.snapshots
    ends = sorted({every[0], every[-1]})

    def find() -> TopImages:
        return top_images(layer, k=PER_CHANNEL, snapshots=ends, max_bytes=max_bytes)

    if cache is None:
        return find()
    vectors = layer.vectors("sample", snapshots=ends)
    return cache.use(find, TopImages, verb="top_images", vectors=vectors, parameters={"k": PER_CHANNEL})


def _share(value: float) -> float | None:
    return None if isnan(value) else round(float(value), 3)


def make_thumbnails(run: Run, shown_images: Sequence[ShownImages]) -> Thumbnails | None:
    """Draw the images that are in shown_images, 800 at most, the most frequent ones first.

    None where the run has no pictures of its inputs, or there are no shown_images.
    """
    counts = Counter(int(image[0] or 0) for each in shown_images for row in each.rows for image in row)
    wanted = [sample for sample, _ in sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:MOST]]
    if not wanted or run.display(wanted[0]) is None:
        return None
    sheet = np.zeros((-(-len(wanted) // ACROSS) * SIDE, min(len(wanted), ACROSS) * SIDE, 3), np.uint8)
    for number, sample in enumerate(wanted):
        picture = Image.fromarray(np.asarray(run.display(sample))).resize((SIDE, SIDE), Image.Resampling.BOX)
        top, left = number // ACROSS * SIDE, number % ACROSS * SIDE
        sheet[top : top + SIDE, left : left + SIDE] = np.asarray(picture)
    file = io.BytesIO()
    Image.fromarray(sheet).save(file, format="webp", quality=72, method=4)
    uri = "data:image/webp;base64," + base64.b64encode(file.getvalue()).decode("ascii")
    return Thumbnails(uri, SIDE, ACROSS, {sample: number for number, sample in enumerate(wanted)})


def thumbnails_data(thumbnails: Thumbnails | None) -> dict[str, Any] | None:
    """Return thumbnails as JSON."""
    if thumbnails is None:
        return None
    tiles = {str(sample): tile for sample, tile in thumbnails.tiles.items()}
    return {"uri": thumbnails.uri, "side": thumbnails.side, "across": thumbnails.across, "tiles": tiles}
