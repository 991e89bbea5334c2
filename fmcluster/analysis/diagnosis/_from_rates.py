"""Advice from rates of change: which layers would clearly move little to the end, beyond what they do at rest."""

from collections.abc import Iterator, Sequence

import pandas as pd

from ._findings import Advice
from ._from_damage import saves_no_backward
from ._judge import Judged, when
from ._rate_of_change import frozen_from
from ._thresholds import Thresholds


def advise_freezing(
    judged: Sequence[Judged],
    *,
    frame: pd.DataFrame,
    time: pd.DataFrame,
    thresholds: Thresholds,
    steps_left: int,
    n_samples: int,
) -> Iterator[Advice]:
    """Say which layers could be frozen, where not all that count could be.

    Parameters
    ----------
    judged : sequence of Judged
        The layers, in forward order.
    frame : DataFrame
        The measures, from which each advice gets its evidence.
    time : DataFrame
        One row per snapshot: snapshot, epoch, step.
    thresholds : Thresholds
        Of which 1 - `cka` is what a layer may move.
    steps_left : int
        Optimizer steps after the last snapshot.
    n_samples : int
        How many images were compared.
    """
    tolerance = 1 - thresholds.cka
    counting = [each for each in judged if each.counts]
    found = {each.name: frozen_from(each.to_end, tolerance=tolerance, steps_left=steps_left) for each in counting}
    since = {name: at for name, at in found.items() if at is not None}
    if 1 < len(counting) == len(since):
        return
    for position, each in enumerate(counting):
        if each.name not in since:
            continue
        at, to_end = since[each.name], each.to_end
        below = [other.name for other in counting[:position] if other.name not in since or since[other.name] > at]
        text = (
            f"{each.name}: from {when(time, at)} on it would move {to_end.excess[at]:.3f} ({to_end.lower[at]:.3f} to "
            f"{to_end.upper[at]:.3f}) to the end at the rate of the steps just before, beyond what it does at learning "
            f"rate 0 (1 - CKA, on these {n_samples} images; tolerated: {tolerance:.2f}): a candidate to freeze from "
            f"then on{saves_no_backward(below)}"
        )
        chosen = (frame["layer"] == each.name) & (frame["measure"] == "change_to_end")
        epoch = int(time["epoch"].iloc[at])
        yield Advice(each.name, "freeze", text, frame[chosen].reset_index(drop=True), epoch=epoch)
