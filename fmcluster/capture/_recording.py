"""Recording: what both recorders share, from opening the run to failures that are noticed late."""

import json
import os
import warnings
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Any, Self

import torch
from torch import nn

from ..errors import NotBegun, StoreError, Unreachable
from ..store import LayerSpec, RunWriter, in_words, open_run, remedy, run_location
from ._provenance import provenance
from .estimating import check_size
from .forward import Firing, device_of, plain_model
from .layers import PlannedLayer
from .options import RecorderOptions, is_optional, select_modules
from .passes import SnapshotContext, StepCounter
from .transfer import Copier
from .weights import ModelWeights
from .writing import PendingSnapshot, Session, ShardBuffer, check_order, last_snapshot, reason_of


class Recording(ABC):
    """A run that is being recorded: opened on entry, written in the background, and complete on leaving.

    Parameters
    ----------
    model : Module
        The model.
    path : path-like
        The run's folder.
    n_samples : int
        Slots of a snapshot.
    options : RecorderOptions
        What both recorders take.
    """

    def __init__(
        self, model: nn.Module, path: str | os.PathLike[str], *, n_samples: int, options: RecorderOptions
    ) -> None:
        self._model = plain_model(model)
        self._modules = select_modules(self._model, options.layers)
        self._optional = is_optional(self._model, options.layers)  # what never fires is left out, not an error
        self._keep = options.keep
        self._weights = ModelWeights()
        self._layers: dict[Firing, PlannedLayer] = {}
        self._path = run_location(path)
        self._options = options
        self._notes = _as_notes(options.notes or {})
        self._n_samples = n_samples
        self._n_snapshots = 0
        self._steps = StepCounter(self._model)
        self._last = (-1, -1)
        self._entered = False
        self._open = False
        self._idle = False  # another process of the job records
        self._begun = False  # the run is there, and its writer
        self._not_recorded: list[dict[str, Any]] = []  # what is missing of a run that is not there yet
        self._warns = options.on_error == "warn"
        self._warned_after: tuple[int, int] | None = None
        self._resumed_after: tuple[int, int] | None = None
        self._unforeseen: tuple[int, int] | None = None  # the last snapshot of a run that nobody could read on entry

    def __enter__(self) -> Self:
        if self._entered:
            name = type(self).__name__
            raise RuntimeError(f"this {name} was entered before; make a new one (mode='a' resumes its run)")
        self._entered = True
        if self._leaves_it_to_another():
            self._idle = self._open = True
            return self
        if self._keep.weight:
            self._weights = ModelWeights(self._model)
        self._prepare()
        self._copier = Copier(
            max_bytes=self._options.max_pending_bytes,
            clips=self._keep.overflow == "clip",
            threads=max(1, torch.get_num_threads()),
        )
        try:
            self._open_run()
        except BaseException as error:
            if not (self._warns and isinstance(error, NotBegun)):
                self._copier.close()
                raise
            self._go_on_after(self._recorded_before())
            self._warn(error)
        self._steps.start()
        self._open = True
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open = False
        if self._idle:
            return
        self._steps.stop()
        if self._begun:
            self._session.close(failed=error is not None)
        self._copier.close()
        failure = self._take_failure()
        if failure is not None:
            if self._warns:
                self._warn(failure)
            elif error is None:
                raise failure
            elif error is not failure:
                error.add_note(f"The run was not recorded to its end either: {failure}")

    @property
    def model(self) -> nn.Module:
        """The model, without wrappers."""
        return self._model

    @property
    def path(self) -> str:
        """The run's folder."""
        return self._path

    @property
    def peak_pending_bytes(self) -> int:
        """The most that has been waiting to be written so far, in bytes."""
        return self._copier.peak_bytes

    @property
    def step(self) -> int:
        """Optimizer steps that the model has taken since the run began; counted by the recorder itself."""
        self._check_known("step")
        return self._steps.count

    @property
    def last(self) -> tuple[int, int]:
        """Epoch and step of the last snapshot taken, also of the run that is resumed; (-1, -1) where there is none."""
        self._check_known("last")
        return self._last

    @property
    def last_epoch(self) -> int:
        """Epoch of the last snapshot taken, also of the run that is resumed; -1 where there is none."""
        return self.last[0]

    def flush(self) -> None:
        """Wait until every snapshot taken so far is on the disk.

        Raises
        ------
        CaptureError, StoreError
            Where one of them was left out.
        """
        self._check_open()
        if self._idle or not self._begun:
            return
        self._session.wait()
        self._raise_failure()

    def skip_epoch(self, epoch: int) -> None:
        """Note that an epoch was trained which the resumed run holds already, so that its steps do not count twice."""
        if self._resumed_after is not None and epoch == self._resumed_after[0]:
            self._steps.count = self._resumed_after[1]

    @abstractmethod
    def _prepare(self) -> None:
        """Check what can be checked before an existing run is touched."""

    @abstractmethod
    def _begin(self) -> None:
        """Create the run, or check that it can be resumed; the session and the copier are there."""

    @abstractmethod
    def _after_failure(self) -> None:
        """Store again what was lost with the snapshot that failed."""

    def _open_run(self) -> None:
        """Open the run, and create it where the layers are known."""
        writer = self._open_writer()
        try:
            last, self._n_snapshots = self._recorded_so_far(writer)
            self._session = Session(
                writer, provenance=self._provenance(), refuses_overflow=self._keep.overflow == "error"
            )
        except BaseException:
            writer.close()
            raise
        self._session.committed = last
        try:
            self._begin()
        except BaseException as error:
            self._session.close(failed=True)
            if isinstance(error, OSError | Unreachable):
                raise self._not_created(error) from error
            raise
        self._begun = True
        self._go_on_after(last)

    def _go_on_after(self, last: tuple[int, int]) -> None:
        """Count epochs and steps from the run's last snapshot on."""
        self._steps.count += max(0, last[1]) - max(0, self._last[1])
        self._last = last
        self._resumed_after = last if last[0] > 0 else None

    def _recorded_before(self) -> tuple[int, int]:
        """Return epoch and step of the last snapshot of a run that can be read, but not written now."""
        if self._options.mode == "a" and self._alone:
            with suppress(StoreError, OSError):
                return last_snapshot(open_run(self._path))
        return -1, -1

    @property
    def _alone(self) -> bool:
        """Whether no other process of the job has to know the same of the run."""
        return True

    def _takes(self, epoch: int, step: int | None) -> bool:
        """Whether an epoch is recorded: its run is there, or can be laid out now, and does not hold it already."""
        return (self._begun or self._begin_late(epoch, step)) and not self._comes_before_unforeseen(epoch, step)

    def _begin_late(self, epoch: int, step: int | None) -> bool:
        """Try again to lay out a run whose disk took none so far; return whether it is there now."""
        count = self._steps.count if step is None else step
        check_order(epoch, count, last=self._last)
        before = self._last
        try:
            self._open_run()
        except Exception as error:
            self._steps.count = int(count)
            self._not_recorded.append({"epoch": int(epoch), "step": int(count), "reason": reason_of(error)})
            self._warn(error, epoch=epoch)
            return False
        self._session.miss(each for each in self._not_recorded if each["epoch"] > self._last[0])
        self._unforeseen = self._last if self._last != before else None
        return True

    def _comes_before_unforeseen(self, epoch: int, step: int | None) -> bool:
        """Whether a run that could not be read on entry holds an epoch already, or later steps, of which it is warned.

        The training could not know of it then, and goes on.
        """
        if self._unforeseen is None:
            return False
        count = self._steps.count if step is None else step
        check_order(epoch, count, last=(-1, -1))
        if epoch <= self._unforeseen[0]:
            return True
        try:
            check_order(epoch, count, last=self._last)
        except ValueError as error:
            self._session.miss([{"epoch": int(epoch), "step": int(count), "reason": reason_of(error)}])
            self._warn(error, epoch=epoch)
            return True
        self._unforeseen = None
        return False

    def _leaves_it_to_another(self) -> bool:
        """Whether another process of the job records, and this one does nothing."""
        return False

    def _check_known(self, what: str) -> None:
        """Raise `RuntimeError` on a rank that does not record, rather than let ranks go apart."""
        if self._idle:
            raise RuntimeError(
                f"{what} is known to rank 0 alone, which records; let it tell the others, such as with "
                f"torch.distributed.broadcast_object_list"
            )

    def _check_size(self, specs: Sequence[LayerSpec], *, n_snapshots: int) -> None:
        if self._options.max_bytes is not None:
            check_size(
                specs,
                max_bytes=self._options.max_bytes,
                n_samples=self._n_samples,
                n_snapshots=n_snapshots,
                weight_bytes=self._weights.nbytes,
            )

    def _make_context(self, snapshot: PendingSnapshot, *, shard_samples: int, first: int = 0) -> SnapshotContext:
        return SnapshotContext(
            layers=self._layers,
            copier=self._copier,
            session=self._session,
            snapshot=snapshot,
            buffer=ShardBuffer(
                self._session.writer.write,
                specs={layer.spec.name: layer.spec for layer in self._layers.values()},
                n_samples=self._n_samples,
                shard_samples=shard_samples,
            ),
            first=first,
        )

    def _check_open(self) -> None:
        if not self._open:
            name = type(self).__name__
            raise RuntimeError(f"the {name} is not open; use it as: with {name}(...) as recorder: ...")

    def _take_failure(self) -> Exception | None:
        """Return what went wrong in the background since this was last asked."""
        failure = self._session.take_failure() if self._begun else None
        if failure is not None:
            self._last = self._session.committed
            self._n_snapshots = self._session.writer.n_snapshots
            self._after_failure()
        return failure

    def _raise_failure(self) -> None:
        """Raise what went wrong in the background, or warn of it, as the caller has asked for."""
        failure = self._take_failure()
        if failure is not None:
            if not self._warns:
                raise failure
            self._warn(failure)

    def _leave_out(self, snapshot: PendingSnapshot, error: BaseException) -> bool:
        """Leave a snapshot out; return whether training goes on, warned."""
        if not (self._warns and isinstance(error, Exception)):
            self._session.discard(snapshot, error)
            return False
        snapshot.fail(error)
        self._session.discard(snapshot)
        self._warn(error, epoch=snapshot.epoch)
        return True

    def _warn(self, error: Exception, *, epoch: int | None = None) -> None:
        """Warn that the capture failed; of failures with no whole snapshot between them, the first is told of."""
        if self._warned_after != self._last:
            self._warned_after = self._last
            reason = reason_of(error)
            if epoch is not None and f"epoch {epoch}" not in reason:
                reason = f"epoch {epoch}: {reason}"
            warnings.warn(
                f"{reason.rstrip('. ')}. Training goes on, as on_error='warn' asks for; what is missing is listed by "
                f"`fmcluster info`.",
                stacklevel=4,
            )

    def _check_steps(self, epoch: int) -> None:
        """Warn, once after resuming, where so many steps were counted that recorded epochs may have been retrained."""
        if self._resumed_after is None:
            return
        (last_epoch, last_step), self._resumed_after = self._resumed_after, None
        counted = self._steps.count - last_step
        expected = round((epoch - last_epoch) * last_step / last_epoch)
        if counted > 1.5 * expected > 0:
            warnings.warn(
                f"{counted} optimizer steps were counted since the run was resumed after epoch {last_epoch}, where its "
                f"epochs so far let expect {expected} until epoch {epoch}. If recorded epochs were trained again, say "
                f"which step it is, such as step={last_step + expected}, so that these steps do not count twice.",
                stacklevel=4,
            )

    def _recorded_so_far(self, writer: RunWriter) -> tuple[tuple[int, int], int]:
        """Return epoch and step of the last snapshot of the run, and how many there are."""
        return (-1, -1) if writer.is_new else last_snapshot(open_run(self._path)), writer.n_snapshots

    def _open_writer(self) -> RunWriter:
        try:
            return RunWriter(self._path, mode=self._options.mode)
        except (OSError, Unreachable) as error:
            if isinstance(error, FileExistsError) and error.errno is None:  # of our own, which says what to do
                raise
            raise self._not_created(error) from error

    def _not_created(self, error: OSError | Unreachable) -> NotBegun:
        later = "Every snapshot tries again." if self._warns else f"{remedy(error)}record again."
        failed = "" if isinstance(error, Unreachable) else f"writing to {self._path} failed: "
        return NotBegun(f"{failed}{in_words(error)}. Nothing was recorded. {later}")

    def _provenance(self) -> dict[str, Any]:
        made = provenance(self._model, device=device_of(self._model))
        return {**made, **self._keep.as_json(), "notes": self._notes}


def _as_notes(notes: Mapping[str, Any]) -> dict[str, Any]:
    """Return notes as JSON holds them; raise `ValueError` or `TypeError` for what it cannot."""
    try:
        return dict(json.loads(json.dumps(dict(notes), allow_nan=False)))
    except ValueError as error:
        raise ValueError(
            f"notes holds what JSON cannot ({error}); expected finite numbers, text, lists and dicts"
        ) from None
