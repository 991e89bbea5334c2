"""Demo: fine-tuning offline, of a ResNet-18 that knows the digits 0 to 4 and learns 5 to 9."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from torch.optim import SGD

from ..capture import Recorder
from ._devices import choose_device, seeded
from ._digits import NEW_DIGITS, OLD_DIGITS, DigitImages, load_digit_splits
from ._events import PhaseStarted, Progress, SnapshotTaken, StepDone
from ._models import load_resnet, save_weights
from ._training import make_loader, train_one_epoch, train_with_snapshots

PRETRAINING_EPOCHS = 2
SNAPSHOTS_PER_EPOCH = (3, 1, 1, 1, 1, 1)
BATCH_SIZE = 32
LEARNING_RATE = 0.01


@dataclass(frozen=True)
class DemoResult:
    """What the demo wrote and what the network learned.

    Attributes
    ----------
    run : Path
        The run; open it with `fmcluster.open_run`.
    model_first, model_last : Path
        State dicts at the first and the last snapshot, to check the stored feature maps against.
    snapshots : tuple of SnapshotTaken
        Epoch, step, validation accuracy and loss of each snapshot.
    accuracies : tuple of float
        The accuracies alone.
    """

    run: Path
    model_first: Path
    model_last: Path
    snapshots: tuple[SnapshotTaken, ...]

    @property
    def accuracies(self) -> tuple[float, ...]:
        """Share of the validation images classified correctly at each snapshot, 0 to 1."""
        return tuple(snapshot.accuracy for snapshot in self.snapshots)


def run_demo(
    output: str | Path, *, random_state: int = 0, progress: Progress | None = None, device: str = "cpu"
) -> DemoResult:
    """Pretrain on the digits 0 to 4, fine-tune on 400 images of 5 to 9, and record 100 validation images.

    Parameters
    ----------
    output : str or Path
        A folder, made where there is none. ``run.zarr``, ``model-first.pt`` and ``model-last.pt`` in it are
        replaced.
    random_state : int
        Of the weights and of the order of the images. The images of each split are always the same.
    progress : callable, optional
        Receives `PhaseStarted`, `StepDone` and `SnapshotTaken`.
    device : str
        Where to train.

    Returns
    -------
    DemoResult
        On a CPU the same random_state, software and thread count give the same weights, bit for bit. torch's global
        random state is left as it was.

    Raises
    ------
    ValueError
        Unknown device.
    """
    chosen = choose_device(device)
    folder = Path(output)
    folder.mkdir(parents=True, exist_ok=True)
    first, last, run = folder / "model-first.pt", folder / "model-last.pt", folder / "run.zarr"
    splits = load_digit_splits()
    model = pretrain(
        splits.pretraining, epochs=PRETRAINING_EPOCHS, random_state=random_state, device=chosen, progress=progress
    )
    replace_head(model, n_classes=len(NEW_DIGITS), random_state=random_state, device=chosen)
    save_weights(model, first)
    notes = {
        "recipe": "demo",
        "random_state": random_state,
        "model": "ResNet-18",
        "start": f"pretrained on the digits {OLD_DIGITS[0]} to {OLD_DIGITS[-1]}",
        "data": f"{len(splits.training)} scans of the digits {NEW_DIGITS[0]} to {NEW_DIGITS[-1]}",
    }
    with Recorder(model, run, layers="children", probe=splits.probe, mode="w", notes=notes) as recorder:
        snapshots = train_with_snapshots(
            model,
            recorder,
            train_loader=make_loader(splits.training, batch_size=BATCH_SIZE, shuffle=True, random_state=random_state),
            val_loader=make_loader(splits.validation, batch_size=100, shuffle=False),
            optimizer=SGD(model.parameters(), lr=LEARNING_RATE, momentum=0.9),
            scheduler=None,
            snapshots_per_epoch=SNAPSHOTS_PER_EPOCH,
            device=chosen,
            progress=progress,
        )
    save_weights(model, last)
    return DemoResult(run=run, model_first=first, model_last=last, snapshots=snapshots)


def pretrain(
    images: DigitImages,
    *,
    epochs: int,
    random_state: int,
    device: torch.device,
    progress: Progress | None = None,
) -> nn.Module:
    """Train a ResNet-18 from random weights.

    Parameters
    ----------
    images : DigitImages
        The training images.
    epochs : int
        How often the images are gone through.
    random_state : int
        Of the weights and of the order of the images.
    device : torch.device
        Where to train.
    progress : callable, optional
        Receives `PhaseStarted` and `StepDone`.

    Returns
    -------
    nn.Module
        On `device`.
    """
    with seeded(random_state, device=device):
        model = load_resnet("resnet18", weights="none", n_classes=len(images.classes)).to(device)
    loader = make_loader(images, batch_size=BATCH_SIZE, shuffle=True, random_state=random_state)
    optimizer = SGD(model.parameters(), lr=LEARNING_RATE, momentum=0.9)
    if progress is not None:
        progress(PhaseStarted(phase="pretrain", epochs=epochs, steps=epochs * len(loader)))
    step = 0
    for epoch in range(1, epochs + 1):

        def on_step(loss: float, _: int, epoch: int = epoch) -> None:
            nonlocal step
            step += 1
            if progress is not None:
                progress(StepDone(phase="pretrain", epoch=epoch, step=step, loss=loss))

        train_one_epoch(
            model,
            loader,
            optimizer=optimizer,
            criterion=nn.CrossEntropyLoss(),
            device=device,
            on_step=on_step,
        )
    return model


def replace_head(model: nn.Module, *, n_classes: int, random_state: int, device: torch.device) -> None:
    """Give the model a fresh head ``fc``, in place, that starts at chance.

    Parameters
    ----------
    model : nn.Module
        A torchvision ResNet on `device`.
    n_classes : int
        Outputs of the head.
    random_state : int
        Of its weights.
    device : torch.device
        Where the model is.
    """
    old = model.fc
    assert isinstance(old, nn.Linear)
    with seeded(random_state, device=device):
        head = nn.Linear(old.in_features, n_classes)
        # A random head of the usual size sorts the pretrained features, and by luck may sort them well. With
        # weights this small the bias decides: every image gets the same class, which is chance whatever the
        # seed. Zeros would do that too, but leave an output that is constant over the images.
        nn.init.normal_(head.weight, std=1e-4)
    model.fc = head.to(device)
