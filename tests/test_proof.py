"""What docs/proof.md says is what was measured, and is reckoned as it should be; the script that measures it runs."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

ROOT = Path(__file__).parent.parent
SCRIPT = ROOT / "benchmarks" / "decide.py"
BEGIN, END = "<!-- rendered by benchmarks/decide.py --table: begin -->\n", "<!-- end -->"


@pytest.fixture(scope="module")
def table(import_benchmark: Callable[[str], Any]) -> Any:
    return import_benchmark("proof_table")


def rows(task: str, accuracies: dict[str, list[float]]) -> list[dict[str, Any]]:
    return [
        {"task": task, "seed": seed, "arm": arm, "accuracy": value}
        for arm, values in accuracies.items()
        for seed, value in enumerate(values, start=1)
    ]


def test_the_page_shows_what_the_script_renders_from_the_numbers(table):
    text = (ROOT / "docs" / "proof.md").read_text()
    measured = json.loads((ROOT / "benchmarks" / "results" / "decide.json").read_text())
    assert text.split(BEGIN)[1].split(END)[0].strip() == table.rendered(measured)


def test_differences_are_paired_over_seeds_and_goals_follow_from_them(table):
    names = ("as it is", "full", "head + statistics", "relative gradient")
    others = {name: [0.1, 0.1] for name in names}
    first = {"head": [0.5, 0.7], "bottom-up": [0.4, 0.5], "random": [0.4, 0.6], "plan": [0.52, 0.7]}
    second = {"head": [0.8, 0.8], "bottom-up": [0.6, 0.6], "random": [0.9, 0.5], "plan": [0.7, 0.5]}
    found = pd.DataFrame([*rows("noise", others | first), *rows("kind", others | second)])
    one, other = table.differences(found).to_dict("records")
    assert (one["best"], other["best"]) == ("head", "head")
    assert one["over best"] == pytest.approx(1.0)  # 2 points and 0
    assert one["error best"] == pytest.approx(1.0)  # their standard deviation is the root of 2
    assert one["over bottom-up"] == pytest.approx(16.0)
    assert one["over random"] == pytest.approx(11.0)
    assert other["over best"] == pytest.approx(-20.0)
    within, over_random, over_bottom_up = table.goals(found).values()
    assert within == ["noise"]
    assert over_random == ["noise"]
    assert over_bottom_up == ["noise", "kind"]


@pytest.mark.slow
def test_the_script_measures_every_arm_at_equal_cost_and_goes_on_where_it_was(tmp_path):
    if "FMCLUSTER_DATA" not in os.environ:
        pytest.skip("FMCLUSTER_DATA names no folder with images and weights")
    command = [sys.executable, str(SCRIPT), "--quick", "--task", "permuted", "--output", str(tmp_path)]
    first = subprocess.run(command, capture_output=True, text=True, check=False)
    assert first.returncode == 0, first.stdout + first.stderr
    measured = json.loads((tmp_path / "decide.json").read_text())
    arms = {row["arm"]: row for row in measured["tune"]}
    assert set(arms) == {
        *("as it is", "full", "head", "head + statistics", "bottom-up", "random", "relative gradient", "plan")
    }
    budget = arms["full"]["multiply_adds"]
    assert arms["full"]["steps"] == 2
    assert arms["head"]["steps"] == arms["head + statistics"]["steps"] == 6  # a forward pass is a third of a step
    for name, row in arms.items():
        if name != "as it is":
            assert budget <= row["multiply_adds"] <= 1.5 * budget, name
    again = subprocess.run([*command, "--table"], capture_output=True, text=True, check=False)
    assert again.returncode == 0, again.stdout + again.stderr
    assert "labels permuted" in again.stdout
