"""Facts of single layers, in sentences that carry their numbers: dead, duplicate, noise, permuted, unchanged."""

from collections.abc import Iterator, Sequence
from textwrap import shorten

import numpy as np
import pandas as pd

from ...store import Run, layer_title
from ._duplicates import NONE
from ._findings import Advice
from ._judge import Judged, groups_listed, listed, when
from ._modules import made_by
from ._products import Mask
from ._recorded_updates import RecordedUpdate, recorded_update
from ._thresholds import Thresholds

Found = tuple[str, str, tuple[str, ...]]  # action, text, measures it rests on


def advise(
    run: Run, judged: Sequence[Judged], *, frame: pd.DataFrame, time: pd.DataFrame, thresholds: Thresholds
) -> tuple[Advice, ...]:
    """Say what is the matter with layers, one by one in forward order.

    What a normalization, an activation or a pooling hands on from a recorded layer of as many channels is said once, of
    that layer. A channel of a residual stream that is constant after one block, and not after another, is not dead.

    Parameters
    ----------
    run : Run
        The run.
    judged : sequence of Judged
        Its layers.
    frame : DataFrame
        The measures, from which each advice gets its evidence.
    time : DataFrame
        One row per snapshot: snapshot, epoch, step.
    thresholds : Thresholds
        What counts as what.
    """
    by_name = {each.name: each for each in judged}
    source = made_by(run, list(by_name))
    out = []
    for number, each in enumerate(judged):
        before = by_name.get(source.get(each.name, ""))
        stream = [other for other in judged if run[other.name].stream == run[each.name].stream is not None]
        said = [other.evidence.numbers for other in stream if other in judged[:number]]
        found = [*_dead(each, before, time, stream=stream, said=np.concatenate([*said, []]))]
        if before is None:
            found += [*_duplicate(each, thresholds), *_noise(each), *_permuted(each, time, thresholds)]
        if each.counts and not each.evidence.channels.dead[-1].all():
            update = recorded_update(run, each.name, snapshots=time["snapshot"].tolist())
            found += _unchanged(each, update, time, thresholds)
        for action, text, measures in found:
            chosen = (frame["layer"] == each.name) & frame["measure"].isin(measures)
            out.append(Advice(each.name, action, text, frame[chosen].reset_index(drop=True)))
    return tuple(out)


def _dead(
    judged: Judged, before: Judged | None, time: pd.DataFrame, *, stream: Sequence[Judged], said: np.ndarray
) -> Iterator[Found]:
    """Say which channels are constant; of a stream, what is so in all of it is said once."""
    channels = judged.evidence.channels
    dead = channels.dead[-1] & (True if before is None else ~before.evidence.channels.dead[-1])
    alive = {other.name: dead & _alive_in(other, judged.evidence.numbers) for other in stream}
    here = np.any([np.zeros_like(dead), *alive.values()], axis=0)
    where = shorten(", ".join(name for name, found in alive.items() if found.any()), 60, placeholder=" ...")
    inside = " in all of its residual stream that was recorded" if len(stream) > 1 else ""
    for found, action, what in (
        (dead & ~here & ~np.isin(judged.evidence.numbers, said), "dead", f"dead (constant over the probe{inside})"),
        (here, "dead_here", f"constant over the probe here, but alive in the residual stream (at {where})"),
    ):
        if found.any():
            always = bool(channels.dead[:, found].all())
            since = "from the first snapshot on" if always else f"at {when(time, len(time) - 1)}"
            yield action, f"{_share(judged, found)} {what} {since}: {_some(judged, found)}", ("dead",)


def _alive_in(judged: Judged, numbers: np.ndarray) -> Mask:
    """Say which channels, by their numbers, a layer recorded and did not find constant at the last snapshot."""
    alive = judged.evidence.numbers[~judged.evidence.channels.dead[-1]]
    return np.isin(numbers, alive)


def _noise(judged: Judged) -> Iterator[Found]:
    noise = judged.noise
    if noise.any():
        most = float(np.abs(judged.evidence.channels.own[1:, noise]).max())
        drift = float(np.median(judged.evidence.channels.step[1:, noise]))
        text = (
            f"{_share(judged, noise)} noise, unrelated to themselves from each snapshot to the next (correlation "
            f"{most:.2f} at most, drift {drift:.2f} a step): {_some(judged, noise)}"
        )
        yield "noise", text, ("noise", "drift_step")


def _permuted(judged: Judged, time: pd.DataFrame, thresholds: Thresholds) -> Iterator[Found]:
    channels = judged.evidence.channels
    for at in np.flatnonzero(_permuted_steps(judged)).tolist():
        moved = channels.moved_from[at] != NONE
        text = (
            f"{_share(judged, moved)} in another's position since {when(time, at)} (drift in that step "
            f"{np.median(channels.step[at, moved]):.2f}; correlation with the other's response "
            f"{thresholds.permuted:.2f} or more, and no third channel nearly as near; CKA to the last snapshot "
            f"{judged.cka_to_last[at - 1]:.2f} before "
            f"and {judged.cka_to_last[at]:.2f} after): permuted. Do not follow channels by number across this step"
        )
        yield "permuted", text, ("permuted", "drift_step", "cka_to_last")


def _unchanged(
    judged: Judged, update: RecordedUpdate | None, time: pd.DataFrame, thresholds: Thresholds
) -> Iterator[Found]:
    """Say that a layer did not change: what it returns, or, where they are recorded, its parameters."""
    drift = judged.evidence.channels.drift.max()
    still = update is not None and update.largest == 0
    if judged.unchanged:
        why = "frozen, learning rate 0, or hardly trained so far"
        if update is not None and not np.isnan(update.largest):
            norm = f"norm of its largest recorded update {update.largest:.2g}"
            why = f"frozen, or learning rate 0 ({norm})" if still else f"hardly trained so far ({norm})"
        text = (
            f"{layer_title(judged.name)} did not change (largest drift of a channel {drift:.4f}, over {len(time)} "
            f"snapshots; threshold {thresholds.unchanged:.4f}): {why}"
        )
        yield "unchanged", text, ("cka_to_last", "drift")
    elif update is not None and still:
        text = (
            f"{layer_title(judged.name)}: none of its {update.count:,} parameters changed over {len(time)} snapshots "
            f"(norm of its largest recorded update 0): frozen, or learning rate 0. What it returns moved (largest "
            f"drift of a channel {drift:.4f}), as what it was given did"
        )
        yield "unchanged", text, ("cka_to_last", "drift")


def _duplicate(judged: Judged, thresholds: Thresholds) -> Iterator[Found]:
    group = judged.evidence.channels.group[-1]
    repeated = (group != NONE) & (group != np.arange(len(group)))
    if repeated.any():
        groups = shorten(groups_listed(judged.evidence, len(judged.cka_to_last) - 1), 100, placeholder=" ...")
        least, low = np.floor(1000 * judged.evidence.channels.least[-1]) / 1000
        text = (
            f"{_share(judged, repeated)} at the last snapshot nearly the same as another (correlation {least:.3f} or "
            f"more, 95 % interval from {low:.3f}, on these {judged.evidence.n_images} images; threshold "
            f"{thresholds.duplicate:.2f}): {groups.replace(' = ...', ' ...')}"
        )
        yield "duplicate", text, ("duplicates",)


def _permuted_steps(judged: Judged) -> Mask:
    """Say into which snapshots channels changed positions: one that takes a position alone is no permutation."""
    return np.asarray((judged.evidence.channels.moved_from != NONE).sum(axis=1) > 1)


def _share(judged: Judged, chosen: Mask) -> str:
    return (
        f"{layer_title(judged.name)}: {chosen.sum()} of {len(chosen)} channels {'is' if chosen.sum() == 1 else 'are'}"
    )


def _some(judged: Judged, chosen: Mask) -> str:
    return shorten(listed(judged.evidence, chosen), 100, placeholder=" ...")
