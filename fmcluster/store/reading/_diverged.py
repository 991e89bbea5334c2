"""Diverged snapshots: those at which a layer gave NaN or infinite values, by the statistics that were taken of it."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from ._run import Run

_MOST_SAID = 5


def find_diverged(run: "Run", layers: Sequence[str]) -> pd.DataFrame:
    """Return a row for each snapshot at which one of the layers gave a value that is not finite.

    Parameters
    ----------
    run : Run
        The run.
    layers : sequence of str
        Names of layers, in forward order.

    Returns
    -------
    DataFrame
        Columns ``snapshot, epoch, step, layers`` (how many gave such values) and ``first`` (the first of them).
    """
    broken = np.zeros((len(layers), len(run)), dtype=bool)
    for order, name in enumerate(layers):
        broken[order] = run.nonfinite(name)
    at = np.flatnonzero(broken.any(axis=0))
    frame = run.snapshots.iloc[at].reset_index(drop=True)
    first = [layers[int(order)] for order in broken[:, at].argmax(axis=0)]
    return frame.assign(layers=broken[:, at].sum(axis=0), first=first)


def finite_snapshots(run: "Run", layers: Sequence[str]) -> list[int]:
    """Return the numbers of the snapshots at which the layers gave finite values; ValueError where there is none."""
    run.resolve(snapshot=0)
    diverged = find_diverged(run, layers)
    broken = set(diverged["snapshot"].tolist())
    found = [snapshot for snapshot in run.snapshots["snapshot"].tolist() if snapshot not in broken]
    if not found:
        stayed = [name for name in layers if not run.nonfinite(name).all()]
        others = f", or pass layers that stayed finite, such as {', '.join(map(repr, stayed[:3]))}" if stayed else ""
        raise ValueError(
            f"at each of the {len(run)} snapshots, layers gave NaN or infinite values (at the first, "
            f"{diverged['first'].iloc[0]!r} before others): there is nothing to analyze. Look at the training: a lower "
            f"learning rate, or gradient clipping{others}"
        )
    return found


def describe_diverged(diverged: pd.DataFrame, *, n_layers: int) -> list[str]:
    """Say which snapshots are left out, and why: a sentence each of the first five.

    Parameters
    ----------
    diverged : DataFrame
        As `find_diverged` returns it.
    n_layers : int
        Of how many layers.
    """
    said = []
    for row in diverged.iloc[:_MOST_SAID].itertuples(index=False):
        who = "it gave" if n_layers == 1 else f"{row.layers} of {n_layers} layers gave"
        first = "" if n_layers == 1 else f", {row.first} first"
        said.append(
            f"Left out: epoch {row.epoch} (snapshot {row.snapshot}), where {who} NaN or infinite values{first}."
        )
    if more := len(diverged) - _MOST_SAID if len(diverged) > _MOST_SAID else 0:
        last = diverged.iloc[-1]
        said.append(f"Left out: {more} more such snapshots, to epoch {last['epoch']} (snapshot {last['snapshot']}).")
    return said
