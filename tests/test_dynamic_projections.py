"""Docs of embeddings say what was measured on data of others, by scores that equal the published ones."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).parent.parent
BEGIN, END = "<!-- rendered by benchmarks/dynamic_projections.py --table: begin -->\n", "<!-- end -->"


@pytest.fixture(scope="module")
def script(import_benchmark: Callable[[str], Any]) -> Any:
    return import_benchmark("dynamic_projections")


def test_the_page_shows_what_the_script_renders_from_the_numbers(script):
    text = (ROOT / "docs" / "analysis.md").read_text()
    measured = json.loads((ROOT / "benchmarks" / "results" / "dynamic_projections.json").read_text())
    assert text.split(BEGIN)[1].split(END)[0].strip() == script.rendered(measured)


@pytest.mark.slow
def test_scores_are_those_that_the_authors_published_for_pca(script):
    if "FMCLUSTER_DATA" not in os.environ:
        pytest.skip("FMCLUSTER_DATA names no folder with data")
    (expected,) = (row for name, row in script.published("cifar10cnn").items() if name == "pca_s4")
    values = script.read("cifar10cnn")
    assert values.shape == (30, 1000, 10)
    found = script.score(values, script.pca(values, 0))
    exact = {"neighbors", "movement", "pearson", "kendall", "kl", "stress", "stress_standardized"}
    assert {name: found[name] for name in exact} == pytest.approx({name: expected[name] for name in exact}, abs=1e-9)
    for name in ("trust", "continuity"):  # theirs rank the row itself, too
        assert found[name] == pytest.approx(expected[name], abs=1e-3)


def test_scores_of_five_rows_by_hand(script):
    values = np.array([[0.0, 1, 3, 6, 10], [0, 1, 3, 6, 12]])[:, :, None] * np.array([1.0, 0, 0])
    positions = np.array([[0.0, 1, 3, 6, 10], [0, 1, 3, 6, 14]])[:, :, None] * np.array([1.0, 0])
    found = script.score(np.tile(values, (1, 4, 1)), np.tile(positions, (1, 4, 1)))
    assert (found["pearson"], found["movement"]) == pytest.approx((1, 1))
    assert found["stress"] == pytest.approx(0)  # 2 and 4 are the longest each
    assert found["kl"] == pytest.approx(0)


def test_who_is_ahead_is_better_in_both(script):
    others = {
        "a": {"neighbors": 0.7, "movement": 0.9},
        "b": {"neighbors": 0.9, "movement": 0.1},
        "c": {"neighbors": 0.6, "movement": 0.95},
    }
    assert script.ahead({"neighbors": 0.65, "movement": 0.5}, others) == ["a"]
    assert script.ahead({"neighbors": 0.7, "movement": 0.9}, others) == []
