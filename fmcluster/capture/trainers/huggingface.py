"""Snapshot callback: snapshots from the Trainer of Hugging Face's Transformers.

>>> from transformers import Trainer, TrainingArguments  # doctest: +SKIP
>>> from fmcluster.capture.trainers.huggingface import SnapshotCallback  # doctest: +SKIP
>>> snapshots = SnapshotCallback(fm.Recorder(model, "run.zarr", probe=probe_set))  # doctest: +SKIP
>>> trainer = Trainer(model, args, train_dataset=train_set, callbacks=[snapshots])  # doctest: +SKIP
>>> with snapshots:  # doctest: +SKIP
...     trainer.train()
"""

import math
from collections.abc import Callable
from types import TracebackType
from typing import Any

from .._recorder import Recorder
from ._schedule import Schedule

try:
    from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
except ImportError as error:
    raise ImportError(f"Transformers cannot be imported ({error}): pip install 'fmcluster[huggingface]'") from error

SPEED = ("_runtime", "_per_second")


class SnapshotCallback(TrainerCallback):
    """Takes a snapshot before the first update and after every epoch, with the metrics that were logged in it.

    Train inside ``with callback:``, since Transformers does not let callbacks know of an exception. The recorder is
    entered when training starts and left when it ends, fails or is interrupted. Only the process of rank 0 records.
    An epoch's snapshot is taken when the epoch has been evaluated, if it is. An epoch that is in the run already is
    not recorded again, and one that training ends in the middle of counts as an epoch.

    Parameters
    ----------
    recorder : Recorder
        A recorder of the model that the Trainer is given, or of a part of it; not entered yet.
    every : int
        Record epochs 0, every, 2 x every, ...
    then : callable, optional
        Called after each snapshot, and when a run is resumed, such as ``FreezeSchedule(...).step``.

    Notes
    -----
    Callbacks that ask for an evaluation at the end of an epoch go before this one in the Trainer's list.
    """

    def __init__(self, recorder: Recorder, *, every: int = 1, then: Callable[[], object] | None = None) -> None:
        self._schedule = Schedule(recorder, every=every, then=then)
        self._watching = False
        self._over: int | None = None
        self._logged: dict[str, Any] = {}

    def __enter__(self) -> "SnapshotCallback":
        self._watching = True
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._watching = False
        self._schedule.leave(error)

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Enter the recorder: the model is on its device, and a checkpoint is loaded."""
        if not self._watching:
            raise RuntimeError("train inside the callback's block, as in: with snapshots: trainer.train()")
        if state.is_world_process_zero:
            self._schedule.enter()
        epochs = state.epoch or 0.0
        self._over = int(epochs) if epochs == int(epochs) else None  # resumed inside an epoch
        self._logged = {}

    def on_epoch_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Offer the beginning as epoch 0, and an epoch that had been logged before its end."""
        self._offer(state)

    def on_epoch_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Offer the epoch, unless it will be summed up or evaluated first."""
        self._over = math.ceil(state.epoch or 0.0)
        if not (control.should_log or control.should_evaluate):
            self._offer(state)

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **event: Any) -> None:
        """Keep what is logged; offer an epoch that is over and will not be evaluated."""
        self._logged |= {key: event["logs"][key] for key in event["logs"] if key != "epoch" and not key.endswith(SPEED)}
        if not control.should_evaluate:
            self._offer(state)

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Offer an epoch that is over; the Trainer may load the best model next."""
        self._offer(state)

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Leave the recorder."""
        self._schedule.leave()

    def _offer(self, state: TrainerState) -> None:
        if self._over is not None:
            self._schedule.offer(self._over, step=state.global_step, metrics=self._logged)
            self._over, self._logged = None, {}
