"""Damage: what is least, and how it reads."""

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
