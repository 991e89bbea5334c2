"""Transitions of clusters: which survive, split, merge, appear and vanish from one snapshot to the next."""

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd

from .._results import Labels
from ..clustering import shared_members

Transition = tuple[int | None, int | None, str, float]  # from, to, what, share of the members

COLUMNS = ["from_snapshot", "to_snapshot", "from_cluster", "to_cluster", "transition", "overlap"]


def by_members(before: Labels, after: Labels, *, overlap: float, split: float) -> Iterator[Transition]:
    """Follow clusters by the members they share, whatever they are called.

    Parameters
    ----------
    before, after : ndarray of shape (n_rows,), int64
        The labels of the same rows at two snapshots; -1 is noise, which is no cluster: rows that become noise are
        lost to their cluster, and those that cease to be it came from none.
    overlap : float
        The share of a cluster's members that one cluster has to take over for it to survive in that one; if several
        clusters do in the same one, they merge.
    split : float
        The share that each part of a split has to take over, where together they take over `overlap`. A cluster that
        falls into two halves of the same size has split.

    Yields
    ------
    tuple of (from, to, transition, overlap)
        To is None where a cluster vanishes, from where one appears. The overlap is the share of its members; of one
        that vanishes, the most that went on together, of one that appears, NaN.

    References
    ----------
    M. Spiliopoulou, I. Ntoutsi, Y. Theodoridis and R. Schult, "MONIC: Modeling and Monitoring Cluster Transitions",
    KDD 2006.
    """
    names, new_names, table = shared_members(before, after)
    heirs: dict[int, int] = {}
    parts: dict[int, list[int]] = {}
    shares = {}
    for name, shared in zip(names.tolist(), table, strict=True):
        size = int((before == name).sum())
        share = shared / size
        shares[name] = dict(zip(new_names.tolist(), share.tolist(), strict=True))
        large = share >= split
        if share.max(initial=0.0) >= overlap and (shared == shared.max()).sum() == 1:
            heirs[name] = int(new_names[np.argmax(share)])
        elif large.sum() > 1 and shared[large].sum() / size >= overlap:
            parts[name] = sorted(new_names[large].tolist())
    count = {heir: list(heirs.values()).count(heir) for heir in heirs.values()}
    for name in sorted(names.tolist()):
        if name in heirs:
            what = "survive" if count[heirs[name]] == 1 else "merge"
            yield name, heirs[name], what, shares[name][heirs[name]]
        elif name in parts:
            yield from ((name, part, "split", shares[name][part]) for part in parts[name])
        else:
            yield name, None, "vanish", max(shares[name].values(), default=0.0)
    known = {*heirs.values(), *(part for found in parts.values() for part in found)}
    yield from ((None, name, "appear", np.nan) for name in sorted(new_names.tolist()) if name not in known)


def by_label(before: Labels, after: Labels) -> Iterator[Transition]:
    """Follow clusters by their labels, which mean the same at both snapshots.

    Parameters
    ----------
    before, after : ndarray of shape (n_rows,), int64
        The labels of the same rows at two snapshots; -1 is noise.

    Yields
    ------
    tuple of (from, to, transition, overlap)
        A cluster survives where it has members in both; the overlap is the share of them that stayed.
    """
    here, there = ({int(name) for name in np.unique(labels) if name >= 0} for labels in (before, after))
    for name in sorted(here):
        stayed = float((after[before == name] == name).mean())
        yield (name, name, "survive", stayed) if name in there else (name, None, "vanish", stayed)
    yield from ((None, name, "appear", np.nan) for name in sorted(there - here))


def tabulate_transitions(steps: list[tuple[int, int, Transition]]) -> pd.DataFrame:
    """Make the table of transitions: a cluster that is none is missing."""
    frame = pd.DataFrame([(start, end, *transition) for start, end, transition in steps], columns=COLUMNS)
    whole = dict.fromkeys(COLUMNS[:2], "int64") | dict.fromkeys(COLUMNS[2:4], "Int64")
    return frame.astype(whole | {"transition": "str", "overlap": "float64"})


def lives_by_label(sizes: pd.DataFrame) -> pd.DataFrame:
    """Return when each label had its first member, and when its last.

    Parameters
    ----------
    sizes : DataFrame
        One row per snapshot, one column per cluster, noise left out.
    """
    first, last = sizes.index[0], sizes.index[-1]
    lives = []
    for name in sizes:
        there = sizes.index[sizes[name] > 0]
        lives.append(_life(name, there[0], there[-1], "first" if there[0] == first else "appear", "vanish", last))
    return _lives_table(lives)


def lives_by_members(transitions: pd.DataFrame, sizes: pd.DataFrame) -> pd.DataFrame:
    """Return how long clusters survived, by the transitions that `by_members` found.

    Parameters
    ----------
    transitions : DataFrame
        Made by `tabulate_transitions`.
    sizes : DataFrame
        One row per snapshot, one column per cluster, noise left out.
    """
    snapshots = sizes.index.tolist()
    alive = {int(str(name)): (int(str(name)), snapshots[0], "first") for name in sizes if sizes[name].iloc[0] > 0}
    lives = []
    for start, end in pairwise(snapshots):
        step = transitions[transitions["from_snapshot"] == start]
        after: dict[int, tuple[int, int, str]] = {}
        # survivors last: what survives in a cluster is older than what split off into it
        for what in ("appear", "split", "merge", "survive"):
            for row in step[step["transition"] == what].itertuples(index=False):
                new: Any = row.to_cluster
                after[new] = alive[row.from_cluster] if what == "survive" else (new, end, what)
        ends = step[~step["transition"].isin(["appear", "survive"])].drop_duplicates("from_cluster")
        for row in ends.itertuples(index=False):
            name, born, began = alive[row.from_cluster]
            lives.append(_life(name, born, start, began, str(row.transition), snapshots[-1]))
        alive = after
    lives += [_life(name, born, snapshots[-1], began, "", snapshots[-1]) for name, born, began in alive.values()]
    return _lives_table(sorted(lives, key=lambda life: (life["born"], life["cluster"])))


def _life(name: Any, born: int, died: int, began: str, ended: str, last: int) -> dict[str, Any]:
    over = died < last
    return {
        "cluster": int(name),
        "born": born,
        "died": died if over else pd.NA,
        "began": began,
        "ended": ended if over else pd.NA,
    }


def _lives_table(lives: list[dict[str, Any]]) -> pd.DataFrame:
    frame = pd.DataFrame(lives, columns=["cluster", "born", "died", "began", "ended"])
    return frame.astype({"cluster": "int64", "born": "int64", "died": "Int64", "began": "str", "ended": "str"})
