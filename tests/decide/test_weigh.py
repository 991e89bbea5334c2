"""Weights of actions: the order is that of the prediction, the sizes are measured, and what is claimed stays."""

import pandas as pd

from fmcluster.decide import Action, MeasuredDamage, PredictedDamage
from fmcluster.decide._choose import Goal, choose
from fmcluster.decide._costs import Costs
from fmcluster.decide._weigh import weigh

NAMES = {"kernel": "kernel size", "separable": "separable", "narrow": "width", "shorten": "depth"}


def action(module: str, mean: float, kind: str = "kernel", *, how: str = "") -> Action:
    damage = MeasuredDamage(mean, mean - 0.01, mean + 0.01, 1.0)
    return Action(kind, (module,), "3 x 3 to 1 x 1", damage, Costs(forward=0.1), how=how)


def prediction(*rows: tuple[str, str, float], how: str = "") -> PredictedDamage:
    frame = pd.DataFrame(rows, columns=["intervention", "layer", "predicted"])
    frame = frame.assign(what="3 x 3 to 1 x 1", how=how).reindex(columns=PredictedDamage.COLUMNS)
    return PredictedDamage(frame, pd.DataFrame(), 10, 0, 0)


def test_measured_damages_are_handed_out_in_the_order_of_the_prediction() -> None:
    found = [action("a", 0.3), action("b", 0.1), action("c", 0.2), action("unknown", 0.7)]
    weighed = weigh(found, prediction(("kernel size", "a", 5.0), ("kernel size", "b", 80.0), ("kernel size", "c", 7.0)))
    assert [each.module for each in weighed] == ["a", "b", "c", "unknown"]
    assert [each.weight for each in weighed] == [0.1, 0.3, 0.2, 0.7]
    assert [each.damage for each in weighed] == [each.damage for each in found]
    assert weighed[3].by_prediction is None


def test_each_kind_is_ranked_by_itself() -> None:
    found = [action("a", 0.3), action("a", 0.02, "separable"), action("b", 0.1), action("b", 0.01, "separable")]
    rows = [(NAMES[kind], layer, size) for kind in ("kernel", "separable") for layer, size in (("a", 1.0), ("b", 2.0))]
    assert [each.weight for each in weigh(found, prediction(*rows))] == [0.1, 0.01, 0.3, 0.02]


def test_kinds_of_which_predictions_say_no_more_than_measurements_keep_their_own_damage() -> None:
    for kind in ("narrow", "shorten"):
        found = [action("a", 0.3, kind), action("b", 0.1, kind)]
        assert weigh(found, prediction((NAMES[kind], "a", 1.0), (NAMES[kind], "b", 2.0))) == found


def test_what_was_chosen_in_another_way_is_another_change() -> None:
    found = [action("a", 0.3, how="l1"), action("b", 0.1)]
    assert weigh(found, prediction(("kernel size", "a", 1.0), ("kernel size", "b", 2.0)))[0] == found[0]


def test_a_plan_chooses_by_weight_and_tolerates_what_was_measured() -> None:
    found = [action("a", 0.3), action("b", 0.1)]
    weighed = weigh(found, prediction(("kernel size", "a", 1.0), ("kernel size", "b", 2.0)))

    def chosen(tolerance: float | None) -> list[str]:
        goal = Goal("forward", budget=0.9, tolerance=tolerance)
        return [each.module for each in choose(weighed, goal, whole=Costs(forward=1.0))]

    assert [each.module for each in choose(found, Goal("forward", budget=0.9), whole=Costs(forward=1.0))] == ["b"]
    assert chosen(None) == ["a"]
    assert chosen(0.2) == ["b"]  # of a, 0.3 nats were measured
