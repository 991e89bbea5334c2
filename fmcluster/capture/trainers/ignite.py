"""Snapshot handler: snapshots from an Engine of PyTorch-Ignite.

>>> from fmcluster.capture.trainers.ignite import SnapshotHandler  # doctest: +SKIP
>>> recorder = fm.Recorder(model, "run.zarr", probe=probe_set)  # doctest: +SKIP
>>> SnapshotHandler(recorder).attach(trainer, {"val": evaluator})  # doctest: +SKIP
>>> trainer.run(train_loader, max_epochs=3)  # doctest: +SKIP
"""

from collections.abc import Callable, Mapping
from typing import Any

from .._compat import ignite_handlers
from .._recorder import Recorder
from ._schedule import Schedule

try:
    import ignite.distributed as idist
    from ignite.engine import Engine, Events
except ImportError as error:
    raise ImportError(f"Ignite cannot be imported ({error}): pip install 'fmcluster[ignite]'") from error


class SnapshotHandler:
    """Takes a snapshot before the first update and after every epoch, with the metrics of the trainer and evaluators.

    The recorder is entered when training starts and left when it ends, fails or is interrupted. Only the process of
    rank 0 records. An epoch's snapshot is taken when the next one begins, or training ends: the weights are the same,
    and the epoch has been evaluated. An epoch that is in the run already is not recorded again, and one that training
    ends in the middle of counts as an epoch.

    Parameters
    ----------
    recorder : Recorder
        A recorder of the model that is trained; not entered yet.
    every : int
        Record epochs 0, every, 2 x every, ...
    then : callable, optional
        Called after each snapshot, and when a run is resumed, such as ``FreezeSchedule(...).step``.

    Notes
    -----
    Ignite does not count optimizer steps: the recorder does, from the run's last snapshot on. An exception ends the
    recording, even where a handler of `Events.EXCEPTION_RAISED` forgives it and training continues.
    """

    def __init__(self, recorder: Recorder, *, every: int = 1, then: Callable[[], object] | None = None) -> None:
        self._schedule = Schedule(recorder, every=every, then=then)
        self._over: int | None = None
        self._evaluated: dict[str, Any] = {}

    def attach(self, trainer: Engine, evaluators: Mapping[str, Engine] | None = None) -> None:
        """Let a trainer take the snapshots.

        Parameters
        ----------
        trainer : Engine
            Its `state.metrics` are kept beside each snapshot, as far as they are numbers.
        evaluators : mapping of str to Engine, optional
            Engines that evaluate the model. Their metrics, where they ran since the last epoch's end, are kept as
            ``<key>_<metric>``.
        """
        trainer.add_event_handler(Events.STARTED, self._start)
        trainer.add_event_handler(Events.EPOCH_STARTED, self._offer)
        trainer.add_event_handler(Events.EPOCH_COMPLETED, self._note)
        trainer.add_event_handler(Events.TERMINATE | Events.COMPLETED, self._end)
        trainer.add_event_handler(Events.EXCEPTION_RAISED, self._fail)
        handlers = ignite_handlers(trainer, Events.EXCEPTION_RAISED)
        handlers.insert(0, handlers.pop())  # a handler that raises keeps those behind it from being called
        for name, evaluator in (evaluators or {}).items():
            evaluator.add_event_handler(Events.COMPLETED, self._keep, name)

    def _start(self, trainer: Engine) -> None:
        if idist.get_rank() == 0:
            self._schedule.enter()
        state = trainer.state
        begun = state.iteration % state.epoch_length if state.epoch_length else state.iteration
        self._over = None if begun else state.epoch  # resumed inside an epoch

    def _keep(self, evaluator: Engine, name: str) -> None:
        self._evaluated |= {f"{name}_{metric}": value for metric, value in evaluator.state.metrics.items()}

    def _note(self, trainer: Engine) -> None:
        self._over = trainer.state.epoch

    def _offer(self, trainer: Engine) -> None:
        if self._over is not None:
            self._schedule.offer(self._over, metrics=trainer.state.metrics | self._evaluated)
        self._over, self._evaluated = None, {}

    def _end(self, trainer: Engine) -> None:
        self._note(trainer)
        self._offer(trainer)
        self._schedule.leave()

    def _fail(self, trainer: Engine, error: BaseException) -> None:
        self._schedule.leave(error)
        if len(ignite_handlers(trainer, Events.EXCEPTION_RAISED)) == 1:  # Ignite raises only where nobody handles
            raise error
