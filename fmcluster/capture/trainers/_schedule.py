"""Schedule of snapshots: when a trainer's adapter enters a recorder, which epochs it records, when it leaves."""

from collections.abc import Callable, Mapping
from numbers import Real

import torch

from .._recorder import Recorder


class Schedule:
    """A recorder that is entered when training starts, offered every epoch, and left when training ends.

    Parameters
    ----------
    recorder : Recorder
        Not entered yet.
    every : int
        Epochs from one snapshot to the next.
    then : callable, optional
        Called after each snapshot, and when a run is resumed.
    """

    def __init__(self, recorder: Recorder, *, every: int, then: Callable[[], object] | None = None) -> None:
        if isinstance(every, bool) or not isinstance(every, int) or every < 1:
            raise ValueError(f"every is {every!r}; expected a number of epochs from 1 on")
        self._recorder = recorder
        self._every = every
        self._then = then
        self._step = 0
        self._open = False

    def enter(self) -> None:
        """Enter the recorder, where that was not done yet."""
        if not self._open:
            self._recorder.__enter__()
            self._open = True
            self._step = self._recorder.step
            if self._recorder.last_epoch >= 0:
                self._call_then()

    def offer(self, epoch: int, *, metrics: Mapping[str, object], step: int | None = None) -> None:
        """Take a snapshot, where this epoch is to be recorded and was not yet.

        Parameters
        ----------
        epoch : int
            Epochs that are over, or begun and given up.
        metrics : mapping
            What was logged; all that is a number is kept beside the snapshot.
        step : int, optional
            Optimizer steps by the trainer's own count. Steps never fall: one that starts again from zero on a run that
            is ahead of it does not stop the training.
        """
        if self._open and epoch <= self._recorder.last_epoch:
            self._recorder.skip_epoch(epoch)
        if not self._open or epoch % self._every or epoch <= self._recorder.last_epoch:
            return
        if step is not None:
            step = self._step = max(step, self._step)
        self._recorder.snapshot(epoch=epoch, step=step, metrics=_numbers(metrics))
        self._call_then()

    def _call_then(self) -> None:
        if self._then is not None:
            self._then()

    def leave(self, error: BaseException | None = None) -> None:
        """Leave the recorder, where it is entered; `error` is what ended the training."""
        if self._open:
            self._open = False
            self._recorder.__exit__(type(error) if error else None, error, error.__traceback__ if error else None)


def _numbers(metrics: Mapping[str, object]) -> dict[str, float]:
    """Return what is a number, or a tensor of one."""
    items = {
        name: value.item() if isinstance(value, torch.Tensor) and value.numel() == 1 else value
        for name, value in metrics.items()
    }
    return {name: float(value) for name, value in items.items() if isinstance(value, Real)}
