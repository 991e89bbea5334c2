"""Fine-tuning: PyTorch's transfer-learning tutorial on a folder of images, with capture."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from torch import nn
from torch.optim import SGD
from torch.optim.lr_scheduler import StepLR

from ..capture import Recorder
from ..decide import Plan
from ._devices import choose_device, seeded
from ._events import FilesSkipped, Progress, SnapshotTaken
from ._images import load_image_folder
from ._models import freeze_backbone, load_resnet
from ._training import make_loader, snapshot_steps, train_with_snapshots


@dataclass(frozen=True)
class FinetuneResult:
    """A fine-tuned model and the run that recorded it.

    Attributes
    ----------
    run : Path
        The run; open it with `fmcluster.open_run`.
    model : nn.Module
        After the last epoch, on the training device.
    classes : tuple of str
        The names of its outputs.
    snapshots : tuple of SnapshotTaken
        Epoch, step, validation accuracy and loss of each snapshot.
    """

    run: Path
    model: nn.Module
    classes: tuple[str, ...]
    snapshots: tuple[SnapshotTaken, ...]


def finetune(
    data: str | Path,
    *,
    output: str | Path,
    model: str = "resnet18",
    weights: str = "DEFAULT",
    epochs: int = 5,
    freeze: bool = False,
    snapshots_per_epoch: int = 1,
    layers: str | Sequence[str] = "children",
    max_size: int | None = None,
    max_bytes: int | None = None,
    batch_size: int = 4,
    probe_size: int | None = None,
    random_state: int = 0,
    device: str | None = None,
    mode: Literal["x", "w"] = "x",
    workers: int = 0,
    skip_broken: bool = False,
    with_weights: bool = False,
    plan: str | Path | None = None,
    progress: Progress | None = None,
) -> FinetuneResult:
    """Fine-tune a ResNet as the tutorial does, and record its feature maps on validation images.

    SGD (learning rate 0.001, momentum 0.9), a tenth of the rate after every seventh epoch, cross-entropy.

    Parameters
    ----------
    data : str or Path
        A folder with ``train/<class>/`` and ``val/<class>/``.
    output : str or Path
        Where the run is written.
    model, weights : str
        As in `load_resnet`.
    epochs : int
        How often the training images are gone through; with 0, the network is recorded as it is.
    freeze : bool
        Train the head only.
    snapshots_per_epoch : int
        Evenly spaced in optimizer steps, the last at the epoch's end; one more before the first update.
        They do not change what is learned.
    layers, max_size, max_bytes
        As in `fmcluster.Recorder`; `max_bytes` is for all snapshots.
    batch_size : int
        Training images in a batch.
    probe_size : int, optional
        How many validation images to record, evenly over the classes; all by default.
    random_state : int
        Of the fresh weights, the order and the crops of the images; the probe is the same for all.
    device : str, optional
        CUDA where there is one, else the CPU.
    mode : str
        ``"x"``: the run must not exist; ``"w"``: it is replaced.
    workers : int
        Processes that load images; 0 loads in this one.
    skip_broken : bool
        Leave out files that cannot be read as images; how many is noted in the run.
    with_weights : bool
        Record the network's weights at each snapshot, too.
    plan : str or Path, optional
        A file that `Plan.to_yaml` wrote: the network is built so before it is trained, its new weights fitted on the
        probe, and layers are frozen when the plan says so.
    progress : callable, optional
        Receives `PhaseStarted`, `StepDone`, `SnapshotTaken` and `FilesSkipped`.

    Returns
    -------
    FinetuneResult
        On a CPU the same arguments, software and thread count give the same weights, bit for bit.

    Raises
    ------
    FileNotFoundError, ValueError, ConnectionError
        As `load_image_folder` and `load_resnet`; ValueError also for counts out of range and unknown devices.

    References
    ----------
    .. [1] S. Chilamkurthy. Transfer Learning for Computer Vision Tutorial.
       https://docs.pytorch.org/tutorials/beginner/transfer_learning_tutorial.html
    """
    if epochs < 0:
        raise ValueError(f"epochs is {epochs}: expected at least 1, or 0 to record the network as it is")
    if mode not in ("x", "w"):
        raise ValueError(f"mode is {mode!r}: expected x (a new run) or w (replace it); training starts from epoch 0")
    chosen = choose_device(device)
    followed = None if plan is None else Plan.from_yaml(plan)
    # the probe is the same whatever the seed, so that runs of several seeds can be compared image by image
    images = load_image_folder(data, probe_size=probe_size, skip_broken=skip_broken)
    if images.skipped and progress is not None:
        progress(FilesSkipped(images.skipped))
    train_loader = make_loader(
        images.train, batch_size=batch_size, shuffle=True, random_state=random_state, workers=workers
    )
    val_loader = make_loader(images.val, batch_size=32, shuffle=False, workers=workers)
    snapshot_steps(snapshots_per_epoch, steps_per_epoch=len(train_loader))
    # The crops draw from torch's global random state, so all of the training needs the seeded one.
    with seeded(random_state, device=chosen):
        network = load_resnet(model, weights=weights, n_classes=len(images.classes)).to(chosen)
        if followed is not None:
            network = followed.apply(network.eval(), probe=images.probe).train()
        if freeze:
            freeze_backbone(network)
        trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
        optimizer = SGD(trained, lr=0.001, momentum=0.9)
        notes = {
            "recipe": "tutorial",
            "model": model,
            "weights": weights,
            "epochs": epochs,
            "freeze": freeze,
            "batch_size": batch_size,
            "random_state": random_state,
        }
        if followed is not None:
            notes["plan"] = [str(action) for action in followed.actions]
        n_training = sum(1 for _ in train_loader.sampler)
        notes["start"] = _start(weights) + (", its backbone frozen" if freeze else "")
        notes["data"] = f"{n_training} images of {_classes_in_words(images.classes)} ({Path(data).name})"
        if skip_broken:
            notes["files skipped"] = len(images.skipped)
        recorder = Recorder(
            network,
            output,
            layers=layers,
            probe=images.probe,
            record=("activation", "weight") if with_weights else ("activation",),
            max_size=max_size,
            max_bytes=max_bytes,
            mode=mode,
            notes=notes,
        )
        if max_bytes is not None:  # refuse before the training, rather than in its middle
            recorder.estimate(n_snapshots=1 + epochs * snapshots_per_epoch, max_bytes=max_bytes)
        with recorder:
            snapshots = train_with_snapshots(
                network,
                recorder,
                train_loader=train_loader,
                val_loader=val_loader,
                optimizer=optimizer,
                scheduler=StepLR(optimizer, step_size=7, gamma=0.1),
                snapshots_per_epoch=[snapshots_per_epoch] * epochs,
                device=chosen,
                progress=progress,
                on_epoch=None if followed is None else lambda epoch: _freeze(followed, network, epoch),
            )
    return FinetuneResult(run=Path(output), model=network, classes=images.classes, snapshots=snapshots)


def _freeze(plan: Plan, network: nn.Module, epoch: int) -> None:
    """Freeze what a plan says is to be frozen after so many epochs; from the start on, it is already."""
    if epoch:
        plan.freeze(network, epoch=epoch)


def _start(weights: str) -> str:
    """Say in words what the network started from."""
    if weights == "none":
        return "from random weights"
    return "pretrained on ImageNet" if weights == "DEFAULT" else f"from the weights in {Path(weights).name}"


def _classes_in_words(classes: Sequence[str]) -> str:
    """Say which classes there are, where these are a few words, or else how many.

    Examples
    --------
    >>> _classes_in_words(["ants", "bees"]), _classes_in_words(["ants"] * 9), _classes_in_words(["n01", "n02"])
    ('ants and bees', '9 classes', '2 classes')
    """
    words = [name.replace("_", " ") for name in classes]
    if 2 <= len(words) <= 4 and all(word.replace(" ", "").isalpha() and len(word) <= 20 for word in words):
        return f"{', '.join(words[:-1])} and {words[-1]}"
    return f"{len(classes)} class{'es' if len(classes) != 1 else ''}"
