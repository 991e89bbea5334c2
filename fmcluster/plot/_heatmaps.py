"""Heat maps: layers against layers, snapshots against snapshots, channels over snapshots."""

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.patches import Rectangle

from .drawing import (
    FAINT,
    INK,
    MISSING,
    RULE,
    axes_or_new,
    brief,
    color_map,
    find_snapshot,
    inches,
    points_per_unit,
    snapshot_table,
    snapshot_titles,
    text_width,
)

if TYPE_CHECKING:
    from ..analysis import Findings, Similarity

ROWS_WITH_NAMES = 40
MOST_HATCHED = 64
SMALLEST = 5.0  # points, of letters that can be read

_NAMES = {
    "cka": "CKA",
    "rbf_cka": "RBF CKA",
    "procrustes": "Procrustes similarity",
    "svcca": "SVCCA",
    "pwcca": "PWCCA",
}


def similarity(
    similarity: "Similarity", *, layer: str | None = None, snapshot: int | None = None, ax: Axes | None = None
) -> Axes:
    """Draw how alike layers are at one snapshot, or one layer at all snapshots.

    Parameters
    ----------
    similarity : Similarity
        Made by `fmcluster.similarity`, of one run or of two: then rows are the first.
    layer : str, optional
        Draw this layer at every snapshot against itself at every snapshot.
    snapshot : int, optional
        Draw every layer against every layer at this snapshot, by its number; by default the last that both sides
        have, where no `layer` is given.
    ax : Axes, optional
        Where to draw; by default a new figure.

    Returns
    -------
    Axes
        With a mesh of the values, the first row at the top. Gray is what is not defined.

    Raises
    ------
    ValueError
        If both are given, or there is no such layer or snapshot.
    """
    if layer is not None and snapshot is not None:
        raise ValueError(f"received layer={layer!r} and snapshot={snapshot}; expected one of them: leave one out")
    what = _NAMES[similarity.metric]
    if layer is None:
        if snapshot is None:
            snapshot = int(np.intersect1d(similarity.rows["snapshot"], similarity.columns["snapshot"]).max())
        table = similarity.between_layers(snapshot)
        sides = [[str(name) for name in labels] for labels in (table.index, table.columns)]
        times = snapshot_table(similarity.rows)
        when = snapshot_titles(times)[find_snapshot(times, epoch=None, snapshot=snapshot)]
        title, axis = f"{what} between layers, {when}", "layer"
    else:
        table = similarity.between_snapshots(layer)
        sides = [
            snapshot_titles(snapshot_table(side[side["layer"] == layer]))
            for side in (similarity.rows, similarity.columns)
        ]
        title, axis = f"{layer}: {what} between snapshots", "snapshot"
    values = table.to_numpy(dtype=np.float64)
    margin = max(text_width(name, size=8) for name in sides[0])
    size = float(np.clip(0.34 * max(values.shape), 3.2, 9.0))
    ax = axes_or_new(ax, width=size + margin + 1.6, height=size + 1.2)
    lowest = min(0.0, float(np.nanmin(values, initial=0.0)))
    _mesh(ax, values, norm=Normalize(lowest, 1), bar=f"{what} (1: alike)", palette="mako")
    if len(values) <= 12 and values.shape[1] <= 12:
        write_values(ax, values, dark_below=lowest + 0.6 * (1 - lowest))
    _name_rows(ax, sides[0])
    name_columns(ax, sides[1])
    _dress(ax, title=title, x=axis, y=axis)
    ax.set_aspect("equal")
    return ax


def drift(findings: "Findings", layer: str, *, order: str = "drift", ax: Axes | None = None) -> Axes:
    """Draw how far each channel of a layer went from its own response at the first snapshot.

    Parameters
    ----------
    findings : Findings
        Made by `fmcluster.diagnose`.
    layer : str
        Which layer.
    order : {"drift", "index"}
        Channels from the one that went farthest at the last snapshot to the one that stayed, or by number.
    ax : Axes, optional
        Where to draw; by default a new figure.

    Returns
    -------
    Axes
        With a mesh of channels x snapshots, the first channel at the top; where a channel is dead, it is gray.

    Raises
    ------
    ValueError
        For a layer that was not diagnosed, or an unknown order.
    """
    known = findings.channels["layer"].unique().tolist()
    if layer not in known:
        raise ValueError(f"received layer={layer!r}; expected one of {', '.join(map(str, known))}: choose one of these")
    if order not in ("drift", "index"):
        raise ValueError(f"received order={order!r}; expected 'drift' or 'index'")
    mine = findings.channels[findings.channels["layer"] == layer]
    values = mine.pivot_table(index="channel", columns="snapshot", values="drift", dropna=False)
    dead = mine.pivot_table(index="channel", columns="snapshot", values="dead", aggfunc="max").astype(bool)
    if order == "drift":
        ranked = values.iloc[:, -1].fillna(-1).sort_values(ascending=False, kind="stable").index
        values, dead = values.loc[ranked], dead.loc[ranked]
    frame = findings.frame
    titles = snapshot_titles(snapshot_table(frame[frame["layer"] == layer]), separator="\n")
    count, snapshots = values.shape
    ax = axes_or_new(
        ax, width=float(np.clip(0.55 * snapshots + 2.4, 5.0, 14.0)), height=float(np.clip(0.17 * count + 1.4, 3.6, 9.5))
    )
    highest = max(1.0, float(np.nanmax(values.to_numpy(), initial=0.0)))
    _mesh(
        ax,
        values.to_numpy(dtype=np.float64),
        norm=Normalize(0, highest),
        bar="distance over the larger norm",
        palette="mako_r",
    )
    hatched = count <= MOST_HATCHED
    for row, column in zip(*np.nonzero(dead.to_numpy()), strict=True):
        ax.add_patch(Rectangle((column, row), 1, 1, fc=MISSING, ec="none", hatch="xx" if hatched else None))
    name_columns(ax, titles)
    letters = min(8.0, 0.85 * points_per_unit(ax))
    ax.set_yticks([])
    if letters >= SMALLEST:
        ax.set_yticks(np.arange(count) + 0.5, [str(channel) for channel in values.index])
    n_dead = int(dead.iloc[:, -1].sum())
    ended = f"median {np.nanmedian(values.iloc[:, -1]):.2f} at the last snapshot"
    _dress(
        ax,
        title=f"{layer}: drift of {count} channels, {ended}"
        + (f", {n_dead} dead ({'hatched' if hatched else 'gray'})" if n_dead else ""),
        x="snapshot",
        y="channel" + (", by drift" if order == "drift" else ""),
    )
    ax.tick_params(axis="y", labelsize=letters)
    return ax


def _mesh(ax: Axes, values: npt.NDArray[np.float64], *, norm: Normalize, bar: str, palette: str) -> None:
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


def write_values(ax: Axes, values: npt.NDArray[np.float64], *, dark_below: float) -> None:
    """Write each value into its cell, in white where it is below `dark_below`."""
    for (row, column), value in np.ndenumerate(values):
        if np.isfinite(value):
            color = "white" if value < dark_below else INK
            ax.text(column + 0.5, row + 0.5, f"{value:.2f}", ha="center", va="center", fontsize=7, color=color)


def _name_rows(ax: Axes, names: list[str]) -> None:
    shown = brief(len(names), at_most=ROWS_WITH_NAMES) if len(names) > 1 else [0]
    ax.set_yticks([place + 0.5 for place in shown], [names[place] for place in shown], parse_math=False)


def name_columns(ax: Axes, names: list[str]) -> None:
    """Name columns below the axes, as many as there is room for, upright where that is little."""
    longest = max(text_width(name, size=8) for name in names)
    shown = brief(len(names), at_most=ROWS_WITH_NAMES if longest < 0.4 else 14) if len(names) > 1 else [0]
    places, texts = [place + 0.5 for place in shown], [names[place] for place in shown]
    upright = 1.1 * longest * len(shown) > inches(ax)[0]
    ax.set_xticks(places, texts, parse_math=False, rotation=90 if upright else 0, ha="center", va="top")


def _dress(ax: Axes, *, title: str, x: str, y: str) -> None:
    ax.set_title(title, fontsize=11, color=INK, loc="left", parse_math=False)
    ax.set_xlabel(x, fontsize=9, color=FAINT)
    ax.set_ylabel(y, fontsize=9, color=FAINT)
    ax.tick_params(labelsize=8, color=RULE, labelcolor=INK, length=0)
    for side in ax.spines.values():
        side.set_visible(False)
