"""A run that is written in the background, and what went wrong with it."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from ...errors import CaptureError, StoreError
from ...store import LayerSpec, Quantity, RunKind, RunWriter
from ..transfer import Copy
from ._pending import Taken
from ._queue import WriteQueue
from ._resume import check_resumable

Deliver = Callable[[npt.NDArray[Any]], None]
Index = npt.NDArray[np.int64]


class Session:
    """Writes snapshots of a run, one after the other, while the model goes on.

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
        self.path = str(writer.path)
        self.committed = (-1, -1)
        self.specs: list[LayerSpec] = []
        self._provenance = provenance
        self._refuses_overflow = refuses_overflow
        self._dtypes: dict[tuple[str, Quantity], str] = {}
        self._queue = WriteQueue()
        self._failure: Exception | None = None

    def lay_out(
        self, specs: Sequence[LayerSpec], *, kind: RunKind, n_samples: int, shard_samples: int, classes: Sequence[str]
    ) -> None:
        """Create the run; or check that this is what it holds.

        Raises
        ------
        StoreError
            Where it holds other layers, samples or shards.
        """
        if self.writer.is_new:
            self.writer.create(specs, n_samples=n_samples, shard_samples=shard_samples, kind=kind)
        else:
            check_resumable(self.path, specs=specs, kind=kind, n_samples=n_samples, shard_samples=shard_samples)
        if not self.writer.n_snapshots:
            self.writer.attributes["classes"] = list(classes)
        self.writer.describe_session({**self._provenance, "batch_size": shard_samples})
        self.specs = list(specs)
        self._dtypes = {(spec.name, "activation"): spec.dtype for spec in specs}
        self._dtypes |= {(spec.name, "gradient"): "float32" for spec in specs if spec.gradient}

    def put(self, taken: Taken, work: Callable[[], None], *, what: str) -> None:
        """Queue something to write for a snapshot."""
        self._queue.put(partial(self._attempt, taken, what, work))

    def put_copy(
        self, taken: Taken, copy: Copy, *, layer: str, quantity: Quantity, slot: int, deliver: Deliver
    ) -> None:
        """Queue a copy of an output, of the samples from a slot on."""
        if copy.has_arrived:
            taken.add(layer, quantity, slot=slot, moments=copy.result()[1])

        def work() -> None:
            values, moments = copy.result()
            taken.add(layer, quantity, slot=slot, moments=moments)
            deliver(values)

        def attempt() -> None:
            try:
                self._attempt(taken, f"the {quantity} of layer {layer!r}", work)
            finally:
                copy.release()

        self._queue.put(attempt)

    def put_alone(self, taken: Taken, work: Callable[[], None], *, what: str) -> None:
        """Queue something that runs after all that was queued before, and before all that comes."""
        self._queue.put(partial(self._attempt, taken, what, work), alone=True)

    def commit(self, taken: Taken, index: Index) -> None:
        """Queue the commit of a snapshot."""
        self._queue.put(partial(self._commit, taken, index), alone=True)

    def discard(self, taken: Taken) -> None:
        """Leave a snapshot out, and wait until it is gone."""
        taken.failed = True
        self._queue.put(partial(self._discard, taken), alone=True)
        self._queue.wait()

    def check_overflow(self, taken: Taken) -> None:
        """Raise `CaptureError` where what has arrived of a snapshot does not fit its dtype."""
        if self._refuses_overflow:
            taken.check_overflow(self._dtypes)

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

    def close(self) -> None:
        """Finish what is queued, and let go of the run."""
        self._queue.close()
        self.writer.close()

    def _attempt(self, taken: Taken, what: str, work: Callable[[], None]) -> None:
        if taken.failed or self._failure is not None:
            taken.failed = True
            return
        try:
            work()
        except Exception as error:
            self._fail(taken, what, error)

    def _commit(self, taken: Taken, index: Index) -> None:
        if taken.failed or self._failure is not None:
            self._discard(taken)
            return
        try:
            self.check_overflow(taken)
            self.writer.commit(
                epoch=taken.epoch,
                step=taken.step,
                index=index,
                statistics=taken.statistics(self.specs),
                metrics=taken.metrics,
                clipped={} if self._refuses_overflow else taken.clipped(),
            )
        except Exception as error:
            self._fail(taken, "its commit", error)
            self._discard(taken)
        else:
            self.committed = (taken.epoch, taken.step)

    def _discard(self, taken: Taken) -> None:
        try:
            self.writer.discard()
        except Exception as error:
            self._fail(taken, "or removing a part", error)

    def _fail(self, taken: Taken, what: str, error: Exception) -> None:
        taken.failed = True
        if isinstance(error, CaptureError):  # it says for itself what was left out
            failure: Exception = error
        else:
            failure = StoreError(
                f"writing {what} of epoch {taken.epoch}, step {taken.step} to {self.path} failed: "
                f"{type(error).__name__}: {error}. It was left out, and so was any taken since; earlier ones are "
                f'whole. Once there is room and permission, mode="a" goes on with the run.'
            )
            failure.__cause__ = error
        self._failure = self._failure or failure
