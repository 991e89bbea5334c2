"""Embedding charts: a layer's rows as they move, and their paths."""

import numpy as np
import numpy.typing as npt

from ...plot.drawing import Span, cluster_name
from ..content import LayerContent
from ._charts import Json, layout_of, literal, short

STRONG, NAMED = 24, 5
ABOUT = "<b>%{customdata[0]}</b><br>%{customdata[1]}<br>%{customdata[2]}<extra></extra>"


def embedding_chart(content: LayerContent) -> Json:
    """Return the embedding, a point for each row, at each snapshot; over it the path of what changed most.

    Returns
    -------
    dict
        ``figure`` (drawn at the last snapshot), ``frames`` (per snapshot the lists ``x``, ``y`` and ``cluster``, and
        the ranges of both ``axes`` where snapshots have other ones),
        ``titles`` of the snapshots, ``names`` of the rows (escaped), ``palette`` and ``clusters`` (names) by label.
    """
    positions = content.embedding.by_snapshot(content.embedding.values)
    frames = [
        {"x": short(at[:, 0]), "y": short(at[:, 1]), "cluster": labels.tolist()}
        for at, labels in zip(positions, content.labels, strict=True)
    ]
    limits = content.limits
    for number, frame in enumerate(frames) if limits.apart else ():
        frame["axes"] = axes_at(limits.at(number))
    size = float(np.clip(170 / np.sqrt(content.n_rows), 5, 11))
    points = {
        "type": "scatter",
        "mode": "markers",
        "ids": [str(row) for row in range(content.n_rows)],
        "marker": {"size": size, "opacity": 0.9, "line": {"width": 0.6}},
        "hovertemplate": ABOUT,
    }
    path = positions[:, int(content.change.argmax())]
    line = {
        "type": "scatter",
        "mode": "lines",
        "x": short(path[:, 0]),
        "y": short(path[:, 1]),
        "hoverinfo": "skip",
        "line": {"color": "#808080", "width": 2.5},
    }
    return {
        "figure": {"data": [points, line], "layout": _embedding_layout(limits.at(len(frames) - 1))},
        "frames": frames,
        "titles": content.titles,
        "names": [literal(name) for name in content.row_names],
        "palette": {str(label): color for label, color in content.palette.items()},
        "clusters": {str(label): cluster_name(label) for label in content.palette},
    }


def trajectories_chart(content: LayerContent) -> Json:
    """Return the path of every row, colored by its last cluster; the longest are strong and named.

    Returns
    -------
    dict
        ``figure``, and ``traced``: of each of its traces, ``rows`` and the snapshot ``at`` which they stand, None for
        their whole paths. The page takes positions and names from the frames of `embedding_chart`.
    """
    paths = content.embedding.by_snapshot(content.embedding.values).swapaxes(0, 1)
    length = np.linalg.norm(np.diff(paths, axis=1), axis=2).sum(axis=1)
    furthest = np.argsort(-length, kind="stable")
    strong = furthest[:STRONG]
    thin = np.setdiff1d(np.arange(len(paths)), strong)
    data, traced = [], []
    for rows, style in ((thin, "thin"), (strong, "strong")):
        for label in sorted({int(label) for label in content.labels[-1, rows]}):
            data.append(_lines(content.palette[label], style=style))
            traced.append({"rows": rows[content.labels[-1, rows] == label].tolist(), "at": None})
        for at in (0, len(content.titles) - 1) if len(rows) else ():
            data.append(_marks([content.palette[int(label)] for label in content.labels[-1, rows]], at=at, style=style))
            traced.append({"rows": rows.tolist(), "at": at})
    named = _apart(paths[strong, -1], reach=0.09 * max(high - low for low, high in content.limits.together))
    names = [
        literal(content.row_names[row].removeprefix("channel ")) if index in named else ""
        for index, row in enumerate(strong)
    ]
    if data:
        data[-1] |= {"mode": "markers+text", "text": names, "textposition": "top center", "textfont": {"size": 12}}
    return {"figure": {"data": data, "layout": _embedding_layout(content.limits.together)}, "traced": traced}


def _apart(ends: npt.NDArray[np.float64], *, reach: float) -> list[int]:
    """Return the first few positions whose names would not cover one another."""
    named: list[int] = []
    for index, end in enumerate(ends):
        if len(named) < NAMED and (np.linalg.norm(ends[named] - end, axis=1) > reach).all():
            named.append(index)
    return named


def axes_at(limits: tuple[Span, Span]) -> tuple[list[float], list[float]]:
    """Return the ranges of the axes of an embedding, as the page has them."""
    horizontal, vertical = (short(np.array(each)) for each in limits)
    return horizontal, vertical


def _embedding_layout(limits: tuple[Span, Span]) -> Json:
    horizontal, vertical = axes_at(limits)
    bare = {"zeroline": False, "showgrid": False, "showticklabels": False, "ticks": ""}
    layout = layout_of(margin={"l": 6, "r": 6, "t": 6, "b": 6})
    layout["xaxis"] = bare | {"range": horizontal}
    layout["yaxis"] = bare | {"range": vertical, "scaleanchor": "x"}
    return layout


def _lines(color: str, *, style: str) -> Json:
    """Return paths as one line with gaps."""
    width, strength = (2.4, 0.95) if style == "strong" else (1, 0.35)
    return {
        "type": "scatter",
        "mode": "lines",
        "line": {"color": color, "width": width},
        "opacity": strength,
        "meta": style,
        "hovertemplate": ABOUT,
    }


def _marks(colors: list[str], *, at: int, style: str) -> Json:
    """Return the hollow starts, or the filled ends, of paths."""
    size, strength = (8, 1.0) if style == "strong" else (4, 0.45)
    symbol = "circle" if at else "circle-open"
    return {
        "type": "scatter",
        "mode": "markers",
        "marker": {"symbol": symbol, "size": size, "color": colors, "opacity": strength},
        "meta": f"{style} {'end' if at else 'start'}",
        "hovertemplate": ABOUT,
    }
