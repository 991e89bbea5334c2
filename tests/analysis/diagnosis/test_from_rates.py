"""Freezing by rates: layers that rest are named beside those that move; of all alike, nothing is said."""

import numpy as np
import pytest

from fmcluster.analysis import diagnose
from tests.analysis.planted_runs import N_SNAPSHOTS, head, moving, write_run

STILL = np.zeros(N_SNAPSHOTS)
SWAY = np.linspace(0, 0.2, N_SNAPSHOTS)  # what normalizations do at learning rate 0


def run_of(path, first, second, third, *, steps=None):
    turned = [moving(number, angles=angles) for number, angles in enumerate((first, second, third))]
    layers = {f"layer{number}": ("Sequential", maps) for number, maps in enumerate(turned)}
    return write_run(path, layers | {"fc": ("Linear", head(turned[-1]))}, steps=steps)


def freezing(*args, **options):
    return [each for each in diagnose(*args, **options).advice if each.action == "freeze"]


@pytest.fixture
def rest(tmp_path):
    return run_of(tmp_path / "rest.zarr", SWAY, SWAY, SWAY)


@pytest.mark.slow
def test_layers_that_move_as_at_rest_are_named_and_those_that_move_on_are_not(tmp_path, rest):
    run = run_of(tmp_path / "run.zarr", SWAY, np.linspace(0, np.pi / 2, N_SNAPSHOTS), SWAY)
    findings = diagnose(run, at_rest=rest)
    found = [each for each in findings.advice if each.action == "freeze"]
    assert [(each.layer, each.epoch) for each in found] == [("layer0", 1), ("layer2", 1)]
    row = findings.rows("change_to_end", layer="layer0").iloc[1]
    assert found[0].text.startswith(
        "layer0: from epoch 1 on it would move 0.000 (0.000 to 0.000) to the end at the rate"
    )
    assert row["evidence"] == "0.000 (0.000 to 0.000) over that at learning rate 0"
    assert row["value"] == pytest.approx(row["noise_floor"])
    assert found[1].text.endswith(
        "a candidate to freeze from then on; that saves no backward pass while layer1 below it is trained"
    )
    assert freezing(run) == []


@pytest.mark.slow
def test_nothing_is_said_of_a_network_that_learns_nothing(tmp_path, rest):
    assert freezing(run_of(tmp_path / "run.zarr", SWAY, SWAY, SWAY), at_rest=rest) == []


@pytest.mark.slow
def test_what_is_left_to_train_counts(tmp_path, rest):
    slow = SWAY + np.linspace(0, 0.25, N_SNAPSHOTS)
    run = run_of(tmp_path / "run.zarr", SWAY, np.linspace(0, np.pi / 2, N_SNAPSHOTS), slow)
    assert [each.layer for each in freezing(run, at_rest=rest)] == ["layer0", "layer2"]
    assert [each.layer for each in freezing(run, at_rest=rest, steps_left=5000)] == ["layer0"]


@pytest.mark.slow
def test_bad_input_is_refused(tmp_path, rest):
    run = run_of(tmp_path / "run.zarr", SWAY, SWAY, STILL, steps=[0] * N_SNAPSHOTS)
    with pytest.raises(ValueError, match="a rate of change needs steps that grow"):
        diagnose(run, at_rest=rest)
    other = write_run(tmp_path / "other.zarr", {"layer0": ("Sequential", moving())})
    with pytest.raises(ValueError, match=r"the run at rest, .*other.zarr, lacks layer 'layer1'"):
        diagnose(rest, at_rest=other)
    with pytest.raises(ValueError, match="steps_left is -1"):
        diagnose(rest, at_rest=rest, steps_left=-1)
    with pytest.raises(TypeError):
        diagnose(rest, at_rest=str(rest.path))
