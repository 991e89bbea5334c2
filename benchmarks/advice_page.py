"""Writes docs/evidence.md from what `advice.py` measured."""

import textwrap
from typing import Any

import numpy as np
import pandas as pd

PREDICTED_GOAL, RETRAINED_GOAL, MINUTES_GOAL = 0.7, 0.6, 60
INTRODUCTION = """# Evidence

After reading this page you know how far what `fm.diagnose`, `fm.ablate` and `fm.predict_damage` say can be relied
on. The network is a ResNet-20 with published CIFAR-10 weights; the images are CIFAR-10's, {images} of them unless
another number stands there. They are images that the network has seen, which makes its loss small and its
divergences the better measure. `python benchmarks/advice.py` measures all of it and writes this page; last on
{date} ({machine})."""

SECTIONS = {
    "planted": """## Planted faults

In each of three convolutions, one after the other, drawn anew for each of {seeds} seeds, one channel is made zero, one
the twin of another (a tenth of its weights' spread away), one gets other weights at each of four snapshots, two are
swapped, and one is multiplied by zero in the normalization that follows. The weights of all others move by 2 % of their
spread. A fault counts as found where `fm.diagnose` names it at the last snapshot (two that are swapped: at any). Any
other channel that it names is a false alarm, unless it was faulty before, or another planted fault made it so.
{frozen}
{planted}

{planted_in_words}""",
    "control": """## Where nothing follows

Ten steps between two snapshots. At learning rate 0 a network's normalization statistics move, and nothing is learned.
`converged by cka` is the number of layers whose CKA to the last snapshot stays high: it says nothing of what may be
frozen, and `fm.diagnose` advises nothing from it. With rewinds: all layers put back to the first snapshot by
`fm.ablate`, one at a time and together, and that given to `fm.diagnose`. Of a network that is not clearly better than
the most frequent class, such as one that training has destroyed, it advises to freeze nothing.{changes}

{control}""",
    "rates": """## What may be frozen, by the rate of change

Fine-tunings of 48 steps that are looked at after 24: `fm.diagnose(run, at_rest=..., steps_left=24)` names layers, and
those *stayed* whose CKA from there to the end is 0.95 or more. Beside it the layers that had converged by CKA alone.

{rates}

{rates_in_words}""",
    "stability": """## Two disjoint probes of 100 images

How many channels and layers each probe names, and the share of those named by either that both name (goal: 0.8).
Channels: of faults that are planted into four convolutions. Layers: what is advised after fine-tunings to two tasks
(labels shifted by one, noise), 5 snapshots, with the damage that `fm.ablate` measures on the same probe. It rests on
intervals that hold for all changes of an intervention at once: where it is not sure of any layer, it names none.

{stability}

{stability_in_words}""",
    "retrained": """## Measured, and retrained

A network is fine-tuned to noisy images; each change is built by itself (`Plan.apply`) and trained for 40 more steps.
Rank correlations of the damage before, measured by `fm.ablate` on 100 images and predicted by `fm.predict_damage` from
the gradient of the margin, with the loss afterwards on 600 other images (goal: 0.6), with 95 % intervals by drawing the
changes again. *Seeds* is that of the loss with itself, after training on batches in another order: no prediction can be
expected to do better.

{retrained}

{retrained_in_words}""",
    "ranked": """## In which order a plan takes changes

`fm.plan(..., predicted=...)` takes smaller kernels, separable convolutions and lower resolutions in the order of what
is predicted of them, and gives them the measured damages of their kind in that order. Rank correlations with the loss
after retraining, of the changes of the section before, of which the kinds were chosen, and of three networks of which
nothing was chosen: small ones that are trained from scratch on scikit-learn's 8 x 8 digits, and fine-tuned to noisy
digits. *All three* is over the three kinds together. *More* is by how much the order of the plan correlates better
than that of the measured damage, with 95 % intervals by drawing the layers again. *Position* is that of the layer in
the network, which asks for no measurement.

{ranked}

{ranked_in_words}""",
    "predicted": """## Predicted and measured

Rank correlations of `fm.predict_damage` with the divergence that `fm.ablate` measures, over changes of all layers,
with 95 % intervals by drawing layers again; 100 images (goal: 0.7). *Relative* is that of the size of the change alone.

{predicted}

The same of small networks, which are trained from scratch on scikit-learn's digits, and fine-tuned to noisy ones: mean,
least and largest. *Chosen on* says whether it was chosen on them, and on the network above, what predicted damage is.

{elsewhere}

{predicted_in_words}""",
    "large": """## A large network

A ResNet-50 on images of 224 pixels: its layers are recorded with gradients, all changes are predicted, and of each
question those of the layers with the most promising ones are measured by `fm.ablate`.

{large}""",
    "width": """## Which channels to remove

Divergence (nats) where a share of the channels of one inner convolution is removed and predicted from the others;
mean, least and largest over layers.

{width}""",
    "cheaper": """## Cheaper convolutions

Layers that can be replaced at no more than one point of accuracy, and an upper end of the interval of the loss of
0.02 nats.

{cheaper}""",
}

FROZEN = """Of each seed, three blocks between others stay as they are over four snapshots, with their statistics, while
all else moves by 2 % of its spread; the run holds weights. What such a block returns moves as its inputs do. It counts
as found where both of its convolutions are named as unchanged; any other convolution is a false alarm.
"""
CHANGES = """ With changes: what it
advises where `fm.ablate` tried to leave out modules, a quarter and half of the channels, and all of a kernel but its
middle."""

END = """What these numbers leave out: longer retraining, other networks and data, more than one random start of a
fine-tuning.
"""


def planted_in_words(planted: pd.DataFrame) -> str:
    """Compare what was found and wrongly named with the goals."""
    found, faults = int(planted["found"].sum()), int(planted["planted"].sum())
    false, sound = int(planted["false"].sum()), int(planted["sound"].sum())
    named = "channels and layers" if any(str(each).startswith("frozen") for each in planted.index) else "channels"
    return (
        f"{found} of {faults} were found ({found / faults:.0%}; goal: 95 %), and {false} of {sound} healthy {named} "
        f"were named ({false / sound:.1%}; goal: at most 2 %)."
    )


def rates_in_words(rates: pd.DataFrame) -> str:
    """Compare the precision of what was named with that of CKA alone, and with all layers, at each learning rate."""
    return " ".join(_rates_in_words(part, rate) for rate, part in rates.groupby("learning_rate", sort=False))


def _rates_in_words(rates: pd.DataFrame, rate: float) -> str:
    total = rates.select_dtypes("number").drop(columns="learning_rate").sum()

    def share(part: str, whole: str) -> str:
        return f"{total[part]} of {total[whole]}" + (f" ({total[part] / total[whole]:.0%})" if total[whole] else "")

    alike = " Nearly all stayed, so that these fine-tunings say little of who is right."
    return (
        f"At a learning rate of {rate:g}, of the layers named, {share('named_and_stayed', 'named')} stayed as they "
        f"were; of those that had converged by CKA, {share('converged_and_stayed', 'converged')}; of all layers, "
        f"{share('stayed', 'layers')}. Named were {share('named_and_stayed', 'stayed')} of those that stayed."
        + (alike if total["stayed"] > 0.9 * total["layers"] else "")
    )


def stability_in_words(stability: pd.DataFrame) -> str:
    """Compare with the goal, of channels, of layers and of all."""
    said = []
    for kind in ("channel", "layer"):
        part = stability[stability["what"].str.startswith(kind)]
        both = part["both"].sum()
        either = part["first"].sum() + part["second"].sum() - both
        several = "" if either == 1 else "s"
        said.append(
            f"of {either} {kind}{several} that either probe names, both name {both} ({both / max(either, 1):.2f})"
        )
    return f"Together: {'; '.join(said)}."


def retrained_in_words(agreement: pd.DataFrame) -> str:
    """Say of which changes the goal is met."""
    said = []
    for what in ("measured", "predicted"):
        met = agreement.loc[agreement[what] >= RETRAINED_GOAL, "intervention"].tolist()
        said.append(
            f"{what} damage meets the goal for {len(met)} of {len(agreement)} interventions"
            + (f" ({', '.join(met)})" if met else "")
        )
    return f"The {said[0]}, the {said[1]}."


def took_in_words(took: dict[str, dict[str, float]], *, n_cores: int) -> str:
    """Say how long the parts took, and which took the longest; on the clock, where all were measured in one run."""
    used = {part: each["processor seconds"] / 60 for part, each in took.items() if part != "all parts"}
    longest = ", ".join(f"{part} {used[part]:.0f}" for part in sorted(used, key=lambda part: -used[part])[:3])
    said = f"The parts took {sum(used.values()):.0f} minutes of the processors ({longest}"
    said += ", the others less)" if len(used) > 3 else ")"
    if "all parts" in took:
        said += f", and {took['all parts']['seconds'] / 60:.0f} minutes on {n_cores} cores (goal: {MINUTES_GOAL})"
    return f"{said}."


def elsewhere(predicted: pd.DataFrame) -> pd.DataFrame:
    """Return mean, least and largest rank correlation over the other networks, by gradient and intervention."""
    others = predicted[predicted["network"] != predicted["network"].iloc[0]]
    by = others.groupby(["chosen on", "gradient of", "intervention"], sort=False)
    found = by["rank_correlation"].agg(["mean", "min", "max"])
    found = found.assign(relative=by["of_relative"].mean(), cases=by.size()).reset_index()
    return found.assign(**{"chosen on": found["chosen on"].map({True: "yes", False: "no"})})


def predicted_in_words(predicted: pd.DataFrame) -> str:
    """Compare the means with the goal, by gradient: over cases that the form was chosen on, and over others."""
    said = []
    for chosen, of_cases in predicted.groupby("chosen on", sort=False):
        told = []
        for of, part in of_cases.groupby("gradient of", sort=False):
            means = part.groupby("intervention", sort=False)["rank_correlation"].mean()
            met = means[means >= PREDICTED_GOAL]
            missed = [f"{name} has {value:.2f}" for name, value in means[means < PREDICTED_GOAL].items()]
            told.append(
                f"of the {of}, for {len(met)} of {len(means)} interventions"
                + (f" ({' and '.join(missed)})" if missed else "")
            )
        n_cases = len(of_cases[["network", "images"]].drop_duplicates())
        which = f"case{'' if n_cases == 1 else 's'} that it was{'' if chosen else ' not'} chosen on"
        said.append(f"In the mean over the {n_cases} {which}, the goal is met with the gradient {', and '.join(told)}.")
    return " ".join(said)


def ranked_in_words(ranked: pd.DataFrame) -> str:
    """Say by how much the order of a plan is better than that of measured damage, where it was chosen and elsewhere."""
    together = ranked[ranked["changes"] == "all three"].set_index("network")
    first, others = together.iloc[0], together.loc["mean of the others"]

    def told(row: "pd.Series[Any]") -> str:
        by = f"{row['more']:+.2f} ({row['low of more']:+.2f} to {row['high of more']:+.2f})"
        return by + (
            ", which is clear" if row["low of more"] > 0 or row["high of more"] < 0 else ", which may be chance"
        )

    return (
        f"Over the three kinds together, the order of the plan correlates by {told(first)}, better than the measured "
        f"damage in the network that the kinds were chosen by, and by {told(others)}, in the mean of the others."
    )


def page(measured: dict[str, Any]) -> str:
    """Return docs/evidence.md: a section for each part that was measured."""
    values: dict[str, Any] = {
        "images": measured["images"],
        "date": measured["date"],
        "machine": f"{measured['machine']['cpu']}, torch {measured['torch']}",
    }
    tables = [name for name in SECTIONS if isinstance(measured.get(name), list)]
    values |= {name: as_table(pd.DataFrame(measured[name])) for name in tables}
    if "planted" in measured:
        planted = pd.DataFrame(measured["planted"])
        values["seeds"] = planted["seed"].nunique()
        values["frozen"] = FROZEN if planted["fault"].str.startswith("frozen").any() else ""
        planted = planted.groupby("fault", sort=False)[["planted", "found", "sound", "false"]].sum()
        values |= {"planted": as_table(planted.reset_index()), "planted_in_words": planted_in_words(planted)}
    if "control" in measured:
        values["changes"] = CHANGES if any("with_changes" in row for row in measured["control"]) else ""
    if "rates" in measured:
        rates = pd.DataFrame(measured["rates"])
        by_task = rates.drop(columns="seed").groupby(["task", "learning_rate"], sort=False).sum().reset_index()
        values |= {"rates": as_table(by_task), "rates_in_words": rates_in_words(rates)}
    if "stability" in measured:
        values["stability_in_words"] = stability_in_words(pd.DataFrame(measured["stability"]))
    if "retrained" in measured:
        retrained = pd.DataFrame(measured["retrained"]["agreement"])
        values |= {"retrained": as_table(retrained), "retrained_in_words": retrained_in_words(retrained)}
    if "ranked" in measured:
        ranked = pd.DataFrame(measured["ranked"]["orders"])
        values |= {"ranked": as_table(ranked), "ranked_in_words": ranked_in_words(ranked)}
    if "predicted" in measured:  # what was not asked of `fm.ablate` has nothing to agree with
        predicted = pd.DataFrame(measured["predicted"])
        predicted = predicted[predicted["n"] > 0]
        first = predicted[predicted["network"] == predicted["network"].iloc[0]]
        first = first.drop(columns=["network", "chosen on", "factor", "factor_left_out"]).rename(
            columns={"of_relative": "relative"}
        )
        values |= {"predicted": as_table(first), "elsewhere": as_table(elsewhere(predicted))}
        values["predicted_in_words"] = predicted_in_words(predicted)
    if "took" in measured:
        values["took_in_words"] = took_in_words(measured["took"], n_cores=measured["machine"]["cores"])
    values |= {name: textwrap.fill(text, 120) for name, text in values.items() if name.endswith("_in_words")}
    sections = [text for name, text in SECTIONS.items() if name in measured]
    sections += ["{took_in_words}"] if "took" in measured else []
    return "\n\n".join([INTRODUCTION, *sections, END]).format(**values)


def as_table(frame: pd.DataFrame) -> str:
    def shown(value: Any) -> str:
        if isinstance(value, list):
            return ", ".join(map(str, value)) or "nothing"
        if value is None or (isinstance(value, float) and np.isnan(value)):
            return ""
        return (
            f"{value:.2f}"
            if isinstance(value, float) and abs(value) >= 0.1
            else f"{value:.3f}"
            if isinstance(value, float)
            else str(value)
        )

    lines = [
        "| " + " | ".join(str(name).replace("_", " ") for name in frame.columns) + " |",
        "|" + " --- |" * frame.shape[1],
    ]
    lines += ["| " + " | ".join(shown(value) for value in row) + " |" for row in frame.astype(object).to_numpy()]
    return "\n".join(lines)
