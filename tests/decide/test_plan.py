"""Plans: chosen from what was measured, checked by building them, and nothing where the evidence is weak."""

from dataclasses import replace
from itertools import combinations
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

import fmcluster as fm
from fmcluster.analysis.diagnosis import Advice, Findings, Thresholds
from fmcluster.decide import Action, Depth, KernelSize, MeasuredDamage, PredictedDamage, Width
from fmcluster.decide._choose import Goal, choose
from fmcluster.decide._costs import Costs
from fmcluster.decide._cross_fit import in_first_half
from fmcluster.decide._plan import _Made, _Trial

NOTHING = pd.DataFrame()


def findings(*advice: Advice) -> Findings:
    return Findings(NOTHING, NOTHING, NOTHING, tuple(advice), Thresholds())


@pytest.fixture(scope="module")
def learnt() -> SimpleNamespace:
    """A network that tells four patterns apart, and images of them, with the damage that was measured."""
    generator = torch.Generator().manual_seed(0)
    patterns = torch.randn(4, 3, 8, 8, generator=generator)
    labels = torch.arange(200) % 4
    images = patterns[labels] + 0.7 * torch.randn(200, 3, 8, 8, generator=generator)
    torch.manual_seed(0)
    model = nn.Sequential(
        *(nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU()),
        *(nn.Conv2d(16, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU()),
        *(nn.Conv2d(16, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.AvgPool2d(4)),
        *(nn.Flatten(), nn.Linear(64, 4)),
    )
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(25):
        optimizer.zero_grad()
        functional.cross_entropy(model(images), labels).backward()
        optimizer.step()
    model.eval()
    probe = TensorDataset(images[:100], labels[:100])
    asked = [Depth(), Width(shares=(0.25, 0.5, 0.75)), KernelSize()]
    damage = fm.ablate(model, probe, interventions=asked, n_null=2)
    return SimpleNamespace(model=model, probe=probe, damage=damage)


@pytest.mark.slow
def test_a_plan_keeps_its_budget_when_it_is_built(learnt) -> None:
    state = {name: value.clone() for name, value in learnt.model.state_dict().items()}
    plan = fm.plan(findings(), learnt.damage, budget=0.5, model=learnt.model, probe=learnt.probe, rounds=2)
    assert plan.built
    assert (plan.after.forward + plan.after.backward) / (plan.before.forward + plan.before.backward) <= 0.5
    images, labels = learnt.probe.tensors
    first = in_first_half(labels, random_state=0)
    changes = []
    for shown in (first, ~first):
        fitted = plan.apply(learnt.model, probe=TensorDataset(images[~shown]))
        with torch.no_grad():
            scores = [each(images[shown]) for each in (fitted, learnt.model)]
        losses = [functional.cross_entropy(each, labels[shown], reduction="none") for each in scores]
        changes.append(losses[0] - losses[1])
    difference = torch.cat(changes).double().numpy()
    assert plan.together.mean == pytest.approx(difference.mean(), abs=1e-6)
    error = 1.96 * np.std(difference, ddof=1) / 10
    assert plan.together.upper - plan.together.mean == pytest.approx(error, rel=1e-4, abs=1e-7)
    smaller = plan.apply(learnt.model)
    assert sum(each.numel() for each in smaller.parameters()) == plan.after.parameters
    assert all(torch.equal(state[name], value) for name, value in learnt.model.state_dict().items())
    before, after = plan.seconds
    assert 0 < before.shortest <= before.median <= before.longest
    assert after.median > 0
    text = str(plan)
    assert f"{len(plan.actions)} actions, for at most 50 % of compute left" in text
    assert f"Together, built on half of 100 samples and shown the others: damage {plan.together.mean:.4f}" in text
    assert f"one by one they add up to {plan.summed:.4f}" in text
    assert f"A step of 100 samples, on the machine where this was measured: {before.median:.4f} s" in text
    frame, chosen = learnt.damage.frame, learnt.damage.is_clear() | learnt.damage.is_chosen_clearly()
    spoken_for = set(zip(frame["layer"][chosen], frame["what"][chosen], strict=True))
    for action in plan.actions:
        assert action.module in text
        assert (action.module, action.what) in spoken_for
        assert action.damage.mean < action.damage.null or action.damage.mean == 0


@pytest.mark.slow
def test_one_action_does_as_a_plan_what_it_did_alone(learnt) -> None:
    """Plan and ablation are cross-fitted in the same way, on the same halves; however the images come in batches."""
    chosen = []
    for intervention, layer in ((KernelSize(), "3"), (Width(shares=(0.25,)), "3")):
        how = {"layers": [layer], "interventions": [intervention], "n_null": 0, "random_state": 5}
        damage = fm.ablate(learnt.model, DataLoader(learnt.probe, batch_size=30), **how)
        claimed = damage.frame.assign(below_null=1.0, below_null_se=0.0, null_loss=1e3, null_kl=1e3)
        how = {"tolerance": 100.0, "model": learnt.model, "probe": learnt.probe, "random_state": 5}
        plan = fm.plan(findings(), replace(damage, frame=claimed), rounds=0, **how)
        (one,) = plan.actions
        chosen.append(one.kind)
        assert plan.together.mean == pytest.approx(one.damage.mean, rel=1e-3, abs=1e-5)
        assert plan.together.upper == pytest.approx(one.damage.upper, rel=1e-3, abs=1e-5)
    assert chosen == ["kernel", "narrow"]


def test_no_more_damage_than_is_tolerated(learnt) -> None:
    plan = fm.plan(findings(), learnt.damage, tolerance=0.1, model=learnt.model, probe=learnt.probe, rounds=0)
    assert plan.actions
    assert plan.together.upper <= 0.1
    assert all(action.damage.upper <= 0.1 for action in plan.actions)
    assert plan.seconds is None
    default = fm.plan(findings(), learnt.damage)
    assert default.tolerance == Thresholds().damage
    assert not default.built
    assert "single savings added up" in str(default)


def test_given_a_prediction_a_plan_takes_kernels_in_its_order_and_tells_what_was_measured(learnt) -> None:
    """Of two kernels that save as much, the one that the prediction puts first, though it was measured to do more."""
    frame = learnt.damage.frame.query("intervention == 'kernel size' and layer in ['3', '6']").sort_values("loss")
    damage = replace(learnt.damage, frame=frame.assign(below_null=1.0, below_null_se=0.0, null_loss=1e3, null_kl=1e3))
    rows = frame[["intervention", "layer", "what", "how"]].assign(predicted=[2.0, 1.0])
    predicted = PredictedDamage(rows.reindex(columns=PredictedDamage.COLUMNS), NOTHING, 100, 0, 0)
    (plain,), (ranked,) = (
        fm.plan(findings(), damage, budget=0.99, predicted=each).actions for each in (None, predicted)
    )
    first, second = frame.to_dict("records")
    assert plain.module == first["layer"]
    assert plain.by_prediction is None
    assert ranked.module == second["layer"]
    assert ranked.damage.mean == second["loss"]
    assert ranked.by_prediction == first["loss"]
    with pytest.raises(TypeError, match="expected the PredictedDamage that predict_damage returned, got a DataFrame"):
        fm.plan(findings(), damage, predicted=rows)


@pytest.mark.slow
def test_together_may_do_more_than_one_by_one_and_the_worst_goes(learnt) -> None:
    """Of a table that tells of no damage where there is, what is built does too much, and actions are dropped."""
    frame = learnt.damage.frame.copy()
    claimed = (frame["intervention"] == "kernel size") | (frame["layer"].isin(["3"]) & (frame["amount"] == 0.75))
    frame.loc[claimed, ["loss", "loss_se"]] = [1e-4, 0.0]
    frame.loc[claimed, ["below_null", "below_null_se", "null_loss"]] = [1.0, 0.0, 1.0]
    lying = replace(learnt.damage, frame=frame)
    alone = fm.plan(findings(), lying, tolerance=0.01)
    checked = fm.plan(findings(), lying, tolerance=0.01, model=learnt.model, probe=learnt.probe, rounds=0)
    assert len(checked.actions) < len(alone.actions)
    assert checked.together is None or checked.together.upper <= 0.01


@pytest.mark.parametrize(
    ("budget", "expected"),
    [
        (None, ["a", "c", "d"]),  # a and b do not go together; with b gone, a fits again
        (0.75, ["a", "c"]),  # enough is saved
    ],
)
def test_what_fits_after_the_worst_was_dropped_is_added(budget, expected) -> None:
    found = [action("a", 0.06, 0.2), action("b", 0.05, 0.2), action("c", 0.01, 0.1), action("d", 0.05, 0.1)]

    class Together(_Trial):
        def __init__(self) -> None:
            self.before = Costs(forward=1.0)

        def _build(self, actions) -> _Made:
            names = {each.modules[0] for each in actions}
            mean = sum(each.damage.mean for each in actions) / 2 + (1.0 if {"a", "b"} <= names else 0.0)
            mean += 0.5 if {"b", "c"} <= names else 0.0
            left = 1.0 - sum(each.saves.forward for each in actions)
            return _Made(tuple(actions), nn.Identity(), Costs(forward=left), MeasuredDamage(mean, mean, mean))

    aim = Goal("forward", budget, tolerance=0.13)
    made = Together().choose(found, aim, whole=Costs(forward=1.0))
    assert [each.modules[0] for each in made.actions] == expected


def test_weak_evidence_is_not_planned(learnt) -> None:
    frame = learnt.damage.frame
    unknown = frame.assign(below_null=np.nan, below_null_se=np.nan, kl=1.0)
    wide = frame.assign(loss_se=10.0)
    saves = ["forward_share", "backward_share", "parameters_share", "kept_share"]
    useless = frame.assign(**dict.fromkeys(saves, 0.0))
    for each in (unknown, wide, useless):
        plan = fm.plan(findings(), replace(learnt.damage, frame=each), tolerance=0.5)
        assert plan.actions == ()
        assert "Nothing to do" in str(plan)


def test_a_plan_for_a_network_that_does_not_know_its_task_says_so(learnt, tmp_path) -> None:
    assert fm.plan(findings(), learnt.damage, tolerance=0.5).caveat == ""
    blind = replace(learnt.damage, accuracy=0.27)  # of 100 images of four classes
    for model in ({}, {"model": learnt.model, "probe": learnt.probe, "rounds": 0}):
        plan = fm.plan(findings(), blind, tolerance=0.5, **model)
        assert str(plan).splitlines()[1] == plan.caveat == blind.caveat
        assert "right on 0.270 of 100 samples" in plan.caveat
        assert "the most frequent class (0.250)" in plan.caveat
        assert fm.decide.Plan.from_yaml(plan.to_yaml(tmp_path / "plan.yaml")) == replace(plan, shown=None)


def test_what_is_weak_alone_is_planned_where_its_intervention_is_better_than_chance(learnt) -> None:
    """And of its changes those that do less than chance, whose damage is tolerated."""
    frame = learnt.damage.frame.query("intervention == 'kernel size'").reset_index(drop=True)
    weak = frame.assign(kl=0.1, loss=0.01, loss_se=0.001, null_loss=1.0, below_null=0.1, below_null_se=1.0)
    weak.loc[0, "below_null"] = -0.1
    weak.loc[1, "loss"] = 0.2
    sure, unsure = (
        pd.DataFrame([("kernel size", "", 3, 0.3, error)], columns=learnt.damage.CHOICES) for error in (0.1, 0.2)
    )
    planned = [
        fm.plan(findings(), replace(learnt.damage, frame=weak, choices=each), tolerance=0.1) for each in (sure, unsure)
    ]
    assert [each.module for each in planned[0].actions] == frame["layer"].tolist()[2:]
    assert planned[1].actions == ()


def action(name: str, mean: float, saved: float, kind: str = "kernel") -> Action:
    return Action(kind, (name,), "", MeasuredDamage(mean, mean, mean, 1.0), Costs(forward=saved), setting=1)


def test_what_is_chosen_is_near_the_best_of_all_sets() -> None:
    """Greedy, against every subset of eight independent actions: never worse than twice the best, and it fits."""
    generator = np.random.default_rng(0)
    for _ in range(20):
        found = [action(f"m{number}", *generator.uniform(0.01, 0.1, 2)) for number in range(8)]
        needed = 0.5 * sum(each.saves.forward for each in found)
        chosen = choose(found, Goal("forward", budget=1 - needed), whole=Costs(forward=1.0))
        fitting = [
            sum(each.damage.mean for each in some)
            for count in range(9)
            for some in combinations(found, count)
            if sum(each.saves.forward for each in some) >= needed
        ]
        assert sum(each.saves.forward for each in chosen) >= needed
        assert sum(each.damage.mean for each in chosen) <= 2 * min(fitting)


def test_actions_that_exclude_one_another_are_not_both_chosen() -> None:
    found = [action("block.conv", 0.01, 0.2), action("block", 0.05, 0.9, "shorten"), action("other", 0.2, 0.05)]
    chosen = choose(found, Goal("forward", budget=0.5), whole=Costs(forward=1.0))
    assert [each.module for each in chosen] == ["block"]


def test_layers_that_may_be_frozen_within_an_epoch_are_frozen_when_the_next_begins(residual, probe) -> None:
    columns = {"intervention": "rewind", "loss_se": 0.001, "null_loss": np.nan, "kl": 0.01, "what": "weights of"}
    columns |= {"forward_share": 0.0, "backward_share": 0.3, "parameters_share": 0.0, "kept_share": 0.0, "amount": 1.0}
    moments = ((0, 0, 0.003), (0, 50, 0.002), (1, 150, 0.001))
    rows = pd.DataFrame([columns | {"epoch": epoch, "step": step, "loss": loss} for epoch, step, loss in moments])
    layers = ("stem", "bn", "block1")
    advice = [
        Advice(name, "freeze", "", rows.assign(layer=name), epoch=epoch, step=step)
        for name, (epoch, step, _) in zip(layers, moments, strict=True)
    ]
    damage = fm.ablate(residual, probe, interventions=[Depth(blocks=False)], layers=["head"])
    plan = fm.plan(findings(*advice), damage, tolerance=0.02, model=residual, probe=probe, rounds=0)
    assert [(each.modules, each.what, each.epoch, each.damage.mean) for each in plan.actions] == [
        (("stem",), "from the start on", 0, 0.003),
        (("bn",), "from the epoch after epoch 0 (step 50) on", 1, 0.002),
        (("block1",), "from the epoch after epoch 1 (step 150) on", 2, 0.001),
    ]
    built = plan.apply(residual)
    assert not built.stem.weight.requires_grad
    assert built.bn.weight.requires_grad
    assert plan.freeze(built, epoch=1) == ["bn"]


def test_layers_that_findings_advise_to_freeze_are_frozen(residual, probe: TensorDataset) -> None:
    columns = {"intervention": "rewind", "loss": 0.003, "loss_se": 0.001, "null_loss": np.nan, "kl": 0.01}
    columns |= {"forward_share": 0.0, "backward_share": 0.3, "parameters_share": 0.0, "kept_share": 0.0}
    rows = pd.DataFrame(
        [
            columns | {"layer": "stem", "what": "weights of epoch 0", "amount": 1.0, "epoch": 0, "loss": 0.5},
            columns | {"layer": "stem, bn", "what": "weights of epoch 0, 2 layers together", "amount": 2.0, "epoch": 0},
        ]
    )
    later = rows.assign(layer=["block1", "stem, bn, block1"], epoch=2)
    told = findings(
        Advice("stem", "freeze", "", rows, epoch=0),
        Advice("bn", "freeze", "", rows, epoch=0),
        Advice("block1", "freeze", "", later, epoch=2),
    )
    damage = fm.ablate(residual, probe, interventions=[Depth(blocks=False)], layers=["head"])
    plan = fm.plan(told, damage, tolerance=0.02, model=residual, probe=probe, rounds=0)
    first, second = plan.actions
    assert (first.modules, first.epoch, first.what) == (("stem", "bn"), 0, "from the start on")
    assert (second.modules, second.epoch, second.what) == (("block1",), 2, "from epoch 2 on")
    assert first.damage.mean == 0.003
    assert plan.together is None
    assert plan.after.forward == plan.before.forward
    assert plan.after.backward < plan.before.backward
    assert plan.after.kept < 0.7 * plan.before.kept
    frozen = plan.apply(residual)
    assert not frozen.stem.weight.requires_grad
    assert frozen.block1.conv1.weight.requires_grad
    assert plan.freeze(frozen, epoch=1) == []
    assert plan.freeze(frozen, epoch=2) == ["block1"]
    assert not frozen.block1.conv1.weight.requires_grad
    assert residual.stem.weight.requires_grad


@pytest.mark.slow
def test_the_price_is_what_autograd_does(residual, probe: TensorDataset) -> None:
    """Bytes kept: the tensors that autograd saves, of convolutions, linear layers and normalizations, by hand."""
    plan = fm.plan(findings(), fm.ablate(residual, probe), tolerance=0.0, model=residual, probe=probe, rounds=0)
    pixels, per = 64, 4
    stem = 3 * pixels + 8 * pixels  # what the convolution and the normalization are given
    first = 4 * 8 * pixels
    second = 8 * pixels + 3 * 16 * 16 + 8 * pixels
    assert plan.before.kept == per * (stem + first + second + 16)
    convolutions = 3 * 8 * 9 * pixels + 2 * 8 * 8 * 9 * pixels + (8 * 9 + 16 * 9 + 8) * 16 * 16
    assert plan.before.forward == convolutions + 16 * 5
    assert plan.before.backward == 2 * plan.before.forward - 3 * 8 * 9 * pixels  # images need no gradient


def test_bad_input_is_refused_in_one_sentence(learnt, residual) -> None:
    damage = learnt.damage
    for wrong, text in (
        ({"budget": 0.0001}, r"a budget of 0.01 % of compute cannot be kept: .* % are left"),
        ({"budget": 0.5, "tolerance": 0.0}, r"cannot be kept within 0 nats of damage: .* 100\.0 % are left"),
        ({"budget": 50}, "budget is 50; expected a share that may be left"),
        ({"tolerance": -1}, "tolerance is -1; expected nats"),
        ({"of": "watts"}, "no budget of 'watts'; expected one of compute, forward"),
        ({"model": residual}, "pass both model= and probe=, or neither"),
        ({"model": residual, "probe": learnt.probe}, "measured on a network of 5,444 parameters, and the model has"),
    ):
        with pytest.raises(ValueError, match=text):
            fm.plan(findings(), damage, **wrong)
    three = TensorDataset(*learnt.probe[:3])
    with pytest.raises(ValueError, match="the probe has 3 samples; expected at least 4"):
        fm.plan(findings(), damage, tolerance=0.1, model=learnt.model, probe=three)
    with pytest.raises(TypeError, match="expected the Damage that ablate returned, got a DataFrame"):
        fm.plan(findings(), damage.frame)
    with pytest.raises(TypeError, match="expected the Findings that diagnose returned, got a Damage"):
        fm.plan(damage, damage)
