"""Candidates: actions that measured damage and findings speak for, each with its evidence."""

from collections.abc import Iterator, Mapping
from typing import Any

import pandas as pd

from ..analysis import SIGMAS, Damage
from ..analysis.diagnosis import ACTION_OF, REWIND, Findings
from ._action import Action, MeasuredDamage
from ._costs import Costs


def candidates(findings: Findings, damage: Damage) -> list[Action]:
    """Return the actions that may be planned.

    Of the changes that `ablate` measured, one by one: those that do clearly less than a random change of the same size
    (the 95 % interval of the difference is above zero), or nothing at all; and those that do less, of an intervention
    that is clearly better than chance over all layers (`Damage.is_chosen_clearly`): which of its changes to take is
    then a matter of what each does. None where there was no null, and none that saves nothing. Of the findings: layers
    that are advised to be frozen, with the damage of putting them back together.

    Parameters
    ----------
    findings : Findings
        Of the run.
    damage : Damage
        Of the network.
    """
    costs = Costs(**damage.costs)
    better = damage.is_chosen_clearly() & (damage.frame["below_null"] > 0)
    rows = damage.frame[damage.is_clear() | better].to_dict("records")
    built = [
        action_of(row, costs=costs) for row in rows if row["intervention"] in ACTION_OF and ", " not in row["layer"]
    ]
    return [*_frozen(findings, costs), *(each for each in built if _saves(each))]


def action_of(row: Mapping[Any, Any], *, costs: Costs) -> Action:
    """Return what is to be done for a network to be as a row of `Damage.frame` has it.

    Parameters
    ----------
    row : mapping
        Of one module.
    costs : Costs
        Of the whole network.
    """
    removed = tuple(int(each) for each in row["channels"])
    setting = None if _missing(row["setting"]) else int(row["setting"])
    width = len(removed) + setting if removed and setting is not None else None
    gone = set(removed)
    return Action(
        kind=ACTION_OF[row["intervention"]],
        modules=(row["layer"],),
        what=row["what"],
        damage=damage_of(row),
        saves=_saved(row, costs),
        how=row["how"],
        setting=None if removed else setting,
        keep=tuple(each for each in range(width or 0) if each not in gone),
        width=width,
        consumer=row["consumer"],
    )


def damage_of(row: Mapping[Any, Any]) -> MeasuredDamage:
    """Return what a row of `Damage.frame` says of the loss, or of the divergence where there are no labels."""
    of = "kl" if _missing(row["loss"]) else "loss"
    mean, error = float(row[of]), SIGMAS * float(row[f"{of}_se"])
    return MeasuredDamage(mean, mean - error, mean + error, float(row[f"null_{of}"]))


def _frozen(findings: Findings, costs: Costs) -> Iterator[Action]:
    """Yield one action for each epoch from which on layers may be frozen."""
    by_epoch: dict[int, list[str]] = {}
    evidence: dict[int, Mapping[Any, Any]] = {}
    for advice in findings.advice:
        if advice.action != "freeze" or advice.epoch is None or "intervention" not in advice.evidence:
            continue
        rows = advice.evidence[
            (advice.evidence["intervention"] == REWIND)
            & (advice.evidence["epoch"] == advice.epoch)
            & advice.evidence["what"].str.startswith("weights")
        ]
        if len(rows):
            by_epoch.setdefault(advice.epoch, []).append(advice.layer)
            evidence[advice.epoch] = rows.sort_values("amount", kind="stable").iloc[-1].to_dict()
    for epoch, layers in sorted(by_epoch.items()):
        what = "from the start on" if epoch == 0 else f"from epoch {epoch} on"
        row = evidence[epoch]
        yield Action("freeze", tuple(layers), what, damage_of(row), saves=_saved(row, costs), epoch=epoch)


def _saved(row: Mapping[Any, Any], costs: Costs) -> Costs:
    return Costs(
        forward=row["forward_share"] * costs.forward,
        backward=row["backward_share"] * costs.backward,
        parameters=row["parameters_share"] * costs.parameters,
        kept=row["kept_share"] * costs.kept,
    )


def _saves(action: Action) -> bool:
    saved = action.saves
    return max(saved.forward, saved.backward, saved.parameters, saved.kept) > 0


def _missing(value: Any) -> bool:
    return bool(pd.isna(value))
