"""Tables of the page: their columns, rows and texts."""

from dataclasses import dataclass

import numpy as np

from ...analysis import NOISE
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
class Moved:
    """How many rows changed cluster, and how many seem to where nothing changed.

    Attributes
    ----------
    share : float
        Of the rows.
    noise_floor, limit : float
        The share that two halves of the probe give to different clusters: the mean over ways to halve it, and the
        largest; NaN where not available.
    """

    share: float
    noise_floor: float
    limit: float

    @property
    def is_over(self) -> bool:
        """Whether it is more than any halving of the probe gives; not where no noise floor is known."""
        return bool(self.share > self.limit)

    @property
    def noise_floor_text(self) -> str:
        """The noise floor, in words."""
        if np.isnan(self.limit):
            return "noise floor not available"
        low, high, share = (f"{value:.0%}" for value in (self.noise_floor, self.limit, self.share))
        if share == high and self.share != self.limit:
            low, high = f"{self.noise_floor:.1%}", f"{self.limit:.1%} against {self.share:.1%}"
        return f"noise floor {low}, at most {high}"


@dataclass(frozen=True)
class Step:
    """From one snapshot to the next: `title` and the rows that changed cluster, None where unknown."""

    title: str
    moved: Moved | None


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
    """Return each step with its churn, and its noise floor."""
    table = content.history.steps.set_index("to_snapshot")
    found = []
    for title, snapshot in zip(content.titles[1:], content.history.sizes.index.tolist()[1:], strict=True):
        known = snapshot in table.index and not np.isnan(table.loc[snapshot, "churn"])
        columns = ["churn", "churn_noise_floor", "churn_noise_floor_limit"]
        found.append(Step(title, Moved(*table.loc[snapshot, columns].astype(float)) if known else None))
    return found


def moved_overall(content: LayerContent) -> Moved:
    """Return the share of rows whose cluster at the last snapshot is another than at the first, and its noise floor.

    Rows that are noise at either, which are in no cluster, are left out.
    """
    first, last = content.labels[0], content.labels[-1]
    known = (first != NOISE) & (last != NOISE)
    share = float((first[known] != last[known]).mean()) if known.any() else float("nan")
    if content.noise_floor is None:
        return Moved(share, float("nan"), float("nan"))
    ends = content.vectors.snapshots[0], content.vectors.snapshots[-1]
    mean, limit = content.noise_floor.between(*ends)[:, 0].tolist()
    return Moved(share, mean, limit)
