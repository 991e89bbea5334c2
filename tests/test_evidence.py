"""What docs/evidence.md says is what was measured, and its sentences are reckoned as they should be."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from scipy.stats import spearmanr

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def page(import_benchmark: Callable[[str], Any]) -> Any:
    return import_benchmark("advice_page")


def test_the_page_is_what_the_script_writes_of_the_numbers(page):
    measured = json.loads((ROOT / "benchmarks" / "results" / "advice.json").read_text())
    assert (ROOT / "docs" / "evidence.md").read_text(encoding="utf-8") == page.page(measured)
    assert {"planted", "control"} <= set(measured)


def test_what_was_found_is_counted_over_all_faults(page):
    planted = pd.DataFrame({"planted": [5, 5], "found": [5, 4], "sound": [100, 60], "false": [0, 4]})
    assert page.planted_in_words(planted) == (
        "9 of 10 were found (90%; goal: 95 %), and 4 of 160 healthy channels were named (2.5%; goal: at most 2 %)."
    )


def test_layers_that_are_planted_are_counted_as_such(page):
    row = {"seed": 0, "layer": "layer2.1", "planted": 1, "found": 1, "sound": 17, "false": 1}
    channels = {**row, "layer": "layer1.0.conv1", "fault": "dead", "sound": 83, "false": 0}
    measured = {"images": 100, "date": "2026-01-01", "machine": {"cpu": "a processor"}, "torch": "2"}
    alone = page.page({**measured, "planted": [channels]})
    assert "1 of 1 were found (100%; goal: 95 %), and 0 of 83 healthy channels were named" in alone
    assert "three blocks" not in alone
    both = page.page({**measured, "planted": [channels, {**row, "fault": "frozen block in mid-network"}]})
    assert "2 of 2 were found (100%; goal: 95 %), and 1 of 100 healthy channels and layers were named (1.0%" in both
    assert "Of each seed, three blocks between others stay as they are" in both


def test_what_is_advised_with_changes_is_told_where_it_was_asked(page):
    measured = {"images": 100, "date": "2026-01-01", "machine": {"cpu": "a processor"}, "torch": "2"}
    before = {"network": "untrained", "advised": ["unchanged"], "with_rewinds": "0 layers to freeze"}
    assert "With changes" not in page.page({**measured, "control": [before]})
    after = page.page({**measured, "control": [{**before, "with_changes": "2 to narrow"}]})
    assert "With changes: what it\nadvises where" in after
    assert "| with changes |" in after
    assert "| 2 to narrow |" in after


def test_how_long_the_parts_took_is_told_on_the_clock_where_all_were_measured_in_one_run(page):
    used = {"retrained": 2400.0, "large": 780.0, "rates": 60.0, "planted": 600.0}
    took = {part: {"seconds": 2 * seconds, "processor seconds": seconds} for part, seconds in used.items()}
    parts = "The parts took 64 minutes of the processors (retrained 40, large 13, planted 10, the others less)"
    assert page.took_in_words(took, n_cores=2) == f"{parts}."
    took["all parts"] = {"seconds": 2700.0}
    assert page.took_in_words(took, n_cores=2) == f"{parts}, and 45 minutes on 2 cores (goal: 60)."


def test_precision_is_that_of_all_layers_named(page):
    rates = pd.DataFrame(
        {"layers": [10, 10], "stayed": [4, 6], "named": [3, 0], "named_and_stayed": [2, 0]}
        | {"converged": [5, 5], "converged_and_stayed": [2, 2], "learning_rate": [0.1, 0.1]}
    )
    assert page.rates_in_words(rates) == (
        "At a learning rate of 0.1, of the layers named, 2 of 3 (67%) stayed as they were; of those that had converged "
        "by CKA, 4 of 10 (40%); of all layers, 10 of 20 (50%). Named were 2 of 10 (20%) of those that stayed."
    )
    alike = page.rates_in_words(rates.assign(stayed=10, learning_rate=[0.1, 0.01]))
    assert alike.count("Nearly all stayed") == 2
    assert "At a learning rate of 0.01, of the layers named, 0 of 0 stayed" in alike


def test_the_share_of_what_both_probes_name_is_reckoned_over_all_kinds(page):
    stability = pd.DataFrame(
        {"what": ["channel: dead", "channel: twin", "layer: freeze"], "first": [4, 6, 2], "second": [4, 5, 4]}
        | {"both": [4, 5, 1], "jaccard": [1.0, 5 / 6, 0.2]}
    )
    assert page.stability_in_words(stability) == (
        "Together: of 10 channels that either probe names, both name 9 (0.90); of 5 layers that either probe names, "
        "both name 1 (0.20)."
    )


def test_it_is_said_of_which_changes_damage_ranks_what_retraining_leaves(page):
    agreement = pd.DataFrame({"intervention": ["width", "depth"], "measured": [0.7, 0.59], "predicted": [0.1, None]})
    assert page.retrained_in_words(agreement) == (
        "The measured damage meets the goal for 1 of 2 interventions (width), the predicted damage meets the goal for "
        "0 of 2 interventions."
    )


def test_agreement_is_averaged_over_networks_and_compared_with_the_goal(page):
    rows = [
        {"network": network, "images": "these", "gradient of": "loss", "intervention": kind}
        | {"rank_correlation": found, "of_relative": found / 2, "chosen on": network != "fourth"}
        for network, width, depth in (
            ("first", 0.6, 0.2),
            ("second", 0.9, 0.5),
            ("third", 0.9, 0.8),
            ("fourth", 0.7, 0.8),
        )
        for kind, found in (("width", width), ("depth", depth))
    ]
    predicted = pd.DataFrame(rows)
    assert page.predicted_in_words(predicted) == (
        "In the mean over the 3 cases that it was chosen on, the goal is met with the gradient of the loss, for 1 of 2 "
        "interventions (depth has 0.50). In the mean over the 1 case that it was not chosen on, the goal is met with "
        "the gradient of the loss, for 2 of 2 interventions."
    )
    width, depth, *others = page.elsewhere(predicted).to_dict("records")
    assert [(each["chosen on"], each["cases"]) for each in others] == 2 * [("no", 1)]
    told = {"chosen on": "yes", "gradient of": "loss", "intervention": "depth", "mean": 0.65, "min": 0.5, "max": 0.8}
    told |= {"relative": 0.325, "cases": 2}
    assert depth == {name: pytest.approx(value) if isinstance(value, float) else value for name, value in told.items()}
    assert (width["mean"], width["min"]) == (pytest.approx(0.9), 0.9)


@pytest.mark.slow
def test_rank_correlations_with_the_loss_after_retraining(import_benchmark):
    retrained = import_benchmark("retrained")
    rows = [
        {"intervention": "width", "kl": 0.1 * k, "predicted": None if k == 4 else -k, "losses": [k, k + (k == 0) * 1.5]}
        for k in range(5)
    ]
    (found,) = retrained.agreement(rows).to_dict("records")
    assert (found["changes"], found["measured"], found["predicted"]) == (5, pytest.approx(1), pytest.approx(-1))
    assert found["seeds"] == pytest.approx(0.9)  # of ranks 1, 0, 2, 3, 4
    assert found["low of measured"] <= found["measured"] <= found["high of measured"]


@pytest.mark.slow
def test_the_order_of_a_plan_is_compared_with_that_of_measured_damage(import_benchmark):
    """Predictions that are right of what retraining leaves, and measured damage that is the other way round."""
    ranked = import_benchmark("ranked")
    kinds = {"kernel size": 1.0, "separable": 0.1, "resolution": 10.0, "width": 0.1, "depth": 1.0}
    rows = [
        {"intervention": kind, "layer": f"conv{k}", "what": "", "kl": size * (6 - k), "predicted": k + size}
        | {"losses": [1.0 + k, 3.0 + k]}
        for kind, size in kinds.items()
        for k in range(6)
    ]
    unknown = {"intervention": "separable", "layer": "conv0", "what": "", "kl": 9.0, "predicted": None, "losses": [9.0]}
    found = ranked.in_order({"a network": [*rows, unknown]}, n_resamples=50).set_index("changes")
    assert list(found.index) == ["kernel size", "separable", "resolution", "width", "all three"]
    one = found.loc["separable"]
    assert (one["measured"], one["predicted"], one["as a plan ranks"], one["position"]) == pytest.approx((-1, 1, 1, 1))
    assert (one["more"], one["low of more"], one["high of more"]) == pytest.approx((2, 2, 2))
    together = found.loc["all three"]
    assert together["layers"] == 6
    after = [k for _ in range(3) for k in range(6)]  # each kind has the measured sizes, in ascending order
    sizes = [kinds[kind] * (1 + k) for kind in ("kernel size", "separable", "resolution") for k in range(6)]
    assert together["as a plan ranks"] == pytest.approx(spearmanr(sizes, after).statistic)


@pytest.mark.slow
def test_the_means_of_other_networks_leave_out_the_one_by_which_kinds_were_chosen(import_benchmark):
    ranked = import_benchmark("ranked")
    right = [
        {"intervention": "kernel size", "layer": f"conv{k}", "kl": 6 - k, "predicted": k, "losses": [k]}
        for k in range(6)
    ]
    wrong = [{**row, "kl": row["predicted"], "predicted": -row["predicted"]} for row in right]
    frame = ranked.in_order({"first": right, "second": wrong, "third": wrong}, n_resamples=20)
    means = frame[frame["network"] == ranked.OTHERS].set_index("changes").loc["all three"]
    assert means["layers"] == 12
    assert (means["measured"], means["as a plan ranks"], means["more"]) == pytest.approx((1, -1, -2))
    assert (means["low of more"], means["high of more"]) == pytest.approx((-2, -2))


def test_it_is_said_where_the_order_of_a_plan_is_better(page):
    ranked = pd.DataFrame(
        {
            "network": ["ResNet-20", "another", "mean of the others", "ResNet-20"],
            "changes": [*3 * ["all three"], "width"],
        }
        | {"more": [0.3, 0.2, 0.1, 0.5], "low of more": [0.1, 0.1, -0.1, 0.3], "high of more": [0.5, 0.3, 0.2, 0.9]}
    )
    assert page.ranked_in_words(ranked) == (
        "Over the three kinds together, the order of the plan correlates by +0.30 (+0.10 to +0.50), which is clear, "
        "better than the measured damage in the network that the kinds were chosen by, and by +0.10 (-0.10 to +0.20), "
        "which may be chance, in the mean of the others."
    )
