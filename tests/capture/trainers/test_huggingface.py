"""Snapshots from the Trainer of Transformers, in real short trainings."""

import math
from collections.abc import Callable
from contextlib import nullcontext
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments

import fmcluster as fm
from fmcluster.capture.trainers.huggingface import SnapshotCallback
from fmcluster.store import Run
from tests.capture.trainers.rank_process import Classifier, collated

pytestmark = pytest.mark.slow


class Copies(TrainerCallback, dict):
    """Copies of the network, at the start and at the end of each epoch."""

    def on_train_begin(self, args: Any, state: Any, control: Any, model: Classifier, **_: Any) -> None:
        self.setdefault(math.ceil(state.epoch), deepcopy(model.net))

    def on_epoch_end(self, args: Any, state: Any, control: Any, model: Classifier, **_: Any) -> None:
        self[math.ceil(state.epoch)] = deepcopy(model.net)


class Stop(TrainerCallback):
    """Raises after so many epochs, in the next."""

    def __init__(self, error: BaseException, *, after: int = 2) -> None:
        self.error = error
        self.after = after

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.epoch > self.after:
            raise self.error


def accuracy(outcome: Any) -> dict[str, float]:
    return {"accuracy": float((outcome.predictions.argmax(1) == outcome.label_ids).mean())}


def trainer_of(net: nn.Module, data: list, folder: Path, *, callbacks: list, **options: Any) -> Trainer:
    """Five batches an epoch."""
    defaults = {"num_train_epochs": 3, "per_device_train_batch_size": 2, "learning_rate": 1e-2}
    quiet = {"save_strategy": "no", "report_to": "none", "disable_tqdm": True, "use_cpu": True}
    trainer = Trainer(
        Classifier(net),
        TrainingArguments(str(folder), **{**defaults, **quiet, **options}),
        data_collator=collated,
        train_dataset=data,
        eval_dataset=data,
        compute_metrics=accuracy,
        callbacks=callbacks,
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


@pytest.fixture
def fit(net: nn.Module, data: list, tmp_path: Path) -> Callable[..., Trainer]:
    def train(*callbacks: TrainerCallback, resume: Path | None = None, **options: Any) -> Trainer:
        trainer = trainer_of(net, data, tmp_path, callbacks=list(callbacks), **options)
        with callbacks[0]:
            trainer.train(resume_from_checkpoint=None if resume is None else str(resume))
        return trainer

    return train


def test_every_epoch_is_recorded_with_its_evaluation(
    recorder: Callable, fit: Callable, recorded: Callable, metrics: Callable, tmp_path: Path
) -> None:
    copies = Copies()
    trainer = fit(SnapshotCallback(recorder()), copies, eval_strategy="epoch", logging_strategy="epoch")
    assert recorded(copies) == [(0, 0), (1, 5), (2, 10), (3, 15)]
    for name in ("loss", "learning_rate", "eval_loss", "eval_accuracy"):
        logged = [entry[name] for entry in trainer.state.log_history if name in entry]
        assert metrics(name)[1:] == logged
        assert math.isnan(metrics(name)[0])
    assert set(fm.open_run(tmp_path / "run.zarr").metrics) - {"snapshot", "epoch", "step"} == {
        "loss",
        "learning_rate",
        "grad_norm",
        "eval_loss",
        "eval_accuracy",
    }


def test_evaluation_by_steps_gives_an_epoch_its_last(
    recorder: Callable, fit: Callable, recorded: Callable, metrics: Callable
) -> None:
    copies = Copies()
    trainer = fit(SnapshotCallback(recorder()), copies, eval_strategy="steps", eval_steps=3, eval_on_start=True)
    assert recorded(copies) == [(0, 0), (1, 5), (2, 10), (3, 15)]
    by_step = {entry["step"]: entry["eval_loss"] for entry in trainer.state.log_history if "eval_loss" in entry}
    assert metrics("eval_loss") == [by_step[step] for step in (0, 3, 9, 15)]


def test_steps_are_those_of_the_optimizer_and_old_metrics_are_not_repeated(
    recorder: Callable, fit: Callable, recorded: Callable, metrics: Callable
) -> None:
    copies, taken = Copies(), recorder()
    fit(SnapshotCallback(taken), copies, gradient_accumulation_steps=5, logging_steps=2)
    assert recorded(copies) == [(0, 0), (1, 1), (2, 2), (3, 3)]
    assert taken.step == 3  # what it counted by itself is the same
    assert [math.isnan(value) for value in metrics("loss")] == [True, True, False, True]


def test_an_epoch_that_was_logged_before_its_end_is_recorded(
    recorder: Callable, fit: Callable, recorded: Callable, metrics: Callable
) -> None:
    copies = Copies()
    logging = {"logging_strategy": "epoch", "logging_first_step": True}
    fit(SnapshotCallback(recorder()), copies, gradient_accumulation_steps=5, num_train_epochs=2, **logging)
    assert recorded(copies) == [(0, 0), (1, 1), (2, 2)]
    assert [math.isnan(value) for value in metrics("loss")] == [True, False, False]


def test_every_second_epoch(recorder: Callable, fit: Callable, recorded: Callable) -> None:
    copies = Copies()
    fit(SnapshotCallback(recorder(), every=2), copies)
    assert recorded(copies) == [(0, 0), (2, 10)]


def test_an_epoch_that_training_ends_in_the_middle_of_is_recorded(
    recorder: Callable, fit: Callable, recorded: Callable
) -> None:
    copies = Copies()
    fit(SnapshotCallback(recorder()), copies, max_steps=7)
    assert recorded(copies) == [(0, 0), (1, 5), (2, 7)]


@pytest.mark.parametrize("strategy", ["epoch", "steps"])
def test_the_last_snapshot_is_of_the_last_epoch_and_not_of_the_best_model(
    strategy: str, net: nn.Module, recorder: Callable, fit: Callable, recorded: Callable, tmp_path: Path
) -> None:
    copies = Copies()
    best = {"load_best_model_at_end": True, "metric_for_best_model": "loss", "greater_is_better": True}
    when = {"eval_strategy": strategy, "save_strategy": strategy, "eval_steps": 5, "save_steps": 5}
    trainer = fit(SnapshotCallback(recorder()), copies, **when, **best)
    assert not trainer.state.best_model_checkpoint.endswith("-15")
    assert not torch.equal(net.conv1.weight, copies[3].conv1.weight)
    assert recorded(copies) == [(0, 0), (1, 5), (2, 10), (3, 15)]
    assert "train_loss" not in fm.open_run(tmp_path / "run.zarr").metrics  # of the training as a whole


@pytest.mark.parametrize(
    ("every", "ahead", "epochs"),
    [(1, False, [0, 1, 2, 3, 4, 5]), (3, False, [0, 2, 3, 4, 5]), (3, True, [0, 3, 4, 5])],
    ids=["the run is level with the checkpoint", "it is behind", "it is ahead"],
)
def test_a_resumed_training_records_what_is_missing(
    every: int,
    ahead: bool,
    epochs: list[int],
    net: nn.Module,
    recorder: Callable,
    fit: Callable,
    recorded: Callable,
    tmp_path: Path,
) -> None:
    before, after, stop = Copies(), Copies(), Stop(RuntimeError("enough"))
    with pytest.raises(RuntimeError, match="enough"):
        fit(SnapshotCallback(recorder(), every=every), before, stop, save_strategy="epoch")
    if ahead:
        with recorder(mode="a") as more:
            more.snapshot(epoch=3, step=15)
        before[3] = deepcopy(net)
    checkpoint = tmp_path / "checkpoint-10"
    fit(SnapshotCallback(recorder(mode="a")), after, resume=checkpoint, num_train_epochs=5, save_strategy="epoch")
    assert min(after) == 2
    assert recorded({**after, **before}) == [(epoch, 5 * epoch) for epoch in epochs]


def test_one_resumed_inside_an_epoch_is_not_taken_for_its_beginning(
    net: nn.Module, data: list, recorder: Callable, fit: Callable, recorded: Callable, tmp_path: Path
) -> None:
    saving = {"save_strategy": "steps", "save_steps": 7}
    trainer_of(net, data, tmp_path, callbacks=[], **saving).train()
    copies = Copies()
    fit(SnapshotCallback(recorder()), copies, resume=tmp_path / "checkpoint-7", **saving)
    assert recorded(copies) == [(2, 10), (3, 15)]


@pytest.mark.parametrize("error", [RuntimeError("mine"), KeyboardInterrupt("mine")], ids=["error", "ctrl-c"])
def test_training_that_fails_or_is_interrupted_keeps_what_was_recorded(
    error: BaseException, recorder: Callable, fit: Callable, recorded: Callable, left_behind: Callable
) -> None:
    copies, taken = Copies(), recorder()
    with left_behind(taken, recorder), pytest.raises(type(error), match="mine"):
        fit(SnapshotCallback(taken), copies, Stop(error))
    assert recorded(copies) == [(0, 0), (1, 5), (2, 10)]


def test_the_run_is_whole_when_training_ends_and_not_only_after_the_block(
    net: nn.Module, data: list, recorder: Callable, tmp_path: Path
) -> None:
    snapshots = SnapshotCallback(recorder())
    trainer = trainer_of(net, data, tmp_path, callbacks=[snapshots], num_train_epochs=1)
    with snapshots:
        trainer.train()
        assert fm.open_run(tmp_path / "run.zarr").epochs == [0, 1]
        with recorder(mode="a"):
            pass


def test_training_outside_the_block_is_refused(net: nn.Module, data: list, recorder: Callable, tmp_path: Path) -> None:
    snapshots = SnapshotCallback(recorder())
    trainer = trainer_of(net, data, tmp_path, callbacks=[snapshots])
    with pytest.raises(RuntimeError, match=r"with snapshots: trainer\.train"):
        trainer.train()
    assert not (tmp_path / "run.zarr").exists()
    with snapshots:
        trainer.train()
    assert fm.open_run(tmp_path / "run.zarr").epochs == [0, 1, 2, 3]
    with pytest.raises(RuntimeError, match="make a new one"), snapshots:
        trainer.train()


def test_a_schedule_freezes_while_training_goes_on_and_before_a_resumed_one_does(
    as_new: Callable, recorder: Callable, fit: Callable, at_rest: Run, tmp_path: Path
) -> None:
    def train(*others: TrainerCallback, mode: str = "w", **options: Any) -> tuple[Copies, fm.FreezeSchedule]:
        copies, taken = Copies(), recorder(mode=mode)
        schedule = fm.FreezeSchedule(taken, n_steps=25, at_rest=at_rest, tolerance=0.99, most=1)
        with pytest.raises(RuntimeError, match="enough") if others else nullcontext():
            fit(SnapshotCallback(taken, then=schedule.step), copies, *others, num_train_epochs=5, **options)
        return copies, schedule

    whole, schedule = train()
    (first,) = schedule.frozen
    assert (first.layer, first.epoch) == ("conv1", 2)
    weights = [whole[epoch].conv1.weight for epoch in range(6)]
    assert [torch.equal(*pair) for pair in zip(weights[1:], weights, strict=False)] == [False, False, True, True, True]
    assert not torch.equal(whole[5].fc.weight, whole[4].fc.weight)
    as_new()
    train(Stop(RuntimeError("enough"), after=3), save_strategy="epoch")
    as_new()
    again, schedule = train(mode="a", resume=tmp_path / "checkpoint-15")
    assert schedule.frozen == (first,)
    for name, value in whole[5].state_dict().items():
        torch.testing.assert_close(again[5].state_dict()[name], value, rtol=0, atol=0)
