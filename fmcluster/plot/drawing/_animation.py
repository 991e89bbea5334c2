"""Animations: what moving pictures share, the animation itself and the timeline under it."""

from typing import Literal

from matplotlib.animation import FuncAnimation
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from ._figures import FAINT, INK, RULE, inch_axes


class Animation(FuncAnimation):
    """A `matplotlib.animation.FuncAnimation` that may be dropped before it was shown."""

    def __del__(self) -> None:
        """Say nothing: matplotlib would warn of an animation that was neither shown nor saved."""


def draw_timeline(
    figure: Figure, titles: list[str], *, left: float, top: float, width: float, count: int | None = None
) -> Line2D:
    """Draw a line with a dot for each snapshot; return the mark that moves along it."""
    count = count or len(titles)
    ax: Axes = inch_axes(figure, left=left, top=top, width=width, height=0.2)
    ax.set_axis_off()
    ax.set_xlim(-0.02 * (count - 1), 1.02 * (count - 1))
    ax.set_ylim(-1, 1)
    ax.plot([0, count - 1], [0, 0], color=RULE, lw=1.2, zorder=1)
    ax.plot(range(count), [0] * count, ls="", marker="o", ms=3.5, color=FAINT, zorder=2)
    if titles:
        ends: tuple[tuple[int, Literal["left", "right"]], ...] = ((0, "left"), (count - 1, "right"))
        for index, side in ends:
            ax.text(index, -1.1, titles[index], fontsize=8, color=FAINT, ha=side, va="top")
    (cursor,) = ax.plot([0], [0], ls="", marker="o", ms=8, color=INK, zorder=3, clip_on=False, gid="now")
    return cursor
