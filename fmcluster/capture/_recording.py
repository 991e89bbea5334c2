"""Recording: what both recorders share, from opening the run to failures that are noticed late."""

import json
import os
from abc import ABC, abstractmethod
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

import torch
from torch import nn

from ..store import LayerSpec, RunWriter, open_run
from ._estimate import check_size
from ._layers import select_modules
from ._options import RecorderOptions
from ._plain_model import device_of, plain_model
from ._provenance import provenance
from ._step_counter import StepCounter
from .transfer import Copier
from .writing import Session, last_snapshot


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
        self._optional = options.layers in ("children", "leaves")  # what never fires is left out, not an error
        self._keep = options.keep
        self._path = os.fspath(path)
        if "://" in self._path:
            raise ValueError(
                f"path is the URL {self._path}; a run is recorded into a folder: pass one, and copy it then"
            )
        self._options = options
        self._notes: dict[str, Any] = json.loads(json.dumps(dict(options.notes or {})))  # what JSON cannot hold raises
        self._n_samples = n_samples
        self._n_snapshots = 0
        self._steps = StepCounter(self._model)
        self._last = (-1, -1)
        self._entered = False
        self._open = False

    def __enter__(self) -> Self:
        if self._entered:
            name = type(self).__name__
            raise RuntimeError(f"this {name} was entered before; make a new one (mode='a' resumes its run)")
        self._entered = True
        self._prepare()
        writer = RunWriter(self._path, mode=self._options.mode)
        try:
            self._last = (-1, -1) if writer.is_new else last_snapshot(open_run(self._path))
            self._n_snapshots = writer.n_snapshots
            self._session = Session(
                writer, provenance=self._provenance(), refuses_overflow=self._keep.overflow == "error"
            )
        except BaseException:
            writer.close()
            raise
        self._session.committed = self._last
        self._copier = Copier(
            max_bytes=self._options.max_pending_bytes,
            clips=self._keep.overflow == "clip",
            threads=max(1, torch.get_num_threads()),
        )
        try:
            self._begin()
        except BaseException:
            self._session.close()
            self._copier.close()
            raise
        self._steps.count = max(0, self._last[1])
        self._steps.start()
        self._open = True
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open = False
        self._steps.stop()
        self._session.close()
        self._copier.close()
        failure = self._session.take_failure()
        if failure is not None:
            if error is None:
                raise failure
            if error is not failure:
                error.add_note(f"The run was not recorded to its end either: {failure}")

    @property
    def peak_pending_bytes(self) -> int:
        """The most that has been waiting to be written so far, in bytes."""
        return self._copier.peak_bytes

    @property
    def step(self) -> int:
        """Optimizer steps that the model has taken since the run began; counted by the recorder itself."""
        return self._steps.count

    @property
    def last_epoch(self) -> int:
        """Epoch of the last snapshot taken, also of the run that is resumed; -1 where there is none."""
        return self._last[0]

    def flush(self) -> None:
        """Wait until every snapshot taken so far is on the disk.

        Raises
        ------
        CaptureError, StoreError
            Where one of them was left out.
        """
        self._check_open()
        self._session.wait()
        self._raise_failure()

    @abstractmethod
    def _prepare(self) -> None:
        """Check what can be checked before an existing run is touched."""

    @abstractmethod
    def _begin(self) -> None:
        """Create the run, or check that it can be resumed; the session and the copier are there."""

    @abstractmethod
    def _after_failure(self) -> None:
        """Store again what was lost with the snapshot that failed."""

    def _check_size(self, specs: Sequence[LayerSpec], *, n_snapshots: int) -> None:
        if self._options.max_bytes is not None:
            check_size(specs, max_bytes=self._options.max_bytes, n_samples=self._n_samples, n_snapshots=n_snapshots)

    def _check_open(self) -> None:
        if not self._open:
            name = type(self).__name__
            raise RuntimeError(f"the {name} is not open; use it as: with {name}(...) as recorder: ...")

    def _raise_failure(self) -> None:
        failure = self._session.take_failure()
        if failure is not None:
            self._last = self._session.committed
            self._n_snapshots = self._session.writer.n_snapshots
            self._after_failure()
            raise failure

    def _provenance(self) -> dict[str, Any]:
        made = provenance(self._model, device=device_of(self._model))
        return {**made, **self._keep.as_json(), "notes": self._notes}
