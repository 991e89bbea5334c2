"""Values that the stored dtype cannot hold, and what a pending snapshot sums up to."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import fmcluster as fm
from fmcluster.capture.writing._pending import as_numbers

IMAGES = list(torch.linspace(0, 1, 5 * 3 * 4 * 4).view(5, 3, 4, 4))


@pytest.fixture
def loud() -> nn.Module:
    """Small at first; its second layer can be turned up."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 2, 1), nn.Conv2d(2, 2, 1))
    for parameter in model.parameters():
        nn.init.constant_(parameter, 0.5)
    return model


def turn_up(model: nn.Module) -> None:
    nn.init.constant_(model[1].weight, -1e5)


def test_overflow_is_an_error_that_names_layer_epoch_and_value(loud: nn.Module, tmp_path: Path) -> None:
    with fm.Recorder(loud, tmp_path / "run.zarr", probe=IMAGES, batch_size=2) as recorder:
        recorder.snapshot(epoch=0)
        turn_up(loud)
        with torch.no_grad():
            largest = loud(torch.stack(IMAGES)).min().item()
        with pytest.raises(
            fm.CaptureError, match=rf"layer '1', epoch 1, step 0: \d+ values .*{largest:g}.*float32.*clip"
        ):
            recorder.snapshot(epoch=1)
        nn.init.constant_(loud[1].weight, 0.5)
        recorder.snapshot(epoch=1)
    run = fm.open_run(tmp_path / "run.zarr")
    assert run.epochs == [0, 1]
    np.testing.assert_array_equal(run["1"].read(epoch=0), run["1"].read(epoch=1))


def test_overflow_at_the_first_snapshot_leaves_a_run_that_can_begin(loud: nn.Module, tmp_path: Path) -> None:
    turn_up(loud)
    with fm.Recorder(loud, tmp_path / "run.zarr", probe=IMAGES) as recorder:
        with pytest.raises(fm.CaptureError, match="epoch 0"):
            recorder.snapshot(epoch=0)
        nn.init.constant_(loud[1].weight, 0.5)
        recorder.snapshot(epoch=0, metrics={"loss": 1})
    run = fm.open_run(tmp_path / "run.zarr")
    assert len(run.samples) == 5
    assert run.metrics["loss"].tolist() == [1.0]


def test_clip_stores_the_largest_and_counts(loud: nn.Module, take: Callable) -> None:
    turn_up(loud)
    run = take(loud, IMAGES, overflow="clip")
    with torch.no_grad():
        exact = loud(torch.stack(IMAGES)).numpy()
    stored = run["1"].read(epoch=0)
    assert stored.min() == -65504
    np.testing.assert_array_equal(stored, np.clip(exact, -65504, 65504).astype(np.float16))
    root = json.loads((Path(run.path) / "zarr.json").read_bytes())
    assert root["attributes"]["fmcluster"]["commits"][0]["clipped"] == {"1": int((exact <= -65520).sum())}
    np.testing.assert_array_equal(run["1"].statistics["min"], exact.min((0, 2, 3)))


def test_float32_stores_it_exactly(loud: nn.Module, take: Callable) -> None:
    turn_up(loud)
    run = take(loud, IMAGES, dtype="float32", batch_size=5)
    with torch.no_grad():
        exact = loud(torch.stack(IMAGES)).numpy()
    stored = run["1"].read(epoch=0)
    assert stored.dtype == np.float32
    np.testing.assert_array_equal(stored, exact)


def test_nan_and_infinity_of_the_network_itself_are_kept_and_counted(take: Callable) -> None:
    class Broken(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = x.clone()
            x[:, 0] = float("nan")
            x[:, 1, 0, 0] = float("inf")
            return x

    run = take(nn.Sequential(Broken()), IMAGES)
    stored = run["0"].read(epoch=0)
    assert np.isnan(stored[:, 0]).all()
    assert np.isposinf(stored[:, 1, 0, 0]).all()
    table = run["0"].statistics
    assert table["nonfinite"].tolist() == [80, 5, 0]
    assert np.isnan(table["mean"][0])
    assert table["max"][1] < 1


def test_a_layer_of_nothing_but_nan_is_whole(take: Callable) -> None:
    class Dead(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * float("nan")

    run = take(nn.Sequential(Dead()), IMAGES)
    assert np.isnan(run["0"].read(epoch=0)).all()
    assert run["0"].read(epoch=0).shape == (5, 3, 4, 4)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ([1], r"metrics is \[1\]; expected a mapping of names to numbers"),
        ({"loss": "low"}, "the metric 'loss' is 'low'; expected a number"),
        ({"loss": 10**400}, "the metric 'loss' is 1000.*; expected a number"),
        ({"loss": torch.ones(2)}, "the metric 'loss' is tensor.*; expected a number"),
    ],
)
def test_what_is_no_number_is_named(wrong: Any, said: str) -> None:
    with pytest.raises(TypeError, match=said) as caught:
        as_numbers(wrong)
    assert len(str(caught.value)) < 100


@pytest.mark.parametrize("bad", [{"epoch": 2**63}, {"epoch": 1, "step": 2**63}, {"epoch": 1, "metrics": {"\ud800": 1}}])
def test_what_no_file_can_hold_is_refused_before_it_is_recorded(bad: dict[str, Any], loud, tmp_path: Path) -> None:
    with fm.Recorder(loud, tmp_path / "run.zarr", probe=IMAGES, on_error="warn") as recorder:
        recorder.snapshot(epoch=0)
        with pytest.raises((ValueError, TypeError), match=r"expected (an integer from \d+ on|text)"):
            recorder.snapshot(**bad)
        recorder.snapshot(epoch=2**62, step=2**62)
    assert fm.open_run(tmp_path / "run.zarr").epochs == [0, 2**62]


def test_metrics_that_are_called_as_what_a_snapshot_is_known_by_do_not_take_its_place(loud, tmp_path: Path) -> None:
    """Trainers log an epoch of their own, such as 0.98."""
    logged = {"epoch": 0.98, "step": 3.0, "snapshot": 4.0, "run": 5.0, "loss": 1.0}
    with fm.Recorder(loud, tmp_path / "run.zarr", probe=IMAGES) as recorder:
        recorder.snapshot(epoch=7, step=9, metrics=logged)
    (found,) = fm.open_run(tmp_path / "run.zarr").metrics.to_dict("records")
    aside = {f"{name} (metric)": value for name, value in logged.items() if name != "loss"}
    assert found == {"snapshot": 0, "epoch": 7, "step": 9, "loss": 1.0} | aside
