"""Heat maps: the mesh of values, its color bar, and the names of its rows and columns."""

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.colors import Normalize

from ._figures import FAINT, INK, RULE, inches, text_width
from ._palette import MISSING, color_map
from ._snapshots import brief

ROWS_WITH_NAMES = 40


def draw_mesh(ax: Axes, values: npt.NDArray[np.float64], *, norm: Normalize, bar: str, palette: str) -> None:
    mesh = ax.pcolormesh(
        np.ma.masked_invalid(values), norm=norm, cmap=color_map(palette), rasterized=values.size > 5000
    )
    ax.set_ylim(len(values), 0)
    ax.set_facecolor(MISSING)
    figure = ax.get_figure()
    assert figure is not None
    scale = figure.colorbar(mesh, ax=ax, fraction=0.05, pad=0.02)
    scale.set_label(bar, fontsize=8, color=FAINT)
    scale.ax.tick_params(labelsize=8, color=RULE, labelcolor=INK)
    scale.outline.set_visible(False)


def scale_start(values: npt.NDArray[np.float64]) -> float:
    """Return where the scale of alignments begins, which ends at 1.

    Zero, or less where there are less; where all are over 0.5, a tenth under the least of them, so that differences
    among what is very similar are seen.

    Examples
    --------
    >>> scale_start(np.array([0.2, 1.0])), scale_start(np.array([0.75, 1.0])), scale_start(np.array([-0.1, 1.0]))
    (0.0, 0.7, -0.1)
    """
    known = values[np.isfinite(values)]
    lowest = float(known.min(initial=1.0)) if known.size else 0.0
    return min(0.9, float(np.floor(10 * lowest)) / 10) if lowest > 0.5 else min(0.0, lowest)


def write_values(ax: Axes, values: npt.NDArray[np.float64], *, dark_below: float) -> None:
    """Write each value into its cell, in white where it is below `dark_below`."""
    for (row, column), value in np.ndenumerate(values):
        if np.isfinite(value):
            color = "white" if value < dark_below else INK
            ax.text(column + 0.5, row + 0.5, f"{value:.2f}", ha="center", va="center", fontsize=7, color=color)


def name_rows(ax: Axes, names: list[str]) -> None:
    shown = brief(len(names), at_most=ROWS_WITH_NAMES) if len(names) > 1 else [0]
    ax.set_yticks([index + 0.5 for index in shown], [names[index] for index in shown], parse_math=False)


def name_columns(ax: Axes, names: list[str]) -> None:
    """Name columns below the axes, as many as there is room for, upright where that is little."""
    longest = max(text_width(name, size=8) for name in names)
    shown = brief(len(names), at_most=ROWS_WITH_NAMES if longest < 0.4 else 14) if len(names) > 1 else [0]
    indices, texts = [index + 0.5 for index in shown], [names[index] for index in shown]
    upright = 1.1 * longest * len(shown) > inches(ax)[0]
    ax.set_xticks(indices, texts, parse_math=False, rotation=90 if upright else 0, ha="center", va="top")


def dress_mesh(ax: Axes, *, title: str, x: str, y: str) -> None:
    ax.set_title(title, fontsize=11, color=INK, loc="left", parse_math=False)
    ax.set_xlabel(x, fontsize=9, color=FAINT)
    ax.set_ylabel(y, fontsize=9, color=FAINT)
    ax.tick_params(labelsize=8, color=RULE, labelcolor=INK, length=0)
    for side in ax.spines.values():
        side.set_visible(False)
