"""Position clusters: laid over the image that they are of."""

from itertools import pairwise
from math import ceil
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure

from ..analysis import NOISE
from .drawing import (
    FAINT,
    INK,
    RULE,
    PicturedSamples,
    brief,
    cluster_marks,
    cluster_palette,
    inch_axes,
    inch_text,
    layer_text,
    new_figure,
    require_layer,
    sample_name,
    snapshot_table,
    snapshot_titles,
    span,
    text_width,
)

if TYPE_CHECKING:
    from ..analysis import Clusters

MARGIN = 0.2
HEAD = 0.75
TITLE = 0.36
UNDER = 0.26
GAP = 0.14
FOOT = 0.3
SIDE = 1.6
COLUMNS = 6
AT_MOST = 11
LEGEND_ROW = 0.21
PALER = -170

Grid = npt.NDArray[np.float64]


def position_clusters(
    clusters: "Clusters",
    layer: PicturedSamples,
    *,
    sample: int = 0,
    alpha: float = 0.55,
) -> Figure:
    """Draw the cluster of each position of an image over the image, at each snapshot, beside the plain image.

    Under the colors the image is gray and pale, so that a color is that of a cluster alone. Under each picture stands
    which share of its positions changed cluster since the picture before.

    Parameters
    ----------
    clusters : Clusters
        Clusters of the ``"position"`` view.
    layer : Layer
        The layer that they are of.
    sample : int, default 0
        Index of the image in the data set.
    alpha : float, default 0.55
        How far the colors cover the image, above 0 and up to 1.

    Returns
    -------
    Figure
        Not kept by pyplot: show it as the last value of a cell, or call its `savefig`. Of more than 11 snapshots at
        most 11 are drawn, evenly spread, the first and the last among them. The overlays have the gid ``"overlay"``;
        their data are the labels, masked at positions without one (of rows drawn as a subsample).

    Raises
    ------
    TypeError
        For what is not a layer.
    ValueError
        If `clusters` are of another view or layer or of several runs, have no position of the sample, the layer has no
        height and width, or `alpha` is out of its range.
    """
    if not 0 < alpha <= 1:
        raise ValueError(f"received alpha={alpha}; expected above 0 and up to 1, such as 0.55")
    require_layer(layer)
    _check(clusters, layer)
    rows, labels = clusters.rows, clusters.labels
    mine = (rows["sample"] == sample).to_numpy()
    if not mine.any():
        known = rows["sample"].unique()
        raise ValueError(
            f"received sample={sample}; expected one of the {len(known)} clustered samples ({known.min()} to "
            f"{known.max()}): choose from `clusters.rows['sample']`"
        )
    table = snapshot_table(rows)
    shown = brief(len(table), at_most=AT_MOST)
    numbers = [int(table["snapshot"].iloc[position]) for position in shown]
    _, height, width = layer.feature_map_shape
    grids = [_grid(rows[mine], labels[mine], snapshot=number, shape=(height, width)) for number in numbers]
    palette = cluster_palette(labels)
    present = np.unique(np.concatenate([grid[np.isfinite(grid)] for grid in grids])).astype(np.int64)

    picture = layer.display(sample)
    tall, wide = _size(picture, layer)
    panels = len(shown) + (picture is not None)
    columns = min(panels, COLUMNS)
    marks = cluster_marks(present, palette=palette)
    body = ceil(panels / columns) * (TITLE + tall + UNDER)
    legend_columns = ceil(len(marks) * LEGEND_ROW / (body - 0.1))
    part = "" if len(shown) == len(table) else f" ({len(shown)} of them drawn)"
    headline = f"{layer_text(layer.label)}: clusters of positions over {span(table)}{part}"
    name = sample_name(layer, sample)
    counted = f"{clusters.n_clusters} clusters" if clusters.n_clusters != 1 else "1 cluster"
    counted_positions = f"{height} x {width} positions" if height * width > 1 else "1 position"
    subtitle = f"{counted} by {clusters.method}, {len(present)} of them seen here; {counted_positions} on {name}"
    if picture is None:
        subtitle += "; the run holds no picture of it"
    legend = MARGIN + legend_columns * 1.05
    words = max(text_width(headline, size=13), text_width(subtitle, size=9.5))
    total = max(columns * (wide + GAP) - GAP + legend, words) + 2 * MARGIN
    figure = new_figure(width=total, height=HEAD + body + FOOT)
    inch_text(figure, headline, left=MARGIN, top=0.15, size=13)
    inch_text(figure, subtitle, left=MARGIN, top=0.42, size=9.5, color=FAINT)

    axes = []
    for index in range(panels):
        row, column = divmod(index, columns)
        left, top = MARGIN + column * (wide + GAP), HEAD + row * (TITLE + tall + UNDER) + TITLE
        axes.append(inch_axes(figure, left=left, top=top, width=wide, height=tall))
    if picture is not None:
        axes[0].imshow(picture, extent=(0, 1, 1, 0), aspect="auto", gid="input")
        _dress(axes[0], title="input", under="")
    changes = ["", *(_changed(before, after) for before, after in pairwise(grids))]
    titles = snapshot_titles(table, separator="\n")
    for ax, grid, position, change in zip(axes[panels - len(shown) :], grids, shown, changes, strict=True):
        if picture is not None:
            gray = picture[..., :3] @ np.array([0.299, 0.587, 0.114])
            ax.imshow(gray, cmap="gray", vmin=PALER, vmax=255, extent=(0, 1, 1, 0), aspect="auto", gid="gray")
        ax.imshow(
            np.ma.masked_invalid(grid),
            cmap=ListedColormap([palette[label] for label in sorted(palette)]),
            vmin=NOISE - 0.5,
            vmax=max(palette) + 0.5,
            extent=_extent(layer),
            interpolation="nearest",
            aspect="auto",
            alpha=alpha if picture is not None else None,
            gid="overlay",
        )
        ax.set_xlim(0, 1)
        ax.set_ylim(1, 0)
        _dress(ax, title=titles[position], under=change)
    size_x, size_y = figure.get_size_inches()
    corner = (MARGIN + columns * (wide + GAP)) / size_x, 1 - (HEAD + TITLE - 0.1) / size_y
    figure.legend(
        handles=marks, loc="upper left", bbox_to_anchor=corner, frameon=False, fontsize=8, ncols=legend_columns
    )
    return figure


def _check(clusters: "Clusters", layer: PicturedSamples) -> None:
    """Raise ValueError unless `clusters` are of positions with height and width in this layer of one run."""
    if clusters.identity != ["sample", "y", "x"]:
        raise ValueError(
            f"received clusters of the {clusters.view!r} view; expected the 'position' view: cluster "
            f'`pca(layer.vectors("position"))`'
        )
    if "run" in clusters.rows:
        raise ValueError("received clusters of several runs; expected of one: pass `clusters.of_run(0)`")
    if clusters.layer != layer.label:
        raise ValueError(
            f"received clusters of {clusters.layer!r} and layer {layer.label!r}; expected both of one layer: pass the "
            f"layer that was clustered"
        )
    if len(layer.output_shape) != 3:
        raise ValueError(
            f"received layer {layer.label!r} with outputs of shape {tuple(layer.output_shape)}; expected channels, "
            f"height and width, which lie in the image: choose another layer"
        )


def _grid(rows: pd.DataFrame, labels: npt.NDArray[np.int64], *, snapshot: int, shape: tuple[int, int]) -> Grid:
    """Return the labels of one snapshot at their positions, NaN where there is none."""
    now = (rows["snapshot"] == snapshot).to_numpy()
    grid = np.full(shape, np.nan)
    grid[rows["y"].to_numpy()[now], rows["x"].to_numpy()[now]] = labels[now]
    return grid


def _changed(before: Grid, after: Grid) -> str:
    """Say which share of the positions that are in a cluster in both changed it."""
    known = (before >= 0) & (after >= 0)
    return f"{float((before != after)[known].mean()):.0%} changed" if known.any() else ""


def _size(picture: npt.NDArray[np.uint8] | None, layer: PicturedSamples) -> tuple[float, float]:
    """Return height and width of a picture in inches."""
    height, width = picture.shape[:2] if picture is not None else layer.output_shape[1:]
    ratio = float(np.clip(height / width, 0.25, 4.0))
    return SIDE * min(1.0, ratio), SIDE / max(1.0, ratio)


def _extent(layer: PicturedSamples) -> tuple[float, float, float, float]:
    """Return left, right, bottom and top of what was kept of the feature maps, as shares of the image."""
    height, width = layer.output_shape[1:]
    (top, bottom), (left, right) = layer.crop or ((0, height), (0, width))
    return left / width, right / width, bottom / height, top / height


def _dress(ax: Axes, *, title: str, under: str) -> None:
    ax.set_xticks([])
    ax.set_yticks([])
    ax.spines[:].set_color(RULE)
    ax.set_title(title, fontsize=8.5, color=INK, loc="left", pad=3)
    ax.set_xlabel(under, fontsize=8, color=FAINT, loc="left", labelpad=3)
