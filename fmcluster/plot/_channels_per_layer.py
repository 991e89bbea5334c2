"""What each layer's channels are worth, and when each layer has converged."""

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import PercentFormatter
from matplotlib.transforms import ScaledTranslation, Transform

from ._curves import LINE, dress_curve
from ._heatmaps import name_columns, write_values
from .drawing import (
    FAINT,
    INK,
    MISSING,
    RULE,
    axes_or_new,
    color_map,
    find_snapshot,
    inches,
    points_per_unit,
    snapshot_table,
    snapshot_titles,
    span,
    text_width,
)

if TYPE_CHECKING:
    from ..analysis import Findings

# (column, color, name in the legend)
SHARES = (
    ("distinct", LINE, "distinct"),
    ("grouped", "#de8f05", "in groups that respond alike"),
    ("dead", "#4d4d4d", "dead: constant over the probe"),
)
RANK = "#ece133"
CONVERGED = "#d55e00"
ROW = 0.3
WRITTEN = 14
ENOUGH_PLACES = 2  # for each channel, as `diagnose` has it before it judges by the rank


def channels_per_layer(
    findings: "Findings", *, epoch: int | None = None, snapshot: int | None = None, ax: Axes | None = None
) -> Axes:
    """Draw how many channels of each layer are distinct, respond like another one, or are dead.

    Parameters
    ----------
    findings : Findings
        Made by `fmcluster.diagnose`.
    epoch, snapshot : int, optional
        The last snapshot of an epoch, or a snapshot by its number. By default the last one.
    ax : Axes, optional
        Where to draw: on a figure of constrained layout, which makes room for the table on the right. By default a
        new figure.

    Returns
    -------
    Axes
        A bar for each layer, the first at the top, in shares of its channels; the counts stand beside it. A diamond
        marks the effective rank as a share of the number of channels. It cannot be higher than the number of places
        that it was measured at, which stands beside it too; where these are fewer than two for each channel, it says
        little of the layer, and the diamond is hollow.

    Raises
    ------
    ValueError
        If both are given, or there is no such epoch or snapshot.
    """
    table = snapshot_table(findings.frame)
    position = find_snapshot(table, epoch=epoch, snapshot=snapshot)
    number = int(table["snapshot"].iloc[position])
    names = findings.layers["layer"].tolist()
    counts = _counts(findings, snapshot=number).loc[names]
    ranks = findings.rows("effective_rank")
    ranks = ranks[ranks["snapshot"] == number].set_index("layer").loc[names]
    width = counts["channels"].to_numpy(dtype=np.float64)
    rank = ranks["value"].to_numpy(dtype=np.float64)

    ax = _rows(ax, names, width=8.4, foot=1.9)
    size = _size(ax)
    places, begun = np.arange(len(names)) + 0.5, np.zeros(len(names))
    for column, color, _ in SHARES:
        share = counts[column].to_numpy(dtype=np.float64) / width
        ax.barh(places, share, left=begun, height=0.72, color=color, label=column)
        begun = begun + share
    seen = findings.layers["places"].to_numpy(dtype=np.float64)
    enough = seen >= ENOUGH_PLACES * width
    for which, color, gid in ((enough, RANK, "rank"), (~enough, "white", "rank of few places")):
        if which.any():
            style: dict[str, Any] = {"marker": "D", "ms": 0.75 * size, "mfc": color, "mec": INK, "mew": 0.8}
            ax.plot((rank / width)[which], places[which], ls="", **style, clip_on=False, gid=gid)
    groups = [_grouped(*pair) for pair in zip(counts["grouped"], counts["groups"], strict=True)]
    _write_column(ax, "distinct", counts["distinct"].map(str).tolist(), at=46)
    _write_column(ax, "in groups", groups, at=112)
    _write_column(ax, "dead", counts["dead"].map(str).tolist(), at=142)
    _write_column(ax, "rank", [f"{value:.1f}" for value in rank], at=180)
    _write_column(ax, "of", ranks["evidence"].map(str).tolist(), at=190, align="left")
    ax.set_xlim(0, 1)
    ax.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    marks: list[Patch | Line2D] = [Patch(color=color, label=label) for _, color, label in SHARES]
    diamond: dict[str, Any] = {"ls": "", "marker": "D", "ms": 6, "mec": INK, "mew": 0.8}
    marks.append(Line2D([], [], **diamond, mfc=RANK, label="effective rank"))
    if not enough.all():
        few = f"effective rank at fewer than {ENOUGH_PLACES} places a channel: says little"
        marks.append(Line2D([], [], **diamond, mfc="white", label=few))
    ax.legend(
        handles=marks,
        loc="upper left",
        bbox_to_anchor=(0, 0),
        bbox_transform=_lowered(ax, by=0.45),
        frameon=False,
        fontsize=8,
        ncols=2,
        borderpad=0,
    )
    dress_curve(
        ax,
        title=f"Channels of each layer at {snapshot_titles(table)[position]}",
        x="share of the layer's channels (%)",
        y="",
    )
    ax.set_title(ax.get_title(loc="left"), fontsize=11, color=INK, loc="left", parse_math=False, pad=20)
    ax.grid(visible=False)
    ax.tick_params(axis="y", labelsize=size, length=0)
    return ax


def convergence(findings: "Findings", *, ax: Axes | None = None) -> Axes:
    """Draw how alike each layer is to its own last snapshot, and from when on it has converged.

    Parameters
    ----------
    findings : Findings
        Made by `fmcluster.diagnose`, of two snapshots or more.
    ax : Axes, optional
        Where to draw: on a figure of constrained layout, which makes room for the table on the right. By default a
        new figure.

    Returns
    -------
    Axes
        With a mesh of layers x snapshots, the first layer at the top. Right of the thick line a layer has converged: its
        CKA stays at or above its level. Beside it stand when that is, the level, and the floor: the CKA of two random
        halves of its channels. Gray is what is not defined.

    Raises
    ------
    ValueError
        If there are fewer than two snapshots.
    """
    table = snapshot_table(findings.frame)
    if len(table) < 2:
        raise ValueError(f"received findings of {len(table)} snapshot; expected 2 or more: record more snapshots")
    layers = findings.layers.set_index("layer")
    numbers = table["snapshot"].tolist()
    values = findings.rows("cka_to_last").set_index(["layer", "snapshot"])["value"].unstack()
    drawn = values.reindex(index=layers.index, columns=numbers).to_numpy(dtype=np.float64)
    since = [None if pd.isna(one) else numbers.index(int(one)) for one in layers["converged"]]

    ax = _rows(ax, layers.index.tolist(), width=float(np.clip(0.55 * len(numbers), 3.6, 9.0)) + 3.4, foot=2.0)
    size = _size(ax)
    lowest = min(0.0, float(np.nanmin(drawn, initial=0.0)))
    mesh = ax.pcolormesh(
        np.ma.masked_invalid(drawn),
        norm=Normalize(lowest, 1),
        cmap=color_map("mako"),
        rasterized=drawn.size > 5000,
    )
    ax.set_facecolor(MISSING)
    if len(numbers) <= WRITTEN and size >= 7:
        write_values(ax, drawn, dark_below=lowest + 0.6 * (1 - lowest))
    edge = np.repeat([len(numbers) if place is None else place for place in since], 2)
    along = np.repeat(np.arange(len(since) + 1), 2)[1:-1]
    for color, weight in (("white", 5.0), (CONVERGED, 2.5)):
        ax.plot(edge, along, color=color, lw=weight, clip_on=False, solid_joinstyle="miter")
    titles = snapshot_titles(table)
    dates = ["not converged" if place is None else titles[place] for place in since]
    _write_column(ax, "converged from", dates, at=10, align="left")
    reach = max(135.0, 45 + 72 * max(text_width(date, size=size) for date in dates))
    _write_column(ax, "at CKA of", [f"{level:.3f}" for level in layers["level"]], at=reach)
    _write_column(ax, "floor", ["none" if np.isnan(f) else f"{f:.3f}" for f in layers["floor"]], at=reach + 35)
    dress_curve(ax, title=f"CKA of each layer to its last snapshot, {span(table)}", x="snapshot", y="")
    ax.set_title(ax.get_title(loc="left"), fontsize=11, color=INK, loc="left", parse_math=False, pad=20)
    ax.grid(visible=False)
    ax.tick_params(labelsize=size, length=0)
    ax.spines[:].set_visible(False)
    name_columns(ax, snapshot_titles(table, separator="\n"))
    figure = ax.get_figure()
    assert figure is not None
    # A layout engine adds the room that the names of snapshots take up; without one it must be asked for.
    room = 0.1 if figure.get_layout_engine() is not None else 0.65
    scale = figure.colorbar(mesh, ax=ax, location="bottom", aspect=40, shrink=0.8, pad=room / max(inches(ax)[1], 1.0))
    scale.set_label("CKA to the last snapshot (1: alike); converged right of the thick line", fontsize=8, color=FAINT)
    scale.ax.tick_params(labelsize=8, color=RULE, labelcolor=INK)
    scale.outline.set_visible(False)
    return ax


def _counts(findings: "Findings", *, snapshot: int) -> pd.DataFrame:
    """Return ``channels, distinct, grouped, groups, dead`` of each layer at a snapshot."""
    now = findings.channels[findings.channels["snapshot"] == snapshot]
    group = now["duplicate_group"].mask(now["dead"])
    marked = now.assign(group=group, grouped=group.notna())
    counts = marked.groupby("layer").agg(
        channels=("channel", "size"), grouped=("grouped", "sum"), groups=("group", "nunique"), dead=("dead", "sum")
    )
    return counts.assign(distinct=counts["channels"] - counts["grouped"] - counts["dead"])


def _grouped(channels: int, groups: int) -> str:
    return f"{channels} in {groups}" if channels else "0"


def _rows(ax: Axes | None, names: list[str], *, width: float, foot: float) -> Axes:
    """Return axes with a row for each layer, the first at the top, and its name to the left of it."""
    margin = max(text_width(name, size=8) for name in names)
    ax = axes_or_new(ax, width=width + margin, height=ROW * max(len(names), 4) + foot)
    ax.set_ylim(len(names), 0)
    ax.set_yticks(np.arange(len(names)) + 0.5, names, parse_math=False)
    return ax


def _size(ax: Axes) -> float:
    """Return the size of letters, in points, that fits the rows."""
    return float(np.clip(0.6 * points_per_unit(ax), 3.0, 8.0))


def _write_column(ax: Axes, heading: str, cells: list[str], *, at: float, align: str = "right") -> None:
    """Write a column of a table, `at` points to the right of the axes, a cell for each row."""
    size = _size(ax)
    across = ax.get_yaxis_transform()
    for place, text in enumerate([heading, *cells]):
        where = (1.0, 0.0) if place == 0 else (1.0, place - 0.5)
        ax.annotate(
            text,
            where,
            xycoords=across,
            xytext=(at, 3 if place == 0 else 0),
            textcoords="offset points",
            ha=align,
            va="bottom" if place == 0 else "center",
            fontsize=size,
            color=FAINT if place == 0 else INK,
            annotation_clip=False,
            parse_math=False,
        )


def _lowered(ax: Axes, *, by: float) -> Transform:
    """Return the transform of the axes, moved down by so many inches."""
    figure = ax.get_figure(root=True)
    assert figure is not None
    return ax.transAxes + ScaledTranslation(0, -by, figure.dpi_scale_trans)
