"""Snapshots from an Engine of Ignite, in real short trainings."""

import math
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import pytest
import torch
from ignite.engine import Engine, Events, create_supervised_evaluator, create_supervised_trainer
from ignite.metrics import Accuracy, RunningAverage
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader

import fmcluster as fm
from fmcluster.capture.trainers.ignite import SnapshotHandler

pytestmark = pytest.mark.slow


def trainer_of(net: nn.Module, **options: Any) -> Engine:
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    trainer = create_supervised_trainer(net, optimizer, cross_entropy, **options)
    RunningAverage(output_transform=lambda loss: loss).attach(trainer, "loss")
    return trainer


def keep_copies(trainer: Engine, net: nn.Module) -> dict[int, nn.Module]:
    """Copies of the network, at the start and at the end of each epoch."""
    copies: dict[int, nn.Module] = {}

    @trainer.on(Events.STARTED)
    def at_the_start() -> None:
        copies[trainer.state.epoch] = deepcopy(net)

    @trainer.on(Events.EPOCH_COMPLETED | Events.TERMINATE)
    def at_the_end() -> None:
        copies[trainer.state.epoch] = deepcopy(net)

    return copies


def raise_in_the_third_epoch(trainer: Engine, error: BaseException) -> None:
    """Raise after the twelfth batch, of five to an epoch."""

    @trainer.on(Events.ITERATION_COMPLETED(once=12))
    def stop() -> None:
        raise error


@pytest.fixture
def batches(data: list) -> DataLoader:
    """Five batches an epoch."""
    return DataLoader(data, batch_size=2)


@pytest.mark.parametrize("evaluated_before", [True, False])
def test_every_epoch_is_recorded_with_its_evaluation(
    evaluated_before: bool,
    net: nn.Module,
    batches: DataLoader,
    recorder: Callable,
    recorded: Callable,
    metrics: Callable,
    tmp_path: Path,
) -> None:
    """Whichever of the handlers was attached first."""
    trainer, evaluator = trainer_of(net), create_supervised_evaluator(net, {"accuracy": Accuracy()})
    copies, losses, accuracies = keep_copies(trainer, net), [], []

    def attach() -> None:
        SnapshotHandler(recorder()).attach(trainer, {"val": evaluator})

    def evaluate() -> None:
        losses.append(trainer.state.metrics["loss"])
        accuracies.append(evaluator.run(batches).metrics["accuracy"])

    if not evaluated_before:
        attach()
    trainer.add_event_handler(Events.EPOCH_COMPLETED, evaluate)
    if evaluated_before:
        attach()
    trainer.run(batches, max_epochs=3)
    assert recorded(copies) == [(0, 0), (1, 5), (2, 10), (3, 15)]
    assert metrics("loss")[1:] == losses
    assert metrics("val_accuracy")[1:] == accuracies
    assert math.isnan(metrics("loss")[0])
    assert math.isnan(metrics("val_accuracy")[0])


def test_steps_are_those_of_the_optimizer_and_old_evaluations_are_not_repeated(
    net: nn.Module, batches: DataLoader, recorder: Callable, recorded: Callable, metrics: Callable
) -> None:
    trainer = trainer_of(net, gradient_accumulation_steps=2)
    evaluator = create_supervised_evaluator(net, {"accuracy": Accuracy()})
    trainer.add_event_handler(Events.STARTED | Events.EPOCH_COMPLETED(every=2), lambda: evaluator.run(batches))
    copies = keep_copies(trainer, net)
    SnapshotHandler(recorder()).attach(trainer, {"val": evaluator})
    trainer.run(batches, max_epochs=3)
    assert recorded(copies) == [(0, 0), (1, 2), (2, 5), (3, 7)]  # Ignite goes on accumulating over an epoch's end
    assert [math.isnan(value) for value in metrics("val_accuracy")] == [False, True, False, True]


def test_every_second_epoch(net: nn.Module, batches: DataLoader, recorder: Callable, recorded: Callable) -> None:
    trainer = trainer_of(net)
    copies = keep_copies(trainer, net)
    SnapshotHandler(recorder(), every=2).attach(trainer)
    trainer.run(batches, max_epochs=3)
    assert recorded(copies) == [(0, 0), (2, 10)]


@pytest.mark.parametrize("skip_completed", [True, False])
def test_an_epoch_that_training_ends_in_the_middle_of_is_recorded(
    skip_completed: bool, net: nn.Module, batches: DataLoader, recorder: Callable, recorded: Callable
) -> None:
    trainer = trainer_of(net)
    copies = keep_copies(trainer, net)
    SnapshotHandler(recorder()).attach(trainer)
    trainer.add_event_handler(Events.ITERATION_COMPLETED(once=7), lambda: trainer.terminate(skip_completed))
    trainer.run(batches, max_epochs=3)
    assert recorded(copies) == [(0, 0), (1, 5), (2, 7)]
    with recorder(mode="a"):
        pass


def test_an_interrupted_engine_goes_on(
    net: nn.Module, batches: DataLoader, recorder: Callable, recorded: Callable
) -> None:
    trainer = trainer_of(net)
    copies = keep_copies(trainer, net)
    SnapshotHandler(recorder()).attach(trainer)
    trainer.add_event_handler(Events.ITERATION_COMPLETED(once=7), trainer.interrupt)
    trainer.run(batches, max_epochs=3)
    assert trainer.state.iteration == 7
    trainer.run(batches)
    assert recorded(copies) == [(0, 0), (1, 5), (2, 10), (3, 15)]


@pytest.mark.parametrize(
    ("every", "ahead", "snapshots"),
    [
        (1, False, [(0, 0), (1, 5), (2, 10), (3, 15), (4, 20), (5, 25)]),
        (3, False, [(0, 0), (2, 0), (3, 5), (4, 10), (5, 15)]),
        (3, True, [(0, 0), (3, 15), (4, 20), (5, 25)]),
    ],
    ids=["the run is level with the checkpoint", "it is behind", "it is ahead"],
)
def test_a_resumed_training_records_what_is_missing(
    every: int,
    ahead: bool,
    snapshots: list[tuple[int, int]],
    net: nn.Module,
    batches: DataLoader,
    recorder: Callable,
    recorded: Callable,
) -> None:
    """Steps are counted from the run's last snapshot on; an epoch that is trained again does not count twice."""
    trainer = trainer_of(net)
    before = keep_copies(trainer, net)
    SnapshotHandler(recorder(), every=every).attach(trainer)
    trainer.run(batches, max_epochs=2)
    if ahead:
        with recorder(mode="a") as more:
            nn.init.normal_(net.conv1.weight)
            more.snapshot(epoch=3, step=15)
        before[3] = deepcopy(net)
    trainer = trainer_of(net)
    after = keep_copies(trainer, net)
    SnapshotHandler(recorder(mode="a")).attach(trainer)
    trainer.load_state_dict({"epoch": 2, "max_epochs": 5, "epoch_length": 5})
    trainer.run(batches)
    assert min(after) == 2
    assert recorded({**after, **before}) == snapshots


def test_one_resumed_inside_an_epoch_is_not_taken_for_its_beginning(
    net: nn.Module, batches: DataLoader, recorder: Callable, recorded: Callable
) -> None:
    trainer = trainer_of(net)
    copies = keep_copies(trainer, net)
    SnapshotHandler(recorder()).attach(trainer)
    trainer.load_state_dict({"iteration": 7, "max_epochs": 3, "epoch_length": 5})
    trainer.run(batches)
    assert recorded(copies) == [(2, 3), (3, 8)]


@pytest.mark.parametrize("error", [RuntimeError("mine"), KeyboardInterrupt("mine")], ids=["error", "ctrl-c"])
@pytest.mark.parametrize("handled", ["nowhere", "before", "after"])
def test_training_that_fails_or_is_interrupted_keeps_what_was_recorded(
    handled: str,
    error: BaseException,
    net: nn.Module,
    batches: DataLoader,
    recorder: Callable,
    recorded: Callable,
    left_behind: Callable,
) -> None:
    trainer, taken, seen = trainer_of(net), recorder(), []
    copies = keep_copies(trainer, net)

    def handle(error: BaseException) -> None:
        seen.append(error)
        raise error

    if handled == "before":
        trainer.add_event_handler(Events.EXCEPTION_RAISED, handle)
    SnapshotHandler(taken).attach(trainer)
    if handled == "after":
        trainer.add_event_handler(Events.EXCEPTION_RAISED, handle)
    raise_in_the_third_epoch(trainer, error)
    with left_behind(taken, recorder), pytest.raises(type(error), match="mine"):
        trainer.run(batches, max_epochs=3)
    assert recorded(copies) == [(0, 0), (1, 5), (2, 10)]
    assert set(seen) == (set() if handled == "nowhere" else {error})


def test_an_exception_that_a_handler_forgives_ends_only_the_recording(
    net: nn.Module, batches: DataLoader, recorder: Callable, recorded: Callable, left_behind: Callable
) -> None:
    trainer, taken = trainer_of(net), recorder()
    copies = keep_copies(trainer, net)
    trainer.add_event_handler(Events.EXCEPTION_RAISED, lambda _: None)
    SnapshotHandler(taken).attach(trainer)
    raise_in_the_third_epoch(trainer, RuntimeError("mine"))
    with left_behind(taken, recorder):
        trainer.run(batches, max_epochs=4)
    assert trainer.state.epoch == 4
    assert recorded(copies) == [(0, 0), (1, 5), (2, 10)]


def test_a_recorder_that_cannot_be_entered_ends_the_training(
    net: nn.Module, batches: DataLoader, recorder: Callable
) -> None:
    trainer = trainer_of(net)
    SnapshotHandler(recorder()).attach(trainer)
    trainer.run(batches, max_epochs=1)
    with pytest.raises(RuntimeError, match="make a new one"):
        trainer.run(batches, max_epochs=1)
    again = trainer_of(net)
    SnapshotHandler(recorder()).attach(again)
    with pytest.raises(FileExistsError, match=r"run\.zarr"):
        again.run(batches, max_epochs=1)


def one_of_two(_: int, net: nn.Module, data: list, folder: Path) -> None:
    """Train in one process of two."""
    model = idist.auto_model(net)
    trainer = trainer_of(model)
    SnapshotHandler(fm.Recorder(model, folder / "run.zarr", probe=data)).attach(trainer)
    trainer.run(idist.auto_dataloader(data, batch_size=4), max_epochs=2)


def test_only_the_first_of_two_processes_records(net: nn.Module, data: list, tmp_path: Path) -> None:
    idist.spawn("gloo", one_of_two, args=(net, data, tmp_path), nproc_per_node=2)
    assert fm.open_run(tmp_path / "run.zarr").snapshots["step"].tolist() == [0, 3, 6]
