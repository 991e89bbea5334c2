"""Snapshot callback: snapshots from Lightning's Trainer.

>>> import lightning as L  # doctest: +SKIP
>>> from fmcluster.capture.trainers.lightning import SnapshotCallback  # doctest: +SKIP
>>> recorder = fm.Recorder(module.network, "run.zarr", probe=probe_set)  # doctest: +SKIP
>>> trainer = L.Trainer(max_epochs=3, callbacks=[SnapshotCallback(recorder)])  # doctest: +SKIP
>>> trainer.fit(module, train_loader, val_loader)  # doctest: +SKIP
"""

from collections.abc import Callable
from typing import Any

from torch.optim import Optimizer

from .._recorder import Recorder
from ._schedule import Schedule

try:
    from lightning.pytorch import Callback, LightningModule, Trainer
except ImportError as error:
    raise ImportError(f"Lightning cannot be imported ({error}): pip install 'fmcluster[lightning]'") from error


class SnapshotCallback(Callback):
    """Takes a snapshot before the first update and after every epoch, with the metrics that were logged in it.

    The recorder is entered when training starts and left when it ends, fails or is interrupted. Only the process of
    rank 0 records. An epoch's snapshot is taken when the next one begins, or training ends: the weights are the same,
    and all that was logged is known. An epoch that is in the run already is not recorded again, and one that training
    ends in the middle of counts as an epoch.

    Parameters
    ----------
    recorder : Recorder
        A recorder of the module, or of a network in it; not entered yet.
    every : int
        Record epochs 0, every, 2 x every, ...
    then : callable, optional
        Called after each snapshot, and when a run is resumed, such as ``FreezeSchedule(...).step``.

    Notes
    -----
    Kept beside a snapshot are `trainer.callback_metrics`, as far as they were logged since the last epoch's end, and
    ``learning_rate``, that of the last update. Callbacks that change weights at the end of training, such as
    StochasticWeightAveraging, go after this one in the trainer's list.
    """

    def __init__(self, recorder: Recorder, *, every: int = 1, then: Callable[[], object] | None = None) -> None:
        self._schedule = Schedule(recorder, every=every, then=then)
        self._rate: dict[str, Any] = {}
        self._logged: dict[str, Any] = {}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Enter the recorder: the module is on its device, and a checkpoint is loaded."""
        if trainer.is_global_zero:
            self._schedule.enter()

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Offer the epoch that is over; 0 at first. Not called for one that is resumed in its middle."""
        self._offer(trainer)

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        """Note the learning rate before a scheduler changes it."""
        self._rate = {"learning_rate": optimizer.param_groups[0]["lr"]}

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Offer the last epoch, and leave the recorder."""
        self._offer(trainer)
        self._schedule.leave()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Leave the recorder; what was recorded stays."""
        self._schedule.leave(exception)

    def _offer(self, trainer: Trainer) -> None:
        logged = dict(trainer.callback_metrics)
        new = {name: value for name, value in logged.items() if value is not self._logged.get(name)}
        self._logged = logged
        self._schedule.offer(trainer.current_epoch, step=trainer.global_step, metrics=self._rate | new)
