"""Names of clusters that were found apart: those that share most members share a name."""

import numpy as np
import numpy.typing as npt
from scipy.optimize import linear_sum_assignment
from sklearn.metrics.cluster import contingency_matrix

from .._results import NOISE, Labels


def shared_members(before: Labels, after: Labels) -> tuple[Labels, Labels, npt.NDArray[np.int64]]:
    """Count the members that each two clusters share.

    Parameters
    ----------
    before, after : ndarray of shape (n_rows,), int64
        Two labels of the same rows; -1 is noise, and no cluster.

    Returns
    -------
    names_before, names_after : ndarray of int64
        The clusters that occur, by their first member: this order does not depend on the names.
    table : ndarray of shape (n_before, n_after), int64
        Members in common.
    """
    names_before, names_after = _by_first_member(before), _by_first_member(after)
    both = (before != NOISE) & (after != NOISE)
    table = np.zeros((len(names_before), len(names_after)), np.int64)
    if both.any():
        here, there = np.unique(before[both]), np.unique(after[both])
        numbers = np.ix_(_places_of(here, names_before), _places_of(there, names_after))
        table[numbers] = contingency_matrix(before[both], after[both])
    return names_before, names_after, table


def name_by_members(before: Labels, after: Labels, *, unused: int) -> Labels:
    """Rename clusters after those they share members with, so that as many rows as can be keep their name.

    Parameters
    ----------
    before, after : ndarray of shape (n_rows,), int64
        Two labels of the same rows; -1 is noise, and stays it.
    unused : int
        From which number on names are free. A cluster of `after` that is matched with none gets the next of them.

    Returns
    -------
    ndarray of shape (n_rows,), int64
        `after`, renamed. It depends on which rows are together, not on what they were called.

    References
    ----------
    H. W. Kuhn, "The Hungarian Method for the Assignment Problem", Naval Research Logistics Quarterly 2, 1955.
    """
    names_before, names_after, table = shared_members(before, after)
    matched = {
        int(names_after[there]): int(names_before[here])
        for here, there in zip(*linear_sum_assignment(table, maximize=True), strict=True)
        if table[here, there]
    }
    renamed = after.copy()
    for name in names_after.tolist():
        if name not in matched:
            matched[name] = unused
            unused += 1
        renamed[after == name] = matched[name]
    return renamed


def name_in_turn(labels: Labels) -> Labels:
    """Rename the clusters of every snapshot after those of the snapshot before.

    Parameters
    ----------
    labels : ndarray of shape (n_snapshots, n_rows), int64
        -1 is noise.

    Returns
    -------
    ndarray of shape (n_snapshots, n_rows), int64
        The first snapshot's labels are as they were. A name that was given up is never given again.
    """
    named = labels.copy()
    unused = int(named[0].max()) + 1
    for order in range(1, len(named)):
        named[order] = name_by_members(named[order - 1], labels[order], unused=unused)
        unused = max(unused, int(named[order].max()) + 1)
    return named


def _by_first_member(labels: Labels) -> Labels:
    names, first = np.unique(labels, return_index=True)
    names = names[np.argsort(first)]
    clusters: Labels = names[names != NOISE]
    return clusters


def _places_of(wanted: Labels, names: Labels) -> npt.NDArray[np.intp]:
    order = np.argsort(names)
    return order[np.searchsorted(names[order], wanted)]
