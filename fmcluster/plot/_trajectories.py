"""Trajectories: the path of each row of a view through the embedding, from the first snapshot to the last."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Literal

import matplotlib.patheffects as effects
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import to_rgba
from matplotlib.lines import Line2D
from matplotlib.patches import FancyArrowPatch

from .drawing import (
    INK,
    add_legend,
    check_same_rows,
    cluster_marks,
    cluster_palette,
    dress_embedding,
    embedding_axes,
    inches,
    layer_text,
    pixels_per_inch,
    snapshot_table,
    snapshot_titles,
    span,
)

if TYPE_CHECKING:
    from ..analysis import Clusters, Embedding, Findings

PLAIN = "#0173b2"
NUMBERED = 5
SHORTEST = 14.0  # points, of a step with an arrow


def trajectories(
    embedding: "Embedding",
    clusters: "Clusters | None" = None,
    *,
    rows: Iterable[int] | None = None,
    top: int = 24,
    drifted: "float | Findings | None" = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw the path of each row through the embedding; older parts of a path are fainter.

    A path starts at a hollow dot and ends at a filled one; an arrow on its longest step says which way it goes. All
    paths are drawn thin; those that moved farthest (the greatest length in the embedding) are drawn strong, and the
    first five of these are numbered.

    Parameters
    ----------
    embedding : Embedding
        An embedding of two or more snapshots.
    clusters : Clusters, optional
        Colors a path by the cluster its row is in at the last snapshot.
    rows : iterable of int, optional
        Which rows to draw, all of them strong: channels in the ``"channel"`` view, samples in the ``"sample"``
        view, positions within a snapshot (from 0) in the others. By default all.
    top : int, default 24
        How many paths are drawn strong when `rows` is left out.
    drifted : float or Findings, optional
        Leave out what moved no more than this. A number is the length of a path in the embedding, in its own units.
        Findings, made by `fmcluster.diagnose`, tell of the ``"channel"`` view what moved in truth: a channel is drawn
        if at any snapshot it drifted farther from its own response at the first than
        ``findings.thresholds.drift``. The legend says how many are drawn.
    ax : Axes, optional
        Where to draw; by default a new figure.

    Returns
    -------
    Axes
        The collection with the gid ``"strong"`` holds the segments of the strong paths, ``"thin"`` the others;
        path by path, the longest first among the strong ones.

    Raises
    ------
    ValueError
        If there is one snapshot only, no such row, `clusters` labels other rows than the embedding has, or `drifted` is
        negative, or of other channels.

    Notes
    -----
    Lengths in an embedding are approximate: the label of the x axis says how well the embedding keeps motion.
    """
    check_same_rows(embedding, clusters)
    table = snapshot_table(embedding.rows)
    if len(table) < 2:
        raise ValueError(
            "received an embedding of 1 snapshot; expected 2 or more: record more, or draw `embedding` instead"
        )
    if top < 0:
        raise ValueError(f"received top={top}; expected 0 or more: pass 0 to draw all paths thin")
    paths = embedding.by_snapshot(embedding.values).swapaxes(0, 1)
    names = _row_names(embedding)
    length = np.linalg.norm(np.diff(paths, axis=1), axis=2).sum(axis=1)
    furthest = np.argsort(-length, kind="stable")
    kept = np.ones(len(paths), bool) if rows is None else np.isin(np.arange(len(paths)), _positions(embedding, rows))
    asked = int(kept.sum())
    heading = None
    if drifted is not None:
        moved, what_moved = _moved(embedding, length, drifted)
        kept &= moved
        heading = f"{int(kept.sum())} of {asked} rows {what_moved}"
    furthest = furthest[kept[furthest]]
    strong = furthest[:top] if rows is None else furthest
    thin = np.setdiff1d(furthest, strong)

    colors = [PLAIN] * len(paths)
    ends: list[Line2D] = []
    if clusters is not None:
        palette, labels = cluster_palette(clusters.labels), clusters.by_snapshot(clusters.labels)[-1]
        colors = [palette[int(label)] for label in labels]
        drawn = labels[np.concatenate([thin, strong])]
        ends = [Line2D([], [], ls="", label="at the last snapshot:"), *cluster_marks(drawn, palette=palette)]

    ax = embedding_axes(ax, embedding)
    _draw_paths(ax, paths[thin], colors=[colors[i] for i in thin], style="thin")
    _draw_paths(ax, paths[strong], colors=[colors[i] for i in strong], style="strong")
    dress_embedding(ax, embedding)
    _point(ax, paths[strong], colors=[colors[i] for i in strong])
    _number(ax, paths[strong[:NUMBERED]], names=[names[i] for i in strong[:NUMBERED]])
    what = f"{layer_text(embedding.layer)}: paths in the {embedding.view} view, {span(table)}"
    ax.set_title(what, fontsize=11, color=INK, loc="left", parse_math=False)
    titles = snapshot_titles(table)
    marks = [
        Line2D([], [], ls="", marker="o", ms=5, mfc="white", mec=INK, label=titles[0]),
        Line2D([], [], ls="", marker="o", ms=5, color=INK, label=titles[-1]),
    ]
    numbered = min(NUMBERED, len(strong))
    longest = f"{len(strong)} longest, {numbered} numbered"
    if len(thin):
        marks.append(Line2D([], [], color=INK, lw=1.6, label=longest))
        marks.append(Line2D([], [], color=INK, lw=0.7, alpha=0.4, label=f"{len(thin)} others"))
    if heading is not None:
        marks.insert(0, Line2D([], [], ls="", label=heading))
    add_legend(ax, marks + ends)
    return ax


def _moved(
    embedding: "Embedding", length: npt.NDArray[np.float64], drifted: "float | Findings"
) -> tuple[npt.NDArray[np.bool_], str]:
    """Return which rows moved more than `drifted` says, and how that is said."""
    if isinstance(drifted, int | float | np.number):
        if not drifted >= 0:
            raise ValueError(f"received drifted={drifted}; expected 0 or more: a length of path in the embedding")
        return length > drifted, f"with\na path over {float(drifted):.3g}"
    if not hasattr(drifted, "thresholds"):
        raise TypeError(f"received drifted={drifted!r}; expected a number, or what fmcluster.diagnose(run) returned")
    least = drifted.thresholds.drift
    table = drifted.channels[drifted.channels["layer"] == embedding.layer]
    farthest = table.groupby("channel")["drift"].max()
    of_channels = embedding.identity == ["channel"]
    numbers = embedding.rows[embedding.identity[0]].to_numpy()[: len(length)]
    if not of_channels or not np.isin(numbers, farthest.index).all():
        raise ValueError(
            f"received findings of layers {drifted.layers['layer'].tolist()}, and an embedding of "
            f"the {embedding.view} view of {embedding.layer!r}; expected findings of its "
            f"channels: diagnose this layer, or pass a number"
        )
    return farthest.loc[numbers].to_numpy() > least, f"with\na drift over {least:.3g}"


def _draw_paths(
    ax: Axes,
    paths: npt.NDArray[np.float64],
    *,
    colors: list[str],
    style: Literal["thin", "strong"],
) -> None:
    """Draw paths of shape (n_paths, n_snapshots, 2) as one collection of segments, with dots at both ends."""
    if len(paths) == 0:
        return
    width, strength, mark, over = (0.7, 0.4, 2.0, 1.0) if style == "thin" else (1.6, 1.0, 5.0, 2.0)
    steps = paths.shape[1] - 1
    segments = np.stack([paths[:, :-1], paths[:, 1:]], axis=2).reshape(-1, 2, 2)
    fade = strength * np.linspace(0.25, 1.0, steps) if steps > 1 else np.array([strength])
    shades = np.array([to_rgba(color) for color in colors]).reshape(-1, 4).repeat(steps, axis=0)
    shades[:, 3] = np.tile(fade, len(paths))
    ax.add_collection(
        LineCollection(list(segments), colors=shades, linewidths=width, capstyle="round", zorder=over, gid=style),
        autolim=False,
    )
    ends = [to_rgba(color, strength) for color in colors]
    first, last = paths[:, 0], paths[:, -1]
    edge, over = 0.9 * width, over + 0.5
    ax.scatter(first[:, 0], first[:, 1], s=mark**2, fc="white", ec=ends, linewidths=edge, zorder=over)
    ax.scatter(last[:, 0], last[:, 1], s=mark**2, fc=ends, linewidths=0, zorder=over)


def _point(ax: Axes, paths: npt.NDArray[np.float64], *, colors: list[str]) -> None:
    """Put an arrow head on the middle of the longest step of each path, where that is long enough to carry one."""
    # Both axes will have the same scale, whatever it is before the picture is laid out.
    (left, right), (bottom, top) = ax.get_xlim(), ax.get_ylim()
    wide, tall = inches(ax)
    scale = 72 * min(wide / abs(right - left), tall / abs(top - bottom))
    lengths = scale * np.linalg.norm(np.diff(paths, axis=1), axis=2)
    for path, length, color in zip(paths, lengths, colors, strict=True):
        longest = int(length.argmax())
        if length[longest] >= SHORTEST:
            start, end = path[longest], path[longest + 1]
            tip = (0.45 * start + 0.55 * end, 0.44 * start + 0.56 * end)
            head = FancyArrowPatch(
                *tip,
                arrowstyle="-|>",
                mutation_scale=15,
                shrinkA=0,
                shrinkB=0,
                color=color,
                lw=0,
                zorder=2.2,
                gid="arrow",
            )
            ax.add_patch(head)


def _number(ax: Axes, paths: npt.NDArray[np.float64], *, names: list[str]) -> None:
    """Write the name of each path beside its end, on the side where there is most room."""
    if len(paths) == 0:
        return
    ends = paths[:, -1]
    # Where the text goes, in points from the end; room is measured to the ends and names already placed.
    around = 11 * np.array([(np.cos(a), np.sin(a)) for a in np.linspace(0, 2 * np.pi, 8, endpoint=False)])
    per_point = pixels_per_inch(ax) / 72
    pixels = ax.transData.transform(ends) / per_point
    taken = list(pixels)
    for name, end, pixel in zip(names, ends, pixels, strict=True):
        others = np.array(taken)
        room = [np.sort(np.linalg.norm(others - (pixel + offset), axis=1))[:2].sum() for offset in around]
        best = around[int(np.argmax(room))]
        taken.append(pixel + best)
        text = ax.annotate(
            name,
            end,
            xytext=tuple(best),
            textcoords="offset points",
            ha="center",
            va="center",
            fontsize=8,
            color=INK,
        )
        text.set_zorder(5)
        text.set_path_effects([effects.withStroke(linewidth=2.5, foreground="white")])


def _row_names(embedding: "Embedding") -> list[str]:
    """Return what identifies each row of a snapshot, such as ``"12"`` or ``"3, 12"``."""
    first = embedding.rows[embedding.identity].iloc[: len(embedding.rows) // embedding.n_snapshots]
    return [", ".join(str(part) for part in row) for row in first.itertuples(index=False)]


def _positions(embedding: "Embedding", rows: Iterable[int]) -> list[int]:
    """Return the positions within a snapshot of the rows asked for, or raise ValueError."""
    size = len(embedding.rows) // embedding.n_snapshots
    single = len(embedding.identity) == 1
    known = embedding.rows[embedding.identity[0]].iloc[:size].tolist() if single else list(range(size))
    what = embedding.identity[0] if single else "row"
    where = {int(name): ordinal for ordinal, name in enumerate(known)}
    asked = [int(row) for row in rows]
    missing = [row for row in asked if row not in where]
    if missing or not asked:
        got = f"{what} {missing[0]}" if missing else f"no {what}"
        raise ValueError(
            f"received {got}; expected one or more of the {size} in the embedding ({min(known)} to {max(known)}): "
            f"choose among these, or leave `rows` out"
        )
    return [where[row] for row in asked]
