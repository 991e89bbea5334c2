"""Drift: a heat map of how far each channel went from its first response, over the snapshots."""

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.patches import Rectangle

from ..analysis import NamedLayer, layer_name
from .drawing import (
    MISSING,
    axes_or_new,
    draw_mesh,
    dress_mesh,
    layer_text,
    name_columns,
    points_per_unit,
    snapshot_table,
    snapshot_titles,
)

if TYPE_CHECKING:
    from ..analysis import Findings


MOST_HATCHED = 64

SMALLEST = 5.0  # points, of letters that can be read


def drift(findings: "Findings", layer: NamedLayer | str, *, order: str = "drift", ax: Axes | None = None) -> Axes:
    """Draw how far each channel of a layer went from its own response at the first snapshot.

    Parameters
    ----------
    findings : Findings
        Made by `fmcluster.diagnose`.
    layer : Layer or str
        Which layer: itself, or its name.
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
    layer = layer_name(layer)
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
    draw_mesh(
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
    dress_mesh(
        ax,
        title=f"{layer_text(layer)}: drift of {count} channels, {ended}"
        + (f", {n_dead} dead ({'hatched' if hatched else 'gray'})" if n_dead else ""),
        x="snapshot",
        y="channel" + (", by drift" if order == "drift" else ""),
    )
    ax.tick_params(axis="y", labelsize=letters)
    return ax
