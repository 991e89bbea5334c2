"""Choosing: the actions that keep a budget at least damage, or save most at a tolerated one."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ._action import Action, exclude
from ._costs import Costs

Part = Callable[[Costs], float]
PARTS: dict[str, Part] = {
    "compute": lambda costs: costs.forward + costs.backward,
    "forward": lambda costs: costs.forward,
    "backward": lambda costs: costs.backward,
    "memory": lambda costs: costs.kept,
    "parameters": lambda costs: costs.parameters,
}


@dataclass(frozen=True)
class Goal:
    """What a plan has to keep.

    Attributes
    ----------
    of : {"compute", "forward", "backward", "memory", "parameters"}
        What the budget is a share of.
    budget : float, optional
        Which share of it may be left.
    tolerance : float, optional
        How much damage all actions together may do, in nats.
    """

    of: str
    budget: float | None = None
    tolerance: float | None = None

    def __post_init__(self) -> None:
        if self.of not in PARTS:
            raise ValueError(f"there is no budget of {self.of!r}; expected one of {', '.join(PARTS)}")
        if self.budget is not None and not (_is_number(self.budget) and 0 < self.budget <= 1):
            raise ValueError(f"budget is {self.budget!r}; expected a share that may be left, over 0 and at most 1")
        if self.tolerance is not None and not (_is_number(self.tolerance) and self.tolerance >= 0):
            raise ValueError(f"tolerance is {self.tolerance!r}; expected nats of loss, at least 0")

    def part(self, costs: Costs) -> float:
        """Return the part of costs that the budget is of."""
        return PARTS[self.of](costs)


def choose(
    candidates: Sequence[Action], goal: Goal, *, whole: Costs, conflict: Callable[[Action, Action], bool] = exclude
) -> list[Action]:
    """Choose actions one after the other, greedily: that which adds least damage for what it saves.

    Actions are compared by their weights; what is tolerated is measured damage. Both, and savings, are taken to add up;
    what adds nothing, or less, counts as none. An action that excludes others takes their stead where it saves more
    than they do.

    Parameters
    ----------
    candidates : sequence of Action
        All that may be chosen.
    goal : Goal
        With a budget: chosen until it is kept, and what turns out not to be needed is dropped again, the most harmful
        first. Without: for as long as the sum of the damage is at most the tolerance.
    whole : Costs
        Of the network as it is.
    conflict : callable
        Whether two actions cannot both be taken.

    Returns
    -------
    list of Action
        In the order of the candidates; it may not keep the budget, where nothing does.
    """
    chosen: list[Action] = []
    allowed = (1 - goal.budget) * goal.part(whole) if goal.budget is not None else float("inf")
    while _saved(chosen, goal) < allowed:
        best, least = None, float("inf")
        for action in candidates:
            if action in chosen:
                continue
            after = [*(each for each in chosen if not conflict(each, action)), action]
            gain = _saved(after, goal) - _saved(chosen, goal)
            if gain <= 0 or (goal.tolerance is not None and _damage(after) > goal.tolerance):
                continue
            rate = (_weight(after) - _weight(chosen)) / gain
            if rate < least:
                best, least = after, rate
        if best is None:
            break
        chosen = best
    for action in sorted(chosen, key=lambda each: -each.weight):
        without = [each for each in chosen if each is not action]
        if _saved(without, goal) >= allowed and action.weight > 0:
            chosen = without
    return [action for action in candidates if action in chosen]


def harm(action: Action, goal: Goal) -> float:
    """Return what an action weighs for what it saves."""
    return action.weight / max(goal.part(action.saves), 1e-30)


def _saved(actions: Sequence[Action], goal: Goal) -> float:
    return sum(goal.part(each.saves) for each in actions)


def _damage(actions: Sequence[Action]) -> float:
    return sum(max(0.0, each.damage.mean) for each in actions)


def _weight(actions: Sequence[Action]) -> float:
    return sum(max(0.0, each.weight) for each in actions)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
