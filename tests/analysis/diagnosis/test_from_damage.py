"""Advice from measured damage: with its number, interval, null and price; none where the evidence is weak."""

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
        "below_null_se": 0.01,
        "forward_share": 0.05,
        "backward_share": 0.04,
        "parameters_share": 0.1,
        **GOOD,
    }
    frame = pd.DataFrame([{**default, **row} for row in rows])[Damage.COLUMNS].astype({"epoch": "Int64"})
    return Damage(frame, pd.DataFrame(columns=["intervention", "layer", "reason"]), 0.3, 0.9, 200, {})


def advised(*rows: dict, **thresholds: float) -> list[tuple[str, str]]:
    return [(each.layer, each.action) for each in advise_from_damage(damage(*rows), Thresholds(**thresholds))]


BAD = {"layer": "bad", "loss": 0.5}


def test_a_sentence_carries_its_number_its_interval_its_condition_its_null_and_its_price() -> None:
    (only,) = advise_from_damage(damage({"layer": "conv2"}, BAD), Thresholds())
    assert only.text == (
        "conv2, 3 x 3 to 1 x 1: costs 0.004 (0.000 to 0.008) nats of loss on these 200 images, divergence 0.005 "
        "against 0.200 at random; saves 5.0 % of the multiply-adds and 10.0 % of the parameters"
    )
    assert only.action == "kernel"
    assert only.evidence["layer"].tolist() == ["conv2"]


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
    assert "costs 0.005 (0.003 to 0.007) nats of divergence on these 200 images" in only.text


def rewound(layer: str, **losses: float) -> list[dict]:
    return [
        {
            "layer": layer,
            "intervention": "rewind",
            "what": f"weights of epoch {epoch[1:]}",
            "epoch": int(epoch[1:]),
            "loss": loss,
            "forward_share": 0.0,
        }
        for epoch, loss in losses.items()
    ]


def test_a_layer_may_be_frozen_from_the_epoch_on_from_which_no_later_one_costs_more() -> None:
    rows = [*rewound("a", e0=0.9, e1=0.004, e2=0.004), *rewound("b", e0=0.001, e1=0.7, e2=0.004), *rewound("c", e2=0.9)]
    first, second = advise_from_damage(damage(*rows), Thresholds())
    assert first.text.startswith("a: its weights put back to epoch 1 cost 0.004 (0.000 to 0.008) nats of loss")
    assert first.text.endswith("a candidate to freeze from then on; saves 4.0 % of the backward pass's multiply-adds")
    assert second.text.startswith("b: its weights put back to epoch 2")
    assert second.text.endswith("no more while c below it is trained") is False
    assert (first.epoch, second.epoch) == (1, 2)


def test_a_frozen_layer_above_one_that_is_trained_is_said_to_save_no_more() -> None:
    rows = [*rewound("a", e0=0.9), *rewound("b", e0=0.004)]
    (only,) = advise_from_damage(damage(*rows), Thresholds())
    assert only.text.endswith("multiply-adds, and no more while a below it is trained")


def test_a_network_that_was_not_trained_gets_no_advice_to_freeze() -> None:
    """All layers can be put back at no cost: that tells none from another."""
    rows = [row for layer in "abc" for row in rewound(layer, e0=0.0, e1=0.0)]
    assert advised(*rows) == []
