"""Judged layers: what was measured of each, beside the thresholds, as tidy tables."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from ...store import Run, ranges
from .._results import Array
from ._channels import converged_at, first_to_stay, is_noise
from ._duplicates import NONE
from ._measures import LayerEvidence
from ._modules import head_of, passes_on
from ._products import Mask
from ._rate_of_change import ToEnd
from ._thresholds import Thresholds

Row = tuple[str, float, float, float, float, str]  # measure, value, threshold, noise floor, null, evidence
NAN = float("nan")
SIGMAS = 3
HIGHEST_NOISE_FLOOR = 0.999  # what is over it is rounding, as of a layer whose channels are all the same


@dataclass(frozen=True, eq=False)
class Judged:
    """A layer's evidence, judged.

    Attributes
    ----------
    evidence : LayerEvidence
        What was measured.
    counts : bool
        Whether it has parameters of its own and is not the head.
    cka_to_last : ndarray of shape (n_snapshots,)
        Debiased CKA to the last snapshot.
    cka_to_next : ndarray of shape (n_snapshots,) or None
        Debiased CKA to the neighboring layer; None where there is none.
    next : str or None
        The neighboring layer.
    level : float
        CKA from which on the layer has converged.
    converged, separated : int or None
        Indices of the snapshots at which the layer has converged, and its classes separated; None where they have not.
    unchanged : bool
        Whether no channel ever drifted, over two snapshots at least.
    noise : ndarray of shape (n_channels,), bool
        Channels that are noise.
    converged_channels : ndarray of shape (n_snapshots, n_channels), bool
        Whether each has converged by then.
    to_end : ToEnd
        How far it would still move.
    """

    evidence: LayerEvidence
    counts: bool
    cka_to_last: Array
    cka_to_next: Array | None
    next: str | None
    level: float
    converged: int | None
    separated: int | None
    unchanged: bool
    noise: Mask
    converged_channels: Mask
    to_end: ToEnd

    @property
    def name(self) -> str:
        """The layer's name."""
        return self.evidence.name


def judge(
    run: Run,
    evidence: LayerEvidence,
    *,
    cka_to_last: Array,
    cka_to_next: Array | None,
    following: str | None,
    to_end: ToEnd,
    thresholds: Thresholds,
) -> Judged:
    """Apply the thresholds to what was measured of a layer."""
    channels = evidence.channels
    count = len(channels.dead)
    level = _level(thresholds.cka, evidence.noise_floor)
    since = converged_at(channels.step, drift=thresholds.drift)
    begun = np.array([count if at is None else at for at in since])
    return Judged(
        evidence=evidence,
        counts=evidence.name != head_of(run) and not passes_on(evidence.module),
        cka_to_last=cka_to_last,
        cka_to_next=cka_to_next,
        next=following,
        level=level,
        converged=first_to_stay(cka_to_last >= level),
        separated=_separated(evidence, thresholds.separated),
        unchanged=count > 1 and bool((channels.drift <= thresholds.unchanged).all()),
        noise=is_noise(channels, noise=thresholds.noise),
        converged_channels=np.arange(count)[:, None] >= begun,
        to_end=to_end,
    )


def measure_table(judged: Sequence[Judged], *, time: pd.DataFrame, thresholds: Thresholds) -> pd.DataFrame:
    """Return a row per layer, snapshot and measure: see `Findings.frame`."""
    stamps = list(time[["snapshot", "epoch", "step"]].itertuples(index=False, name=None))
    rows = [
        (each.name, *stamp, *row)
        for each in judged
        for at, stamp in enumerate(stamps)
        for row in _measures(each, at, time, thresholds)
    ]
    columns = ["layer", "snapshot", "epoch", "step", "measure", "value", "threshold", "noise_floor", "null", "evidence"]
    return pd.DataFrame(rows, columns=columns)


def channel_table(judged: Sequence[Judged], *, time: pd.DataFrame) -> pd.DataFrame:
    """Return a row per layer, snapshot and channel: see `Findings.channels`."""
    return pd.concat([_channels(each, time) for each in judged], ignore_index=True)


def layer_table(judged: Sequence[Judged], *, time: pd.DataFrame) -> pd.DataFrame:
    """Return a row per layer: see `Findings.layers`."""
    frame = pd.DataFrame(
        {
            "layer": [each.name for each in judged],
            "module": [each.evidence.module for each in judged],
            "channels": [len(each.evidence.numbers) for each in judged],
            "positions": [each.evidence.n_positions for each in judged],
            "of_positions": [each.evidence.of_positions for each in judged],
            "counts": [each.counts for each in judged],
            "noise_floor": [each.evidence.noise_floor for each in judged],
            "level": [each.level for each in judged],
        }
    )
    for name in ("converged", "separated"):
        found = [getattr(each, name) for each in judged]
        for column, source in ((name, "snapshot"), (f"{name}_epoch", "epoch")):
            values = [pd.NA if at is None else int(time[source].iloc[at]) for at in found]
            frame[column] = pd.array(values, dtype="Int64")
    return frame


def when(time: pd.DataFrame, at: int) -> str:
    """Name a snapshot by its epoch, and by its step where the epoch has several.

    Examples
    --------
    >>> time = pd.DataFrame({"epoch": [0, 1, 1], "step": [0, 4, 8]})
    >>> when(time, 0), when(time, 2)
    ('epoch 0', 'epoch 1 (step 8)')
    """
    epoch, step = int(time["epoch"].iloc[at]), int(time["step"].iloc[at])
    return f"epoch {epoch}" + (f" (step {step})" if (time["epoch"] == epoch).sum() > 1 else "")


def listed(evidence: LayerEvidence, chosen: Mask) -> str:
    """Name channels by the module's numbers: ``"channels 0 to 3, 5"``; nothing for none."""
    numbers = evidence.numbers[chosen]
    return f"channel{'s' if len(numbers) > 1 else ''} {ranges(numbers)}" if len(numbers) else ""


def groups_listed(evidence: LayerEvidence, at: int) -> str:
    """Name the groups of duplicates: ``"0 = 4 = 7; 2 = 3"``."""
    group = evidence.channels.group[at]
    members = [evidence.numbers[group == first] for first in np.unique(group[group != NONE])]
    return "; ".join(" = ".join(map(str, each)) for each in members)


def _measures(judged: Judged, at: int, time: pd.DataFrame, thresholds: Thresholds) -> Iterator[Row]:
    evidence, channels = judged.evidence, judged.evidence.channels
    dead, group, moved = channels.dead[at], channels.group[at], channels.moved_from[at]
    revived = channels.dead[at - 1] & ~dead if at else np.zeros_like(dead)
    width = len(dead)
    yield "dead", float(dead.sum()), thresholds.dead, NAN, NAN, listed(evidence, dead)
    yield "revived", float(revived.sum()), thresholds.dead, NAN, NAN, listed(evidence, revived)
    count = len(np.unique(group[group != NONE]))
    yield "duplicates", float(count), thresholds.duplicate, NAN, NAN, groups_listed(evidence, at)
    drawn = f" drawn of {evidence.of_positions}" if evidence.n_positions < evidence.of_positions else ""
    rank = f"{width} channels at {evidence.n_positions} positions{drawn}"
    yield "effective_rank", float(channels.effective_rank[at]), NAN, NAN, NAN, rank
    kept = f"{channels.energy_width[at]} of {width} channels"
    yield "energy_width", float(channels.energy_width[at]), thresholds.energy, NAN, NAN, kept
    yield "drift", float(np.median(channels.drift[at])), thresholds.unchanged, NAN, NAN, _range(channels.drift[at])
    late = channels.step[at] >= thresholds.drift
    far = listed(evidence, late) if late.sum() <= width // 2 else f"{late.sum()} of {width} channels"
    yield "drift_step", float(np.median(channels.step[at])), thresholds.drift, NAN, NAN, far and f"over it: {far}"
    converged = judged.converged_channels[at]
    yield (
        "converged_channels",
        float(converged.mean()),
        thresholds.drift,
        NAN,
        NAN,
        f"{converged.sum()} of {width} channels",
    )
    taken = moved != NONE
    pairs = [f"{evidence.numbers[moved[c]]} to {evidence.numbers[c]}" for c in np.flatnonzero(taken)]
    yield "permuted", float(taken.sum()) if at else NAN, thresholds.permuted, NAN, NAN, ", ".join(pairs)
    yield "noise", float(judged.noise.sum()), thresholds.noise, NAN, NAN, listed(evidence, judged.noise)
    last = float(judged.cka_to_last[at])
    yield "cka_to_last", last, judged.level, evidence.noise_floor, NAN, _convergence(judged, at, time)
    next_one = NAN if judged.cka_to_next is None else float(judged.cka_to_next[at])
    yield (
        "cka_to_next",
        next_one,
        NAN,
        evidence.noise_floor,
        NAN,
        judged.next or "no neighbor that counts",
    )
    left = judged.to_end
    interval = "" if np.isnan(left.error[at]) else f" ({left.lower[at]:.3f} to {left.upper[at]:.3f})"
    over = "" if np.isnan(left.excess[at]) else f"{left.excess[at]:.3f}{interval} over that at learning rate 0"
    yield "change_to_end", float(left.value[at]), 1 - thresholds.cka, float(left.at_rest[at]), NAN, over
    yield _accuracy(judged, at, time, thresholds)


def _accuracy(judged: Judged, at: int, time: pd.DataFrame, thresholds: Thresholds) -> Row:
    accuracy, chance = judged.evidence.accuracy, judged.evidence.chance
    if np.isnan(accuracy).all():
        return "knn_accuracy", NAN, NAN, NAN, NAN, "not available: fewer than two classes are known"
    best = int(accuracy.argmax())
    text = f"best {accuracy[best]:.2f} at {when(time, best)}"
    text += f"; separated at {when(time, judged.separated)}" if judged.separated is not None else "; not separated"
    return (
        "knn_accuracy",
        float(accuracy[at]),
        float(accuracy[best] - thresholds.separated),
        NAN,
        float(chance[at]),
        text,
    )


def _convergence(judged: Judged, at: int, time: pd.DataFrame) -> str:
    if len(judged.cka_to_last) == 1:
        return "not available: one snapshot"
    if judged.converged is None:
        return "not converged: only the last snapshot itself reaches the threshold"
    if judged.unchanged:
        return "did not change"
    return f"{'converged' if at >= judged.converged else 'converges'} at {when(time, judged.converged)}"


def _level(threshold: float, noise_floor: float) -> float:
    """Return the threshold, or the noise floor where that is known and higher."""
    return threshold if np.isnan(noise_floor) else max(threshold, min(HIGHEST_NOISE_FLOOR, noise_floor))


def _separated(evidence: LayerEvidence, tolerance: float) -> int | None:
    """Return the first at within the tolerance of the best accuracy, if that is clearly over chance."""
    accuracy = evidence.accuracy
    if np.isnan(accuracy).all():
        return None
    best = int(accuracy.argmax())
    if accuracy[best] - evidence.chance[best] <= max(tolerance, SIGMAS * evidence.spread[best]):
        return None
    return int(np.argmax(accuracy >= accuracy[best] - tolerance))


def _range(values: Array) -> str:
    return f"{values.min():.3f} to {values.max():.3f} over the channels"


def _channels(judged: Judged, time: pd.DataFrame) -> pd.DataFrame:
    evidence, channels = judged.evidence, judged.evidence.channels
    count, width = channels.dead.shape

    def numbered(indices: np.ndarray) -> pd.arrays.IntegerArray:
        flat = indices.ravel()
        return pd.arrays.IntegerArray(evidence.numbers[np.maximum(flat, 0)], flat == NONE)

    return pd.DataFrame(
        {
            "layer": evidence.name,
            "snapshot": np.repeat(time["snapshot"].to_numpy(), width),
            "channel": np.tile(evidence.numbers, count),
            "dead": channels.dead.ravel(),
            "duplicate_group": numbered(channels.group),
            "drift": channels.drift.ravel(),
            "drift_step": channels.step.ravel(),
            "converged": judged.converged_channels.ravel(),
            "noise": np.tile(judged.noise, count),
            "permuted_from": numbered(channels.moved_from),
        }
    )
