"""Diverged snapshots: found by the statistics, by layer."""

import numpy as np
import pandas as pd
import pytest

from fmcluster.store import describe_diverged
from tests.analysis.planted_runs import N_SAMPLES, write_run


@pytest.fixture
def run(tmp_path):
    """Two layers: the first is broken at snapshot 3, the second at 1 and 3."""
    first, second = np.ones((2, 5, N_SAMPLES, 4, 3, 3))
    first[3, 0, 2, 1, 1], second[1], second[3, 5, 0, 0, 0] = np.inf, np.nan, -np.inf
    return write_run(tmp_path / "run.zarr", {"a": ("Conv2d", first), "b": ("Conv2d", second)})


def test_each_is_named_with_how_many_layers_and_the_first(run):
    assert run.diverged().to_dict("records") == [
        {"snapshot": 1, "epoch": 1, "step": 10, "layers": 1, "first": "b"},
        {"snapshot": 3, "epoch": 3, "step": 30, "layers": 2, "first": "a"},
    ]
    assert run.diverged(layers=["a"])["snapshot"].tolist() == [3]


def test_the_others_are_finite(run):
    assert run.finite_snapshots() == [0, 2, 4]
    assert run.finite_snapshots(layers=["a"]) == [0, 1, 2, 4]


def test_where_there_is_none_it_is_said_what_to_look_at(tmp_path):
    maps = np.full((2, N_SAMPLES, 4, 3, 3), np.nan)
    broken = write_run(tmp_path / "run.zarr", {"a": ("Conv2d", maps)})
    with pytest.raises(ValueError, match=r"each of the 2 snapshots, layer 'a' gave NaN .*lower learning rate"):
        broken.finite_snapshots()


def test_the_first_of_many_are_named_and_the_others_counted() -> None:
    many = pd.DataFrame({"snapshot": range(8), "epoch": range(1, 9), "step": 0, "layers": 2, "first": "conv1"})
    said = describe_diverged(many, n_layers=3)
    assert said[0] == "Left out: epoch 1 (snapshot 0), where 2 of 3 layers gave NaN or infinite values, conv1 first."
    assert (len(said), said[-1]) == (6, "Left out: 3 more such snapshots, to epoch 8 (snapshot 7).")
    assert len(describe_diverged(many.iloc[:5], n_layers=3)) == 5
    assert describe_diverged(many.iloc[:0], n_layers=3) == []
