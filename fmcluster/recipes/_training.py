"""Training loop of all recipes: SGD steps, validation, and snapshots at chosen steps."""

from collections.abc import Callable, Iterator, Sequence, Sized
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torch.utils.data import DataLoader, Dataset

from ..capture import Recorder
from ._events import PhaseStarted, Progress, SnapshotTaken, StepDone

Batches = DataLoader[tuple[Tensor, int]]


@dataclass(frozen=True)
class Evaluation:
    """How a model does on a set of images.

    Attributes
    ----------
    accuracy : float
        Share classified correctly, 0 to 1.
    loss : float
        Mean cross-entropy in nats.
    """

    accuracy: float
    loss: float


def train_one_epoch(
    model: nn.Module,
    loader: Batches,
    *,
    optimizer: Optimizer,
    criterion: nn.Module,
    device: torch.device | str,
    on_step: Callable[[float, int], None] | None = None,
) -> float:
    """Take one optimizer step for each batch, in training mode.

    Parameters
    ----------
    model : nn.Module
        On `device`.
    loader : DataLoader
        Batches of images (n, c, h, w) and labels (n,).
    optimizer : Optimizer
        Of the model's parameters.
    criterion : nn.Module
        Of the outputs (n, n_classes) and the labels (n,): the batch's mean loss as a scalar tensor.
    device : torch.device or str
        Where the batches go.
    on_step : callable, optional
        Called after each step with the batch's loss before the step and its number of images. It may evaluate
        the model, but leaves it in training mode.

    Returns
    -------
    float
        Mean loss over the images.
    """
    model.train()
    total, n_images = 0.0, 0
    for images, labels in loader:
        optimizer.zero_grad()
        loss = criterion(model(images.to(device)), labels.to(device))
        loss.backward()
        optimizer.step()
        value = float(loss.detach())
        total += value * len(images)
        n_images += len(images)
        if on_step is not None:
            on_step(value, len(images))
    return total / n_images


@torch.no_grad()
def evaluate(model: nn.Module, loader: Batches, *, device: torch.device | str) -> Evaluation:
    """Measure accuracy and cross-entropy, and leave every module's training flag as it was.

    Parameters
    ----------
    model : nn.Module
        On `device`.
    loader : DataLoader
        Batches of images (n, c, h, w) and labels (n,).
    device : torch.device or str
        Where the batches go.

    Returns
    -------
    Evaluation
        Over all images of the loader.

    Raises
    ------
    ValueError
        The loader is empty.
    """
    correct, n_images, total = 0, 0, 0.0
    with _evaluating(model):
        for images, labels in loader:
            outputs, labels = model(images.to(device)), labels.to(device)
            total += float(nn.functional.cross_entropy(outputs, labels, reduction="sum"))
            correct += int((outputs.argmax(dim=1) == labels).sum())
            n_images += len(images)
    if not n_images:
        raise ValueError("the loader holds no images: expected at least one to evaluate on")
    return Evaluation(accuracy=correct / n_images, loss=total / n_images)


def train_with_snapshots(
    model: nn.Module,
    recorder: Recorder,
    *,
    train_loader: Batches,
    val_loader: Batches,
    optimizer: Optimizer,
    scheduler: LRScheduler | None,
    snapshots_per_epoch: Sequence[int],
    device: torch.device,
    progress: Progress | None,
    on_epoch: Callable[[int], None] | None = None,
) -> tuple[SnapshotTaken, ...]:
    """Train with cross-entropy; record before the first update, at even steps within epochs, and after each.

    Parameters
    ----------
    model : nn.Module
        The recorder's model, on `device`.
    recorder : Recorder
        Open.
    train_loader, val_loader : DataLoader
        Batches of images and labels. The metrics of a snapshot are measured on the second.
    optimizer : Optimizer
        Of the model's parameters.
    scheduler : LRScheduler or None
        Steps after each epoch's last snapshot.
    snapshots_per_epoch : sequence of int
        One entry an epoch, so its length is the number of epochs. An epoch's last snapshot is at its end.
    device : torch.device
        Where the batches go.
    progress : callable or None
        Receives the events.
    on_epoch : callable, optional
        Called with the number of epochs that are done, before each.

    Returns
    -------
    tuple of SnapshotTaken
        In order. Each was stored with the metrics ``val_accuracy``, ``val_loss``, ``learning_rate`` (of the
        last step) and, after the first, ``train_loss`` (mean over the images trained on since then).

    Raises
    ------
    ValueError
        More snapshots in an epoch than it has steps.
    """
    criterion = nn.CrossEntropyLoss()
    steps_per_epoch = len(train_loader)
    due = [snapshot_steps(count, steps_per_epoch=steps_per_epoch) for count in snapshots_per_epoch]
    report = progress if progress is not None else _ignore
    report(PhaseStarted(phase="finetune", epochs=len(due), steps=len(due) * steps_per_epoch))
    taken: list[SnapshotTaken] = []
    since: list[tuple[float, int]] = []
    step = 0

    def snapshot(epoch: int) -> None:
        now = evaluate(model, val_loader, device=device)
        metrics = {"val_accuracy": now.accuracy, "val_loss": now.loss}
        metrics["learning_rate"] = float(optimizer.param_groups[0]["lr"])
        if since:
            metrics["train_loss"] = sum(loss * n for loss, n in since) / sum(n for _, n in since)
            since.clear()
        recorder.snapshot(epoch=epoch, step=step, metrics=metrics)
        taken.append(SnapshotTaken(epoch=epoch, step=step, accuracy=now.accuracy, loss=now.loss))
        report(taken[-1])

    snapshot(0)
    for epoch, steps in enumerate(due, start=1):
        if on_epoch is not None:
            on_epoch(epoch - 1)

        def on_step(loss: float, n_images: int, epoch: int = epoch, steps: frozenset[int] = steps) -> None:
            nonlocal step
            step += 1
            since.append((loss, n_images))
            report(StepDone(phase="finetune", epoch=epoch, step=step, loss=loss))
            if step - (epoch - 1) * steps_per_epoch in steps:
                snapshot(epoch)

        train_one_epoch(model, train_loader, optimizer=optimizer, criterion=criterion, device=device, on_step=on_step)
        if scheduler is not None:
            scheduler.step()
    return tuple(taken)


def snapshot_steps(count: int, *, steps_per_epoch: int) -> frozenset[int]:
    """Say after which steps of an epoch its snapshots are taken.

    Parameters
    ----------
    count : int
        Snapshots in the epoch.
    steps_per_epoch : int
        Optimizer steps in the epoch.

    Returns
    -------
    frozenset of int
        `count` steps, from 1, evenly spaced; the last is `steps_per_epoch`.

    Raises
    ------
    ValueError
        `count` is not within 1 and `steps_per_epoch`.

    Examples
    --------
    >>> sorted(snapshot_steps(3, steps_per_epoch=10))
    [3, 7, 10]
    """
    if not 1 <= count <= steps_per_epoch:
        raise ValueError(
            f"snapshots_per_epoch is {count}: expected 1 to {steps_per_epoch}, the steps in an epoch; "
            "a smaller batch_size makes more steps"
        )
    return frozenset(round(part * steps_per_epoch / count) for part in range(1, count + 1))


def make_loader(
    dataset: Dataset[tuple[Tensor, int]], *, batch_size: int, shuffle: bool, random_state: int = 0, workers: int = 0
) -> Batches:
    """Load a data set in batches, in an order of its own random state.

    Parameters
    ----------
    dataset : Dataset
        Of (image, label) items.
    batch_size : int
        Images in a batch; the last may hold fewer.
    shuffle : bool
        Whether each epoch has a new order.
    random_state : int
        Of the orders, and of the worker processes.
    workers : int
        Processes that load images; 0 loads in this one.

    Returns
    -------
    DataLoader
        Iterating it leaves torch's global random state alone.

    Raises
    ------
    ValueError
        `batch_size` is below 1.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}: expected at least 1 image")
    assert isinstance(dataset, Sized)
    # A loader without a generator draws a number from the global random state each time it is iterated.
    generator = torch.Generator().manual_seed(random_state)
    return DataLoader(dataset, batch_size=batch_size, shuffle=shuffle, generator=generator, num_workers=workers)


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    # Module by module, for a user's own evaluation-mode BatchNorm would be lost by model.train().
    flags = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in flags:
            module.training = training


def _ignore(_: object) -> None:
    return None
