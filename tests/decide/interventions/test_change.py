"""Changes and costs: what the defaults are, and how costs add up."""

from fmcluster.decide import Change
from fmcluster.decide._costs import Costs


def test_a_change_by_default_changes_and_saves_nothing() -> None:
    change = Change("own", "conv1", 1.0, "nothing")
    assert (change.weights, change.inputs, change.outputs, change.null) == ({}, {}, {}, None)
    assert change.saves == Costs()


def test_costs_add_up_and_are_shared() -> None:
    one = Costs(forward=8, backward=16, parameters=4, kept=2)
    assert one + one == Costs(16, 32, 8, 4)
    assert one.times(0.25) == Costs(2, 4, 1, 0.5)
    assert one.times(0.25, kept=0) == Costs(2, 4, 1, 0)
    assert one.without_parameters() == Costs(8, 16, 0, 2)
