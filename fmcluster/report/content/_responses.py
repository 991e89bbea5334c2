"""Responses: channels whose top images changed most, then and now, beside what chance gives."""

from dataclasses import dataclass
from math import comb

import numpy as np
import numpy.typing as npt
import pandas as pd

from ...analysis import TopImages
from ...plot.drawing import class_title
from ...store import Run, layer_title
from ._feature_maps import Picture
from ._image_strips import image_strip

SHOWN = 3
N_DRAWS, CONFIDENCE = 199, 0.95
_NONE = -1
_FEW_POSITIONS = 16

Labels = npt.NDArray[np.int64]


@dataclass(frozen=True)
class ChangedChannel:
    """One channel: its top images then and now, and what they say; not escaped."""

    channel: int
    text: str
    then: Picture | None
    now: Picture | None


@dataclass(frozen=True)
class Responses:
    """What the channels of a layer respond to.

    Attributes
    ----------
    layer : str
        The layer.
    sentences : tuple of str
        Over all channels, with the chance level; not escaped.
    titles : tuple of str
        The two snapshots.
    chosen : str
        Which channels these are, before they are shown.
    channels : tuple of ChangedChannel
        Those whose top images came to be of one class most; those that exchanged most, where none did by more than
        chance gives, or classes are not known.
    """

    layer: str
    sentences: tuple[str, ...]
    titles: tuple[str, str]
    chosen: str
    channels: tuple[ChangedChannel, ...]


def find_responses(run: Run, found: TopImages, *, titles: tuple[str, str]) -> Responses | None:
    """Compare the top images at the first and the last snapshot; None where no channel has a full list at both.

    Parameters
    ----------
    run : Run
        For pictures and classes.
    found : TopImages
        Of one layer at two snapshots.
    titles : tuple of str
        Their names.
    """
    if len(found.snapshots) < 2 or found.samples.shape[2] < 2:
        return None
    then, now = found.samples[0], found.samples[-1]
    full = (then != _NONE).all(axis=1) & (now != _NONE).all(axis=1)
    if not full.any():
        return None
    k = found.k
    kept = np.array([len(set(a.tolist()) & set(b.tolist())) for a, b in zip(then, now, strict=True)])
    chance = k * k / found.n_samples
    numbers = found.channels["channel"].to_numpy()[: len(kept)]
    lines = [
        f"On average, the {full.sum()} channels of {layer_title(found.layer)} that respond at both snapshots kept "
        f"{kept[full].mean():.1f} of their {k} top images (by chance {chance:.1f})"
    ]
    which = "Those that exchanged most:"
    order = np.lexsort((-found.values[-1].mean(axis=1), kept))
    chosen = [index for index in order.tolist() if full[index]][:SHOWN]
    texts = {index: f"{kept[index]} of its {k} top images kept (by chance {chance:.1f})" for index in chosen}
    labels = _labels(run, found)
    if labels is not None:
        share_then, class_then = _most_frequent(labels, then)
        share_now, class_now = _most_frequent(labels, now)
        pure = [int((full & (share == k)).sum()) for share in (share_then, share_now)]
        expected = full.sum() * chance_of_one_class(labels.tolist(), k)
        lines.append(
            f"those of {pure[1]} channels are all of one class at {titles[1]}, {pure[0]} at {titles[0]} "
            f"({change_by_chance(expected)} by chance)"
        )
        gained = np.where(full, share_now - share_then, -k)
        limit = largest_gain_by_chance(labels, then=then[full], now=now[full])
        by_chance = f"the most that any channel gains by chance, in {CONFIDENCE:.0%} of draws, is {limit}"
        order = np.lexsort((-found.values[-1].min(axis=1), kept, -gained))
        over = [index for index in order.tolist() if gained[index] > limit][:SHOWN]
        if over:
            chosen, which = over, f"Those whose top images came to be of one class most ({by_chance} of {k}):"
            texts = {
                index: f"class {_name(run, class_now[index])} in {share_now[index]} of {k}, before class "
                f"{_name(run, class_then[index])} in {share_then[index]}; {kept[index]} kept (by chance {chance:.1f})"
                for index in chosen
            }
        else:
            lines.append(f"no channel's came to be of one class by more than chance gives ({by_chance} of {k})")
    # of a feature map of a few positions, which of them says nothing of where in an image
    _, height, width = run[found.layer].feature_map_shape
    rings = found.fractions if height * width >= _FEW_POSITIONS else np.full_like(found.fractions, np.nan)
    return Responses(
        layer=found.layer,
        sentences=("; ".join(lines) + ".",),
        titles=titles,
        chosen=which,
        channels=tuple(
            ChangedChannel(
                channel=int(numbers[index]),
                text=texts[index],
                then=image_strip(run, then[index], fractions=rings[0, index], what=f"top images at {titles[0]}"),
                now=image_strip(run, now[index], fractions=rings[-1, index], what=f"top images at {titles[1]}"),
            )
            for index in chosen
        ),
    )


def largest_gain_by_chance(labels: "pd.Series[int]", *, then: Labels, now: Labels) -> int:
    """Return how many images of one class some channel gains where classes say nothing, in 95 % of draws at most.

    Classes are drawn anew for the images, 199 times; which images a channel has then and now stays as it is. The limit
    is for the channel that gains most, as that is the one which is shown.

    Parameters
    ----------
    labels : Series of int
        The class of each image, by its index.
    then, now : ndarray of shape (n_channels, k), int64
        The images of each channel.
    """
    rng, codes = np.random.default_rng(0), np.unique(labels, return_inverse=True)[1]
    rows = [labels.index.get_indexer(pd.Index(samples.ravel())).reshape(samples.shape) for samples in (then, now)]
    largest = []
    for _ in range(N_DRAWS):
        drawn = rng.permutation(codes)
        before, after = (_count_of_most(drawn[row]) for row in rows)
        largest.append(int((after - before).max()))
    return int(np.quantile(largest, CONFIDENCE, method="higher"))


def _count_of_most(rows: Labels) -> Labels:
    """Return how often the most frequent value of each row is in it."""
    ordered = np.sort(rows, axis=1)
    run = most = np.ones(len(rows), np.int64)
    for same in (ordered[:, 1:] == ordered[:, :-1]).T:
        run = np.where(same, run + 1, 1)
        most = np.maximum(most, run)
    return most


def chance_of_one_class(labels: npt.ArrayLike, k: int) -> float:
    """Return how probable it is that k images, drawn at random without putting back, are all of one class.

    Parameters
    ----------
    labels : ndarray of int64
        The class of each image.
    k : int
        How many are drawn.

    Examples
    --------
    >>> chance_of_one_class(np.array([0, 0, 1, 1]), 2)  # of six pairs, two are of one class
    0.3333333333333333
    """
    _, counts = np.unique(labels, return_counts=True)
    return sum(comb(int(count), k) for count in counts) / comb(int(counts.sum()), k)


def change_by_chance(expected: float) -> str:
    """Write how many are expected by chance.

    Examples
    --------
    >>> change_by_chance(0.004), change_by_chance(1.36), change_by_chance(17.2)
    ('fewer than 0.1', '1.4', '17')
    """
    return "fewer than 0.1" if expected < 0.1 else f"{expected:.1f}" if expected < 10 else f"{expected:.0f}"


def _labels(run: Run, found: TopImages) -> "pd.Series[int] | None":
    """Return the class of each image that was looked at, by index; None unless all are known, of several classes."""
    if "label" not in run.samples:
        return None
    looked_at = run.common_samples(found.snapshots["snapshot"].tolist())
    labels = run.samples["label"].reindex(looked_at, fill_value=-1)
    return labels if (labels >= 0).all() and labels.nunique() > 1 else None


def _most_frequent(labels: "pd.Series[int]", samples: Labels) -> tuple[Labels, Labels]:
    """Return for each row of samples how many are of the class that most are of, and which class that is."""
    classes = np.unique(labels)
    of = labels.reindex(samples.ravel(), fill_value=_NONE).to_numpy().reshape(samples.shape)
    counts = (of[:, :, None] == classes).sum(axis=1)
    return counts.max(axis=1), classes[counts.argmax(axis=1)]


def _name(run: Run, label: int) -> str:
    return class_title(run.classes[label]) if 0 <= label < len(run.classes) else str(label)
