"""The tables of the page."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ...plot.drawing import cluster_name
from ._layer_content import LayerContent


@dataclass(frozen=True)
class ClusterRow:
    """One cluster of a layer.

    Attributes
    ----------
    label : int
        Its label.
    name, color : str
        As in all panels.
    first, last : int
        Members at the first and the last snapshot.
    stayed : int
        Of the first members, those that are members at the last snapshot as well.
    arrived, left : int
        Moves into it and out of it, over all steps.
    representative : str
        The row nearest to the mean of its members at the last snapshot, or empty; not escaped.
    """

    label: int
    name: str
    color: str
    first: int
    last: int
    stayed: int
    arrived: int
    left: int
    representative: str


@dataclass(frozen=True)
class Step:
    """From one snapshot to the next: `title` and the share of rows that changed cluster, None where unknown."""

    title: str
    churn: float | None


def cluster_rows(content: LayerContent) -> list[ClusterRow]:
    """Return a row for each cluster, noise last."""
    labels, frame = content.labels, content.history.frame
    known = sorted({int(label) for label in np.unique(labels)}, key=lambda label: (label < 0, label))
    moved = frame[frame["moved"]]
    return [
        ClusterRow(
            label=label,
            name=cluster_name(label),
            color=content.palette[label],
            first=int((labels[0] == label).sum()),
            last=int((labels[-1] == label).sum()),
            stayed=int(((labels[0] == label) & (labels[-1] == label)).sum()),
            arrived=int((moved["to_cluster"] == label).sum()),
            left=int((moved["from_cluster"] == label).sum()),
            representative=content.row_names[content.representatives[label]]
            if label in content.representatives
            else "",
        )
        for label in known
    ]


def steps(content: LayerContent) -> list[Step]:
    """Return each step with its churn."""
    table = content.history.steps
    churn = dict(zip(table["to_snapshot"].tolist(), table["churn"].tolist(), strict=True))
    snapshots = content.history.sizes.index.tolist()
    shares = [churn.get(snapshot) for snapshot in snapshots[1:]]
    return [
        Step(title, None if share is None or np.isnan(share) else float(share))
        for title, share in zip(content.titles[1:], shares, strict=True)
    ]


def moved_overall(content: LayerContent) -> float:
    """Return the share of rows whose cluster at the last snapshot is another than at the first."""
    return float((content.labels[0] != content.labels[-1]).mean())


def where_it_moved(rows: Sequence[tuple[str, float]]) -> str:
    """Say in which layer most changed and in which least; `rows` has each layer's name and share."""
    most, least = max(rows, key=lambda row: row[1]), min(rows, key=lambda row: row[1])
    if len(rows) < 2 or most[1] == least[1]:
        return ""
    return f"{most[0]} was reorganized most ({most[1]:.0%}), {least[0]} least ({least[1]:.0%})"
