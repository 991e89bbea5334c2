"""Headline of a report, what changed most: how far each layer changed, and when, against its noise floor."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from ...analysis import Findings, Similarity
from ...plot.drawing import brief, snapshot_titles
from ...store import Run, layer_title
from ._numbers import change_text
from ._tables import Moved

MOST_STEPS, MOST_LAYERS = 8, 9

_GROWN = 1.1  # times, up or down, from which on a change of scale may be why rows change cluster


@dataclass(frozen=True)
class LayerChange:
    """How far a layer's representation of the probe moved, as 1 - CKA: 0 is no change, 1 is nothing in common.

    Attributes
    ----------
    name : str
        The layer; not escaped.
    counts : bool
        Whether it has parameters of its own and is not the head.
    steps : tuple of float
        From each of the shown snapshots to the next.
    total : float
        From the first snapshot to the last.
    noise_floor : float
        Between two random halves of its own channels at the last snapshot; NaN where it has too few.
    growth : float
        By what factor its activations' standard deviation grew, from the first snapshot to the last.
    """

    name: str
    counts: bool
    steps: tuple[float, ...]
    total: float
    noise_floor: float
    growth: float

    def is_over(self, value: float) -> bool:
        """Say whether a change is larger than the noise floor."""
        return bool(value > self.noise_floor)


@dataclass(frozen=True)
class Change:
    """The changes of all layers that make something new, in forward order, and the steps they are of.

    Attributes
    ----------
    layers : tuple of LayerChange
        Those shown.
    titles : tuple of str
        The snapshots at which the steps end.
    sentences : tuple of str
        What follows, each with its numbers; not escaped.
    n_images : int
        Images that were compared.
    chosen : bool
        Whether some snapshots were left out of the steps.
    """

    layers: tuple[LayerChange, ...]
    titles: tuple[str, ...]
    sentences: tuple[str, ...]
    n_images: int
    chosen: bool


def what_changed_most(
    run: Run, *, findings: Findings, similarity: Similarity, moved: Sequence[tuple[str, Moved]], noun: str
) -> Change | None:
    """Compare every layer with itself at the snapshots, and say what is over its noise floor; None of one snapshot.

    Parameters
    ----------
    run : Run
        The run.
    findings, similarity
        Of all of its layers.
    moved : sequence of (str, Moved)
        Of each layer that is shown closely, the share of its rows that changed cluster.
    noun : str
        What these rows are.
    """
    numbers = list(dict.fromkeys(similarity.rows["snapshot"].tolist()))
    if len(numbers) < 2:
        return None
    table = findings.layers.set_index("layer")
    noise_floors = table["noise_floor"].astype("float64").to_dict()
    shown = brief(len(numbers), at_most=MOST_STEPS + 1)
    names = [name for name in table.index if bool(table.loc[name, "counts"])] or list(table.index)
    layers = []
    for name in names:
        cka = similarity.between_snapshots(name).to_numpy(np.float64)
        layers.append(
            LayerChange(
                name=name,
                counts=bool(table.loc[name, "counts"]),
                steps=tuple(float(1 - cka[a, b]) for a, b in pairwise(shown)),
                total=float(1 - cka[0, -1]),
                noise_floor=1 - float(noise_floors[name]),
                growth=_growth(run, name, first=numbers[0], last=numbers[-1]),
            )
        )
    table_of = run.snapshots.set_index("snapshot", drop=False).loc[numbers].reset_index(drop=True)
    titles = snapshot_titles(table_of)
    sentences = [*_representation(layers, [titles[index] for index in shown]), *_clusters(layers, moved, noun=noun)]
    kept = _spread(layers)
    return Change(
        layers=tuple(kept),
        titles=tuple(titles[index] for index in shown[1:]),
        sentences=tuple(sentences),
        n_images=similarity.n_samples,
        chosen=len(shown) < len(numbers),
    )


def _representation(layers: Sequence[LayerChange], titles: Sequence[str]) -> list[str]:
    """Say which layers changed by more than their noise floors, most first, and when."""
    over = sorted((each for each in layers if each.is_over(each.total)), key=lambda each: -each.total)
    under = [each for each in layers if not each.is_over(each.total)]
    if not over:
        most = max(layers, key=lambda each: each.total)
        return [
            f"No layer changed by more than its noise floor from the first snapshot to the last: the most is "
            f"{layer_title(most.name)}, {_against(most, most.total)}."
        ]
    most = over[0]
    step = int(np.argmax(most.steps))
    when = ""
    if len(most.steps) > 1 and most.is_over(most.steps[step]):
        when = f", most of all on the way from {titles[step]} to {titles[step + 1]} ({change_text(most.steps[step])})"
    lines = [f"{layer_title(most.name)} changed most, by {_against(most, most.total)}{when}."]
    # a lead that is no longer than what no change looks like is none
    near = [each for each in over[1:] if most.total - each.total <= max(most.noise_floor, each.noise_floor)]
    if near:
        named = " and ".join(f"{layer_title(each.name)} ({change_text(each.total)})" for each in near[:3])
        lines.append(f"It is no more than a noise floor ahead of {named}.")
    if len(over) > 1:
        least = over[-1]
        lines.append(
            f"{len(over)} of {len(layers)} layers changed by more than their noise floors; of these, "
            f"{layer_title(least.name)} least, by {_against(least, least.total)}."
        )
    if under:
        named = ", ".join(layer_title(each.name) for each in under[:4]) + (
            f" and {len(under) - 4} more" if len(under) > 4 else ""
        )
        lines.append(f"Not over the noise floor: {named}.")
    return lines


def _clusters(layers: Sequence[LayerChange], moved: Sequence[tuple[str, Moved]], *, noun: str) -> list[str]:
    """Say in which layer most rows changed cluster, over the noise floor; and where this contradicts CKA."""
    over = [(name, each) for name, each in moved if each.is_over]
    if not over:
        return []
    name, most = max(over, key=lambda pair: pair[1].share)
    share = f"{most.share:.0%} of its {noun}"
    lines = [f"By clusters, {layer_title(name)} changed most: {share} end in another one ({most.noise_floor_text})."]
    by_name = {each.name: each for each in layers}
    denied = [
        (by_name[name], each)
        for name, each in over
        if name in by_name and not by_name[name].is_over(by_name[name].total)
    ]
    if denied:
        layer, each = max(denied, key=lambda pair: pair[1].share)
        why = ""
        if np.isfinite(layer.growth) and abs(np.log(layer.growth)) > np.log(_GROWN):
            why = (
                f", and its activations' spread became {layer.growth:.2g} times what it was. Clusters of rows as they "
                f"are move with their scale, CKA does not; --scaling unit takes the scale out of them"
            )
        lines.append(
            f"The two disagree about {layer_title(layer.name)}: {each.share:.0%} of its {noun} are in another cluster "
            f"({each.noise_floor_text}), but its CKA changed by no more than its noise floor{why}."
        )
    return lines


def _against(layer: LayerChange, value: float) -> str:
    if not np.isfinite(layer.noise_floor):
        return f"{change_text(value)} (noise floor not available)"
    noise_floor = layer.noise_floor
    return f"{change_text(value, apart_from=noise_floor)} (noise floor {change_text(noise_floor, apart_from=value)})"


def _growth(run: Run, name: str, *, first: int, last: int) -> float:
    spread = run[name].statistics.groupby("snapshot")["std"].mean()
    before, after = float(spread.get(first, np.nan)), float(spread.get(last, np.nan))
    return after / before if before > 0 else float("nan")


def _spread(layers: list[LayerChange]) -> list[LayerChange]:
    if len(layers) <= MOST_LAYERS:
        return layers
    return [layers[index] for index in np.linspace(0, len(layers) - 1, MOST_LAYERS).round().astype(int)]
