"""Recorded updates: a frozen layer is named, though what it returns moves with what it is given."""

import re
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

import fmcluster as fm
from fmcluster.analysis.diagnosis._recorded_updates import recorded_update
from fmcluster.store import Run

FROZEN = "2"


@pytest.fixture(params=[("activation", "weight"), ("activation",)], ids=["weights", "no weights"])
def run(request: pytest.FixtureRequest, tmp_path: Path) -> Run:
    """Four convolutions and a head, over three snapshots; the second never changes, the third up to the second."""
    torch.manual_seed(0)
    convolutions = [nn.Conv2d(width, 6, 3, padding=1) for width in (3, 6, 6, 6)]
    between = [layer for each in convolutions for layer in (each, nn.ReLU())]
    model = nn.Sequential(*between, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 4)).eval()
    probe = TensorDataset(torch.randn(12, 3, 8, 8), torch.arange(12) % 4)
    path = tmp_path / "run.zarr"
    with fm.Recorder(model, path, layers=re.compile(r"\d+"), probe=probe, record=request.param) as recorder:
        for epoch in range(3):
            recorder.snapshot(epoch=epoch)
            for name, parameter in model.named_parameters():
                if name.partition(".")[0] != FROZEN and (name.partition(".")[0] != "4" or epoch == 1):
                    parameter.data += 0.05 * torch.randn(parameter.shape)
    return fm.open_run(path)


def unchanged(run: Run, **options: object) -> dict[str, str]:
    advice = fm.diagnose(run, **options).advice
    return {each.layer: each.text for each in advice if each.action == "unchanged"}


def test_a_layer_whose_parameters_stay_is_named_where_they_are_recorded(run: Run) -> None:
    found = unchanged(run)
    if not run.weight_names:
        assert found == {}
        return
    assert set(found) == {FROZEN}
    moved = fm.diagnose(run).channels.query(f"layer == '{FROZEN}'")["drift"].max()
    assert moved > 0.01
    assert found[FROZEN] == (
        f"layer 2: none of its {6 * 6 * 9 + 6} parameters changed over 3 snapshots (norm of its largest recorded "
        f"update 0): frozen, or learning rate 0. What it returns moved (largest drift of a channel {moved:.4f}), as "
        f"what it was given did"
    )


def test_it_is_judged_between_the_snapshots_that_were_asked_for(run: Run) -> None:
    if run.weight_names:
        assert set(unchanged(run, snapshots=[0, 1])) == {FROZEN, "4"}
        assert set(unchanged(run, snapshots=[0, 2])) == {FROZEN}


def test_the_largest_update_is_that_of_the_recorded_weights(run: Run) -> None:
    found = recorded_update(run, "0.call2", snapshots=[0, 1, 2])
    if not run.weight_names:
        assert found is None
        return
    assert found is not None
    states = [run.read_weights(snapshot=number) for number in range(3)]
    expected = max(
        float(np.linalg.norm(after[name] - before[name]))
        for before, after in pairwise(states)
        for name in ("0.weight", "0.bias")
    )
    assert found.largest == pytest.approx(expected, rel=1e-5)
    assert found.count == 6 * 3 * 9 + 6
    assert recorded_update(run, "1", snapshots=[0, 2]) is None
    assert recorded_update(run, "0", snapshots=[1]) is None


def test_of_a_layer_that_returns_the_same_it_is_said_whether_it_was_trained(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 6, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 4)).eval()
    probe = TensorDataset(torch.randn(12, 3, 8, 8), torch.arange(12) % 4)
    texts = []
    for step in (0.0, 1e-6):
        path = tmp_path / f"{step}.zarr"
        with fm.Recorder(model, path, layers="leaves", probe=probe, record=("activation", "weight")) as recorder:
            for epoch in range(2):
                recorder.snapshot(epoch=epoch)
                model[0].weight.data += step
        texts.append(unchanged(fm.open_run(path))["0"])
    assert texts[0].endswith("frozen, or learning rate 0 (norm of its largest recorded update 0)")
    assert re.search(r"hardly trained so far \(norm of its largest recorded update \d\.?\d*e-05\)$", texts[1])
