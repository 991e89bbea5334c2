"""Flow chart: rows between clusters."""

import numpy as np
import numpy.typing as npt
import pandas as pd

from ...analysis import NOISE
from ...plot.drawing import brief, cluster_name, spread
from ..content import LayerContent
from ._charts import Json, layout_of

SIDE = 92  # pixels for the names of clusters
APART = 0.042  # of the height of the columns, between two names
MOST_NAMES = int(1 / APART)


def flow_chart(content: LayerContent) -> Json:
    """Return the flow of rows between clusters: a column for each snapshot, clusters in the same order in each.

    Nodes are placed exactly: plotly would order them by itself. ``moves`` has, of each band, the positions of its two
    snapshots and the labels of its two clusters.
    """
    table = content.history.sizes
    labels = sorted((int(label) for label in table.columns), key=lambda label: (label < 0, label))
    sizes = table[labels].to_numpy(dtype=np.float64)
    columns, most = len(sizes), int((sizes > 0).sum(axis=1).max())
    height, top, bottom = 420, 46, 58
    inner = height - top - bottom
    pad = min(7.0, 0.4 * inner / max(most - 1, 1))
    per_row = (inner - (most - 1) * pad) / sizes[0].sum()
    nodes: dict[tuple[int, int], int] = {}
    across, down = [], []
    for column in range(columns):
        upper = 0.0
        for ordinal, label in enumerate(labels):
            if members := sizes[column, ordinal]:
                nodes[column, label] = len(nodes)
                # plotly takes a position of exactly 0 for none
                across.append(float(np.clip(column / max(columns - 1, 1), 1e-4, 1)))
                down.append(round((upper + members * per_row / 2) / inner, 6))
                upper += members * per_row + pad
    moves = _moves(content)
    link = {
        "source": [nodes[source, here] for source, _, here, _, _ in moves],
        "target": [nodes[target, there] for _, target, _, there, _ in moves],
        "value": [count for *_, count in moves],
        "color": [_rgba(content.palette[here], 0.28 if here == there else 0.62) for _, _, here, there, _ in moves],
        "customdata": [
            [
                f"{count} of {content.n_rows}",
                ("stay in " if here == there else f"{cluster_name(here)} to ") + cluster_name(there),
                _step(content, source, target),
            ]
            for source, target, here, there, count in moves
        ],
        "hovertemplate": "<b>%{customdata[0]}</b> %{customdata[1]}<br>%{customdata[2]}<extra></extra>",
    }
    node = {
        "x": across,
        "y": down,
        "pad": pad,
        "thickness": 12,
        "line": {"width": 0},
        "label": [""] * len(nodes),
        "color": [content.palette[label] for _, label in nodes],
        "customdata": [
            [
                cluster_name(label),
                f"{int(sizes[column, labels.index(label)])} of {content.n_rows}",
                content.titles[column],
            ]
            for column, label in nodes
        ],
        "hovertemplate": "<b>%{customdata[0]}</b>: %{customdata[1]}<br>%{customdata[2]}<extra></extra>",
    }
    layout = layout_of(margin={"l": SIDE, "r": SIDE, "t": top, "b": bottom})
    layout["annotations"] = _flow_names(content, nodes, across=across, down=down, sizes=sizes, labels=labels)
    layout["annotations"] += _flow_heads(content, columns)
    sankey = {"type": "sankey", "arrangement": "fixed", "node": node, "link": link}
    return {
        "figure": {"data": [sankey], "layout": layout},
        "moves": [list(move[:4]) for move in moves],
        "bands": band_names(content),
        "min_width": flow_width(columns),
    }


def flow_width(n_snapshots: int) -> int:
    """Return how wide a flow has to be for what stands under its steps, in pixels."""
    return max(640, 72 * (n_snapshots - 1) + 2 * SIDE)


def band_names(content: LayerContent) -> list[list[int | str]]:
    """Name the bands of a flow that go from one cluster to another, for those who cannot point at them.

    Each is ``[position in moves, name]``, those of one step together, the widest first.
    """
    named = [
        (
            source,
            -count,
            number,
            f"{_step(content, source, target)}: {cluster_name(here)} to {cluster_name(there)} ({count})",
        )
        for number, (source, target, here, there, count) in enumerate(_moves(content))
        if here != there
    ]
    return [[number, name] for _, _, number, name in sorted(named)]


def _moves(content: LayerContent) -> list[tuple[int, ...]]:
    """Return of each band the positions of its snapshots, the labels of its clusters, and how many rows it has."""
    ordinal_of = {int(snapshot): ordinal for ordinal, snapshot in enumerate(content.history.sizes.index)}
    columns = ["from_snapshot", "to_snapshot", "from_cluster", "to_cluster", "count"]
    return [
        (ordinal_of[source], ordinal_of[target], here, there, count)
        for source, target, here, there, count in _integers(content.history.flow, columns)
    ]


def _step(content: LayerContent, source: int, target: int) -> str:
    return f"{content.titles[source]} to {content.titles[target]}"


def _flow_names(
    content: LayerContent,
    nodes: dict[tuple[int, int], int],
    *,
    across: list[float],
    down: list[float],
    sizes: npt.NDArray[np.float64],
    labels: list[int],
) -> list[Json]:
    """Return the names and sizes beside the nodes of the first and the last column, apart enough to be read.

    Of more than fit beside a column, those of the largest that are apart anyway.
    """
    names = []
    for column, anchor, shift in ((0, "right", -10), (len(sizes) - 1, "left", 10)):
        here = [(label, number) for (at, label), number in nodes.items() if at == column]
        if len(here) > MOST_NAMES:
            here = _largest_apart(here, down, sizes=[sizes[column, labels.index(label)] for label, _ in here])
        for (label, number), y in zip(here, spread(np.array([down[n] for _, n in here]), apart=APART), strict=True):
            text = f"{cluster_name(label)} ({int(sizes[column, labels.index(label)])})"
            names.append(_note(text=text, x=round(across[number]), y=1 - float(y), xanchor=anchor, xshift=shift))
    return names


def _largest_apart(nodes: list[tuple[int, int]], down: list[float], *, sizes: list[float]) -> list[tuple[int, int]]:
    """Return the nodes of a column that can be named where they stand, the largest first to be."""
    named: list[int] = []
    for ordinal in np.argsort(-np.array(sizes), kind="stable").tolist():
        y = down[nodes[ordinal][1]]
        if all(abs(y - down[nodes[other][1]]) >= APART for other in named):
            named.append(ordinal)
    return [nodes[ordinal] for ordinal in sorted(named)]


def _flow_heads(content: LayerContent, columns: int) -> list[Json]:
    """Return the snapshots' names above the columns, and the share of rows that moved under the steps."""
    heads = []
    for column in brief(columns, at_most=14):
        text = content.titles[column].replace(", ", "<br>")
        heads.append(_note(text=text, x=column / max(columns - 1, 1), y=1, yanchor="bottom", yshift=8))
    steps = content.history.steps[["churn", "churn_noise_floor_limit"]].to_numpy(np.float64)
    if columns <= 14 and not np.isnan(steps[:, 0]).all():
        heads.append(_note(text="moved", x=0, y=0, xanchor="right", yanchor="top", xshift=-10, yshift=-10))
    for step, (share, limit) in enumerate(steps):
        if columns <= 14 and not np.isnan(share):
            middle = (step + 0.5) / (columns - 1)
            text = f"{share:.0%}"
            if share <= limit:  # what any halving of the probe may give is no news
                text = f"({text})"
            heads.append(_note(text=text + _to_noise(content, step), x=middle, y=0, yanchor="top", yshift=-10))
    return heads


def _to_noise(content: LayerContent, step: int) -> str:
    """Say how many rows became noise, or ceased to be: these have not moved, and are bands all the same."""
    before, after = content.labels[step], content.labels[step + 1]
    count = int(((before == NOISE) != (after == NOISE)).sum())
    return f"<br>{count / len(before):.0%} to or<br>from noise" if count else ""


def _note(
    *,
    text: str,
    x: float,
    y: float,
    xanchor: str = "center",
    yanchor: str = "middle",
    xshift: int = 0,
    yshift: int = 0,
) -> Json:
    return {
        "text": text,
        "x": x,
        "y": y,
        "xref": "paper",
        "yref": "paper",
        "xanchor": xanchor,
        "yanchor": yanchor,
        "xshift": xshift,
        "yshift": yshift,
        "showarrow": False,
        "font": {"size": 11},
    }


def _integers(table: pd.DataFrame, columns: list[str]) -> list[tuple[int, ...]]:
    return [tuple(int(value) for value in row) for row in table[columns].itertuples(index=False)]


def _rgba(color: str, alpha: float) -> str:
    red, green, blue = (int(color[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},{alpha})"
