"""Session: a run that is written in the background, and what went wrong with it."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from ...errors import CaptureError, StoreError, Unreachable
from ...store import LayerSpec, RankWriter, RunKind, RunWriter, WeightSpec, in_words, remedy
from ._check_resumable import check_resumable, check_same_weights
from ._pending import PendingSnapshot
from ._queue import WriteQueue
from ._rows import Rows

Index = npt.NDArray[np.int64]


class Session:
    """Writes snapshots of a run, one after the other, while the training continues.

    Parameters
    ----------
    writer : RunWriter
        The run.
    provenance : mapping
        What makes the snapshots.
    refuses_overflow : bool
        Whether a value that does not fit its dtype fails the snapshot.

    Attributes
    ----------
    committed : (int, int)
        Epoch and step of the last snapshot that is whole on the disk; (-1, -1) where there is none.
    """

    def __init__(self, writer: RunWriter, *, provenance: Mapping[str, Any], refuses_overflow: bool) -> None:
        self.writer = writer
        self.path = writer.name
        self.committed = (-1, -1)
        self.specs: list[LayerSpec] = []
        self._provenance = provenance
        self._refuses_overflow = refuses_overflow
        self._queue = WriteQueue()
        self._failure: Exception | None = None
        self._created = False
        self._missing: list[dict[str, Any]] = []  # what failed since the root was written last

    def create_or_resume(
        self,
        specs: Sequence[LayerSpec],
        *,
        kind: RunKind,
        n_samples: int,
        shard_samples: int,
        classes: Sequence[str],
        left_out: Mapping[str, str],
        varying: Sequence[str] = (),
        weights: Sequence[WeightSpec] = (),
        normalizations: Mapping[str, int] | None = None,
    ) -> None:
        """Create the run; or check that this is what it holds. `left_out` says what is not recorded, and why.

        `varying` names the layers that give other values for the same batch.

        Raises
        ------
        StoreError
            Where it holds other layers, samples, shards or weights.
        """
        if self.writer.is_new:
            self._created = True
            self.writer.create(
                specs,
                n_samples=n_samples,
                shard_samples=shard_samples,
                kind=kind,
                weights=weights,
                normalizations=normalizations,
            )
        else:
            check_resumable(self.path, specs=specs, kind=kind, n_samples=n_samples, shard_samples=shard_samples)
            check_same_weights(self.path, specs=weights, normalizations=normalizations or {})
            self.writer.tidy()
        if not self.writer.n_snapshots:
            self.writer.attributes["classes"] = list(classes)
        said = {"batch_size": shard_samples, "left_out": dict(left_out)} | (
            {"varying": list(varying)} if varying else {}
        )
        self.writer.describe_session({**self._provenance, **said})
        self.specs = list(specs)

    def join(self, specs: Sequence[LayerSpec], *, digest: str) -> None:
        """Take over the run that the first rank of the job has created, as `create_or_resume` does on that one."""
        assert isinstance(self.writer, RankWriter)
        self.writer.join(digest)
        self.specs = list(specs)

    def advance(self, snapshot: PendingSnapshot) -> None:
        """Note that the first rank of the job has committed a snapshot."""
        assert isinstance(self.writer, RankWriter)
        self.writer.advance({"epoch": snapshot.epoch, "step": snapshot.step})
        self.committed = (snapshot.epoch, snapshot.step)

    def put(self, snapshot: PendingSnapshot, work: Callable[[], None], *, what: str) -> None:
        """Queue something to write for a snapshot."""
        self._queue.put(partial(self._attempt, snapshot, what, work))

    def put_rows(self, rows: Rows) -> None:
        """Queue rows of a layer; their moments count from now on where they are known, and from the writing on else."""
        counted = rows.copy is None or rows.copy.has_arrived
        if counted:
            rows.add_moments()
        self._queue.put(partial(self._write_rows, rows, counted))

    def put_weight(
        self, snapshot: PendingSnapshot, work: Callable[[], None], *, name: str, release: Callable[[], None]
    ) -> None:
        """Queue a part of a parameter or buffer to be written, and its memory to be released, written or not."""
        self._queue.put(partial(self._write_weight, snapshot, work, name, release))

    def put_alone(self, snapshot: PendingSnapshot, work: Callable[[], None], *, what: str) -> None:
        """Queue something that runs after all that was queued before, and before all that comes."""
        self._queue.put(partial(self._attempt, snapshot, what, work), alone=True)

    def commit(
        self, snapshot: PendingSnapshot, index: Index, *, loss_scale: npt.NDArray[np.float64] | None = None
    ) -> None:
        """Queue the commit of a snapshot."""
        self._queue.put(partial(self._commit, snapshot, index, loss_scale), alone=True)

    def discard(self, snapshot: PendingSnapshot, error: BaseException | None = None) -> None:
        """Leave a snapshot out, and wait until it is gone; the run says that it is missing where the capture failed."""
        snapshot.failed = True
        if isinstance(error, CaptureError | StoreError):
            snapshot.reason = snapshot.reason or str(error)
        self._queue.put(partial(self._discard, snapshot), alone=True)
        self._queue.wait()

    def miss(self, missing: Iterable[dict[str, Any]]) -> None:
        """Let the run say, from its next commit on, which snapshots could not be recorded before it was there."""
        self._missing.extend({**each, "reason": each["reason"][:500]} for each in missing)

    def check_overflow(self, snapshot: PendingSnapshot) -> None:
        """Raise `CaptureError` where what has arrived of a snapshot does not fit its dtype."""
        if self._refuses_overflow:
            snapshot.check_overflow(self.specs)

    def wait(self) -> None:
        """Return when everything queued is done."""
        self._queue.wait()

    def take_failure(self) -> Exception | None:
        """Return what went wrong since this was last asked, once what is queued behind it is left out as well."""
        if self._failure is None:
            return None
        self._queue.wait()
        failure, self._failure = self._failure, None
        return failure

    def close(self, *, failed: bool = False) -> None:
        """Finish what is queued, and let go of the run.

        Where recording failed, a run that this session created goes if it says nothing: neither holds a snapshot, nor
        why one is missing.
        """
        self._queue.close()
        if failed and self._created and not (self.writer.n_snapshots or self._missing):
            with suppress(OSError, Unreachable):  # the disk may be what failed
                self.writer.storage.remove_run()
        # where laying out the run failed, nothing was said of it yet, and it is to stay unfinished
        laid_out = not isinstance(self.writer, RankWriter) and bool(self.writer.attributes.get("sessions"))
        if self._missing and laid_out:
            with suppress(OSError, StoreError):  # the disk may be what failed; every snapshot in the run is whole
                self._note_missing()
                self.writer.replace_root()
        self.writer.close()

    def _write_rows(self, rows: Rows, counted: bool) -> None:
        try:
            if not counted:
                self._attempt(rows.snapshot, rows.what, rows.add_moments)
            self._attempt(rows.snapshot, rows.what, rows.run)
        finally:
            self._release(rows.snapshot, rows.what, rows.release)

    def _write_weight(
        self, snapshot: PendingSnapshot, work: Callable[[], None], name: str, release: Callable[[], None]
    ) -> None:
        try:
            self._attempt(snapshot, f"the weight {name!r}", work)
        finally:
            self._release(snapshot, f"the weight {name!r}", release)

    def _release(self, snapshot: PendingSnapshot, what: str, release: Callable[[], None]) -> None:
        """Give memory back; a device may say only then that it has failed, and the writer's thread must go on."""
        try:
            release()
        except Exception as error:
            self._fail(snapshot, what, error)

    def _attempt(self, snapshot: PendingSnapshot, what: str, work: Callable[[], None]) -> None:
        if snapshot.failed or self._failure is not None:
            snapshot.failed = True
            return
        try:
            work()
        except Exception as error:
            self._fail(snapshot, what, error)

    def _commit(self, snapshot: PendingSnapshot, index: Index, loss_scale: npt.NDArray[np.float64] | None) -> None:
        if snapshot.failed or self._failure is not None:
            snapshot.reason = snapshot.reason or "it was not written, as one before it could not be"
            self._discard(snapshot)
            return
        try:
            self.check_overflow(snapshot)
            self._note_missing(there=snapshot)
            self.writer.commit(
                epoch=snapshot.epoch,
                step=snapshot.step,
                index=index,
                statistics=snapshot.statistics(self.specs),
                metrics=snapshot.metrics,
                clipped={} if self._refuses_overflow else snapshot.clipped(),
                loss_scale=loss_scale,
                beside={path: values for found in snapshot.beside for path, values in found().items()},
            )
        except Exception as error:
            self._fail(snapshot, "its commit", error)
            self._discard(snapshot)
        else:
            self.committed = (snapshot.epoch, snapshot.step)
            self._missing.clear()

    def _note_missing(self, *, there: PendingSnapshot | None = None) -> None:
        """Say in the run which snapshots could not be recorded, but for one that is there after all."""
        sessions = self.writer.attributes["sessions"]
        noted = [{key: each[key] for key in ("epoch", "step", "reason")} for each in self._missing]
        for session, more in zip(sessions, [[]] * (len(sessions) - 1) + [noted], strict=True):
            known = session.pop("missing", [])
            known += [each for each in more if each not in known]
            if there is not None:
                known = [each for each in known if not self._is_it(each, (there.epoch, there.step))]
            if known:
                session["missing"] = known

    def _is_it(self, missing: Mapping[str, Any], whole: tuple[int, int]) -> bool:
        """Whether a snapshot is the missing one: of a live run, whose steps are known at its end, that of its epoch."""
        is_it = self.writer.attributes.get("kind") == "live" or missing["step"] == whole[1]
        return bool(missing["epoch"] == whole[0] and is_it)

    def _discard(self, snapshot: PendingSnapshot) -> None:
        missing = {"epoch": snapshot.epoch, "step": snapshot.step, "reason": snapshot.reason[:500]}
        if snapshot.reason and not self._is_it(missing, self.committed):  # one that comes again is not
            self._missing.append(missing)
        try:
            self.writer.discard()
        except Exception as error:
            self._fail(snapshot, "or removing a part", error)

    def _fail(self, snapshot: PendingSnapshot, what: str, error: Exception) -> None:
        snapshot.failed = True
        if isinstance(error, CaptureError):  # it says for itself what was left out
            failure: Exception = error
        else:
            failure = StoreError(
                f"writing {what} of epoch {snapshot.epoch}, step {snapshot.step} to {self.path} failed: "
                f"{in_words(error)}. It was left out, and so was any snapshot since; "
                f"{self._what_is_left(error)}"
            )
            failure.__cause__ = error
        snapshot.reason = snapshot.reason or str(failure)
        self._failure = self._failure or failure

    def _what_is_left(self, error: Exception) -> str:
        if not isinstance(error, Unreachable) and not self.writer.storage.has("zarr.json"):
            return "and the run is gone: there is no zarr.json in its folder. Record into another path."
        left = "earlier ones are whole." if self.writer.n_snapshots else "there is none before it."
        return f'{left} {remedy(error)}mode="a" resumes the run.'
