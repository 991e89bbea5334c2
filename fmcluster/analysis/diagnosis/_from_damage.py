"""Advice from measured damage: what costs no more than is allowed, and clearly less than chance."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from ...store import ranges
from .._damage import SIGMAS, Damage, sigmas_at_once
from ._findings import Advice
from ._thresholds import Thresholds

REWIND = "rewind"
FROM_BELOW = "from the first layer up"  # how layers were chosen that are put back together
# of each intervention, what is advised
ACTION_OF = {
    "depth": "shorten",
    "width": "narrow",
    "kernel size": "kernel",
    "separable": "separable",
    "groups": "groups",
    "resolution": "resolution",
}


def advise_from_damage(
    damage: Damage, thresholds: Thresholds, *, widths: Mapping[str, str] | None = None
) -> tuple[Advice, ...]:
    """Say what could be frozen or built smaller, what saves most first.

    A change is advised where the upper end of the 95 % interval of its loss (of the divergence, where there are no
    labels) is at most ``thresholds.damage``, and where it does clearly less than a random change of the same size, or
    nothing at all; what is put back to an earlier epoch, where the former holds. Intervals hold for all changes of an
    intervention at once: of many, some look harmless on a few images by chance. Of each layer and intervention it is
    the largest saving. What is so of every layer that was tried tells none of them from another, and is not advised;
    for that, each interval is taken by itself. Of a network that does not know its task nothing is advised: what it can
    do without is not what the task can.

    Parameters
    ----------
    damage : Damage
        What `ablate` measured.
    thresholds : Thresholds
        How much damage is allowed.
    widths : mapping of str to str, optional
        Of layers, what their responses say of their width.
    """
    if not damage.knows_its_task():
        return ()
    widths = {} if widths is None else widths
    frame = _judged(damage, thresholds.damage)
    found = []
    for intervention, action in ACTION_OF.items():
        tried = frame[(frame["intervention"] == intervention) & ~frame["layer"].str.contains(", ")]
        chosen = tried[tried["allowed"]].sort_values("forward_share", ascending=False).drop_duplicates("layer")
        if 1 < tried["layer"].nunique() == tried.loc[tried["alone"], "layer"].nunique():
            continue
        found += [
            (row["forward_share"], row["layer"], action, _text(row, damage, widths)) for _, row in chosen.iterrows()
        ]
    ordered = sorted(found, key=lambda each: -each[0])
    advice = [
        Advice(layer, action, text, damage.frame[damage.frame["layer"] == layer].reset_index(drop=True))
        for _, layer, action, text in ordered
    ]
    return (*_freezing(frame, damage), *advice)


def has_rewinds(damage: Damage | None) -> bool:
    """Whether it was measured what putting weights back costs."""
    return damage is not None and bool((damage.frame["intervention"] == REWIND).any())


def _judged(damage: Damage, tolerance: float) -> pd.DataFrame:
    """Add the interval of each change, of how many it holds at once, and whether it allows the change.

    ``allowed`` is judged by that interval, ``alone`` by the interval that a change has by itself. Of modules that are
    changed together only what is put back is judged.
    """
    frame = damage.frame.copy()
    rewound = frame["intervention"] == REWIND
    counts = frame["what"].str.startswith("weights").where(rewound, ~frame["layer"].str.contains(", "))
    frame["at_once"] = counts.groupby(frame["intervention"]).transform("sum").clip(lower=1)
    has_loss = frame["loss"].notna()
    frame["mean"] = frame["loss"].where(has_loss, frame["kl"])
    error = frame["loss_se"].where(has_loss, frame["kl_se"])
    at_once = frame["at_once"].map(sigmas_at_once)
    for name, sigmas in (("allowed", at_once), ("alone", pd.Series(SIGMAS, frame.index))):
        frame[name] = (frame["mean"] + sigmas * error <= tolerance) & (rewound | damage.is_clear(sigmas))
    return frame.assign(lower=frame["mean"] - at_once * error, upper=frame["mean"] + at_once * error)


def _freezing(frame: pd.DataFrame, damage: Damage) -> Iterator[Advice]:
    """Advise on the most layers that could be put back to an epoch together, and thus have been frozen from it on.

    Where one layer is put back, the others make up for it; so what counts is what several cost together. Of the layers
    that cost least by themselves and those from the first layer up, it is those that save the larger part of the
    backward pass.
    """
    rewound = frame[(frame["intervention"] == REWIND) & frame["what"].str.startswith("weights")]
    layers = [name for name in rewound["layer"].unique().tolist() if ", " not in name]
    if 1 < len(layers) in map(len, _put_back(rewound, "alone")):
        return
    since, _ = _put_back(rewound, "allowed")
    for position, layer in enumerate(layers):
        if layer not in since:
            continue
        row = since[layer]
        epoch, step = int(row["epoch"]), _step_of(row)
        below = [each for each in layers[:position] if each not in since or moment_of(since[each]) > moment_of(row)]
        count = row["layer"].count(", ")
        others = f", together with those of {count} other layer{'s' if count > 1 else ''}," if count else ""
        text = (
            f"{layer}: its weights put back to {epoch_in_words(epoch, step)}{others} cost {_costs(row, damage)}: a "
            f"candidate to freeze from then on{saves_no_backward(below)}"
        )
        evidence = damage.frame[damage.frame["layer"].isin({layer, row["layer"]})].reset_index(drop=True)
        yield Advice(layer, "freeze", text, evidence, epoch=epoch, step=step)


def moment_of(row: "Mapping[Any, Any] | pd.Series[Any]") -> tuple[int, float]:
    """Return the epoch and the step to which a row of `Damage.frame` puts something back; an epoch's end comes last.

    Examples
    --------
    >>> moment_of({"epoch": 1, "step": 50}) < moment_of({"epoch": 1, "step": None}) < moment_of({"epoch": 2, "step": 0})
    True
    """
    step = _step_of(row)
    return int(row["epoch"]), float("inf") if step is None else float(step)


def epoch_in_words(epoch: int, step: int | None) -> str:
    """Name an epoch, and the step where there is one.

    Examples
    --------
    >>> epoch_in_words(1, None), epoch_in_words(1, 50)
    ('epoch 1', 'epoch 1 (step 50)')
    """
    return f"epoch {epoch}" if step is None else f"epoch {epoch} (step {step})"


def _step_of(row: "Mapping[Any, Any] | pd.Series[Any]") -> int | None:
    step = row.get("step")
    return None if step is None or pd.isna(step) else int(step)


def _put_back(rewound: pd.DataFrame, judged: str) -> tuple[dict[str, "pd.Series"], set[str]]:
    """Return by layer what it is put back with, and all layers that can be put back, those that cost least first."""
    since: dict[str, pd.Series] = {}
    harmless: set[str] = set()
    moments = [moment_of(row) for _, row in rewound.iterrows()]
    for moment in sorted(set(moments), reverse=True):
        rows = rewound[[each == moment for each in moments]]
        several, from_below = rows["layer"].str.contains(", "), rows["how"] == FROM_BELOW
        least = pd.concat([rows[~several].nsmallest(1, "kl"), rows[several & ~from_below].sort_values("amount")])
        lowest = pd.concat([rows[~several].iloc[:1], rows[from_below].sort_values("amount")])
        allowed = [ordered[ordered[judged].cummin()] for ordered in (least, lowest)]
        most = [rows.iloc[-1] for rows in allowed if len(rows)]
        if len(allowed[0]):
            harmless |= set(most[0]["layer"].split(", "))
        if most:
            chosen = max(most, key=lambda row: row["backward_share"])
            since |= dict.fromkeys(chosen["layer"].split(", "), chosen)
    return since, harmless


def saves_no_backward(below: Sequence[str]) -> str:
    """Return what to add where layers below a frozen one go on being trained."""
    return f"; that saves no backward pass while {below[-1]} below it is trained" if below else ""


def _text(row: "pd.Series", damage: Damage, widths: Mapping[str, str]) -> str:
    how = f" ({row['how']})" if row["how"] else ""
    without = f"; without channels {ranges(row['channels'])}" if row["channels"] else ""
    if row["intervention"] == "width" and row["layer"] in widths:
        without += f"; {widths[row['layer']]}"
    return (
        f"{row['layer']}, {row['what']}{how}: costs {_costs(row, damage)}; saves {100 * row['forward_share']:.1f} % of "
        f"the multiply-adds and {100 * row['parameters_share']:.1f} % of the parameters{without}"
    )


def _costs(row: "pd.Series", damage: Damage) -> str:
    what = "divergence" if np.isnan(row["loss"]) else "loss"
    judged = row["intervention"] != REWIND and not np.isnan(row["null_kl"])
    null = f", divergence {row['kl']:.3f} against {row['null_kl']:.3f} at random" if judged else ""
    of = f", for {row['at_once']} changes at once" if row["at_once"] > 1 else ""
    return (
        f"{row['mean']:.3f} ({row['lower']:z.3f} to {row['upper']:z.3f}{of}) nats of {what} on these "
        f"{damage.n_samples} images{null}"
    )
