"""Embedding grid: the rows of a view as points in the plane, a panel for each snapshot."""

from math import ceil
from typing import TYPE_CHECKING

import seaborn  # noqa: F401  (registers the color map "crest")
from matplotlib.figure import Figure

from .drawing import (
    FAINT,
    INK,
    brief,
    check_same_rows,
    dress_embedding,
    embedding_limits,
    layer_text,
    legend_marks,
    new_figure,
    ratio_of,
    row_colors,
    scatter_rows,
    snapshot_table,
    snapshot_titles,
    span,
    text_width,
)

if TYPE_CHECKING:
    from ..analysis import Clusters, Embedding


def embedding_grid(embedding: "Embedding", clusters: "Clusters | None" = None) -> Figure:
    """Draw one embedding per snapshot, all in the same colors and on the same axes.

    Snapshots that reach far beyond the others have wider axes, and say so.

    Parameters
    ----------
    embedding : Embedding
        The embedding.
    clusters : Clusters, optional
        Colors the rows by cluster; without them rows are colored by snapshot.

    Returns
    -------
    Figure
        Not kept by pyplot: show it as the last value of a cell, or call its `savefig`. Of more than 20 snapshots
        at most 20 are drawn, evenly spread, the first and the last among them.

    Raises
    ------
    ValueError
        If `clusters` labels other rows than the embedding has.
    """
    check_same_rows(embedding, clusters)
    table = snapshot_table(embedding.rows)
    titles = snapshot_titles(table)
    shown = brief(len(table), at_most=20)
    columns = min(len(shown), 5 if len(shown) > 9 else 3)
    rows = ceil(len(shown) / columns)
    colors = row_colors(embedding, clusters)
    part = "" if len(shown) == len(table) else f" ({len(shown)} of them drawn)"
    title = f"{layer_text(embedding.layer)}: {embedding.view} view in {embedding.method}, {span(table)}{part}"
    # Without clusters the titles of the panels say all that a legend would.
    marks = legend_marks(embedding, clusters) if clusters is not None else []
    side = 2.5 if columns > 2 else 3.6
    height = rows * (side * ratio_of(embedding) + 0.3) + 0.9
    legend_columns = ceil(len(marks) / max(1, int(height / 0.2)))
    width = columns * side + 0.3 + 1.3 * legend_columns
    figure = new_figure(width=max(width, text_width(title, size=12) + 0.3), height=height)
    figure.set_layout_engine("constrained")
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    apart = embedding_limits(embedding)
    for panel, position in zip(panels, shown, strict=False):
        scatter_rows(panel, embedding, colors=colors, position=position, shrink=0.5)
        wider = f" (axes {apart.times:.2g} times as wide)" if position in apart.apart else ""
        panel.set_title(titles[position] + wider, fontsize=9, color=INK, loc="left", pad=3)
        dress_embedding(panel, embedding, position=position)
        panel.set_xlabel("")
        panel.set_ylabel("")
    for panel in panels[len(shown) :]:
        panel.set_axis_off()
    figure.suptitle(title, fontsize=12, color=INK, x=0.01, ha="left", parse_math=False)
    figure.supxlabel(str(embedding.faithfulness), fontsize=8, color=FAINT)
    if marks:
        figure.legend(handles=marks, loc="outside right upper", frameon=False, fontsize=8, ncols=legend_columns)
    return figure
