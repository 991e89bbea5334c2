"""Snapshots in pictures: how they are named and found."""

from math import ceil

import numpy as np
import pandas as pd

from ...analysis import snapshot_of_epoch


def snapshot_table(rows: pd.DataFrame) -> pd.DataFrame:
    """Return one row per snapshot, in their order: columns ``snapshot``, ``epoch`` and ``step``.

    Parameters
    ----------
    rows : DataFrame
        Any table with these columns: a result's `rows` or a layer's `snapshots`.
    """
    table = rows[["snapshot", "epoch", "step"]].drop_duplicates("snapshot")
    return table.sort_values("snapshot").reset_index(drop=True)


def snapshot_titles(table: pd.DataFrame, *, separator: str = ", ") -> list[str]:
    """Name each snapshot: ``"epoch 1"``, or ``"epoch 1, step 4"`` where its epoch has several.

    Parameters
    ----------
    table : DataFrame
        As `snapshot_table` returns it.
    separator : str, default ", "
        What stands between epoch and step.
    """
    titles = []
    for snapshot, epoch, step in table.itertuples(index=False):
        same_epoch = table[table["epoch"] == epoch]
        title = f"epoch {int(epoch)}"
        if len(same_epoch) > 1:
            # Steps are optional: where they do not tell the snapshots apart, their numbers do.
            told_apart = same_epoch["step"].notna().all() and same_epoch["step"].is_unique
            title += separator + (f"step {int(step)}" if told_apart else f"snapshot {int(snapshot)}")
        titles.append(title)
    return titles


def find_snapshot(table: pd.DataFrame, *, epoch: int | None, snapshot: int | None) -> int:
    """Return the position in `table` of the snapshot asked for; the last one when neither argument is given.

    Parameters
    ----------
    table : DataFrame
        As `snapshot_table` returns it.
    epoch : int or None
        The last snapshot of this epoch.
    snapshot : int or None
        The snapshot of this number.

    Raises
    ------
    ValueError
        If both are given, or there is no such snapshot.
    """
    if epoch is not None and snapshot is not None:
        raise ValueError(f"received epoch={epoch} and snapshot={snapshot}; expected one of them: leave one out")
    if epoch is None and snapshot is None:
        return len(table) - 1
    column, wanted = ("epoch", epoch) if epoch is not None else ("snapshot", snapshot)
    if not (table[column] == wanted).any():
        there = ", ".join(str(value) for value in table[column].unique())
        raise ValueError(f"received {column}={wanted}; expected one of {there}: choose one of these")
    number = snapshot if epoch is None else snapshot_of_epoch(table, epoch)
    return int(np.flatnonzero(table["snapshot"] == number)[-1])


def span(table: pd.DataFrame) -> str:
    """Name the snapshots as a whole: ``"9 snapshots, epoch 0 to 5"``."""
    if len(table) == 1:
        return snapshot_titles(table)[0]
    first, last = int(table["epoch"].iloc[0]), int(table["epoch"].iloc[-1])
    epochs = f"epoch {first}" if first == last else f"epoch {first} to {last}"
    return f"{len(table)} snapshots, {epochs}"


def brief(count: int, *, at_most: int) -> list[int]:
    """Return at most `at_most` (two or more) of `count` positions, evenly spread, first and last among them.

    Examples
    --------
    >>> brief(9, at_most=5)
    [0, 2, 4, 6, 8]
    >>> brief(12, at_most=5)
    [0, 3, 6, 9, 11]
    """
    stride = max(1, ceil((count - 1) / (at_most - 1)))
    positions = list(range(0, count, stride))
    missed = count - 1 - positions[-1]
    if 0 < missed < stride / 2:
        positions.pop()
    return positions + [count - 1] * (missed > 0)
