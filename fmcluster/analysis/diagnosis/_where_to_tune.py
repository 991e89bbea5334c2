"""Advice where to tune: whether training the body brought classes apart, and where normalizations' inputs shifted."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from ...store import Layer, Run
from .._damage import SIGMAS
from .._normalization_shift import normalization_shift
from .._results import Labels
from ._findings import Advice
from ._judge import Judged, when
from ._measures import known_classes
from ._modules import head_of
from ._recorded_updates import update_norms
from ._thresholds import Thresholds

_HEADS = ("Linear", "Conv")  # what the last layer of a classifier is, by the names of classes

NEIGHBORS, ITSELF = "nearest neighbors in the feature maps of {}", "the network itself"


class _Right(NamedTuple):
    """Of which images a class is told right, (n_images,), and what tells it."""

    images: npt.NDArray[np.bool_]
    by: str

    @property
    def share(self) -> float:
        return float(self.images.mean())


class _Gain(NamedTuple):
    """By how many images more are right after training than before, as a share, with its 95 % interval, paired."""

    mean: float
    lower: float
    upper: float


def advise_tuning(
    run: Run,
    judged: Sequence[Judged],
    *,
    clean: Run,
    samples: Labels,
    frame: pd.DataFrame,
    time: pd.DataFrame,
    thresholds: Thresholds,
) -> Iterator[Advice]:
    """Say what of the network to tune, where a training of more than the head tells.

    At the first and at the last snapshot, the class of each image is told by its nearest neighbors in the last feature
    maps before the head, and by the network itself, where its scores are recorded; whichever is right of more images
    counts. Where they are of no more at the last (the 95 % interval of the difference, paired over the images, ends at
    `thresholds.separated` or below), and were clearly above chance at the first, nothing speaks for training more than
    the head. Where they are of more (the interval is above zero), and the inputs of one normalization are
    `thresholds.shift` times as far from its running statistics as those of data that the network knows, and at least
    twice as far as those of all normalizations behind it, what is new entered before it: the network is to be tuned up
    to it, with the head. Where that is not so, it is to be tuned as a whole. Where the interval leaves open which,
    nothing is said.

    Parameters
    ----------
    run : Run
        The run, with weights.
    judged : sequence of Judged
        Its layers, in forward order.
    clean : Run
        A run of the same network on data that it knows, with weights.
    samples : ndarray of int64
        Dataset indices of the images that were compared.
    frame : DataFrame
        The measures, from which the advice gets its evidence.
    time : DataFrame
        One row per snapshot: snapshot, epoch, step.
    thresholds : Thresholds
        What counts as clear.

    Raises
    ------
    ValueError
        Where a run holds no weights, or the two are not of one network.
    """
    shift = normalization_shift(run, clean=clean, snapshot=int(time["snapshot"].iloc[0]))
    head = _head(run)
    features = next((each for each in reversed(judged) if head is None or each.name != head.name), None)
    if features is None or np.isnan(features.evidence.accuracy).any() or not _trained_a_body(run, time):
        return
    before, after = (
        _most_right(head, features, at=at, snapshot=int(time["snapshot"].iloc[at]), samples=samples)
        for at in (0, len(time) - 1)
    )
    gain = _gain(before.images, after.images)
    who = "" if after.by == before.by else f"{after.by} "
    told = (
        f"on these {len(before.images)} images, {before.by} {'is' if before.by == ITSELF else 'are'} right on "
        f"{before.share:.0%} at {when(time, 0)}, and {who}on {after.share:.0%} at {when(time, len(time) - 1)} "
        f"({_points(gain.mean)} points, 95 % interval {_points(gain.lower)} to {_points(gain.upper)}"
    )
    to_beat = "To beat: statistics of the normalizations that follow the images, with the head"
    rows = frame[(frame["layer"] == features.name) & (frame["measure"] == "knn_accuracy")].reset_index(drop=True)
    if gain.lower > 0:
        until, why = _entrance(shift, thresholds.shift)
        what = "all of the network" if until is None else f"the network up to {until}, and its head"
        rest = "" if until is None else "; freeze the weights behind it, and let all statistics follow the images"
        yield Advice(features.name, "tune", f"Tune {what}{rest}: {told}), and {why}. {to_beat}", rows, until=until)
        return
    chance, spread = features.evidence.chance[0], features.evidence.spread[0]
    if gain.upper <= thresholds.separated and before.share - chance > max(thresholds.separated, 3 * spread):
        text = (
            f"Tune the head alone: {told}; by chance {chance:.0%}): training more than the head does not bring the "
            f"classes apart. {to_beat}"
        )
        yield Advice(features.name, "tune", text, rows, until="")


def _head(run: Run) -> Layer | None:
    """Return the layer that returns the scores of classes, where it is recorded, and not only what it is given."""
    name = head_of(run)
    return run[name] if name is not None and run[name].module.startswith(_HEADS) else None


def _most_right(head: Layer | None, features: Judged, *, at: int, snapshot: int, samples: Labels) -> _Right:
    """Return of which images more are right: those of the neighbors, or those of the network itself."""
    found = [_Right(features.evidence.right[at], NEIGHBORS.format(features.name))]
    if head is not None:
        labels = known_classes(head, samples)
        known = labels >= 0
        if head.n_channels == head.n_output_channels > labels.max():
            scores = head.read(snapshot=snapshot, samples=samples[known].tolist())
            found.append(_Right(scores.argmax(axis=1) == labels[known], ITSELF))
    return max(found, key=lambda each: each.share)


def _trained_a_body(run: Run, time: pd.DataFrame) -> bool:
    """Say whether parameters of more than the last module changed between the first snapshot and the last."""
    names = [spec.name for spec in run.weight_specs if spec.kind == "parameter"]
    head = names[-1].rpartition(".")[0]
    body = [name for name in names if name.rpartition(".")[0] != head]
    return bool((update_norms(run, body, snapshots=time["snapshot"].tolist()) > 0).any())


def _gain(before: npt.NDArray[np.bool_], after: npt.NDArray[np.bool_]) -> _Gain:
    difference = after.astype(np.float64) - before
    mean = float(difference.mean())
    error = SIGMAS * float(difference.std(ddof=1)) / np.sqrt(len(difference))
    return _Gain(mean, mean - error, mean + error)


def _entrance(shift: pd.DataFrame, least: float) -> tuple[str | None, str]:
    """Return the normalization whose inputs shifted most, if clearly and clearly more than behind it; and say why.

    There is no ratio of one that is not called, or of which clean data are as its statistics have it.
    """
    known = shift.dropna(subset="ratio")
    if not len(known):
        return None, "of no normalization it is known how far its inputs shifted"
    ratios = known["ratio"].to_numpy(np.float64)
    at = int(ratios.argmax())
    name, ratio, behind = str(known["layer"].iloc[at]), ratios[at], ratios[at + 1 :]
    told = f"before it the inputs of {name} are {ratio:.1f} times as far from its statistics as those of known data"
    if ratio < least:
        return None, f"{told}, those of no other farther: that is no shift (threshold {least:g})"
    if not len(behind):
        return None, f"{told}; it is the last normalization"
    told += f", those behind it at most {behind.max():.1f} times"
    return (name, told) if 2 * behind.max() <= ratio else (None, f"{told}: more than one part is shifted")


def _points(share: float) -> str:
    return f"{100 * share:+.0f}"
