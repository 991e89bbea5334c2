"""Curves: the title, labels and ticks of pictures with plain axes."""

from collections.abc import Sequence
from math import ceil
from textwrap import fill

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes

from ._figures import FAINT, INK, RULE, inches, text_width
from ._snapshots import brief


def dress_curve(ax: Axes, *, title: str, x: str, y: str, legend: Sequence[Artist] = ()) -> None:
    """Give the axes a title and names, and between title and picture a legend of these artists."""
    columns, room = 1, 0.0
    if legend:
        widest = max(text_width(str(entry.get_label()), size=8) for entry in legend) + 0.55
        columns = min(len(legend), max(1, int(inches(ax)[0] / widest)))
        room = 14.0 * ceil(len(legend) / columns)
        ax.legend(
            handles=legend,
            loc="lower left",
            bbox_to_anchor=(0, 1),
            ncols=columns,
            frameon=False,
            fontsize=8,
            labelcolor=INK,
            borderaxespad=0.1,
            borderpad=0.2,
            columnspacing=1.4,
        )
    # Names beside the axes take up about a quarter of what a panel has.
    width, height = (length / 0.77 for length in inches(ax))
    ax.set_title(_wrap(title, size=11, to=width), fontsize=11, color=INK, loc="left", parse_math=False, pad=6 + room)
    ax.set_xlabel(_wrap(x, size=9, to=width), fontsize=9, color=FAINT)
    ax.set_ylabel(_wrap(y, size=9, to=height), fontsize=9, color=FAINT)
    ax.tick_params(labelsize=8, color=RULE, labelcolor=INK)
    ax.spines[["top", "right"]].set_visible(False)
    ax.spines[["left", "bottom"]].set_color(RULE)
    ax.grid(axis="y", color="#ececec", lw=0.7)
    ax.set_axisbelow(True)


def _wrap(text: str, *, size: float, to: float) -> str:
    """Break lines of `text`, in a font of `size` points, that are longer than `to` inches."""
    letters = max(12, int(to / text_width("x", size=size)))
    return "\n".join(fill(line, letters, break_on_hyphens=False) for line in text.splitlines())


def brief_ticks(ax: Axes, titles: list[str]) -> list[int]:
    """Return the positions of titles that have room beside one another along the x axis, first and last among them."""
    between = max(text_width(title, size=8) for title in titles) / (inches(ax)[0] / len(titles))
    for at_most in range(len(titles), 2, -1):
        indices = brief(len(titles), at_most=at_most)
        if np.diff(indices).min() >= between:
            return indices
    return brief(len(titles), at_most=2)
