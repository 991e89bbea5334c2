"""Embedding: the rows of a view as points in the plane, at one snapshot or at all of them."""

from typing import TYPE_CHECKING

import seaborn  # noqa: F401  (registers the color map "crest")
from matplotlib.axes import Axes

from .drawing import (
    INK,
    add_legend,
    check_same_rows,
    dress_embedding,
    embedding_axes,
    find_snapshot,
    layer_text,
    legend_marks,
    row_colors,
    scatter_rows,
    snapshot_table,
    snapshot_titles,
    span,
)

if TYPE_CHECKING:
    from ..analysis import Clusters, Embedding


def embedding(
    embedding: "Embedding",
    clusters: "Clusters | None" = None,
    *,
    snapshot: int | None = None,
    epoch: int | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw the embedding of one snapshot, or of all of them, as a scatter plot.

    Parameters
    ----------
    embedding : Embedding
        The embedding.
    clusters : Clusters, optional
        Colors the rows by cluster; without them rows are colored by snapshot.
    snapshot, epoch : int, optional
        A snapshot by its number, or the last one of an epoch. By default the rows of all snapshots are drawn. Where a
        few snapshots reach far beyond the others, these have closer axes, and the label of the x axis says so.
    ax : Axes, optional
        Where to draw; by default a new figure.

    Returns
    -------
    Axes

    Raises
    ------
    ValueError
        If there is no such snapshot, or `clusters` labels other rows than the embedding has.
    """
    check_same_rows(embedding, clusters)
    table = snapshot_table(embedding.rows)
    every = epoch is None and snapshot is None
    position = None if every else find_snapshot(table, epoch=epoch, snapshot=snapshot)
    colors = row_colors(embedding, clusters)
    ax = embedding_axes(ax, embedding, position=position)
    scatter_rows(ax, embedding, colors=colors, position=position)
    when = span(table) if position is None else snapshot_titles(table)[position]
    ax.set_title(
        f"{layer_text(embedding.layer)}: {embedding.view} view, {when}",
        fontsize=11,
        color=INK,
        loc="left",
        parse_math=False,
    )
    dress_embedding(ax, embedding, position=position)
    add_legend(ax, legend_marks(embedding, clusters))
    return ax
