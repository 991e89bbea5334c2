"""Which moments snapshots are of: epochs, and optimizer steps counted without help."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import fmcluster as fm
from fmcluster.capture.passes._step_counter import StepCounter


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 2, 1), nn.Conv2d(2, 2, 1))


DATA = list(torch.rand(3, 3, 4, 4))


def step(model: nn.Module, *optimizers: torch.optim.Optimizer) -> None:
    model(torch.stack(DATA)).sum().backward()
    for optimizer in optimizers:
        optimizer.step()


def steps_of(path: Path) -> list[int]:
    return fm.open_run(path).snapshots["step"].tolist()


@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.AdamW])
def test_steps_are_counted(kind: type, model: nn.Module, tmp_path: Path) -> None:
    optimizer = kind(model.parameters(), lr=1e-3)
    step(model, optimizer)  # before the run began
    with fm.Recorder(model, tmp_path / "run.zarr", probe=DATA) as recorder:
        recorder.snapshot(epoch=0)
        for _ in range(3):
            step(model, optimizer)
        assert recorder.step == 3
        recorder.snapshot(epoch=1)
        step(model, optimizer)
        recorder.snapshot(epoch=1)
    step(model, optimizer)
    assert steps_of(tmp_path / "run.zarr") == [0, 3, 4]
    assert recorder.step == 4


def test_every_optimizer_of_the_model_counts_and_no_other(model: nn.Module, tmp_path: Path) -> None:
    first, second = (torch.optim.SGD(part.parameters(), lr=1e-3) for part in model)
    other = nn.Conv2d(3, 2, 1)
    unrelated = torch.optim.SGD(other.parameters(), lr=1e-3)
    with fm.Recorder(model, tmp_path / "run.zarr", probe=DATA) as recorder:
        step(model, first, second)
        assert recorder.step == 2
        step(other, unrelated)
        assert recorder.step == 2


def test_a_step_that_a_scaler_skips_is_none(model: nn.Module) -> None:
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0)
    counter = StepCounter(model)
    counter.start()
    for value in (1.0, float("inf"), 1.0):
        optimizer.zero_grad()
        scaler.scale((model(torch.stack(DATA)) * value).sum()).backward()
        scaler.step(optimizer)
        scaler.update()
    counter.stop()
    counter.stop()
    assert counter.count == 2


def test_two_recorders_count_each_their_own(model: nn.Module, tmp_path: Path) -> None:
    other = nn.Sequential(nn.Conv2d(3, 2, 1))
    with (
        fm.Recorder(model, tmp_path / "one.zarr", probe=DATA) as one,
        fm.Recorder(other, tmp_path / "two.zarr", probe=DATA) as two,
    ):
        step(model, torch.optim.SGD(model.parameters(), lr=1e-3))
        assert (one.step, two.step) == (1, 0)


def test_an_explicit_step_is_kept_and_counted_on_from(model: nn.Module, tmp_path: Path) -> None:
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    with fm.Recorder(model, tmp_path / "run.zarr", probe=DATA) as recorder:
        recorder.snapshot(epoch=0, step=100)
        step(model, optimizer)
        recorder.snapshot(epoch=1)
        recorder.snapshot(epoch=1, step=np.int64(200))
    assert steps_of(tmp_path / "run.zarr") == [100, 101, 200]


def test_steps_go_on_when_a_run_is_gone_on_with(model: nn.Module, tmp_path: Path) -> None:
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    for epoch in range(2):
        with fm.Recorder(model, tmp_path / "run.zarr", probe=DATA, mode="a") as recorder:
            for _ in range(5):
                step(model, optimizer)
            recorder.snapshot(epoch=epoch)
    assert steps_of(tmp_path / "run.zarr") == [5, 10]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"epoch": 1}, "epoch 1 comes after epoch 3"),
        ({"epoch": 3}, "epoch 3, step 7 was recorded already"),
        ({"epoch": 3, "step": 7}, "recorded already.*step="),
        ({"epoch": 4, "step": 6}, "step is 6; expected an integer from 7 on"),
        ({"epoch": -1}, "epoch is -1; expected an integer from 0 on"),
        ({"epoch": 4.0}, r"epoch is 4\.0"),
        ({"epoch": True}, "epoch is True"),
        ({"epoch": "4"}, "epoch is '4'"),
        ({"epoch": 4, "step": 9.5}, r"step is 9\.5"),
        ({"epoch": 4, "step": True}, "step is True"),
    ],
)
def test_what_is_out_of_order_is_refused(arguments: dict, message: str, model: nn.Module, tmp_path: Path) -> None:
    with fm.Recorder(model, tmp_path / "run.zarr", probe=DATA) as recorder:
        recorder.snapshot(epoch=3, step=7)
        with pytest.raises(ValueError, match=message):
            recorder.snapshot(**arguments)
        assert recorder.step == 7
        recorder.snapshot(epoch=4)
    assert fm.open_run(tmp_path / "run.zarr").snapshots["epoch"].tolist() == [3, 4]


def test_the_order_holds_across_recorders(model: nn.Module, tmp_path: Path) -> None:
    with fm.Recorder(model, tmp_path / "run.zarr", probe=DATA) as recorder:
        recorder.snapshot(epoch=5, step=50)
    with fm.Recorder(model, tmp_path / "run.zarr", probe=DATA, mode="a") as recorder:
        with pytest.raises(ValueError, match=r"epoch 4 comes after epoch 5.*starts at the epoch after"):
            recorder.snapshot(epoch=4)
        with pytest.raises(ValueError, match="recorded already"):
            recorder.snapshot(epoch=5)
        recorder.snapshot(epoch=6)
    assert steps_of(tmp_path / "run.zarr") == [50, 50]
