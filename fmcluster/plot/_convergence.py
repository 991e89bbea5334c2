"""Convergence: the CKA of each layer to its own last snapshot, and from when on it has converged."""

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import Normalize

from .drawing import (
    FAINT,
    INK,
    MISSING,
    RULE,
    color_map,
    dress_curve,
    inches,
    layer_rows,
    letter_size,
    name_columns,
    snapshot_table,
    snapshot_titles,
    span,
    text_width,
    write_column,
    write_values,
)

if TYPE_CHECKING:
    from ..analysis import Findings


CONVERGED = "#d55e00"

WRITTEN = 14


def convergence(findings: "Findings", *, ax: Axes | None = None) -> Axes:
    """Draw how similar each layer is to its own last snapshot, and from when on it has converged.

    Parameters
    ----------
    findings : Findings
        Made by `fmcluster.diagnose`; of one snapshot, no layer has converged.
    ax : Axes, optional
        Where to draw: on a figure of constrained layout, which makes room for the table on the right. By default a
        new figure.

    Returns
    -------
    Axes
        With a mesh of layers x snapshots, the first layer at the top. Right of the thick line a layer has converged:
        its CKA stays at or above its level. Beside it stand when that is, the level, and the noise floor: the CKA of
        two random halves of its channels. Gray is what is not defined.
    """
    table = snapshot_table(findings.frame)
    layers = findings.layers.set_index("layer")
    numbers = table["snapshot"].tolist()
    values = findings.rows("cka_to_last").set_index(["layer", "snapshot"])["value"].unstack()
    drawn = values.reindex(index=layers.index, columns=numbers).to_numpy(dtype=np.float64)
    since = [None if pd.isna(one) else numbers.index(int(one)) for one in layers["converged"]]

    ax = layer_rows(ax, layers.index.tolist(), width=float(np.clip(0.55 * len(numbers), 3.6, 9.0)) + 3.4, foot=2.0)
    size = letter_size(ax)
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
    edge = np.repeat([len(numbers) if ordinal is None else ordinal for ordinal in since], 2)
    along = np.repeat(np.arange(len(since) + 1), 2)[1:-1]
    for color, weight in (("white", 5.0), (CONVERGED, 2.5)):
        ax.plot(edge, along, color=color, lw=weight, clip_on=False, solid_joinstyle="miter")
    titles = snapshot_titles(table)
    dates = ["not converged" if ordinal is None else titles[ordinal] for ordinal in since]
    write_column(ax, heading="converged from", cells=dates, at=10, align="left")
    reach = max(135.0, 45 + 72 * max(text_width(date, size=size) for date in dates))
    write_column(ax, heading="at CKA of", cells=[f"{level:.3f}" for level in layers["level"]], at=reach)
    write_column(
        ax,
        heading="noise floor",
        cells=["none" if np.isnan(f) else f"{f:.3f}" for f in layers["noise_floor"]],
        at=reach + 6 + 72 * text_width("noise floor", size=size),
    )
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
    scale.set_label(
        "CKA to the last snapshot (1: the same), high wherever training stops early; converged right of the thick line",
        fontsize=8,
        color=FAINT,
    )
    scale.ax.tick_params(labelsize=8, color=RULE, labelcolor=INK)
    scale.outline.set_visible(False)
    return ax
