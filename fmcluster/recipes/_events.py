"""Events: what a recipe reports to its caller while it runs; the recipe itself prints nothing."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class PhaseStarted:
    """A stretch of training begins.

    Attributes
    ----------
    phase : str
        Its name: ``"pretrain"`` or ``"finetune"``.
    epochs : int
        How many epochs it will train.
    steps : int
        How many optimizer steps that makes.
    """

    phase: str
    epochs: int
    steps: int


@dataclass(frozen=True)
class StepDone:
    """One optimizer step was taken.

    Attributes
    ----------
    phase : str
        The phase it belongs to.
    epoch : int
        The running epoch, from 1.
    step : int
        Optimizer steps so far in this phase, this one included.
    loss : float
        Mean cross-entropy (nats) of the batch, before the step.
    """

    phase: str
    epoch: int
    step: int
    loss: float


@dataclass(frozen=True)
class SnapshotTaken:
    """The recorder was given one snapshot.

    Attributes
    ----------
    epoch : int
        0 before the first update; ``e`` during and at the end of epoch ``e``.
    step : int
        Optimizer steps so far.
    accuracy : float
        Share of the validation images classified correctly, 0 to 1.
    loss : float
        Mean cross-entropy (nats) over the validation images.
    """

    epoch: int
    step: int
    accuracy: float
    loss: float


@dataclass(frozen=True)
class FilesSkipped:
    """Files were left out that cannot be read as images.

    Attributes
    ----------
    paths : tuple of str
        Where they are.
    """

    paths: tuple[str, ...]


Event = PhaseStarted | StepDone | SnapshotTaken | FilesSkipped
Progress = Callable[[Event], None]
