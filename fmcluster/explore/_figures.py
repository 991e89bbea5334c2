"""Figures of the explorer: the report's charts where it has them, of one snapshot at a time."""

import base64
import io
from typing import Any

import numpy as np
import numpy.typing as npt
from dash import html
from PIL import Image, ImageDraw

from ..analysis import relative_centers
from ..plot.drawing import Scale, Tiles, as_tiles, class_in_words, cluster_palette, sample_name, scale_of
from ..report.charts import axes_at, embedding_chart, layout_of
from ..report.content import LayerContent
from ..store import Layer, Run

TILE, GAP = 40, 2
PICTURES_ACROSS = 18  # how many pictures in the place of points stand side by side across the embedding
Json = dict[str, Any]
Pixels = npt.NDArray[np.uint8]


def embedding_figure(
    content: LayerContent,
    *,
    snapshot: int,
    row: int | None,
    members: list[int] | None,
    color: str = "cluster",
    pictures: list[str | None] | None = None,
) -> Json:
    """Return the embedding at one snapshot: the same axes at all, members strong, and the path of one row.

    Where there are pictures, one of each row, they stand in the places of the points.
    """
    chart = embedding_chart(content)
    frame = chart["frames"][snapshot]
    points, path = chart["figure"]["data"]
    chosen = range(content.n_rows) if members is None else set(members)
    points |= {"x": frame["x"], "y": frame["y"]}
    points["marker"] |= {
        "color": [chart["palette"][str(label)] for label in frame["cluster"]],
        "opacity": [0.9 if index in chosen else 0.12 for index in range(content.n_rows)],
    }
    if color == "drift":
        values = drift(content)
        points["marker"] |= {"color": values[snapshot].tolist(), "colorscale": "Viridis", "showscale": True}
        points["marker"] |= {"cmin": 0, "cmax": max(float(values.max()), 1e-9)}
        points["marker"] |= {"colorbar": {"title": {"text": "drift", "side": "right"}, "thickness": 12, "len": 0.8}}
    elif color == "class" and (classes := class_of_rows(content)) is not None:
        color_of = _class_colors(classes)
        points["marker"] |= {"color": [color_of[name] for name in classes]}
    points["customdata"] = [
        [name, chart["clusters"][str(label)], content.titles[snapshot]]
        for name, label in zip(chart["names"], frame["cluster"], strict=True)
    ]
    at = content.embedding.by_snapshot(content.embedding.values)
    way = at[:, row] if row is not None else np.empty((0, 2))
    path |= {"x": way[:, 0].tolist(), "y": way[:, 1].tolist()}
    here = {
        "type": "scatter",
        "mode": "markers",
        "x": [] if row is None else [float(at[snapshot, row, 0])],
        "y": [] if row is None else [float(at[snapshot, row, 1])],
        "hoverinfo": "skip",
        "marker": {"symbol": "circle-open", "size": 18, "color": "#808080", "line": {"width": 2.5}},
    }
    layout = chart["figure"]["layout"] | {"uirevision": f"{content.layer.label} {content.scores.view}"}
    # equal scales are kept by the size of the axes: where their ranges may give way, each answer of the page to a
    # changed range begins another move, for ever
    for axis, ends in zip(("xaxis", "yaxis"), axes_at(content.limits.at(snapshot)), strict=True):
        layout |= {axis: layout[axis] | {"constrain": "domain", "range": ends}}
    layout |= {"transition": {"duration": 400, "easing": "cubic-in-out"}, "dragmode": "lasso", "selections": []}
    points |= {"hoverinfo": "none", "hovertemplate": None, "unselected": {"marker": {"opacity": 0.12}}}
    if pictures is not None:
        low, high = layout["xaxis"]["range"]
        side = (high - low) / PICTURES_ACROSS
        layout["images"] = [
            {
                "source": picture,
                "xref": "x",
                "yref": "y",
                "x": frame["x"][index],
                "y": frame["y"][index],
                "sizex": side,
                "sizey": side,
                "xanchor": "center",
                "yanchor": "middle",
                "opacity": 1 if index in chosen else 0.2,
                "layer": "below",
            }
            for index, picture in enumerate(pictures)
            if picture is not None
        ]
        points["marker"] |= {"opacity": [0 if picture else 0.9 for picture in pictures]}
    return {"data": [points, path, here], "layout": layout}


def drift(content: LayerContent) -> npt.NDArray[np.float64]:
    """Return how far each row is from itself at the first snapshot, relative to its norm there, (n_snapshots, n_rows).

    By its principal component scores, which keep the distances of the vectors as far as they hold their variance.
    """
    scores = content.scores.by_snapshot(content.scores.values)
    norm = np.linalg.norm(scores[0], axis=1)
    moved: npt.NDArray[np.float64] = np.linalg.norm(scores - scores[0], axis=2) / np.where(norm > 0, norm, 1)
    return moved


def class_of_rows(content: LayerContent) -> list[str] | None:
    """Return the class of the image that each row is of; None where rows are of no image, or classes are not known."""
    if "sample" not in content.scores.identity or "label" not in content.layer.samples:
        return None
    samples, rows = content.layer.samples, content.scores.rows["sample"].iloc[: content.n_rows]
    labels = samples["label"].reindex(rows, fill_value=-1).astype(str)
    names = samples["class_name"].reindex(rows) if "class_name" in samples else labels
    return [
        class_in_words(name if isinstance(name, str) and name else label)
        for name, label in zip(names, labels, strict=True)
    ]


def class_legend(content: LayerContent) -> list[html.Li]:
    """Return which color each class of the rows' images has."""
    colors = _class_colors(class_of_rows(content) or [])
    return [html.Li([html.I(style={"background": color}), name]) for name, color in colors.items()]


def _class_colors(classes: list[str]) -> dict[str, str]:
    names = sorted(set(classes))
    palette = cluster_palette(len(names))
    return {name: palette[ordinal] for ordinal, name in enumerate(names)}


def grid_figure(layer: Layer, *, snapshot: int, sample: int, chosen: int | None) -> Json:
    """Draw all channels, on one scale, as a picture that can be pointed at."""
    tiles = as_tiles(layer.read(snapshot=snapshot, samples=sample), axes=layer.dimensions)
    scale = scale_of(tiles, signed=_is_signed(layer))
    across = max(1, round(np.sqrt(len(tiles) * 1.6)))
    pitch = TILE + GAP
    sheet = np.zeros((-(-len(tiles) // across) * pitch - GAP, across * pitch - GAP, 4), np.uint8)
    for index, tile in enumerate(tiles):
        top, left = index // across * pitch, index % across * pitch
        sheet[top : top + TILE, left : left + TILE] = colored(tile, scale, side=TILE)
    height, width = sheet.shape[:2]
    centers = [
        [index % across * pitch + TILE / 2 - 0.5, index // across * pitch + TILE / 2 - 0.5]
        for index in range(len(tiles))
    ]
    points = {
        "type": "scatter",
        "mode": "markers",
        "x": [x for x, _ in centers],
        "y": [y for _, y in centers],
        "text": [f"channel {channel}" for channel in layer.channels],
        "hovertemplate": "%{text}<extra></extra>",
        "marker": {"symbol": "square", "size": 14, "opacity": 0},
    }
    ring: list[Json] = []
    for index in [] if chosen is None else np.flatnonzero(layer.channels == chosen).tolist():
        x, y = centers[index]
        half = TILE / 2 + 1
        box = {"x0": x - half, "x1": x + half, "y0": y - half, "y1": y + half}
        ring.append({"type": "rect", "line": {"color": "#0b9e73", "width": 3}} | box)
    layout = layout_of(margin={"l": 4, "r": 4, "t": 4, "b": 4})
    bare = {"visible": False, "fixedrange": True}
    layout["xaxis"] = bare | {"range": [-0.5, width - 0.5], "constrain": "domain"}
    layout["yaxis"] = bare | {"range": [height - 0.5, -0.5], "scaleanchor": "x", "constrain": "domain"}
    layout |= {"shapes": ring}
    layout["images"] = [
        {
            "source": as_uri(sheet),
            "xref": "x",
            "yref": "y",
            "x": -0.5,
            "y": -0.5,
            "sizex": width,
            "sizey": height,
            "sizing": "stretch",
            "layer": "below",
        }
    ]
    return {"data": [points], "layout": layout}


def snapshots_of(content: LayerContent) -> list[int]:
    """Return the numbers of the snapshots that were analyzed: those at which all layers are finite."""
    return [int(number) for number in content.scores.rows["snapshot"].unique()]


def row_strip(content: LayerContent, *, row: int, sample: int | None) -> list[str]:
    """Return what one row looks like at each snapshot: a channel's feature map on an image, or a feature map itself.

    Rows that are neither (images, positions) have none, and channels have none without an image.
    """
    about, identity, layer = content.scores.rows.iloc[row], content.scores.identity, content.layer
    shown = int(about["sample"]) if "sample" in identity else sample
    if "channel" not in identity or shown is None:
        return []
    tiles = np.stack(
        [
            as_tiles(
                layer.read(snapshot=int(number), samples=shown, channels=[int(about["channel"])]), axes=layer.dimensions
            )[0]
            for number in snapshots_of(content)
        ]
    )
    scale = scale_of(tiles, signed=_is_signed(layer))
    return [as_uri(colored(tile, scale, side=64)) for tile in tiles]


def row_pictures(
    content: LayerContent, run: Run, *, rows: list[int], snapshot: int, sample: int | None, side: int = 56
) -> list[str | None]:
    """Return what rows look like at a snapshot: channels' feature maps on one scale, feature maps, or images.

    None for a row without a picture: a channel where no image is chosen, an image that is not stored.
    """
    about, identity, layer = content.scores.rows, content.scores.identity, content.layer
    number = snapshots_of(content)[snapshot]
    if identity == ["channel"]:
        if sample is None or not rows:
            return [None] * len(rows)
        channels = [int(about["channel"].iloc[row]) for row in rows]
        tiles = as_tiles(layer.read(snapshot=number, samples=sample, channels=channels), axes=layer.dimensions)
        scale = scale_of(tiles, signed=_is_signed(layer))
        return [as_uri(colored(tile, scale, side=side)) for tile in tiles]
    if "channel" in identity:
        strips = [row_strip(content, row=row, sample=None) for row in rows]
        return [strip[snapshot] if strip else None for strip in strips]
    return [row_image(content, run, row=row, side=side) for row in rows]


def row_image(content: LayerContent, run: Run, *, row: int, side: int = 160) -> str | None:
    """Return the image a row is of, as a picture with a ring where in it the row is."""
    identity, about = content.scores.identity, content.scores.rows.iloc[row]
    if "sample" not in identity:
        return None
    at = None
    if {"y", "x"} <= set(identity):
        down, along = relative_centers(content.layer)
        at = (float(down[int(about["y"])]), float(along[int(about["x"])]))
    return input_image(run, int(about["sample"]), at=at, side=side)


def input_image(run: Run, sample: int, *, at: tuple[float, float] | None = None, side: int = 160) -> str | None:
    """Return the image that the network saw, with a ring at a position given as shares of height and width."""
    pixels = run.display(sample)
    if pixels is None:
        return None
    image = Image.fromarray(pixels)
    factor = side / max(image.size)
    how = Image.Resampling.NEAREST if factor > 2 else Image.Resampling.BOX
    image = image.resize((max(1, round(image.width * factor)), max(1, round(image.height * factor))), how)
    if at is not None and not np.isnan(at).any():
        y, x = at[0] * image.height, at[1] * image.width
        pen, reach = ImageDraw.Draw(image), side / 10
        for color, width in (("black", 5), ("white", 2)):
            pen.ellipse((x - reach, y - reach, x + reach, y + reach), outline=color, width=width)
    return as_uri(np.asarray(image))


def sample_names(run: Run) -> list[Json]:
    """Return the samples that every snapshot holds, as options."""
    return [
        {"value": int(sample), "label": sample_name(run, int(sample)).removeprefix("sample ")}
        for sample in run.common_samples(range(len(run)))
    ]


def heat_map(chart: Json, *, stage: int) -> Json:
    """Return one of the stages that a chart of `similarity_charts` has."""
    mesh = chart["figure"]["data"][0] | {"z": chart["stages"][stage], "zmin": chart["starts"][stage]}
    if "texttemplate" in mesh:
        mesh["texttemplate"] = f"%{{z:.{chart['digits'][stage]}f}}"
    return {"data": [mesh], "layout": chart["figure"]["layout"]}


def colored(tile: Tiles, scale: Scale, *, side: int) -> Pixels:
    """Return one feature map as a square of pixels, (side, side, 4)."""
    shades = scale.colors(scale.norm(np.ma.masked_invalid(tile.astype(np.float64))), bytes=True)
    image = Image.fromarray(np.asarray(shades, dtype=np.uint8))
    how = Image.Resampling.NEAREST if max(tile.shape) <= side else Image.Resampling.BOX
    return np.asarray(image.resize((side, side), how))


def as_uri(pixels: Pixels) -> str:
    """Return a picture as a ``data:`` URI, without loss."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format="png")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode("ascii")


def _is_signed(layer: Layer) -> bool:
    return bool((layer.statistics["min"] < 0).any())
