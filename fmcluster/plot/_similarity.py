"""Similarity: a heat map of layers against layers, or of one layer's snapshots against its snapshots."""

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Normalize

from ..analysis import NamedLayer, layer_name
from .drawing import (
    axes_or_new,
    draw_mesh,
    dress_mesh,
    find_snapshot,
    layer_text,
    name_columns,
    name_rows,
    scale_start,
    snapshot_table,
    snapshot_titles,
    text_width,
    write_values,
)

if TYPE_CHECKING:
    from ..analysis import Similarity


_NAMES = {
    "cka": "CKA",
    "rbf_cka": "RBF CKA",
    "procrustes": "Procrustes similarity",
    "svcca": "SVCCA",
    "pwcca": "PWCCA",
}


def similarity(
    similarity: "Similarity",
    *,
    layer: NamedLayer | str | None = None,
    epoch: int | None = None,
    snapshot: int | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw how similar layers are at one snapshot, or one layer at all snapshots.

    Parameters
    ----------
    similarity : Similarity
        Made by `fmcluster.similarity`, of one run or of two: then rows are the first.
    layer : Layer or str, optional
        Draw this layer, or the one of this name, at every snapshot against itself at every snapshot.
    epoch, snapshot : int, optional
        Draw every layer against every layer at the last snapshot of this epoch, or at the snapshot of this number; by
        default at the last that both sides have, where no `layer` is given.
    ax : Axes, optional
        Where to draw; by default a new figure.

    Returns
    -------
    Axes
        With a mesh of the values, the first row at the top. Gray is what is not defined. The scale begins at 0; where
        all values are over 0.5, a tenth under the least of them.

    Raises
    ------
    ValueError
        If more than one of the three is given, or there is no such layer or snapshot.
    """
    layer = None if layer is None else layer_name(layer)
    for name, value in (("epoch", epoch), ("snapshot", snapshot)):
        if layer is not None and value is not None:
            raise ValueError(f"received layer={layer!r} and {name}={value}; expected one of them: leave one out")
    what = _NAMES[similarity.metric]
    if layer is None:
        times = snapshot_table(similarity.rows)
        shared = times[times["snapshot"].isin(similarity.columns["snapshot"])].reset_index(drop=True)
        at = int(shared["snapshot"].iloc[find_snapshot(shared, epoch=epoch, snapshot=snapshot)])
        table = similarity.between_layers(at)
        sides = [[layer_text(str(name)) for name in labels] for labels in (table.index, table.columns)]
        when = snapshot_titles(times)[find_snapshot(times, epoch=None, snapshot=at)]
        title, axis = f"{what} between layers, {when}", "layer"
    else:
        table = similarity.between_snapshots(layer)
        sides = [
            snapshot_titles(snapshot_table(side[side["layer"] == layer]))
            for side in (similarity.rows, similarity.columns)
        ]
        title, axis = f"{layer_text(layer)}: {what} between snapshots", "snapshot"
    values = table.to_numpy(dtype=np.float64)
    margin = max(text_width(name, size=8) for name in sides[0])
    size = float(np.clip(0.34 * max(values.shape), 3.2, 9.0))
    under = max(text_width(name, size=8) for name in sides[1])
    foot = under if 1.1 * under * len(sides[1]) > size else 0.0  # they stand upright
    ax = axes_or_new(ax, width=size + margin + 1.6, height=size + 1.2 + max(0.0, foot - 0.6))
    lowest = scale_start(values)
    draw_mesh(ax, values, norm=Normalize(lowest, 1), bar=f"{what} (1: the same)", palette="mako")
    if len(values) <= 12 and values.shape[1] <= 12:
        write_values(ax, values, dark_below=lowest + 0.6 * (1 - lowest))
    name_rows(ax, sides[0])
    name_columns(ax, sides[1])
    dress_mesh(ax, title=title, x=axis, y=axis)
    ax.set_aspect("equal")
    return ax
