"""Damage: what is least, and how it reads."""

import numpy as np
import pandas as pd
import pytest

from fmcluster.analysis import Damage


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
