"""Plan on the page: what to do, on what evidence, and at what price."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ...decide import MeasuredDamage, Plan

_COSTS = (
    ("forward", "multiply-adds of the forward pass"),
    ("backward", "multiply-adds of the backward pass"),
    ("kept", "bytes kept for the backward pass"),
    ("parameters", "parameters"),
)


@dataclass(frozen=True)
class PlannedAction:
    """One action, as text; not escaped.

    Attributes
    ----------
    kind, modules, what : str
        What is done, to which modules, how much of it.
    damage, weight, null : str
        What that costs alone, with its 95 % interval; what it is ranked as, where that is by its prediction; and what a
        random change of the same size costs.
    saves : tuple of str
        The shares that it saves alone, in the order of the costs.
    """

    kind: str
    modules: str
    what: str
    damage: str
    weight: str
    null: str
    saves: tuple[str, ...]


@dataclass(frozen=True)
class PlanText:
    """A plan, as text; not escaped.

    Attributes
    ----------
    goal : str
        What it was asked to keep.
    actions : tuple of PlannedAction
        What to do.
    together : str
        What all of it costs, where it was built and measured; else that it was not.
    left : tuple of (str, str)
        Of each cost, which share is left.
    time : str
        What a step takes before and after; empty where it was not timed.
    caveat : str
        What has to be said of all of its evidence; empty where nothing has.
    ranked : bool
        Whether any action is ranked by its prediction.
    """

    goal: str
    actions: tuple[PlannedAction, ...]
    together: str
    left: tuple[tuple[str, str], ...]
    time: str
    caveat: str
    ranked: bool


def plan_text(plan: "Plan") -> PlanText:
    """Put a plan into words and numbers."""
    goals = [] if plan.budget is None else [f"at most {plan.budget:.0%} of {plan.of} left"]
    goals += [] if plan.tolerance is None else [f"at most {plan.tolerance:g} nats of damage"]
    together = "Built together, it was not measured: single damages add up only where actions do not meet."
    if plan.together is not None:
        together = (
            f"Built on half of {plan.n_samples} images and shown the others, all of it costs "
            f"{_interval(plan.together)} nats; one by one, the actions add up to {plan.summed:.3f}."
        )
    time = ""
    if plan.seconds is not None:
        before, after = (_in_words(each.median) for each in plan.seconds)
        time = (
            f"A step of {plan.batch} images took {before} before and {after} after, on the machine that made the plan."
        )
    return PlanText(
        goal=" and ".join(goals),
        actions=tuple(
            PlannedAction(
                kind=each.kind,
                modules=", ".join(each.modules),
                what=each.what,
                damage=_interval(each.damage),
                weight="–" if each.by_prediction is None else f"{each.by_prediction:.3f}",
                null="–" if math.isnan(each.damage.null) else f"{each.damage.null:.3f}",
                saves=tuple(_share(getattr(each.saves, name), getattr(plan.before, name)) for name, _ in _COSTS),
            )
            for each in plan.actions
        ),
        together=together if plan.actions else "",
        left=tuple((title, _share(getattr(plan.after, name), getattr(plan.before, name))) for name, title in _COSTS),
        time=time,
        caveat=plan.caveat,
        ranked=any(each.by_prediction is not None for each in plan.actions),
    )


def _in_words(seconds: float) -> str:
    """Say how long, in milliseconds where it is under a second."""
    return f"{seconds:.3g} s" if seconds >= 1 else f"{1e3 * seconds:.3g} ms"


def _interval(damage: "MeasuredDamage") -> str:
    return f"{damage.mean:.3f} ({damage.lower:.3f} to {damage.upper:.3f})"


def _share(part: float, whole: float) -> str:
    return f"{part / whole:.1%}" if whole else "–"
