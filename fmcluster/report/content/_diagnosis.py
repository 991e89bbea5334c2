"""Diagnosis on the page: the advice, and the evidence that each rests on."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from ...analysis import Findings
from ._numbers import digits_that_tell

NOTHING_FOUND = (
    "no channel is dead, noise, in another's position or what another is, and no layer stood still from the first "
    "snapshot to the last"
)

# Actions in the order in which they are said: what one would do, then what one should know.
_ACTIONS = {
    **{name: name for name in ("freeze", "shorten", "narrow", "kernel", "separable", "groups", "resolution")},
    "unchanged": "unchanged",
    "dead": "dead channels",
    "dead_here": "constant in one block",
    "duplicate": "duplicate channels",
    "noise": "noise",
    "permuted": "permuted",
}


def _count(value: float) -> str:
    return f"{value:.0f}"


def _ratio(value: float) -> str:
    return f"{value:.2f}"


def _ratio_with(digits: int) -> Callable[[float], str]:
    return lambda value: f"{value:.{digits}f}"


def _fine(value: float) -> str:
    return f"{value:.3f}"


def _share(value: float) -> str:
    return f"{value:.0%}"


# Of each measure: its name, how its values are written, and how its threshold is; None: of other things than the value.
_MEASURES: dict[str, tuple[str, Callable[[float], str], Callable[[float], str] | None]] = {
    "dead": ("dead channels", _count, None),
    "revived": ("revived channels", _count, None),
    "duplicates": ("duplicate groups", _count, None),
    "effective_rank": ("effective rank", _count, _count),
    "energy_width": ("channels that hold the energy", _count, None),
    "drift": ("drift from the first", _fine, _fine),
    "drift_step": ("drift in this step", _fine, _fine),
    "converged_channels": ("channels with short steps from here on", _share, None),
    "permuted": ("permuted channels", _count, None),
    "noise": ("noise channels", _count, None),
    "cka_to_last": ("CKA to the last snapshot", _ratio, _ratio),
    "cka_to_next": ("CKA to the next layer", _ratio, _ratio),
    "change_to_end": ("change to the end, at this rate", _fine, _fine),
    "knn_accuracy": ("neighbor accuracy", _share, _share),
}


@dataclass(frozen=True)
class AdviceLine:
    """One piece of advice.

    Attributes
    ----------
    action : str
        What is advised, or found, in a word or two.
    text : str
        The sentence, with its numbers and its stop; not escaped.
    anchor : str
        The id of its evidence in the page; empty where the sentence holds all of it, as of what was measured on the
        model.
    """

    action: str
    text: str
    anchor: str


@dataclass(frozen=True)
class Measured:
    """One measure of a layer over the snapshots, as text; empty where there is none.

    Attributes
    ----------
    name : str
        What is measured.
    values : tuple of str
        At each snapshot.
    threshold, reference : str
        What it is judged by, and what no change (the noise floor) or chance (the null) looks like, at the last
        snapshot.
    cited : bool
        Whether advice rests on it.
    """

    name: str
    values: tuple[str, ...]
    threshold: str
    reference: str
    cited: bool


@dataclass(frozen=True)
class LayerEvidence:
    """All measures of a layer.

    Attributes
    ----------
    anchor, name, module : str
        Its id in the page, and what the layer is; not escaped.
    n_channels : int
        How many were recorded.
    converged, separated : str
        The epochs, or a dash.
    measured : tuple of Measured
        Those that are known at some snapshot.
    advised : bool
        Whether there is advice on it.
    """

    anchor: str
    name: str
    module: str
    n_channels: int
    converged: str
    separated: str
    measured: tuple[Measured, ...]
    advised: bool

    def last(self, name: str) -> str:
        """Return what a measure is at the last snapshot, or a dash."""
        return next((each.values[-1] or "–" for each in self.measured if each.name == name), "–")


def advice_lines(findings: Findings) -> list[AdviceLine]:
    """Return the advice: what one would do first."""
    ordinal = {name: number for number, name in enumerate(findings.layers["layer"])}
    order = list(_ACTIONS)
    advice = sorted(findings.advice, key=lambda each: order.index(each.action))
    return [
        AdviceLine(
            _ACTIONS[each.action],
            each.text if each.text.endswith("...") else f"{each.text}.",
            _anchor(ordinal[each.layer]) if each.layer in ordinal and "measure" in each.evidence else "",
        )
        for each in advice
    ]


def layer_evidence(findings: Findings) -> list[LayerEvidence]:
    """Return the measures of each layer, in forward order."""
    cited = {
        (each.layer, measure)
        for each in findings.advice
        if "measure" in each.evidence  # not what was measured on the model
        for measure in each.evidence["measure"].unique().tolist()
    }
    rows = []
    for ordinal, layer in enumerate(findings.layers.itertuples(index=False)):
        here = findings.frame[findings.frame["layer"] == layer.layer]
        measured = [
            _measured(here[here["measure"] == measure], measure, cited=(layer.layer, measure) in cited)
            for measure in _MEASURES
        ]
        rows.append(
            LayerEvidence(
                anchor=_anchor(ordinal),
                name=str(layer.layer),
                module=str(layer.module),
                n_channels=int(layer.channels),  # type: ignore[arg-type]
                converged=_epoch(layer.converged_epoch),
                separated=_epoch(layer.separated_epoch),
                measured=tuple(each for each in measured if any(each.values)),
                advised=any(name == layer.layer for name, _ in cited),
            )
        )
    return rows


def _measured(rows: pd.DataFrame, measure: str, *, cited: bool) -> Measured:
    name, write, judge = _MEASURES[measure]
    last = rows.iloc[-1]
    if write is _ratio:  # what is judged must not look like what it is judged by
        write = _ratio_with(
            digits_that_tell(rows["value"].tolist(), apart_from=[last["threshold"], last["noise_floor"]])
        )
        judge = write if judge is not None else None
    return Measured(
        name=name,
        values=tuple("" if np.isnan(value) else write(value) for value in rows["value"]),
        threshold="" if judge is None or np.isnan(last["threshold"]) else judge(float(last["threshold"])),
        reference=_reference(last, write),
        cited=cited,
    )


def _reference(last: "pd.Series[Any]", write: Callable[[float], str]) -> str:
    """Write what no change looks like, or chance."""
    if not np.isnan(last["noise_floor"]):
        return write(float(last["noise_floor"]))
    return "" if np.isnan(last["null"]) else f"{write(float(last['null']))} (null)"


def _anchor(index: int) -> str:
    return f"evidence-{index}"


def _epoch(epoch: object) -> str:
    return "–" if pd.isna(epoch) else f"epoch {epoch}"  # type: ignore[call-overload]
