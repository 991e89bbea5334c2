"""Tiles: small pictures of single feature maps on a common scale of colors."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import floor, log10
from typing import Any

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
import seaborn  # noqa: F401  (registers the color maps "rocket" and "icefire")
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Colormap, Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from ._figures import FAINT, INK, RULE, inch_axes
from ._layers import PicturedLayer

CLIP_PERCENTILE = 99.5
NOT_FINITE_COLOR = "#8fbf8f"

Tiles = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Scale:
    """What a color stands for.

    Attributes
    ----------
    limit : float
        The activation at the end of the scale, greater than zero.
    signed : bool
        Whether the scale runs from -limit to limit; otherwise it runs from 0. Black is zero in both.
    extend : str
        Which ends values go beyond, as matplotlib's color bars have it.
    """

    limit: float
    signed: bool
    extend: str

    @property
    def norm(self) -> Normalize:
        """The scale as matplotlib has it."""
        return Normalize(-self.limit if self.signed else 0.0, self.limit)

    @cached_property
    def colors(self) -> Colormap:
        """The color map: warm for positive and cold for negative values."""
        name = "icefire" if self.signed else "rocket"
        return mpl.colormaps[name].with_extremes(bad=NOT_FINITE_COLOR)


def scale_of(tiles: Tiles, *, signed: bool) -> Scale:
    """Return the scale that shows all of `tiles` and lets no outlier darken the rest.

    The limit is the 99.5th percentile of the absolute values, zeros of rectified feature maps left out, so that it does
    not depend on how sparse they are; of fewer than 200 values it is the greatest.

    Parameters
    ----------
    tiles : ndarray of any shape, float32
        The activations that will be compared.
    signed : bool
        Whether the layer has negative values.
    """
    finite = tiles[np.isfinite(tiles)]
    magnitudes = np.abs(finite)
    magnitudes = magnitudes[magnitudes > 0]
    if magnitudes.size == 0:
        return Scale(limit=1.0, signed=signed, extend="neither")
    few = magnitudes.size < 100 / (100 - CLIP_PERCENTILE)
    limit = float(magnitudes.max() if few else np.percentile(magnitudes, CLIP_PERCENTILE))
    above, below = bool((finite > limit).any()), signed and bool((finite < -limit).any())
    extend = {(True, True): "both", (True, False): "max", (False, True): "min", (False, False): "neither"}
    return Scale(limit=limit, signed=signed, extend=extend[above, below])


def is_dead(tile: Tiles) -> bool:
    """Whether a feature map of several positions has the same value in all of them."""
    return tile.size > 1 and bool(np.isfinite(tile).all()) and bool(tile.min() == tile.max())


def draw_tile(ax: Axes, tile: Tiles, *, at: tuple[float, float, float, float], scale: Scale) -> None:
    """Draw one feature map: an image, or an empty hatched tile where it is constant.

    Parameters
    ----------
    ax : Axes
        Axes measured in inches from the upper left corner.
    tile : ndarray of shape (height, width), float32
        The activations.
    at : tuple of four floats
        Left, top, width and height in inches.
    scale : Scale
        What the colors stand for.
    """
    left, top, width, height = at
    if is_dead(tile):
        ax.add_patch(Rectangle((left, top), width, height, fc="#f4f4f4", ec=RULE, hatch="////", lw=0.6))
        return
    extent = (left, left + width, top + height, top)
    ax.imshow(tile, extent=extent, cmap=scale.colors, norm=scale.norm, aspect="auto")
    # The light end of the scale is as light as the page.
    ax.add_patch(Rectangle((left, top), width, height, fill=False, ec=RULE, lw=0.5))
    if tile.size == 1 and width >= 0.5 and np.isfinite(tile).all():
        value = float(tile.flat[0])
        red, green, blue, _ = scale.colors(scale.norm(value))
        decimals = max(0, 2 - floor(log10(scale.limit)))
        color = "white" if 0.299 * red + 0.587 * green + 0.114 * blue < 0.55 else INK
        ax.text(
            left + width / 2,
            top + height / 2,
            f"{value:.{decimals}f}",
            color=color,
            fontsize=8,
            ha="center",
            va="center",
        )


def draw_color_bar(
    figure: Figure, *, left: float, top: float, height: float, scale: Scale, relative: bool, quantity: str
) -> None:
    """Draw the scale, its lower end `height` inches under its upper end.

    Parameters
    ----------
    figure : Figure
        The figure to draw on.
    left, top, height : float
        Where, in inches from the figure's upper left corner.
    scale : Scale
        What the colors stand for.
    relative : bool
        Whether every channel has a scale of its own, so that the bar can only say shares of it.
    quantity : str
        What is drawn, such as ``"activation"``.
    """
    ax = inch_axes(figure, left=left, top=top, width=0.13, height=height)
    if relative:
        scale = Scale(limit=1.0, signed=scale.signed, extend=scale.extend)
    bar = figure.colorbar(ScalarMappable(scale.norm, scale.colors), cax=ax, extend=scale.extend, extendfrac=0.04)
    bar.set_label(f"{quantity} / limit of the channel's own scale" if relative else quantity, fontsize=9, color=INK)
    bar.ax.tick_params(labelsize=8, color=FAINT)
    bar.outline.set_visible(False)


def draw_input(
    figure: Figure, picture: npt.NDArray[np.uint8], *, left: float, top: float, side: float, title: str
) -> None:
    """Draw the input image in a square of `side` inches, with its title above."""
    height, width = picture.shape[:2]
    scale = side / max(height, width)
    ax = inch_axes(figure, left=left, top=top, width=width * scale, height=height * scale)
    ax.imshow(picture, aspect="auto")
    ax.set_xticks([])
    ax.set_yticks([])
    ax.spines[:].set_color(RULE)
    ax.set_title(title, fontsize=9, color=INK, loc="left", pad=4, parse_math=False)


def notes(tiles: Iterable[Tiles], scales: Iterable[Scale]) -> str:
    """Say what in the picture needs a word: dead tiles, values not finite, values beyond the scale."""
    tiles = list(tiles)
    dead = sum(is_dead(tile) for tile in tiles)
    broken = sum(not np.isfinite(tile).all() for tile in tiles)
    said = [f"Hatched: constant feature map ({dead} of {len(tiles)})."] if dead else []
    if broken:
        said.append(f"Green: NaN or infinite (in {broken} of {len(tiles)} feature maps).")
    if any(scale.extend != "neither" for scale in scales):
        said.append("The scale ends at the 99.5th percentile of the non-zero magnitudes.")
    return " ".join(said)


def as_tiles(values: npt.NDArray[Any], *, axes: Sequence[str]) -> Tiles:
    """Bring one sample of one snapshot to tiles.

    Parameters
    ----------
    values : ndarray of shape (1, ...)
        What a layer's `read` returns for one snapshot and one sample.
    axes : sequence of str
        Names of the layer's axes, its `dimensions`.

    Returns
    -------
    ndarray of shape (n_channels, height, width), float32
        Tokens become the height of tiles one pixel wide, and time the width of tiles one pixel high; of a vector a
        tile is a single pixel. The frames of a video lie under one another.
    """
    sample: Tiles = values[0].astype(np.float32)
    if sample.ndim == 1:
        return sample.reshape(-1, 1, 1)
    if sample.ndim == 2:
        return np.expand_dims(sample, 1) if axes[-1] == "time" else np.expand_dims(sample.T, 2)
    return sample.reshape(len(sample), -1, sample.shape[-1])


def scales_of(layer: PicturedLayer, tiles: Tiles, *, scale: str) -> list[Scale]:
    """Return a scale for each entry of the first axis of `tiles`; with ``"shared"`` the same one for all."""
    # The whole layer decides on the sign, so that all pictures of one layer have the same colors.
    signed = bool((layer.statistics["min"] < 0).any())
    if scale == "shared":
        return [scale_of(tiles, signed=signed)] * len(tiles)
    return [scale_of(one, signed=signed) for one in tiles]
