"""Chosen points: which rows of the embedding are chosen, what they have in common, and their neighbors."""

from bisect import bisect_right
from collections import Counter
from dataclasses import dataclass

import numpy as np
import pandas as pd

from ..analysis import TopImages
from ..plot.drawing import class_in_words
from ..report.content import LayerContent

N_NEIGHBORS = 8


def ordinal_in(content: LayerContent, shown: pd.DataFrame, *, ordinal: int) -> int:
    """Return which snapshot of a content stands for one of those shown: itself, or the last finite one before it.

    Parameters
    ----------
    content : LayerContent
        Of a gradient, it may lack some.
    shown : DataFrame
        The snapshots that the slider goes through.
    ordinal : int
        Where the slider stands.
    """
    numbers = content.scores.rows["snapshot"].unique().tolist()
    return max(0, bisect_right(numbers, int(shown["snapshot"].iloc[ordinal])) - 1)


def rows_named(content: LayerContent, text: str) -> list[int]:
    """Return the rows in whose name a text occurs, whatever its case; a number is looked for as a whole."""
    text = text.strip().lower()
    names = [name.lower() for name in content.row_names]
    if text.isdigit():
        return [row for row, name in enumerate(names) if text in name.replace(",", " ").split()]
    return [row for row, name in enumerate(names) if text in name]


def rows_of_cluster(content: LayerContent, label: int, *, snapshot: int) -> list[int]:
    """Return the rows that a cluster holds at a snapshot."""
    return [int(row) for row in np.flatnonzero(content.labels[snapshot] == label)]


def class_mix(content: LayerContent, rows: list[int], *, found: TopImages | None = None) -> dict[str, tuple[int, int]]:
    """Count the classes of the images that rows are of, or that drive channels most at the last snapshot.

    Parameters
    ----------
    content : LayerContent
        Whose rows.
    rows : list of int
        Which rows.
    found : TopImages, optional
        The images of channels. Where it is missing, channels have no classes.

    Returns
    -------
    dict of {str: tuple of int}
        For each class how many of the chosen rows' images it has, and how many of those of all rows; the most frequent
        first, and those that no row has last. Empty where rows are of no image, or classes are not known.
    """
    layer, identity = content.layer, content.scores.identity
    if "class_name" not in layer.samples:
        return {}
    about = content.scores.rows.iloc[: content.n_rows]
    if "sample" in identity:
        samples = [[int(sample)] for sample in about["sample"]]
    elif found is not None and identity == ["channel"]:
        ordinals = {int(channel): ordinal for ordinal, channel in enumerate(layer.channels)}
        samples = [found.samples[-1, ordinals[int(channel)]].tolist() for channel in about["channel"]]
    else:
        return {}
    names = layer.samples["class_name"]

    def counted(chosen: list[int]) -> Counter[str]:
        known = (names.get(sample) for row in chosen for sample in samples[row])
        return Counter(class_in_words(name) for name in known if isinstance(name, str) and name)

    here, every = counted(rows), counted(list(range(content.n_rows)))
    return {name: (here[name], every[name]) for name in sorted(every, key=lambda name: (-here[name], name))}


@dataclass(frozen=True)
class Neighbors:
    """The rows nearest to one, at a snapshot and at the first.

    Attributes
    ----------
    then, now : tuple of int
        Rows at the first and at the other snapshot, the nearest first.
    shared : int
        How many are of both.
    chance : float
        How many would be of both if those of the one were drawn at random.
    """

    then: tuple[int, ...]
    now: tuple[int, ...]
    shared: int
    chance: float


def nearest(content: LayerContent, *, row: int, snapshot: int, n_neighbors: int = N_NEIGHBORS) -> Neighbors:
    """Find the rows nearest to one by their principal component scores, which the embedding only approximates."""
    scores = content.scores.by_snapshot(content.scores.values)
    count = min(n_neighbors, content.n_rows - 1)

    def near(at: int) -> tuple[int, ...]:
        distance = np.linalg.norm(scores[at] - scores[at, row], axis=1)
        distance[row] = np.inf
        return tuple(int(other) for other in np.argsort(distance, kind="stable")[:count])

    then, now = near(0), near(snapshot)
    chance = count**2 / (content.n_rows - 1) if content.n_rows > 1 else 0.0
    return Neighbors(then, now, len(set(then) & set(now)), chance)
