"""Plan tables: what a plan does, costs and saves, as a person reads it."""

import math
from typing import TYPE_CHECKING

from ._action import Action, MeasuredDamage
from ._price import Seconds

if TYPE_CHECKING:
    from ._plan_result import Plan

_HEADER = ("action", "module", "what", "damage (95 %)", "at random", "forward", "backward", "kept", "parameters")
_RIGHT = 4  # from this column on, numbers
_DAMAGE = 4  # after this many columns stands what the damage is ranked as
_RANKED = "ranked as"
RANKED_BY_PREDICTION = (
    "the measured damage, of all changes of its kind, that has the rank which this one has by its prediction; it is "
    "chosen by that, and not by what was measured of it"
)


def plan_table(plan: "Plan") -> str:
    """Return a plan as text: one line an action, then all of them together, and the price."""
    lines = [_title(plan), *filter(None, [plan.caveat])]
    if plan.actions:
        ranked = any(each.by_prediction is not None for each in plan.actions)
        header = (*_HEADER[:_DAMAGE], *([_RANKED] if ranked else []), *_HEADER[_DAMAGE:])
        lines += _aligned([header, *(_row(each, plan, ranked=ranked) for each in plan.actions)])
        lines.append("Damage in nats, before any retraining; shares are what each saves alone.")
        if ranked:
            lines.append(f"{_RANKED}: {RANKED_BY_PREDICTION}.")
    if plan.together is not None:
        lines.append(
            f"Together, built on half of {plan.n_samples} samples and shown the others: damage "
            f"{_interval(plan.together)}; one by one they add up to {plan.summed:.4f}."
        )
    how = "counted of the network as it is built" if plan.built else "single savings added up"
    lines.append(f"One sample, one step ({how}):")
    names = ("forward", "backward", "kept", "parameters")
    units = ("multiply-adds forward", "multiply-adds backward", "bytes kept for backward", "parameters")
    for name, unit in zip(names, units, strict=True):
        before, after = (getattr(each, name) for each in (plan.before, plan.after))
        lines.append(f"  {unit:24s} {before:>16,.0f} -> {after:>16,.0f}  ({_share(after, before)} left)")
    if plan.seconds is not None:
        before, after = plan.seconds
        lines.append(
            f"A step of {plan.batch} samples, on the machine where this was measured: {_took(before)} before, "
            f"{_took(after)} after."
        )
    return "\n".join(lines)


def _title(plan: "Plan") -> str:
    goals = []
    if plan.budget is not None:
        goals.append(f"at most {100 * plan.budget:.0f} % of {plan.of} left")
    if plan.tolerance is not None:
        goals.append(f"at most {plan.tolerance:g} nats of damage")
    count = len(plan.actions)
    asked = " and ".join(goals)
    if not count:
        return f"Nothing to do: no measured change that does clearly less than chance helps to keep {asked}."
    return f"{count} action{'' if count == 1 else 's'}, for {asked}"


def _row(action: Action, plan: "Plan", *, ranked: bool) -> tuple[str, ...]:
    more = len(action.modules) - 1
    module = f"{action.module} and {more} more" if more else action.module
    null = "-" if math.isnan(action.damage.null) else f"{action.damage.null:.4f}"
    names = ("forward", "backward", "kept", "parameters")
    shares = (_share(getattr(action.saves, name), getattr(plan.before, name)) for name in names)
    weight = "-" if action.by_prediction is None else f"{action.by_prediction:.4f}"
    columns = [weight] if ranked else []
    return (action.kind, module, action.what, _interval(action.damage), *columns, null, *shares)


def _took(seconds: Seconds) -> str:
    return f"{seconds.median:.4f} s ({seconds.shortest:.4f} to {seconds.longest:.4f})"


def _interval(damage: MeasuredDamage) -> str:
    return f"{damage.mean:.4f} ({damage.lower:.4f} to {damage.upper:.4f})"


def _share(part: float, whole: float) -> str:
    return f"{100 * part / whole:.1f} %" if whole else "-"


def _aligned(rows: list[tuple[str, ...]]) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        "  "
        + "  ".join(
            cell.ljust(width) if column < _RIGHT else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
