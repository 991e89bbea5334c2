"""Figures: how large they are, and the axes on them."""

import matplotlib.pyplot as plt
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text

INK = "#262626"
FAINT = "#6b6b6b"
RULE = "#d0d0d0"


def new_figure(*, width: float, height: float) -> Figure:
    """Return an empty figure that pyplot does not keep.

    It is freed with its last reference and shows once as the last value of a notebook's cell; pyplot's own would
    show twice there, and a report of many figures would pile them up.

    Parameters
    ----------
    width, height : float
        Size in inches.
    """
    # IPython learns how to show a Figure when pyplot loads its backend; this loads it and does nothing else.
    plt.draw_if_interactive()  # type: ignore[no-untyped-call]
    return Figure(figsize=(width, height))


def axes_or_new(ax: Axes | None, *, width: float = 6.4, height: float = 4.8) -> Axes:
    """Return `ax`, or the axes of a new pyplot figure of `width` x `height` inches."""
    if ax is not None:
        return ax
    _, new = plt.subplots(figsize=(width, height), layout="constrained")
    return new


def inch_axes(figure: Figure, *, left: float, top: float, width: float, height: float) -> Axes:
    """Add axes whose position is given in inches from the figure's upper left corner."""
    total_width, total_height = figure.get_size_inches()
    number = (
        left / total_width,
        1 - (top + height) / total_height,
        width / total_width,
        height / total_height,
    )
    return figure.add_axes(number)


def inch_panel(figure: Figure, *, left: float, top: float, width: float, height: float) -> Axes:
    """Add bare axes that are measured in inches, with the origin in their upper left corner."""
    panel = inch_axes(figure, left=left, top=top, width=width, height=height)
    panel.set_autoscale_on(False)
    panel.set_xlim(0, width)
    panel.set_ylim(height, 0)
    panel.set_axis_off()
    return panel


def inch_text(figure: Figure, text: str, *, left: float, top: float, size: float, color: str = INK) -> Text:
    """Write `text` with its upper left corner at a position in inches from the figure's upper left corner."""
    width, height = figure.get_size_inches()
    return figure.text(
        left / width, 1 - top / height, text, fontsize=size, color=color, va="top", ha="left", parse_math=False
    )


def text_width(text: str, *, size: float) -> float:
    """Return a generous width in inches of the longest line of `text` in a font of `size` points."""
    return max((len(line) for line in text.splitlines()), default=0) * size * 0.62 / 72


def pixels_per_inch(ax: Axes) -> float:
    """Return the resolution of the figure that the axes are on."""
    figure = ax.get_figure(root=True)
    return figure.dpi if figure is not None else 100.0


def inches(ax: Axes) -> tuple[float, float]:
    """Return width and height of the axes in inches, as they are before a layout engine moves them."""
    box, dpi = ax.get_window_extent(), pixels_per_inch(ax)
    return box.width / dpi, box.height / dpi


def points_per_unit(ax: Axes) -> float:
    """Return how many points one unit of the y axis takes up."""
    bottom, top = ax.get_ylim()
    return inches(ax)[1] * 72 / abs(top - bottom)


def spread(positions: npt.NDArray[np.float64], *, apart: float) -> npt.NDArray[np.float64]:
    """Move sorted positions as little as is needed for neighbors to be `apart`.

    Examples
    --------
    >>> spread(np.array([0.0, 1.0, 9.0]), apart=2.0)
    array([-0.5,  1.5,  9. ])
    """
    groups = [[position] for position in positions.astype(float)]
    starts = [float(position) for position in positions]
    index = 0
    while index + 1 < len(groups):
        if starts[index] + apart * len(groups[index]) > starts[index + 1]:
            groups[index] += groups.pop(index + 1)
            starts.pop(index + 1)
            starts[index] = float(np.mean(groups[index])) - apart * (len(groups[index]) - 1) / 2
            index = max(index - 1, 0)
        else:
            index += 1
    return np.array([start + apart * i for start, group in zip(starts, groups, strict=True) for i in range(len(group))])
