"""The tables and sentences of docs/proof.md, from what `decide.py` measured."""

import textwrap
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

POINTS = 1.0  # how far from the best arm, and from bottom-up, a plan may be
TITLES = {
    "noise": "noise (input-level)",
    "kind": "one class of another kind (feature-level)",
    "permuted": "labels permuted (output-level)",
    "insects": "ants and bees",
    "regrouped": "regrouped into five classes",
}
COMPARED = ("full", "head", "head + statistics", "bottom-up", "random", "relative gradient")


def rendered(measured: Mapping[str, Any]) -> str:
    """Return all of it as Markdown."""
    tuned, shrunk = pd.DataFrame(measured["tune"]), pd.DataFrame(measured["shrink"])
    machine, setting = measured["machine"], measured["setting"]
    setting_in_words = (
        f"Measured on {measured['date']}: {machine['cpu']}, {machine['cores']} cores shared with other work, Python "
        f"{machine['python']}. Every arm may spend what {setting['steps']} steps of full fine-tuning cost (batches of "
        f"{setting['batch']}, SGD with momentum 0.9, learning rate {setting['rate']:g} falling to 0 as half a cosine "
        f"of the budget)."
    )
    paragraphs = [textwrap.fill(setting_in_words, 120)]
    if len(tuned):
        paragraphs += [_accuracies(tuned), _differences(tuned), _choices(tuned), _goals(tuned)]
    if len(shrunk):
        paragraphs += [_smaller(shrunk)]
    return "\n\n".join(paragraphs)


def differences(tuned: pd.DataFrame) -> pd.DataFrame:
    """Return, of each task, the plan against the best other arm (by mean), random and bottom-up: points, and error.

    Differences are paired over seeds; the error is the standard error of their mean.
    """
    rows = []
    for task in [name for name in TITLES if name in set(tuned["task"])]:
        points = 100 * tuned[tuned["task"] == task].pivot(index="seed", columns="arm", values="accuracy")
        best = str(points[list(COMPARED)].mean().idxmax())
        row: dict[str, Any] = {"task": task, "seeds": len(points), "best": best}
        for name, other in (("best", best), ("random", "random"), ("bottom-up", "bottom-up")):
            difference = points["plan"] - points[other]
            row |= {f"over {name}": difference.mean(), f"error {name}": _error(difference)}
        rows.append(row)
    return pd.DataFrame(rows)


def _error(values: "pd.Series[float]") -> float:
    return float(values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else float("nan")


def _accuracies(tuned: pd.DataFrame) -> str:
    arms = ["as it is", *COMPARED, "plan"]
    lines = [f"| held-out accuracy (%) | {' | '.join(arms)} |", "|---" * (len(arms) + 1) + "|"]
    for task in [name for name in TITLES if name in set(tuned["task"])]:
        points = 100 * tuned[tuned["task"] == task].pivot(index="seed", columns="arm", values="accuracy")
        best = points[[*COMPARED, "plan"]].mean().max()
        cells = []
        for arm in arms:
            mean = f"{points[arm].mean():.1f}"
            mean = f"**{mean}**" if arm != "as it is" and points[arm].mean() == best else mean
            cells.append(f"{mean} ± {_error(points[arm]):.1f}")
        lines.append(f"| {TITLES[task]} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n\nMean and standard error over seeds; the best mean is bold."


def _differences(tuned: pd.DataFrame) -> str:
    lines = ["| the plan, in points | seeds | best other arm | over it | over random | over bottom-up |"]
    lines.append("|---|---|---|---|---|---|")
    for row in differences(tuned).to_dict("records"):
        cells = [f"{row[f'over {name}']:+.1f} ± {row[f'error {name}']:.1f}" for name in ("best", "random", "bottom-up")]
        lines.append(f"| {TITLES[row['task']]} | {row['seeds']} | {row['best']} | {' | '.join(cells)} |")
    return (
        "\n".join(lines) + "\n\nDifferences are paired over seeds; beside them stands the standard error of their mean."
    )


def _choices(tuned: pd.DataFrame) -> str:
    lines = ["| what the evidence chose, in how many seeds | neighbors right at the start, after training |"]
    lines.append("|---|---|")
    plans = tuned[tuned["arm"] == "plan"]
    for task in [name for name in TITLES if name in set(tuned["task"])]:
        evidence = list(plans.loc[plans["task"] == task, "evidence"])
        said = pd.Series([_chosen(each) for each in evidence]).value_counts(sort=False)
        near = pd.DataFrame([each["neighbors"] for each in evidence]).mean()
        shares = ", ".join(f"{100 * near[name]:.0f} %" for name in ("at the start", "after training"))
        chosen = ", ".join(f"{what} {count}" for what, count in said.items())
        lines.append(f"| {TITLES[task]}: {chosen} | {shares} |")
    return "\n".join(lines)


def _chosen(evidence: Mapping[str, Any]) -> str:
    back = evidence.get("put back", [])
    anew = ", drawn anew" if evidence["drawn anew"] else ""
    return f"all but {', '.join(back)}" if back else f"{evidence['tune']}{anew}"


def goals(tuned: pd.DataFrame) -> dict[str, list[str]]:
    """Return, of each goal, the tasks that keep it."""
    found = differences(tuned)
    return {
        "within a point of the best arm": list(found.loc[found["over best"] >= -POINTS, "task"]),
        "better than random by more than two standard errors": list(
            found.loc[found["over random"] > 2 * found["error random"], "task"]
        ),
        "no more than a point worse than bottom-up": list(found.loc[found["over bottom-up"] >= -POINTS, "task"]),
    }


def _goals(tuned: pd.DataFrame) -> str:
    n_tasks = tuned["task"].nunique()
    needed = {"better than random by more than two standard errors": min(4, n_tasks)}
    lines = []
    for goal, kept in goals(tuned).items():
        met = "met" if len(kept) >= needed.get(goal, n_tasks) else "missed"
        names = f" ({', '.join(kept)})" if kept else ""
        lines.append(f"- {goal[0].upper()}{goal[1:]}: {len(kept)} of {n_tasks} tasks{names}: **{met}**.")
    return "\n".join(lines)


def _smaller(shrunk: pd.DataFrame) -> str:
    lines = [
        "| smaller network | multiply-adds left | before retraining | after | the plan over it |",
        "|---|---|---|---|---|",
    ]
    for budget, of in shrunk.groupby("budget", sort=False):
        after = 100 * of.pivot(index="seed", columns="arm", values="accuracy")
        before = 100 * of.pivot(index="seed", columns="arm", values="before")
        for arm in [name for name in ("plan", "uniform", "L1 norm", "torch-pruning", "random") if name in after]:
            share = 100 * of.loc[of["arm"] == arm, "share"].mean()
            difference = after["plan"] - after[arm]
            over = "" if arm == "plan" else f"{difference.mean():+.1f} ± {_error(difference):.1f}"
            cells = [
                f"{share:.1f} %",
                f"{before[arm].mean():.1f} %",
                f"{after[arm].mean():.1f} ± {_error(after[arm]):.1f} %",
            ]
            lines.append(
                f"| {f'plan for {100 * budget:g} %' if arm == 'plan' else arm} | {' | '.join(cells)} | {over} |"
            )
    seeds = shrunk.groupby("budget")["seed"].nunique().min()
    return "\n".join(lines) + f"\n\nMeans over {seeds} seeds, with the standard error of what follows retraining."
