"""Candidates: actions that measured damage and findings speak for, each with its evidence."""

from collections.abc import Iterator, Mapping
from typing import Any

import pandas as pd

from ..analysis import SIGMAS, Damage
from ..analysis.diagnosis import ACTION_OF, REWIND, Findings, epoch_in_words, moment_of
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
    """Yield one action for each moment from which on layers may be frozen.

    Within an epoch that is when the next one begins: plans freeze between epochs, and later is no risk.
    """
    by_moment: dict[tuple[int, float], list[str]] = {}
    evidence: dict[tuple[int, float], Mapping[Any, Any]] = {}
    for advice in findings.advice:
        if advice.action != "freeze" or advice.epoch is None or "intervention" not in advice.evidence:
            continue
        moment = moment_of({"epoch": advice.epoch, "step": advice.step})
        weights = advice.evidence[
            (advice.evidence["intervention"] == REWIND) & advice.evidence["what"].str.startswith("weights")
        ]
        rows = [row for row in weights.to_dict("records") if moment_of(row) == moment]
        if rows:
            by_moment.setdefault(moment, []).append(advice.layer)
            evidence[moment] = max(rows, key=lambda row: row["amount"])
    for moment, layers in sorted(by_moment.items()):
        epoch, step = moment[0], None if moment[1] == float("inf") else int(moment[1])
        if epoch == 0 and not step:
            what = "from the start on"
        elif step is None:
            what = f"from epoch {epoch} on"
        else:
            what, epoch = f"from the epoch after {epoch_in_words(epoch, step)} on", epoch + 1
        row = evidence[moment]
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
