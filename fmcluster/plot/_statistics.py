"""Statistics: how one of them is spread over the channels of a layer, snapshot by snapshot."""

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from .drawing import (
    FAINT,
    INK,
    RULE,
    MeasuredLayer,
    age_palette,
    brief,
    dress_curve,
    layer_text,
    new_figure,
    require_layer,
    snapshot_table,
    snapshot_titles,
    span,
    text_width,
)

Values = npt.NDArray[np.float64]

NAMES = {
    "mean": "mean",
    "std": "standard deviation",
    "min": "minimum",
    "max": "maximum",
    "zeros": "share of zeros (%)",
    "nonfinite": "count of values that are not finite",
}
AT_MOST = 20
RIDGE = 1.25
FAR = 6.0


def statistics(layer: MeasuredLayer, *, what: str | Iterable[str] = "mean") -> Figure:
    """Draw a ridge for each snapshot: a histogram over channels of one of their stored statistics.

    Parameters
    ----------
    layer : Layer
        A layer of a run, or its `gradient`.
    what : str or iterable of str, default "mean"
        ``"mean"``, ``"std"``, ``"min"``, ``"max"``, ``"zeros"`` (share) or ``"nonfinite"`` (count); several are drawn
        side by side.

    Returns
    -------
    Figure
        Not kept by pyplot: show it as the last value of a cell, or call its `savefig`. The first snapshot is at the
        top, a dark tick is the median. All ridges of a panel have the same bins and the same scale of heights. Of more
        than 20 snapshots at most 20 are drawn, evenly spread, the first and the last among them. Channels far from
        the others of all snapshots, by over 6 times the range of their middle half, are left out and counted at the
        edge: one wild snapshot would press the others into a single bin.

    Raises
    ------
    TypeError
        For what is not a layer.
    ValueError
        If there is no such statistic, or the layer has no snapshot.
    """
    require_layer(layer)
    chosen = [what] if isinstance(what, str) else list(what)
    frame = layer.statistics
    wrong = [name for name in chosen if name not in NAMES or name not in frame.columns]
    if wrong or not chosen:
        got = repr(wrong[0]) if wrong else "no statistic"
        raise ValueError(f"received what={got}; expected one or more of {', '.join(map(repr, NAMES))}: choose of these")
    table = snapshot_table(frame)
    if table.empty:
        raise ValueError(f"layer {layer.label!r} has no snapshot yet; record one with Recorder.snapshot, then draw it")
    shown = brief(len(table), at_most=AT_MOST)
    titles = snapshot_titles(table)
    part = "" if len(shown) == len(table) else f" ({len(shown)} of them drawn)"
    count = frame["channel"].nunique()
    channels = f"{count} channels" if count != 1 else "1 channel"
    title = f"{layer_text(layer.label)}: statistics of {channels} over {span(table)}{part}"
    names = max(text_width(each, size=8) for each in titles)
    side = 5.2 if len(chosen) == 1 else 3.6
    figure = new_figure(
        width=max(side * len(chosen) + names + 0.3, text_width(title, size=12) + 0.3), height=0.36 * len(shown) + 1.9
    )
    figure.set_layout_engine("constrained", wspace=0.04)
    panels = figure.subplots(1, len(chosen), sharey=True, squeeze=False).ravel()
    for panel, name in zip(panels, chosen, strict=True):
        by_snapshot = {number: part[name].to_numpy(dtype=np.float64) for number, part in frame.groupby("snapshot")}
        _draw(
            panel, [by_snapshot[table["snapshot"].iloc[index]] for index in shown], name=name, quantity=layer.quantity
        )
    panels[0].set_yticks(-np.arange(len(shown)), [titles[index] for index in shown])
    figure.suptitle(title, fontsize=12, color=INK, x=0.01, ha="left", parse_math=False)
    return figure


def _draw(ax: Axes, values: list[Values], *, name: str, quantity: str) -> None:
    finite = [each[np.isfinite(each)] for each in values]
    edges = np.linspace(0.0, 1.0, 41) if name == "zeros" else _edges(finite, whole=name == "nonfinite")
    heights = [np.histogram(each, edges)[0] for each in finite]
    highest = max(1, *(int(each.max()) for each in heights))
    colors = age_palette(len(values))
    for row, (every, each, height) in enumerate(zip(values, finite, heights, strict=True)):
        ax.stairs(
            height * (RIDGE / highest) - row,
            edges,
            baseline=-row,
            fill=True,
            fc=colors[row],
            ec="white",
            lw=0.6,
            alpha=0.92,
            zorder=2 + row,
        )
        if len(each):
            middle = np.median(each)
            ax.plot([middle, middle], [-row, -row + 0.3], color=INK, lw=1.2, zorder=40)
        _note(
            ax, row, low=int((each < edges[0]).sum()), high=int((each > edges[-1]).sum()), none=len(every) - len(each)
        )
    ax.set_xlim(edges[0], edges[-1])
    ax.set_ylim(-len(values) + 0.75, RIDGE + 0.15)
    if name == "zeros":
        ax.xaxis.set_major_formatter(PercentFormatter(1.0))
    else:
        ax.xaxis.set_major_locator(MaxNLocator(6, integer=name == "nonfinite"))
    dress_curve(
        ax,
        title="",
        x=f"{NAMES[name]} of a channel's {quantity}\nhighest bin: {highest} channel{'s' * (highest > 1)}; tick: median",
        y="",
    )
    ax.grid(visible=False)
    ax.spines["left"].set_visible(False)
    ax.tick_params(axis="y", length=0)
    if edges[0] < 0 < edges[-1]:
        ax.axvline(0, color=RULE, lw=0.8, zorder=1)


def _note(ax: Axes, row: int, *, low: int, high: int, none: int) -> None:
    """Count, at the edges of a ridge, the channels that it leaves out."""
    right = ", ".join([f"{high} beyond"] * (high > 0) + [f"{none} without value"] * (none > 0))
    for text, index, align in ((f"{low} below" if low else "", 0.0, "left"), (right, 1.0, "right")):
        if text:
            ax.text(
                index,
                -row + 0.08,
                text,
                transform=ax.get_yaxis_transform(),
                ha=align,
                va="bottom",
                fontsize=7,
                color=FAINT,
                zorder=60,
            )


def _edges(values: list[Values], *, whole: bool) -> Values:
    """Return bins for all ridges, wide enough for what is not far from the rest."""
    known = [each for each in values if len(each)]
    if not known:
        return np.linspace(0.0, 1.0, 11)
    together = np.concatenate(known)
    first, third = np.percentile(together, [25, 75])
    # Where half of the channels agree, as on a share of zeros, there is no spread to judge the others by.
    reach = FAR * (third - first) if third > first and not whole else np.inf
    near = together[(together >= first - reach) & (together <= third + reach)]
    low, high = float(near.min()), float(near.max())
    if whole:
        step = max(1, int(np.ceil((high - low + 1) / 60)))
        return np.arange(low - step, high + 2 * step + 1, step) - 0.5
    if high - low <= 1e-12 * max(abs(low), abs(high)):
        margin = 0.5 * abs(low) or 0.5
        return np.linspace(low - margin, low + margin, 12)
    count = int(np.clip(2.5 * np.sqrt(np.mean([len(each) for each in known])), 12, 60))
    return np.linspace(low, high, count + 1)
