"""Channels per layer: how many are distinct, respond the same way, or are dead."""

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import PercentFormatter

from ._trajectories import PLAIN
from .drawing import (
    INK,
    dress_curve,
    find_snapshot,
    layer_rows,
    letter_size,
    lowered,
    snapshot_table,
    snapshot_titles,
    write_column,
)

if TYPE_CHECKING:
    from ..analysis import Findings


# (column, color, name in the legend)
SHARES = (
    ("distinct", PLAIN, "distinct"),
    ("grouped", "#de8f05", "in groups that respond the same way"),
    ("dead", "#4d4d4d", "dead: constant over the probe"),
)

RANK = "#ece133"

ENOUGH_POSITIONS = 2  # for each channel, as `diagnose` has it before it judges by the rank


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
        marks the effective rank as a share of the number of channels. It cannot be higher than the number of positions
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

    ax = layer_rows(ax, names, width=8.4, foot=1.9)
    size = letter_size(ax)
    indices, begun = np.arange(len(names)) + 0.5, np.zeros(len(names))
    for column, color, _ in SHARES:
        share = counts[column].to_numpy(dtype=np.float64) / width
        ax.barh(indices, share, left=begun, height=0.72, color=color, label=column)
        begun = begun + share
    seen = findings.layers["positions"].to_numpy(dtype=np.float64)
    enough = seen >= ENOUGH_POSITIONS * width
    for which, color, gid in ((enough, RANK, "rank"), (~enough, "white", "rank of few positions")):
        if which.any():
            style: dict[str, Any] = {"marker": "D", "ms": 0.75 * size, "mfc": color, "mec": INK, "mew": 0.8}
            ax.plot((rank / width)[which], indices[which], ls="", **style, clip_on=False, gid=gid)
    groups = [_grouped(*pair) for pair in zip(counts["grouped"], counts["groups"], strict=True)]
    write_column(ax, heading="distinct", cells=counts["distinct"].map(str).tolist(), at=46)
    write_column(ax, heading="in groups", cells=groups, at=112)
    write_column(ax, heading="dead", cells=counts["dead"].map(str).tolist(), at=142)
    write_column(ax, heading="rank", cells=[f"{value:.1f}" for value in rank], at=180)
    write_column(ax, heading="of", cells=ranks["evidence"].map(str).tolist(), at=190, align="left")
    ax.set_xlim(0, 1)
    ax.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    marks: list[Patch | Line2D] = [Patch(color=color, label=label) for _, color, label in SHARES]
    diamond: dict[str, Any] = {"ls": "", "marker": "D", "ms": 6, "mec": INK, "mew": 0.8}
    marks.append(Line2D([], [], **diamond, mfc=RANK, label="effective rank"))
    if not enough.all():
        few = f"effective rank at fewer than {ENOUGH_POSITIONS} positions a channel: says little"
        marks.append(Line2D([], [], **diamond, mfc="white", label=few))
    ax.legend(
        handles=marks,
        loc="upper left",
        bbox_to_anchor=(0, 0),
        bbox_transform=lowered(ax, by=0.45),
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
