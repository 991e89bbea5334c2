"""Planning: from measured damage to a list of actions that keeps a budget, checked by building all of it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import isnan
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

from ..analysis import SIGMAS, Damage
from ..analysis.diagnosis import Findings
from ..capture import ModelInputs, ToInputs, plain_model
from ._action import Action, MeasuredDamage, exclude, overlap
from ._candidates import candidates
from ._choose import Goal, choose, harm
from ._costs import Costs
from ._cross_fit import CrossFit
from ._network import Network
from ._outcomes import Loss, Outcomes, mean_and_error
from ._plan_result import Plan
from ._predict_damage import PredictedDamage
from ._price import measure_seconds, price
from ._probe_batches import Shown, probe_batches
from ._weigh import weigh
from .building import build

_MOST_TRIES = 10


def plan(
    findings: Findings,
    damage: Damage,
    *,
    predicted: PredictedDamage | None = None,
    budget: float | None = None,
    of: str = "compute",
    tolerance: float | None = None,
    model: nn.Module | None = None,
    probe: Dataset[Any] | DataLoader[Any] | None = None,
    loss: Loss | None = None,
    batch_size: int = 100,
    to_inputs: ToInputs | None = None,
    rounds: int = 7,
    random_state: int = 0,
) -> Plan:
    """Choose what to freeze and to make smaller: the least damage within a budget, or most savings at a tolerated one.

    What may be chosen is what `ablate` measured to do less than a random change of the same size, clearly so by itself
    or over all layers of its intervention (`Damage.is_chosen_clearly`), and what `diagnose` advises to freeze. Actions
    are chosen greedily, by damage for what is saved. Given what `predict_damage` found, smaller kernels, separable
    convolutions and lower resolutions are taken in its order, each with the measured damage that has its rank
    (``Action.by_prediction``): of a ResNet-20, that order was nearer to what retraining left than the measured one, of
    small networks as near. What an action may do, and all together, stays what is measured of them. With a model and a
    probe, the network is built, shown the probe and counted: actions are added until it keeps the budget, the worst are
    dropped for as long as all of them together do more than is tolerated, and what then fits is added. Without, no two
    actions touch the same layer, so that what they save adds up.

    What all actions do together is cross-fitted, as each of them is by `ablate`: measured on each half of the probe
    with weights that were fitted on the other half.

    Parameters
    ----------
    findings : Findings
        What `diagnose` returned: with the damage of rewinding, its advice says what to freeze.
    damage : Damage
        What `ablate` returned.
    predicted : PredictedDamage, optional
        What `predict_damage` found of the same network.
    budget : float, optional
        Which share of the costs may be left, over 0 and at most 1.
    of : {"compute", "forward", "backward", "memory", "parameters"}
        Of which costs: multiply-adds of both passes (the default), of one of them, bytes kept for the backward pass, or
        parameters.
    tolerance : float, optional
        How much loss all actions together may cost on the probe, in nats (divergence, without labels): the upper end of
        the 95 % interval, of each and of all of them. Without a budget and a tolerance, that of the findings'
        thresholds.
    model : Module, optional
        What the damage was measured on; it is not changed.
    probe : Dataset or DataLoader, optional
        The same images.
    loss : callable, optional
        As in `ablate`.
    batch_size, to_inputs
        As in `ablate`.
    rounds : int
        How often a step of both networks is timed; 0: not, and neither where there is nothing to do, or a batch is too
        small for a normalization in training mode.
    random_state : int
        Seed of which images are in which half, as in `ablate`.

    Returns
    -------
    Plan
        ``print(plan)`` shows it, ``plan.apply(model)`` builds it.

    Raises
    ------
    TypeError
        For what is no findings, damage or predicted damage.
    ValueError
        For a budget that cannot be kept, with the least that can; a model that the damage is not of; or a probe of
        fewer than four samples.
    """
    if model is not None:
        model = plain_model(model)
    _check(findings, damage, model, probe)
    if predicted is not None and not isinstance(predicted, PredictedDamage):
        raise TypeError(f"expected the PredictedDamage that predict_damage returned, got a {type(predicted).__name__}")
    if budget is None and tolerance is None:
        tolerance = findings.thresholds.damage
    goal = Goal(of, budget, tolerance)
    found = [each for each in candidates(findings, damage) if _sure(each, tolerance)]
    if predicted is not None:
        found = weigh(found, predicted)
    before = Costs(**damage.costs)
    if model is None or probe is None:
        chosen = choose(found, goal, whole=before, conflict=overlap)
        after = _added_up(chosen, before)
        _check_budget(after, before, goal)
        measured_on = damage.shown if isinstance(damage.shown, Shown) else None
        return Plan(
            tuple(chosen),
            of,
            budget,
            tolerance,
            before,
            after,
            n_samples=damage.n_samples,
            caveat=damage.caveat,
            shown=measured_on,
        )
    shown = Shown(probe, batch_size, to_inputs)
    trial = _Trial(model, shown, loss=loss, random_state=random_state)
    made = trial.choose(found, goal, whole=before)
    timed = measure_seconds([model, made.model], trial.inputs, rounds=rounds) if rounds > 0 and made.actions else None
    return replace(
        Plan(made.actions, of, budget, tolerance, trial.before, made.costs, built=True, shown=shown),
        together=made.damage,
        n_samples=damage.n_samples,
        seconds=None if timed is None else (timed[0], timed[1]),
        batch=0 if timed is None else len(trial.inputs),
        caveat=damage.caveat,
    )


@dataclass(frozen=True, eq=False)
class _Made:
    """A network that was built, and what was measured of it."""

    actions: tuple[Action, ...]
    model: nn.Module
    costs: Costs
    damage: MeasuredDamage | None


class _Trial:
    """Builds networks, shows them the probe, and counts what they cost."""

    def __init__(self, model: nn.Module, shown: Shown, *, loss: Loss | None, random_state: int) -> None:
        batches, targets = probe_batches(model, shown.probe, batch_size=shown.batch_size, to_inputs=shown.to_inputs)
        self._model = model
        self._network = Network(model, batches, loss=None)
        self._halves = CrossFit.halves(self._network, targets, loss=loss, random_state=random_state)
        self.before = price(model, self.inputs)

    @property
    def inputs(self) -> ModelInputs:
        """A batch."""
        return self._network.batch(0)

    def choose(self, found: Sequence[Action], goal: Goal, *, whole: Costs) -> _Made:
        """Return the plan that keeps the goal when it is built."""
        aim = goal
        made = self._build(choose(found, aim, whole=whole))
        for _ in range(_MOST_TRIES):
            over = goal.part(made.costs) / goal.part(self.before) - (goal.budget or 1.0)
            if goal.budget is None or over <= 0 or aim.budget is None:
                break
            aim = replace(aim, budget=max(1e-6, aim.budget - 1.01 * over))
            chosen = choose(found, aim, whole=whole)
            if tuple(chosen) == made.actions:
                break
            made = self._build(chosen)
        while goal.tolerance is not None and self._upper(made) > goal.tolerance:
            structural = [each for each in made.actions if each.kind != "freeze"]
            out = max(structural, key=lambda each: harm(each, goal))
            made = self._build([each for each in made.actions if each is not out])
        if goal.tolerance is not None:
            made = self._add(made, found, goal)
        _check_budget(made.costs, self.before, goal)
        return made

    def _add(self, made: _Made, found: Sequence[Action], goal: Goal) -> _Made:
        """Add what fits into the tolerance after all: also what was dropped before something else was."""
        left = sorted((each for each in found if each.kind != "freeze"), key=lambda each: harm(each, goal))
        tries = 0
        for action in left:
            enough = goal.budget is not None and goal.part(made.costs) <= goal.budget * goal.part(self.before)
            if enough or tries == _MOST_TRIES:
                break
            if action in made.actions or any(exclude(each, action) for each in made.actions):
                continue
            tries += 1
            more = self._build([each for each in found if each in made.actions or each is action])
            if self._upper(more) <= (goal.tolerance or 0.0) and goal.part(more.costs) < goal.part(made.costs):
                made = more
        return made

    def _build(self, actions: Sequence[Action]) -> _Made:
        built = build(self._model, actions, network=self._network)
        damage = self._damage(actions) if any(each.kind != "freeze" for each in actions) else None
        return _Made(tuple(actions), built, price(built, self.inputs), damage)

    def _damage(self, actions: Sequence[Action]) -> MeasuredDamage:
        """Return the damage on each half of the probe of what is fitted on the other half."""
        built = self._halves.fit(lambda network: build(self._model, actions, network=network))
        after = self._halves.outcomes(built, lambda network, model: network.of(model).show_all())
        mean, error = mean_and_error(_difference(self._halves.before, after))
        return MeasuredDamage(mean, mean - SIGMAS * error, mean + SIGMAS * error)

    def _upper(self, made: _Made) -> float:
        """Return the upper end of the damage of all; freezing, which is no change yet, counts by its mean."""
        frozen = sum(max(0.0, each.damage.mean) for each in made.actions if each.kind == "freeze")
        return 0.0 if made.damage is None else made.damage.upper + frozen


def _difference(before: Outcomes, after: Outcomes) -> torch.Tensor:
    """Return the change of each sample's loss, or the divergence where there are no labels."""
    if before.loss is None or after.loss is None:
        return before.divergence(after)
    return after.loss - before.loss


def _sure(action: Action, tolerance: float | None) -> bool:
    """Whether it does less than chance, and its interval ends within what is tolerated."""
    damage = action.damage
    reaches = damage.upper if action.kind == "freeze" else damage.mean  # of others, `candidates` has seen to the error
    below_chance = isnan(damage.null) or reaches < damage.null or damage.lower == damage.upper == 0
    return below_chance and (tolerance is None or damage.upper <= tolerance)


def _added_up(actions: Sequence[Action], before: Costs) -> Costs:
    saved = Costs.total(each.saves for each in actions)
    names = ("forward", "backward", "parameters", "kept")
    return Costs(*(max(0.0, getattr(before, name) - getattr(saved, name)) for name in names))


def _check_budget(after: Costs, before: Costs, goal: Goal) -> None:
    left = goal.part(after) / goal.part(before) if goal.part(before) else 1.0
    if goal.budget is not None and left > goal.budget + 1e-9:
        within = "" if goal.tolerance is None else f" within {goal.tolerance:g} nats of damage"
        raise ValueError(
            f"a budget of {100 * goal.budget:.4g} % of {goal.of} cannot be kept{within}: with what was measured to do "
            f"clearly less than chance, {100 * left:.1f} % are left; raise the budget or the tolerance, or ablate more"
        )


def _check(findings: object, damage: object, model: object, probe: object) -> None:
    for value, kind, maker in ((findings, Findings, "diagnose"), (damage, Damage, "ablate")):
        if not isinstance(value, kind):
            raise TypeError(f"expected the {kind.__name__} that {maker} returned, got a {type(value).__name__}")
    if (model is None) != (probe is None):
        raise ValueError("pass both model= and probe=, or neither: to measure a plan, it is built and shown the probe")
    if isinstance(model, nn.Module) and isinstance(damage, Damage):
        count = sum(each.numel() for each in model.parameters())
        if count != damage.costs["parameters"]:
            raise ValueError(
                f"the damage was measured on a network of {damage.costs['parameters']:,.0f} parameters, and the model "
                f"has {count:,}: ablate this model"
            )
