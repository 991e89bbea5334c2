"""Recorded updates: how far a layer's parameters moved, where a run holds them."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ...store import Run
from .._results import Array


@dataclass(frozen=True)
class RecordedUpdate:
    """How far the parameters of a layer moved over some snapshots.

    Attributes
    ----------
    count : int
        Numbers that its parameters hold.
    largest : float
        Euclidean norm of the largest update of one of them from a snapshot to the next; NaN where that is not known.
    """

    count: int
    largest: float


def update_norms(run: Run, names: Sequence[str], *, snapshots: Sequence[int]) -> Array:
    """Return the norms of the updates that parameters got after the first of some snapshots, up to the last.

    Parameters
    ----------
    run : Run
        A run with weights.
    names : sequence of str
        Of the parameters.
    snapshots : sequence of int
        Numbers, in ascending order.

    Returns
    -------
    ndarray of shape (n_updates,), float64
        NaN where a norm is not known.
    """
    table = run.weights
    within = table["snapshot"].between(snapshots[0] + 1, snapshots[-1])
    return table.loc[within & table["name"].isin(list(names)), "update_norm"].to_numpy(np.float64)


def recorded_update(run: Run, layer: str, *, snapshots: Sequence[int]) -> RecordedUpdate | None:
    """Return how far a layer's parameters, those of all that it holds, moved between the first and the last snapshot.

    Outputs of a layer move with its inputs, whether or not it is trained; its parameters tell the two apart.

    Parameters
    ----------
    run : Run
        The run.
    layer : str
        The layer.
    snapshots : sequence of int
        Numbers, in ascending order. What lies between two of them counts, too.

    Returns
    -------
    RecordedUpdate or None
        None where none of its parameters is recorded, or there is one snapshot.
    """
    module = re.sub(r"\.call\d+$", "", layer)
    if len(snapshots) < 2 or not any(name.startswith(f"{module}.") for name in run.weight_names):
        return None
    own = [each for each in run.weight_specs if each.kind == "parameter" and each.name.startswith(f"{module}.")]
    if not own:
        return None
    norms = update_norms(run, [each.name for each in own], snapshots=snapshots)
    return RecordedUpdate(sum(int(np.prod(each.shape)) for each in own), float(norms.max()))
