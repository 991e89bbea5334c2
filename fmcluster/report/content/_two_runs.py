"""Two runs: channels that match, and images that only one of the two gets right."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.stats import binomtest

from ...analysis import Comparison, Thresholds, TopImages, top_images
from ...analysis.diagnosis import right_by_vote
from ...store import Run
from ._feature_maps import Picture
from ._image_strips import image_strip

K, SHOWN, MOST_IMAGES = 8, 3, 2000

Labels = npt.NDArray[np.int64]


@dataclass(frozen=True)
class MatchedChannels:
    """A channel of run 0, its partner in another run, and the images that drive each most; texts are not escaped."""

    text: str
    here: Picture
    there: Picture


@dataclass(frozen=True)
class MatchedLayer:
    """The channels of a layer whose partners respond most, and least, to the same.

    Attributes
    ----------
    layer : str
        The layer: the last before the head of which channels were matched.
    most, least : tuple of MatchedChannels
        The best matched channels, and the worst.
    """

    layer: str
    most: tuple[MatchedChannels, ...]
    least: tuple[MatchedChannels, ...]


@dataclass(frozen=True)
class Learned:
    """Of one layer of two runs, whose nearest neighbors give the right class where those of the other do not.

    Attributes
    ----------
    layer : str
        The layer.
    other : int
        The other run's number.
    both, here, there, n_images : int
        How many images both get right, run 0 alone, the other run alone; of how many.
    p : float
        How probable it is that those which one alone gets right are so unevenly split, if either run were as likely to
        (exact, two-sided McNemar test).
    only_here, only_there : Picture or None
        Some of these images.
    """

    layer: str
    other: int
    both: int
    here: int
    there: int
    n_images: int
    p: float
    only_here: Picture | None
    only_there: Picture | None

    @property
    def text(self) -> str:
        """Say it, with the numbers and how far chance would go."""
        probable = "< 0.001" if self.p < 0.001 else f"= {self.p:.2g}"
        judged = (
            f"run {0 if self.here > self.there else self.other} tells more of them by it"
            if self.p < 0.05
            else "too few to tell from chance"
        )
        return (
            f"{self.both + self.here} and {self.both + self.there} of {self.n_images} images get their own class; "
            f"{self.here} in run 0 alone, {self.there} in run {self.other} alone (p {probable}): {judged}"
        )


def find_matched(comparison: Comparison, runs: Sequence[Run], *, other: int) -> MatchedLayer | None:
    """Find the best and the worst matched channels, with their images; None where there are no pictures or matches."""
    found = comparison.matches
    found = found[(found["other_run"] == other) & found["correlation"].notna()]
    counts = found.groupby("layer", sort=False).size()
    names = [name for name in runs[0].layers if counts.get(name, 0) >= 2 * SHOWN]
    if not names:
        return None
    name = names[-2] if len(names) > 1 and names[-1] == runs[0].layers[-1] else names[-1]
    table = found[found["layer"] == name].sort_values("correlation", ascending=False, kind="stable")
    tops = [_top(runs[number], name, comparison.samples) for number in (0, other)]

    def drawn(rows: "list[tuple[int, int, float]]") -> tuple[MatchedChannels, ...]:
        pairs = []
        for channel, partner, correlation in rows:
            here = _strip(runs[0], tops[0], channel, what=f"top images of channel {channel} in run 0")
            there = _strip(runs[other], tops[1], partner, what=f"top images of channel {partner} in run {other}")
            if here is not None and there is not None:
                text = f"channel {channel} of run 0, channel {partner} of run {other}: correlation {correlation:.2f}"
                pairs.append(MatchedChannels(text, here, there))
        return tuple(pairs)

    rows = [
        (int(channel), int(partner), float(correlation))
        for channel, partner, correlation in zip(
            table["channel"], table["other_channel"], table["correlation"], strict=True
        )
    ]
    most, least = drawn(rows[:SHOWN]), drawn(rows[-SHOWN:][::-1])
    return MatchedLayer(name, most, least) if most else None


def find_learned(comparison: Comparison, runs: Sequence[Run], *, other: int) -> list[Learned]:
    """Ask, in each layer of both runs at their last snapshots, the nearest images of every image for its class.

    Nothing where classes are not known, or there are more than 2,000 images.
    """
    samples = comparison.samples
    if "label" not in runs[0].samples or len(samples) > MOST_IMAGES:
        return []
    labels = runs[0].samples["label"].reindex(samples, fill_value=-1).to_numpy(np.int64)
    samples, labels = samples[labels >= 0], labels[labels >= 0]
    if len(samples) < 4 or len(np.unique(labels)) < 2:
        return []
    found = []
    for name in dict.fromkeys(comparison.frame["layer"]):
        here, there = (
            right_by_neighbors(_gram(runs[number], name, samples), labels, n_neighbors=Thresholds().n_neighbors)
            for number in (0, other)
        )
        alone = (samples[here & ~there], samples[there & ~here])
        tried = len(alone[0]) + len(alone[1])
        found.append(
            Learned(
                layer=str(name),
                other=other,
                both=int((here & there).sum()),
                here=len(alone[0]),
                there=len(alone[1]),
                n_images=len(samples),
                p=float(binomtest(len(alone[0]), tried).pvalue) if tried else 1.0,
                only_here=image_strip(runs[0], alone[0][:K], what="right in run 0 alone"),
                only_there=image_strip(runs[0], alone[1][:K], what=f"right in run {other} alone"),
            )
        )
    return found


def right_by_neighbors(gram: npt.NDArray[np.float64], labels: Labels, *, n_neighbors: int) -> npt.NDArray[np.bool_]:
    """Say which images get their own class from a vote of their nearest others; of ties, the nearest's class counts.

    Parameters
    ----------
    gram : ndarray of shape (n_samples, n_samples), float64
        Inner products of the images' vectors.
    labels : ndarray of shape (n_samples,), int64
        Their classes.
    n_neighbors : int
        How many others are asked.

    Returns
    -------
    ndarray of shape (n_samples,), bool
    """
    squares = np.diag(gram)
    distances = np.maximum(squares[:, None] + squares - 2 * gram, 0)
    np.fill_diagonal(distances, np.inf)
    near = np.argsort(distances, axis=1, kind="stable")[:, : min(n_neighbors, len(labels) - 1)]
    return right_by_vote(near, np.unique(labels, return_inverse=True)[1])


def _gram(run: Run, name: str, samples: Labels) -> npt.NDArray[np.float64]:
    """Return the inner products of what a layer makes of images at its last finite snapshot."""
    vectors = run[name].vectors("sample", snapshots=_last(run, name), samples=samples.tolist())
    gram = np.zeros((len(samples), len(samples)))
    for block in vectors.feature_blocks(max_bytes=1 << 26):
        rows = block.astype(np.float64)
        gram += rows @ rows.T
    return gram


def _last(run: Run, name: str) -> list[int]:
    return run.finite_snapshots(layers=[name])[-1:]


def _top(run: Run, name: str, samples: Labels) -> TopImages:
    return top_images(run[name], k=min(K, len(samples)), snapshots=_last(run, name), samples=samples.tolist())


def _strip(run: Run, found: TopImages, channel: int, *, what: str) -> Picture | None:
    ordinal = found.channels["channel"].tolist().index(channel)
    samples = found.samples[-1, ordinal]
    return None if (samples < 0).any() else image_strip(run, samples, what=what)
