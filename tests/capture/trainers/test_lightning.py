"""Snapshots from Lightning's Trainer, in real short trainings."""

import logging
import math
import signal
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from copy import deepcopy
from pathlib import Path
from typing import Any

import lightning.pytorch as L
import pytest
import torch
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader

import fmcluster as fm
from fmcluster.capture.trainers.lightning import SnapshotCallback
from fmcluster.store import Run

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning"),
    pytest.mark.filterwarnings("ignore:The '.*dataloader' does not have many workers"),
    pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty"),
    pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`"),
    pytest.mark.filterwarnings("ignore:You're resuming from a checkpoint that ended before the epoch ended"),
]


class Module(L.LightningModule):
    """Five batches an epoch; the learning rate is halved after each."""

    def __init__(self, net: nn.Module, data: list) -> None:
        super().__init__()
        self.net = net
        self.data = data

    def training_step(self, batch: Any, _: int) -> torch.Tensor:
        loss = cross_entropy(self.net(batch[0]), batch[1])
        self.log("loss", loss, on_step=False, on_epoch=True)
        return loss

    def on_train_epoch_end(self) -> None:
        self.log("late", float(self.current_epoch))

    def validation_step(self, batch: Any, _: int) -> None:
        self.log("val_loss", cross_entropy(self.net(batch[0]), batch[1]))

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.SGD(self.parameters(), lr=0.1)
        return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5)]

    def train_dataloader(self) -> DataLoader:
        return DataLoader(self.data, batch_size=2)

    def val_dataloader(self) -> DataLoader:
        return DataLoader(self.data, batch_size=5)


class Copies(L.Callback, dict):
    """Copies of the network, at the start and at the end of each epoch; and the validation losses then."""

    def __init__(self) -> None:
        self.losses: list[float] = []

    def on_train_start(self, trainer: L.Trainer, module: Module) -> None:
        self.setdefault(trainer.current_epoch, deepcopy(module.net))

    def on_train_epoch_end(self, trainer: L.Trainer, module: Module) -> None:
        self[trainer.current_epoch + 1] = deepcopy(module.net)
        self.losses.append(float(trainer.callback_metrics["val_loss"]))


class Stop(L.Callback):
    """Raises in an epoch, by default the third."""

    def __init__(self, error: BaseException, *, epoch: int = 2) -> None:
        self.error = error
        self.epoch = epoch

    def on_train_batch_start(self, trainer: L.Trainer, *_: Any) -> None:
        if trainer.current_epoch == self.epoch:
            raise self.error


@pytest.fixture(autouse=True)
def quiet() -> None:
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)


@pytest.fixture
def ctrl_c() -> Iterator[None]:
    """Lightning turns Ctrl-C off when it was pressed."""
    handler = signal.getsignal(signal.SIGINT)
    yield
    signal.signal(signal.SIGINT, handler)


@pytest.fixture
def fit(net: nn.Module, data: list, tmp_path: Path) -> Callable[..., None]:
    def train(*callbacks: L.Callback, ckpt_path: str | None = None, **options: Any) -> None:
        options = {"max_epochs": 3, "enable_checkpointing": False, "accelerator": "cpu", **options}
        trainer = L.Trainer(
            callbacks=list(callbacks),
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            default_root_dir=tmp_path,
            **options,
        )
        trainer.fit(Module(net, data), ckpt_path=ckpt_path)

    return train


def test_every_epoch_is_recorded_with_what_was_logged_in_it(
    recorder: Callable, fit: Callable, recorded: Callable, metrics: Callable
) -> None:
    copies = Copies()
    fit(SnapshotCallback(recorder()), copies, num_sanity_val_steps=2)
    assert recorded(copies) == [(0, 0), (1, 5), (2, 10), (3, 15)]
    assert metrics("val_loss")[1:] == copies.losses
    assert metrics("late")[1:] == [0.0, 1.0, 2.0]  # logged after the callbacks' own hook
    assert metrics("learning_rate")[1:] == [0.1, 0.05, 0.025]
    assert all(math.isnan(metrics(name)[0]) for name in ("loss", "val_loss", "learning_rate"))


def test_steps_are_those_of_the_optimizer_and_old_metrics_are_not_repeated(
    recorder: Callable, fit: Callable, recorded: Callable, metrics: Callable
) -> None:
    copies, taken = Copies(), recorder()
    copies.on_train_epoch_end = lambda trainer, module: copies.update({trainer.current_epoch + 1: deepcopy(module.net)})
    fit(SnapshotCallback(taken), copies, accumulate_grad_batches=2, check_val_every_n_epoch=2)
    assert recorded(copies) == [(0, 0), (1, 3), (2, 6), (3, 9)]
    assert taken.step == 9  # what it counted by itself is the same
    assert [math.isnan(value) for value in metrics("val_loss")] == [True, True, False, True]
    assert [math.isnan(value) for value in metrics("loss")] == [True, False, False, False]


def test_every_second_epoch(recorder: Callable, fit: Callable, recorded: Callable) -> None:
    copies = Copies()
    fit(SnapshotCallback(recorder(), every=2), copies)
    assert recorded(copies) == [(0, 0), (2, 10)]


def test_an_epoch_that_training_ends_in_the_middle_of_is_recorded(
    recorder: Callable, fit: Callable, recorded: Callable
) -> None:
    copies = Copies()
    fit(SnapshotCallback(recorder()), copies, max_epochs=-1, max_steps=7)
    assert recorded(copies) == [(0, 0), (1, 5), (2, 7)]


def test_early_stopping_ends_the_recording(recorder: Callable, fit: Callable, recorded: Callable) -> None:
    copies = Copies()
    fit(SnapshotCallback(recorder()), copies, EarlyStopping("val_loss", patience=1, divergence_threshold=0.0))
    assert recorded(copies) == [(0, 0), (1, 5)]
    with recorder(mode="a"):
        pass


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
    saving = ModelCheckpoint(tmp_path, filename="{epoch}", save_top_k=-1)
    with pytest.raises(RuntimeError, match="enough"):
        fit(SnapshotCallback(recorder(), every=every), before, saving, stop, enable_checkpointing=True)
    if ahead:
        with recorder(mode="a") as more:
            more.snapshot(epoch=3, step=15)
        before[3] = deepcopy(net)
    fit(SnapshotCallback(recorder(mode="a")), after, ckpt_path=tmp_path / "epoch=1.ckpt", max_epochs=5)
    assert min(after) == 2
    assert recorded({**after, **before}) == [(epoch, 5 * epoch) for epoch in epochs]


def test_one_resumed_inside_an_epoch_is_not_taken_for_its_beginning(
    recorder: Callable, fit: Callable, recorded: Callable, tmp_path: Path
) -> None:
    checkpoints = ModelCheckpoint(tmp_path, filename="{step}", every_n_train_steps=7, save_top_k=-1)
    fit(checkpoints, max_epochs=2, enable_checkpointing=True)
    copies = Copies()
    fit(SnapshotCallback(recorder()), copies, ckpt_path=tmp_path / "step=7.ckpt")
    assert recorded(copies) == [(2, 10), (3, 15)]


@pytest.mark.parametrize(
    ("error", "seen"),
    [(RuntimeError("mine"), RuntimeError), (KeyboardInterrupt(), SystemExit)],
    ids=["error", "ctrl-c"],
)
def test_training_that_fails_or_is_interrupted_keeps_what_was_recorded(
    error: BaseException,
    seen: type,
    ctrl_c: None,
    recorder: Callable,
    fit: Callable,
    recorded: Callable,
    left_behind: Callable,
) -> None:
    copies, taken = Copies(), recorder()
    with left_behind(taken, recorder), pytest.raises(seen, match=r"mine|1"):
        fit(SnapshotCallback(taken), copies, Stop(error))
    assert recorded(copies) == [(0, 0), (1, 5), (2, 10)]


def test_a_recorder_that_cannot_be_entered_ends_the_training(recorder: Callable, fit: Callable) -> None:
    fit(SnapshotCallback(recorder()), max_epochs=1)
    with pytest.raises(FileExistsError, match=r"run\.zarr"):
        fit(SnapshotCallback(recorder()))


def test_fitting_again_with_the_same_recorder_is_refused(recorder: Callable, fit: Callable) -> None:
    callback = SnapshotCallback(recorder())
    fit(callback, max_epochs=1)
    with pytest.raises(RuntimeError, match="make a new one"):
        fit(callback, max_epochs=1)


def test_a_schedule_freezes_while_training_goes_on_and_before_a_resumed_one_does(
    as_new: Callable, recorder: Callable, fit: Callable, at_rest: Run, tmp_path: Path
) -> None:
    def train(*others: L.Callback, mode: str = "w", **options: Any) -> tuple[Copies, fm.FreezeSchedule]:
        torch.manual_seed(0)  # of dropout; Lightning neither seeds it nor keeps it in checkpoints
        copies, taken = Copies(), recorder(mode=mode)
        schedule = fm.FreezeSchedule(taken, n_steps=25, at_rest=at_rest, tolerance=0.99, most=1)
        with pytest.raises(RuntimeError, match="enough") if others else nullcontext():
            fit(SnapshotCallback(taken, then=schedule.step), copies, *others, max_epochs=5, **options)
        return copies, schedule

    whole, schedule = train()
    (first,) = schedule.frozen
    assert (first.layer, first.epoch) == ("conv1", 2)
    weights = [whole[epoch].conv1.weight for epoch in range(6)]
    assert [torch.equal(*pair) for pair in zip(weights[1:], weights, strict=False)] == [False, False, True, True, True]
    assert not torch.equal(whole[5].fc.weight, whole[4].fc.weight)
    as_new()
    saving = ModelCheckpoint(tmp_path, filename="{epoch}", save_top_k=-1)
    train(saving, Stop(RuntimeError("enough"), epoch=3), enable_checkpointing=True)
    as_new()
    again, schedule = train(mode="a", ckpt_path=tmp_path / "epoch=2.ckpt")
    assert schedule.frozen == (first,)
    assert torch.equal(again[5].conv1.weight, whole[5].conv1.weight)
    assert torch.equal(again[5].bn1.running_mean, whole[5].bn1.running_mean)
    assert not torch.equal(again[5].fc.weight, again[4].fc.weight)


def test_only_the_first_of_two_processes_records(recorder: Callable, fit: Callable, tmp_path: Path) -> None:
    fit(SnapshotCallback(recorder()), max_epochs=2, devices=2, strategy="ddp_spawn")
    assert fm.open_run(tmp_path / "run.zarr").snapshots["step"].tolist() == [0, 3, 6]
