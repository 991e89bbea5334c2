"""A schedule of freezing: causal, the same after a kill, and with all that freezing means."""

import copy
import logging

import pytest
import torch
from torch import nn
from torch.nn import functional

import fmcluster as fm
from fmcluster.decide import FreezeSchedule

N_EPOCHS, N_BATCHES = 6, 3
LAYERS = ["stem", "bn", "block1", "block2", "head"]


def train(model, probe, path, *, rates, at_rest=None, epochs=range(1, N_EPOCHS + 1), mode="x", seen=None, left=0):
    """Fine-tune with a rate for each child; with a run at rest, by a schedule, whose decisions are noted by epoch."""
    groups = [{"params": list(getattr(model, name).parameters()), "lr": rate} for name, rate in rates.items()]
    optimizer = torch.optim.SGD(groups, lr=0.0)
    images, labels = probe.tensors
    with fm.Recorder(model, path, layers=LAYERS, probe=probe, dtype="float32", mode=mode) as recorder:
        schedule = None
        if at_rest is not None:
            schedule = FreezeSchedule(recorder, n_steps=N_EPOCHS * N_BATCHES + left, at_rest=at_rest, tolerance=0.2)
        if epochs[0] == 1:
            recorder.snapshot(epoch=0)
        for epoch in epochs:
            if schedule is not None:
                schedule.step()
                seen[epoch] = [each.layer for each in schedule.frozen]
            model.train()
            for part in torch.arange(24).split(24 // N_BATCHES):
                optimizer.zero_grad()
                functional.cross_entropy(model(images[part]), labels[part]).backward()
                optimizer.step()
            model.eval()
            recorder.snapshot(epoch=epoch)
    return schedule


@pytest.fixture
def rest(residual, probe, tmp_path):
    train(copy.deepcopy(residual), probe, tmp_path / "rest.zarr", rates={"stem": 0.0})
    return fm.open_run(tmp_path / "rest.zarr")


RATES = {"stem": 0.0, "bn": 0.0, "block1": 0.0, "block2": 0.05, "head": 0.05}


@pytest.mark.slow
def test_layers_that_rest_are_frozen_from_the_bottom_up_and_stay_so(residual, probe, tmp_path, rest, caplog):
    seen = {}
    with caplog.at_level(logging.INFO, logger="fmcluster"):
        schedule = train(residual, probe, tmp_path / "run.zarr", rates=RATES, at_rest=rest, seen=seen)
    assert seen[1] == seen[2] == []  # one rate is not enough
    assert seen[N_EPOCHS] == ["stem", "block1"]
    assert all(seen[epoch] == seen[epoch + 1][: len(seen[epoch])] for epoch in range(1, N_EPOCHS))
    first = schedule.frozen[0]
    assert first.modules == ("stem", "bn")
    assert first.upper <= 0.2
    assert str(first) in caplog.text
    assert f"stem, bn frozen after epoch {first.epoch} (step {first.step}): at this rate it would move" in caplog.text
    residual.train()
    assert not residual.bn.training
    assert not residual.block1.bn1.training
    assert residual.block2.bn1.training
    assert not any(each.requires_grad for each in [*residual.stem.parameters(), *residual.block1.parameters()])
    out = residual(probe.tensors[0])
    assert out.grad_fn is not None
    held = []
    handle = residual.block1.register_forward_hook(lambda _m, _i, output: held.append(output))
    residual(probe.tensors[0])
    handle.remove()
    assert held[0].grad_fn is None  # the prefix has no graph


@pytest.mark.slow
def test_what_moves_is_not_frozen_nor_what_lies_above_it(residual, probe, tmp_path, rest):
    seen = {}
    rates = RATES | {"stem": 3.0, "bn": 3.0}
    train(residual, probe, tmp_path / "run.zarr", rates=rates, at_rest=rest, seen=seen, left=100_000)
    assert seen[N_EPOCHS] == []


@pytest.mark.slow
def test_a_resumed_run_is_frozen_before_training_goes_on_as_one_that_was_not_interrupted(
    residual, probe, tmp_path, rest
):
    start, whole, again = copy.deepcopy(residual), {}, {}
    train(residual, probe, tmp_path / "whole.zarr", rates=RATES, at_rest=rest, seen=whole)
    train(start, probe, tmp_path / "run.zarr", rates=RATES, at_rest=rest, epochs=range(1, 5), seen={})
    restarted = copy.deepcopy(start)
    for module in restarted.modules():  # as a checkpoint is loaded: nothing is frozen
        module.__dict__.pop("train", None)
        for parameter in module.parameters(recurse=False):
            parameter.requires_grad_(True)
    later = range(5, N_EPOCHS + 1)
    train(restarted, probe, tmp_path / "run.zarr", rates=RATES, at_rest=rest, epochs=later, mode="a", seen=again)
    assert again == {epoch: whole[epoch] for epoch in later}
    assert again[5]
    assert not restarted.stem.weight.requires_grad


@pytest.mark.slow
def test_momentum_does_not_move_what_is_frozen(residual, probe, tmp_path, rest):
    with fm.Recorder(residual, tmp_path / "run.zarr", layers=LAYERS, probe=probe) as recorder:
        schedule = FreezeSchedule(recorder, n_steps=4, at_rest=rest, tolerance=0.9, most=1)
        optimizer = torch.optim.SGD(residual.parameters(), lr=1e-6, momentum=0.9, weight_decay=0.1)
        for epoch in range(5):
            recorder.snapshot(epoch=epoch)
            schedule.step()
            if schedule.frozen:
                break
            functional.cross_entropy(residual(probe.tensors[0]), probe.tensors[1]).backward()
            optimizer.step()
        assert [each.layer for each in schedule.frozen] == ["stem"]
        before = residual.stem.weight.detach().clone()
        optimizer.step()
        assert torch.equal(residual.stem.weight, before)
        assert schedule.step() == ()


def test_bad_input_is_refused(residual, probe, tmp_path, rest):
    recorder = fm.Recorder(residual, tmp_path / "run.zarr", layers=LAYERS, probe=probe)
    for options, message in [
        ({"n_steps": 0}, "n_steps is 0; expected how many optimizer steps"),
        ({"tolerance": 1.0}, "tolerance is 1.0; expected a number between 0 and 1"),
        ({"most": -1}, "most is -1; expected how many layers"),
    ]:
        with pytest.raises(ValueError, match=message):
            FreezeSchedule(recorder, **{"n_steps": 5, "at_rest": rest} | options)
    with pytest.raises(TypeError, match="at_rest is a str; expected Run"):
        FreezeSchedule(recorder, n_steps=5, at_rest="rest.zarr")
    with pytest.raises(TypeError, match="received a Residual; expected a Recorder"):
        FreezeSchedule(residual, n_steps=5, at_rest=rest)
    with pytest.raises(RuntimeError, match="with"):
        FreezeSchedule(recorder, n_steps=5, at_rest=rest).step()
    with fm.Recorder(nn.Sequential(residual), tmp_path / "o.zarr", layers=["0.stem", "0.head"], probe=probe) as other:
        other.snapshot(epoch=0)
        with pytest.raises(ValueError, match=r"rest.zarr, lacks layer '0.stem'; record the same layers"):
            FreezeSchedule(other, n_steps=5, at_rest=rest, most=1).step()


def test_one_of_several_processes_does_not_freeze_alone(residual, probe, tmp_path, rest, monkeypatch):
    monkeypatch.setattr("fmcluster.decide._freeze_schedule.is_in_job", lambda: True)
    with pytest.raises(RuntimeError, match="several processes"):
        train(residual, probe, tmp_path / "run.zarr", rates=RATES, at_rest=rest, seen={})
