"""Layer rows: axes with a row for each layer, and the table beside them."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.transforms import ScaledTranslation, Transform

from ._figures import FAINT, INK, axes_or_new, points_per_unit, text_width
from ._layer_names import layer_text

ROW = 0.3


def layer_rows(ax: Axes | None, names: list[str], *, width: float, foot: float) -> Axes:
    """Return axes with a row for each layer, the first at the top, and its name to the left of it."""
    shown = [layer_text(name) for name in names]
    margin = max(text_width(name, size=8) for name in shown)
    ax = axes_or_new(ax, width=width + margin, height=ROW * max(len(names), 4) + foot)
    ax.set_ylim(len(names), 0)
    ax.set_yticks(np.arange(len(names)) + 0.5, shown, parse_math=False)
    return ax


def letter_size(ax: Axes) -> float:
    """Return the size of letters, in points, that fits the rows."""
    return float(np.clip(0.6 * points_per_unit(ax), 3.0, 8.0))


def write_column(ax: Axes, *, heading: str, cells: list[str], at: float, align: str = "right") -> None:
    """Write a column of a table, `at` points to the right of the axes, a cell for each row."""
    size = letter_size(ax)
    across = ax.get_yaxis_transform()
    for index, text in enumerate([heading, *cells]):
        where = (1.0, 0.0) if index == 0 else (1.0, index - 0.5)
        ax.annotate(
            text,
            where,
            xycoords=across,
            xytext=(at, 3 if index == 0 else 0),
            textcoords="offset points",
            ha=align,
            va="bottom" if index == 0 else "center",
            fontsize=size,
            color=FAINT if index == 0 else INK,
            annotation_clip=False,
            parse_math=False,
        )


def lowered(ax: Axes, *, by: float) -> Transform:
    """Return the transform of the axes, moved down by so many inches."""
    figure = ax.get_figure(root=True)
    assert figure is not None
    return ax.transAxes + ScaledTranslation(0, -by, figure.dpi_scale_trans)
