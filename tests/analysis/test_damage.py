"""Damage: what is least, and how it reads."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from fmcluster.analysis import Damage
from fmcluster.analysis._damage import sigmas_at_once


def damage(**columns: object) -> Damage:
    rows = {name: np.zeros(3) for name in Damage.COLUMNS} | {
        "intervention": "depth",
        "what": "gone",
        "how": "",
        "epoch": pd.NA,
        "fitted_on": pd.NA,
        "unknowns": pd.NA,
    }
    frame = pd.DataFrame({**rows, "layer": ["a", "b", "c"], "kl": [0.3, 0.1, 0.2], **columns})
    return Damage(frame[Damage.COLUMNS], pd.DataFrame(columns=["intervention", "layer", "reason"]), 0.5, 0.9, 40, {})


def test_the_least_come_first() -> None:
    assert damage().least("depth", n=2)["layer"].tolist() == ["b", "c"]
    with pytest.raises(ValueError, match="no intervention 'width'; expected one of depth"):
        damage().least("width")


def test_each_line_carries_its_number_its_interval_and_its_null() -> None:
    found = damage(kl_se=0.01, accuracy=-0.02, accuracy_se=0.005, null_kl=[1.0, 2.0, np.nan], forward_share=0.25)
    lines = str(found).splitlines()
    assert lines[0] == "40 samples; as it is, loss 0.500, accuracy 0.900"
    assert lines[2] == (
        "  b, gone: divergence 0.1000 (± 0.0196), accuracy -2.0 (± 1.0) points; at random 2.0000; saves 25.0 % of the "
        "multiply-adds"
    )
    assert "at random" not in lines[3]
    assert "fitted" not in str(found)


def test_how_a_prediction_agrees_is_said_of_what_was_measured() -> None:
    known = {"intervention": "depth", "n": 3, "rank_correlation": 0.5, "low": -0.25, "high": 0.875}
    other = {**known, "intervention": "width", "n": 0}
    told = replace(damage(), agreement=pd.DataFrame([known, other]))
    assert "  the prediction ranks them with a rank correlation of 0.50 (-0.25 to 0.88, of 3 changes)" in str(told)
    unknown = replace(damage(), agreement=pd.DataFrame([{**known, "rank_correlation": np.nan}]))
    assert "  how well the prediction ranks them is not known of 3 changes of so few layers" in str(unknown)
    assert "rank" not in str(damage())


def test_what_was_fitted_on_how_many_samples_is_said() -> None:
    of = {"fitted_on": pd.array([pd.NA, 20, 20], "Int64"), "unknowns": pd.array([pd.NA, 20, 21], "Int64")}
    *_, fits, few = str(damage(**of)).splitlines()
    assert fits == "Weights are fitted on one half of the samples (20 at least) and measured on the other."
    assert few == "1 of 2 fits have more unknowns for each output than that: on more samples, they may do less."


def test_intervals_at_once_leave_out_any_of_forty_true_values_in_five_percent_of_draws() -> None:
    values = np.random.default_rng(0).standard_normal((1000, 40, 100))  # draws, changes, images; of mean 0
    mean, error = values.mean(axis=2), values.std(axis=2, ddof=1) / 10
    outside = [float((np.abs(mean) > sigmas * error).any(axis=1).mean()) for sigmas in (1.96, sigmas_at_once(40))]
    assert outside[0] > 0.8
    assert 0.02 < outside[1] < 0.08
    assert sigmas_at_once(1) == pytest.approx(1.96, abs=1e-4)


def test_what_is_clear_by_itself_need_not_be_so_among_many() -> None:
    of = damage(below_null=[0.3, 0.3, 0.0], below_null_se=[0.1, 0.05, 0.1], kl=[0.3, 0.1, 0.0])
    assert of.is_clear().tolist() == [True, True, True]
    assert of.is_clear(pd.Series([3.5, 3.5, 3.5])).tolist() == [False, True, True]


def choices(*rows: tuple[str, int, float, float]) -> pd.DataFrame:
    return pd.DataFrame([("width", *row) for row in rows], columns=Damage.CHOICES)


def test_what_is_chosen_clearly_is_so_by_its_interval_and_of_three_layers_at_least() -> None:
    """Of 0.2 with standard errors of 0.1 and 0.103: twice 1.96 of them reach 0.196 and 0.202."""
    how = {"intervention": "width", "how": ["redundancy", "l1", "taylor"]}
    found = damage(**how)
    assert not found.is_chosen_clearly().any()
    wide, narrow, few = ("redundancy", 9, 0.2, 0.1), ("l1", 9, 0.2, 0.103), ("taylor", 2, 0.9, 0.1)
    known = replace(found, choices=choices(wide, narrow, few))
    assert known.is_chosen_clearly().tolist() == [True, False, False]
    assert replace(known, frame=known.frame.iloc[1:]).is_chosen_clearly().tolist() == [False, False]
    assert replace(known, frame=known.frame.assign(intervention="depth")).is_chosen_clearly().tolist() == [False] * 3


def test_whether_choosing_is_better_than_chance_is_said_with_its_interval() -> None:
    rows = [("redundancy", 9, 0.37, 0.11), ("l1", 9, 0.1, 0.11), ("taylor", 9, -0.5, 0.11), ("few", 2, 0.9, 0.01)]
    text = str(replace(damage(intervention="width"), choices=choices(*rows)))
    together = "of what both do together"
    assert f"  over 9 layers, redundancy: less than random changes do, +0.37 (± 0.22) {together}" in text
    assert f"  over 9 layers, l1: not clearly less or more than random changes do, +0.10 (± 0.22) {together}" in text
    assert f"  over 9 layers, taylor: more than random changes do, -0.50 (± 0.22) {together}" in text
    assert "few" not in text
