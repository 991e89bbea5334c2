"""Transitions: how many rows each cluster of a history has, and the marks of what becomes of clusters."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from ...analysis import NOISE
from ._figures import INK
from ._snapshots import snapshot_table

if TYPE_CHECKING:
    from ...analysis import History

# Before its snapshot something converges or comes to be, after it something falls apart or ends.
_MARKS = {"appear": ("P", "appears"), "vanish": ("X", "vanishes"), "split": ("<", "splits"), "merge": (">", "merged")}


@dataclass(frozen=True, eq=False)
class Counts:
    """How many members clusters have.

    Attributes
    ----------
    table : DataFrame
        The snapshots, as `snapshot_table` has them.
    snapshots : list of int
        Their numbers.
    labels : list of int
        The clusters, noise last.
    sizes : DataFrame
        Members: one row per snapshot, one column per label.
    """

    table: pd.DataFrame
    snapshots: list[int]
    labels: list[int]
    sizes: pd.DataFrame


def count_members(history: "History") -> Counts:
    """Return the members of each cluster at each snapshot; raise ValueError where there is one snapshot only."""
    table = snapshot_table(history.clusters.rows)
    snapshots = [int(snapshot) for snapshot in table["snapshot"]]
    if len(snapshots) < 2:
        raise ValueError("received the history of 1 snapshot; expected 2 or more: record more snapshots")
    known = sorted(int(str(label)) for label in history.sizes.columns)
    labels = [label for label in known if label != NOISE] + [NOISE] * (NOISE in known)
    return Counts(table, snapshots, labels, history.sizes.reindex(index=snapshots, columns=labels).fillna(0))


def mark_transitions(
    ax: Axes,
    transitions: pd.DataFrame,
    *,
    across: Callable[[int, int], float],
    order: dict[int, int],
    end: float,
    size: float,
) -> list[Line2D]:
    """Mark the clusters that appear, vanish, split or merge; return entries of a legend for what occurs.

    Parameters
    ----------
    ax : Axes
        Measured in snapshots from 0 along x.
    transitions : DataFrame
        Of a history.
    across : callable
        Returns the position along y of a cluster, from its snapshot and its label.
    order : dict of int to int
        The position of each snapshot.
    end : float
        How far a mark stands before (appear, merge) or after (vanish, split) its snapshot.
    size : float
        Of a mark, in points.
    """
    found = []
    for what, (marker, label) in _MARKS.items():
        if transitions.empty or not (transitions["transition"] == what).any():
            continue
        rows = transitions[transitions["transition"] == what]
        starting = what in ("appear", "merge")
        side = "to" if starting else "from"
        at = rows[[f"{side}_snapshot", f"{side}_cluster"]].drop_duplicates()
        numbers = [(int(snapshot), int(cluster)) for snapshot, cluster in at.itertuples(index=False)]
        along = [order[snapshot] + (-end if starting else end) for snapshot, _ in numbers]
        style: dict[str, Any] = {"marker": marker, "ms": size, "mfc": "white", "mec": INK, "mew": 0.13 * size, "ls": ""}
        ax.plot(along, [across(*number) for number in numbers], **style, zorder=4, gid=what)
        found.append(Line2D([], [], **(style | {"ms": 7.0, "mew": 0.9}), label=label))
    return found
