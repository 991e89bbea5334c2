"""Advice from measured damage: with its number, interval, null and price; none where the evidence is weak."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from fmcluster.analysis import Damage, Thresholds
from fmcluster.analysis.diagnosis._from_damage import advise_from_damage

GOOD = {"loss": 0.004, "loss_se": 0.002, "kl": 0.005, "kl_se": 0.001, "null_kl": 0.2, "below_null": 0.195}


def damage(*rows: dict) -> Damage:
    default = {
        **dict.fromkeys(Damage.COLUMNS, 0.0),
        "intervention": "kernel size",
        "what": "3 x 3 to 1 x 1",
        "how": "",
        "epoch": pd.NA,
        "step": pd.NA,
        "below_null_se": 0.01,
        "forward_share": 0.05,
        "backward_share": 0.04,
        "parameters_share": 0.1,
        **GOOD,
    }
    frame = pd.DataFrame([{**default, **row} for row in rows])[Damage.COLUMNS].astype(
        {"epoch": "Int64", "step": "Int64"}
    )
    return Damage(frame, pd.DataFrame(columns=["intervention", "layer", "reason"]), 0.3, 0.9, 200, {})


def advised(*rows: dict, **thresholds: float) -> list[tuple[str, str]]:
    return [(each.layer, each.action) for each in advise_from_damage(damage(*rows), Thresholds(**thresholds))]


BAD = {"layer": "bad", "loss": 0.5}


def test_a_sentence_carries_its_number_its_interval_its_condition_its_null_and_its_price() -> None:
    (only,) = advise_from_damage(damage({"layer": "conv2"}, BAD), Thresholds())
    assert only.text == (
        "conv2, 3 x 3 to 1 x 1: costs 0.004 (0.000 to 0.008, for 2 changes at once) nats of loss on these 200 images, "
        "divergence 0.005 against 0.200 at random; saves 5.0 % of the multiply-adds and 10.0 % of the parameters"
    )
    assert only.action == "kernel"
    assert only.evidence["layer"].tolist() == ["conv2"]


def test_it_says_which_channels_a_narrower_layer_does_without() -> None:
    row = {"layer": "conv2", "intervention": "width", "what": "4 of 8 channels removed", "channels": (0, 1, 2, 5)}
    (only,) = advise_from_damage(damage(row, BAD | {"intervention": "width"}), Thresholds())
    assert only.action == "narrow"
    assert only.text.endswith("10.0 % of the parameters; without channels 0 to 2, 5")


def test_what_the_responses_say_of_a_width_stands_beside_what_was_measured() -> None:
    rows = [{"layer": "conv2", "intervention": "width"}, BAD | {"intervention": "width"}]
    told = {"conv2": "after its activation (relu2), 3 of 8 channels hold 90% of the energy of their correlations"}
    (only,) = advise_from_damage(damage(*rows), Thresholds(), widths=told)
    assert only.text.endswith(f"of the parameters; {told['conv2']}")


@pytest.mark.parametrize(
    "weak",
    [
        {"loss_se": 0.02},  # the interval leaves what is allowed
        {"below_null": 0.015, "below_null_se": 0.01},  # no less than chance, clearly
        {"below_null": -0.1},
        {"below_null": np.nan, "below_null_se": np.nan},  # the null was not measured
    ],
)
def test_nothing_is_advised_where_the_evidence_is_weak(weak: dict) -> None:
    assert advised({"layer": "conv2"}, BAD) == [("conv2", "kernel")]
    assert advised({"layer": "conv2", **weak}, BAD) == []


@pytest.mark.parametrize(("n_layers", "said"), [(2, 1), (100, 0)])
@pytest.mark.parametrize("weak", [{"loss_se": 0.006}, {"below_null": 0.03, "below_null_se": 0.01}])
def test_one_of_many_changes_has_to_be_clearer_than_one_of_few(weak: dict, n_layers: int, said: int) -> None:
    """By 2.2 standard errors of two, by 3.5 of a hundred."""
    others = [{**BAD, "layer": f"bad{number}"} for number in range(n_layers - 1)]
    assert len(advised({"layer": "good", **weak}, *others)) == said


def test_layers_that_are_all_harmless_by_themselves_are_not_told_apart_by_how_many_they_are() -> None:
    errors = {"a": 0.001, "b": 0.001, "c": 0.009}  # of c, the interval by itself ends within 0.02, and at once beyond
    rows = [{"layer": name, "loss": 0.001, "loss_se": error} for name, error in errors.items()]
    assert advised(*rows) == []
    assert advised(*rows, BAD) == [("a", "kernel"), ("b", "kernel")]
    back = [rewound(name, epoch=1, loss=0.001, loss_se=error) for name, error in errors.items()]
    back += [rewound(name, epoch=1, loss=0.001, loss_se=0.009 * ("c" in name)) for name in ("a, b", "a, b, c")]
    assert advised(*back) == []
    assert advised(*back, rewound("d", epoch=1, loss=0.9)) == [("a", "freeze"), ("b", "freeze")]


def test_what_is_so_of_every_layer_is_not_advised() -> None:
    assert advised({"layer": "conv1"}, {"layer": "conv2"}) == []
    assert advised({"layer": "conv1"}, {"layer": "conv2"}, BAD) == [("conv1", "kernel"), ("conv2", "kernel")]


def test_of_each_layer_the_largest_saving_is_advised_and_what_saves_most_comes_first() -> None:
    rows = (
        {"layer": "conv1", "what": "5 x 5 to 3 x 3", "forward_share": 0.1},
        {"layer": "conv1", "what": "5 x 5 to 1 x 1", "forward_share": 0.2, "loss": 0.9},
        {"layer": "conv2", "what": "7 x 7 to 5 x 5", "forward_share": 0.3},
        {"layer": "conv2", "what": "7 x 7 to 3 x 3", "forward_share": 0.6},
        BAD,
    )
    texts = [each.text for each in advise_from_damage(damage(*rows), Thresholds())]
    assert [text.split(":")[0] for text in texts] == ["conv2, 7 x 7 to 3 x 3", "conv1, 5 x 5 to 3 x 3"]


def test_a_change_that_does_nothing_at_all_needs_no_null() -> None:
    nothing = {"loss": 0.0, "loss_se": 0.0, "kl": 0.0, "below_null": 0.0, "below_null_se": 0.0}
    rows = ({"layer": "block", "intervention": "depth", **nothing}, {"intervention": "depth", **BAD})
    assert advised(*rows) == [("block", "shorten")]


def test_without_labels_the_divergence_is_judged() -> None:
    row = {"loss": np.nan, "loss_se": np.nan}
    (only,) = advise_from_damage(damage({"layer": "conv2", **row}, {**BAD, **row, "kl": 1.0}), Thresholds())
    assert "costs 0.005 (0.003 to 0.007, for 2 changes at once) nats of divergence on these 200 images" in only.text


def rewound(layers: str, *, epoch: int, loss: float, **more) -> dict:
    return {
        "layer": layers,
        "intervention": "rewind",
        "what": f"weights of epoch {epoch}",
        "epoch": epoch,
        "amount": float(layers.count(",") + 1),
        "loss": loss,
        "kl": abs(loss),
        "below_null": -1.0,  # noise of the same norm does less: it is not what is asked
        **more,
    }


def test_moments_within_an_epoch_are_told_apart() -> None:
    """Of each layer it is the earliest to which it can be put back; the end of an epoch comes after its steps."""

    def at(step: object, **losses: float) -> list[dict]:
        what = "weights of epoch 1" + ("" if step is pd.NA else f" (step {step})")
        return [rewound(name, epoch=1, loss=loss, step=step, what=what) for name, loss in losses.items()]

    rows = [*at(pd.NA, a=0.001, b=0.001, c=0.6), *at(50, a=0.001, b=0.5, c=0.7), *at(9, a=0.4, b=0.6, c=0.8)]
    rows += [rewound("a, b", epoch=1, loss=0.002, step=pd.NA, how="from the first layer up", backward_share=0.1)]
    first, second = advise_from_damage(damage(*rows), Thresholds())
    assert (first.layer, first.epoch, first.step) == ("a", 1, 50)
    assert (second.layer, second.epoch, second.step) == ("b", 1, None)
    assert "a: its weights put back to epoch 1 (step 50) cost 0.001" in first.text
    assert "b: its weights put back to epoch 1, together with those of 1 other layer, cost 0.002" in second.text
    assert "saves no backward pass" not in second.text  # as a is frozen by then
    earlier = [*at(pd.NA, a=0.001, b=0.6), *at(50, a=0.5, b=0.001)]
    first, second = advise_from_damage(damage(*earlier, *at(50, c=0.9)), Thresholds())
    assert (second.layer, second.step) == ("b", 50)
    assert second.text.endswith("that saves no backward pass while a below it is trained")


def test_the_most_layers_that_may_be_put_back_together_are_candidates_to_freeze() -> None:
    rows = [
        *(rewound(name, epoch=1, loss=loss) for name, loss in (("a", 0.001), ("b", 0.5), ("c", 0.001))),
        rewound("a, c", epoch=1, loss=0.004),
        rewound("a, c, b", epoch=1, loss=0.9),
    ]
    first, second = advise_from_damage(damage(*rows), Thresholds())
    assert (first.layer, first.action, first.epoch) == ("a", "freeze", 1)
    assert first.text == (
        "a: its weights put back to epoch 1, together with those of 1 other layer, cost 0.004 (-0.001 to 0.009, for 5 "
        "changes at once) nats of loss on these 200 images: a candidate to freeze from then on"
    )
    assert second.text.endswith("from then on; that saves no backward pass while b below it is trained")
    assert second.evidence["layer"].tolist() == ["c", "a, c"]


@pytest.mark.parametrize(("share", "frozen"), [(0.4, ["a", "b"]), (0.2, ["a", "c"])])
def test_of_two_ways_to_put_layers_back_together_it_is_what_saves_more(share: float, frozen: list[str]) -> None:
    """Layers a and b cost more than a and c, which is allowed; below all others they save the whole backward pass."""
    below = {"how": "from the first layer up", "epoch": 1}
    rows = [
        *(rewound(name, epoch=1, loss=loss) for name, loss in (("a", 0.001), ("b", 0.003), ("c", 0.002), ("d", 0.9))),
        rewound("a, c", epoch=1, loss=0.004, backward_share=0.3),
        rewound("a, c, b", epoch=1, loss=0.9, backward_share=0.5),
        rewound("a, b", loss=0.01, backward_share=share, **below),
        rewound("a, b, c", loss=0.9, backward_share=0.9, **below),
    ]
    assert [each.layer for each in advise_from_damage(damage(*rows), Thresholds())] == frozen


def test_two_ways_that_hold_all_layers_between_them_are_not_all_layers_together() -> None:
    rows = [
        *(rewound(name, epoch=1, loss=loss) for name, loss in (("a", 0.003), ("b", 0.003), ("c", 0.001), ("d", 0.002))),
        rewound("c, d", epoch=1, loss=0.004, backward_share=0.3),
        rewound("c, d, a", epoch=1, loss=0.9, backward_share=0.5),
        rewound("a, b", epoch=1, loss=0.01, how="from the first layer up", backward_share=0.4),
        rewound("a, b, c", epoch=1, loss=0.9, how="from the first layer up", backward_share=0.9),
    ]
    assert [each.layer for each in advise_from_damage(damage(*rows), Thresholds())] == ["a", "b"]


def test_layers_that_are_harmless_alone_and_not_together_are_no_candidates() -> None:
    rows = [
        *(rewound(name, epoch=0, loss=loss) for name, loss in (("a", 0.001), ("b", 0.002), ("c", 0.003))),
        rewound("a, b", epoch=0, loss=0.4),
        rewound("a, b, c", epoch=0, loss=0.001),  # not after a larger one
    ]
    assert advised(*rows) == [("a", "freeze")]


def test_a_layer_is_frozen_from_the_earliest_epoch_that_it_can_be_put_back_to() -> None:
    rows = [
        *(rewound(name, epoch=0, loss=loss) for name, loss in (("a", 0.001), ("b", 0.7), ("c", 0.9))),
        *(rewound(name, epoch=2, loss=loss) for name, loss in (("a", 0.001), ("b", 0.002), ("c", 0.9))),
        rewound("a, b", epoch=0, loss=0.8),
        rewound("a, b", epoch=2, loss=0.003),
        rewound("a, b, c", epoch=2, loss=0.9),
    ]
    found = {each.layer: each.epoch for each in advise_from_damage(damage(*rows), Thresholds())}
    assert found == {"a": 0, "b": 2}


def test_a_network_that_was_not_trained_gets_no_advice_to_freeze() -> None:
    """All layers can be put back at no cost: that tells none from another."""
    rows = [rewound(name, epoch=0, loss=0.0) for name in ("a", "b", "c", "a, b", "a, b, c")]
    assert advised(*rows) == []
    below = rewound("a, b", epoch=0, loss=0.0, how="from the first layer up", backward_share=0.9)
    assert advised(*rows, below) == []


@pytest.mark.parametrize(
    ("accuracy", "majority", "says"), [(0.9, 0.5, 2), (0.53, 0.5, 0), (0.2, 0.2, 0), (np.nan, 0.5, 2)]
)
def test_of_a_network_that_does_not_know_its_task_nothing_is_advised(
    accuracy: float, majority: float, says: int
) -> None:
    """Of 200 images, 0.53 are 0.46 to 0.60: not clearly more than the most frequent class."""
    rows = [
        *(rewound(name, epoch=1, loss=loss) for name, loss in (("a", 0.001), ("b", 0.5), ("c", 0.001))),
        rewound("a, c", epoch=1, loss=0.004),
    ]
    measured = replace(damage(*rows), accuracy=accuracy, majority=majority)
    assert len(advise_from_damage(measured, Thresholds())) == says
    smaller = replace(damage({"layer": "conv2"}, BAD), accuracy=accuracy, majority=majority)
    assert len(advise_from_damage(smaller, Thresholds())) == (says > 0)
    told = "not clearly better than always naming the most frequent class" in str(measured)
    assert told is (says == 0)
