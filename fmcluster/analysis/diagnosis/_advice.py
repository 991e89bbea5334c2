"""Advice: what follows from the findings, in sentences that carry their numbers."""

from collections.abc import Iterator, Mapping, Sequence
from textwrap import shorten

import numpy as np
import pandas as pd

from ...store import Run
from ._channels import NONE, Mask
from ._findings import Advice, Thresholds
from ._judge import Judged, listed, when
from ._modules import made_by

Found = tuple[str, str, tuple[str, ...]]  # action, text, measures it rests on


def advise(
    run: Run, judged: Sequence[Judged], *, frame: pd.DataFrame, time: pd.DataFrame, thresholds: Thresholds
) -> tuple[Advice, ...]:
    """Say what follows, layer by layer in forward order.

    What a normalization, an activation or a pooling hands on from a recorded layer of as many channels is said once, of
    that layer.

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
    for each in judged:
        before = by_name.get(source.get(each.name, ""))
        found = [*_dead(each, before, time)]
        if before is None:
            found += [*_noise(each), *_permuted(each, time, thresholds)]
        if each.counts and not each.evidence.channels.dead[-1].all():
            found += [*_converged(each, time, thresholds), *_narrow(each, thresholds)]
            found += _shorten(each, by_name)
        for action, text, measures in found:
            chosen = (frame["layer"] == each.name) & frame["measure"].isin(measures)
            out.append(Advice(each.name, action, text, frame[chosen].reset_index(drop=True)))
    return tuple(out)


def _dead(judged: Judged, before: Judged | None, time: pd.DataFrame) -> Iterator[Found]:
    channels = judged.evidence.channels
    dead = channels.dead[-1] & (True if before is None else ~before.evidence.channels.dead[-1])
    if dead.any():
        always = bool(channels.dead[:, dead].all())
        since = "from the first snapshot on" if always else f"at {when(time, len(time) - 1)}"
        text = f"{_share(judged, dead)} dead (constant over the probe) {since}: {_some(judged, dead)}"
        yield "dead", text, ("dead",)


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
            f"{thresholds.permuted:.2f} or more; CKA to the last snapshot {judged.cka_to_last[at - 1]:.2f} before "
            f"and {judged.cka_to_last[at]:.2f} after): permuted. Do not follow channels by number across this step"
        )
        yield "permuted", text, ("permuted", "drift_step", "cka_to_last")


def _converged(judged: Judged, time: pd.DataFrame, thresholds: Thresholds) -> Iterator[Found]:
    measures = ("cka_to_last", "drift")
    if judged.unchanged:
        drift = judged.evidence.channels.drift.max()
        text = (
            f"{judged.name} did not change (largest drift of a channel {drift:.4f}, over {len(time)} snapshots): "
            f"frozen, or learning rate 0"
        )
        yield "unchanged", text, measures
    elif judged.converged is not None and not _permuted_steps(judged).any():
        if _progress(time)[judged.converged] > thresholds.converged_by:
            return
        numbers = (
            f"(CKA to the last snapshot {judged.cka_to_last[judged.converged : -1].min():.2f}, {_noise_floor(judged)})"
        )
        if judged.converged:
            since = when(time, judged.converged)
            text = f"{judged.name} converged at {since} {numbers}: a candidate to freeze from then on"
        else:
            text = f"{judged.name} hardly changed from the start {numbers}: a candidate to freeze throughout"
        yield "freeze", text, measures


def _narrow(judged: Judged, thresholds: Thresholds) -> Iterator[Found]:
    evidence = judged.evidence
    width, rank = len(evidence.numbers), evidence.channels.effective_rank[-1]
    of_low_rank = rank <= thresholds.rank * width and evidence.n_positions >= 2 * width
    if width > 1 and (judged.surplus >= thresholds.narrow * width or of_low_rank) and (judged.surplus or of_low_rank):
        groups = len(np.unique(evidence.channels.group[-1][evidence.channels.group[-1] != NONE]))
        text = (
            f"{judged.name}: {width} channels, effective rank {rank:.0f}, {groups} duplicate group{_s(groups)}, "
            f"{int(evidence.channels.dead[-1].sum())} dead ({judged.surplus} channel{_s(judged.surplus)} to spare): "
            f"a candidate to narrow"
        )
        yield "narrow", text, ("effective_rank", "duplicates", "dead")


def _shorten(judged: Judged, by_name: Mapping[str, Judged]) -> Iterator[Found]:
    if judged.next is None or judged.cka_to_next is None:
        return
    noise_floors = [judged.evidence.noise_floor, by_name[judged.next].evidence.noise_floor]
    last = float(judged.cka_to_next[-1])
    if last >= judged.next_level:
        named = " and ".join("none" if np.isnan(each) else f"{each:.2f}" for each in noise_floors)
        text = (
            f"{judged.name} and {judged.next}: CKA {last:.2f} at the last snapshot (noise floors {named}): "
            f"a candidate to shorten"
        )
        yield "shorten", text, ("cka_to_next",)


def _permuted_steps(judged: Judged) -> Mask:
    """Say into which snapshots channels changed positions: one that takes a position alone is no permutation."""
    return np.asarray((judged.evidence.channels.moved_from != NONE).sum(axis=1) > 1)


def _progress(time: pd.DataFrame) -> pd.Series:
    """Return how far training was at each snapshot, from 0 to 1."""
    clock = time["step"] if time["step"].iloc[-1] > time["step"].iloc[0] else pd.Series(range(len(time)))
    return (clock - clock.iloc[0]) / (clock.iloc[-1] - clock.iloc[0])


def _noise_floor(judged: Judged) -> str:
    return (
        "no noise floor" if np.isnan(judged.evidence.noise_floor) else f"noise floor {judged.evidence.noise_floor:.2f}"
    )


def _share(judged: Judged, chosen: Mask) -> str:
    return f"{judged.name}: {chosen.sum()} of {len(chosen)} channels {'is' if chosen.sum() == 1 else 'are'}"


def _some(judged: Judged, chosen: Mask) -> str:
    return shorten(listed(judged.evidence, chosen), 100, placeholder=" ...")


def _s(count: int) -> str:
    return "" if count == 1 else "s"
