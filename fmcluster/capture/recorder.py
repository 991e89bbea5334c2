"""The Recorder: a probe's feature maps, from a model in training to a run on disk."""

import json
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from types import TracebackType
from typing import Any, Literal

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

from ..errors import CaptureError, StoreError
from ..store import Mode, RunWriter
from .estimating import Estimate, estimate
from .hooks import Firing, discover, hooked
from .identity import Identity
from .models import device_of, plain_model
from .probe import Probe, ProbeBatch
from .provenance import provenance
from .queue import WriteQueue
from .reduce import reduce_output
from .resume import check_resumable
from .select import Layers, select_modules
from .steps import StepCounter
from .taken import Taken, as_numbers, check_order
from .undisturbed import undisturbed

DTYPES = ("float16", "float32")


class Recorder:
    """Records what the layers of a model make of a fixed probe set, snapshot by snapshot.

    Use it as a context manager around the training loop, and call `snapshot` whenever the model is worth a look. Hooks
    exist only inside `snapshot`: between two of them the model is the caller's own. Writing goes on in the background
    while training continues; leaving the block waits for it.

    Parameters
    ----------
    model : Module
        The model. It is shown the probe on the device it is on.
    path : path-like
        Where the run goes.
    layers : {"children", "leaves"}, str, re.Pattern, module class, iterable of these, or callable
        What to capture: the direct children, all modules without children, names and patterns (``*`` and ``?`` stop
        at dots), regular expressions, module classes, or a function of name and module. A module that fires several
        times is stored per call, one that returns several tensors per tensor.
    probe : Dataset or DataLoader
        The probe set, seen with evaluation transforms; items are (image, label) or an image.
    batch_size : int
        How many samples are shown at a time, for a data set. It is also what is written at a time.
    dtype : {"float16", "float32"}
        Stored dtype.
    overflow : {"error", "clip"}
        What to do about finite values beyond 65504 in float16: refuse the snapshot, or clip and count them.
    mode : {"x", "a", "w"}
        "x" refuses an existing run, "a" goes on after its last whole snapshot, "w" replaces it.
    max_pending_bytes : int
        How much may wait to be written before capture waits for the disk.
    notes : mapping, optional
        JSON-like values to keep with the provenance, such as the seed.

    Attributes
    ----------
    peak_pending_bytes : int
        The most that has been waiting to be written so far.

    Raises
    ------
    ValueError
        For a layer that the model does not have, a probe without fixed order, or an unknown option.
    FileExistsError
        Where something is at `path` already (on entry).
    StoreError
        Where another recorder is writing the run, or the run to go on with is of other layers or samples (on entry).
    CaptureError
        Where a layer does not fire or returns no maps (on entry).

    Examples
    --------
    >>> with Recorder(model, "run.zarr", probe=probe_set) as recorder:  # doctest: +SKIP
    ...     recorder.snapshot(epoch=0)
    ...     for epoch in range(1, 6):
    ...         train_one_epoch(model, train_loader)
    ...         recorder.snapshot(epoch=epoch)
    """

    def __init__(
        self,
        model: nn.Module,
        path: str | os.PathLike[str],
        *,
        layers: Layers = "children",
        probe: Dataset[Any] | DataLoader[Any],
        batch_size: int = 32,
        dtype: str = "float16",
        overflow: Literal["error", "clip"] = "error",
        mode: Mode = "x",
        max_pending_bytes: int = 512 << 20,
        notes: Mapping[str, Any] | None = None,
    ) -> None:
        if dtype not in DTYPES:
            raise ValueError(f"dtype is {dtype!r}; expected one of {', '.join(DTYPES)}")
        if overflow not in ("error", "clip"):
            raise ValueError(f"overflow is {overflow!r}; expected 'error' or 'clip'")
        if batch_size < 1 or max_pending_bytes < 1:
            raise ValueError(f"batch_size={batch_size} and max_pending_bytes={max_pending_bytes} have to be positive")
        self._model = plain_model(model)
        self._modules = select_modules(self._model, layers)
        self._probe = Probe(probe, batch_size=batch_size)
        self._path = os.fspath(path)
        self._dtype = dtype
        self._overflow = overflow
        self._mode: Mode = mode
        self._max_pending_bytes = max_pending_bytes
        self._notes: dict[str, Any] = json.loads(json.dumps(dict(notes or {})))  # a copy; what JSON cannot hold raises
        self._steps = StepCounter(self._model)
        self._last = (-1, -1)
        self._entered = False
        self._open = False

    def __enter__(self) -> "Recorder":
        if self._entered:
            raise RuntimeError("this Recorder was entered before; make a new one (mode='a' goes on with its run)")
        self._entered = True
        self._discover()  # before an existing run is touched
        self._writer = RunWriter(self._path, mode=self._mode)
        try:
            self._prepare()
        except BaseException:
            self._writer.close()
            raise
        self._queue = WriteQueue(max_pending_bytes=self._max_pending_bytes)
        self._threads = max(1, torch.get_num_threads())
        self._pool = ThreadPoolExecutor(self._threads, thread_name_prefix="fmcluster-reduce")
        self._failure: Exception | None = None
        self._steps.start()
        self._open = True
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open = False
        self._steps.stop()
        self._queue.close()
        self._pool.shutdown()
        self._writer.close()
        if self._failure is not None:
            if error is None:
                raise self._failure
            if error is not self._failure:
                error.add_note(f"The run was not recorded to its end either: {self._failure}")

    @property
    def peak_pending_bytes(self) -> int:
        """The most that has been waiting to be written so far, in bytes."""
        return self._queue.peak_bytes

    @property
    def step(self) -> int:
        """Optimizer steps that the model has taken since the run began; counted by itself."""
        return self._steps.count

    def snapshot(self, *, epoch: int, step: int | None = None, metrics: Mapping[str, float] | None = None) -> None:
        """Show the model the probe set and record its feature maps.

        The model, its gradients and the global random generators are afterwards what they were. Returns when the maps
        are taken; they are written in the background, and visible to a reader once all of them are on the disk.

        Parameters
        ----------
        epoch : int
            The epoch: 0 before the first update; e inside or at the end of the e-th.
        step : int, optional
            Optimizer steps so far. By default they are counted: those of every optimizer that holds one of the
            model's parameters.
        metrics : mapping of str to float, optional
            Numbers to keep beside the snapshot, such as the validation accuracy.

        Raises
        ------
        CaptureError
            Where a sample is not what it was, a layer changed its shape, or a value does not fit the stored dtype.
            The snapshot is left out; earlier ones stay.
        StoreError
            Where writing this or an earlier snapshot failed (disk full, no permission).
        """
        self._check_open()
        self._raise_failure()
        step = self._steps.count if step is None else step
        check_order(epoch, step, last=self._last)
        self._steps.count = int(step)
        taken = Taken(epoch=epoch, step=self._steps.count, metrics=as_numbers(metrics or {}))
        try:
            self._show_probe(taken)
        except BaseException:
            self._queue.put(partial(self._discard, taken))
            self._queue.wait()
            raise
        self._queue.put(partial(self._commit, taken))
        self._last = (epoch, taken.step)

    def estimate(self, *, n_snapshots: int) -> Estimate:
        """Say how many bytes and seconds so many snapshots will take, from the probe's first batch.

        Nothing is recorded; the recorder need not be entered.
        """
        with undisturbed(self._model):  # a loader draws from the random generators
            images = next(iter(self._probe)).images
        return estimate(
            self._model,
            images,
            n_samples=self._probe.n_samples,
            n_snapshots=n_snapshots,
            layers=lambda name, _module: name in self._modules,
            dtype=self._dtype,
        )

    def flush(self) -> None:
        """Wait until every snapshot taken so far is on the disk.

        Raises
        ------
        StoreError
            Where writing one of them failed.
        """
        self._check_open()
        self._queue.wait()
        self._raise_failure()

    def _discover(self) -> None:
        self._device = device_of(self._model)
        with undisturbed(self._model):
            sample = self._probe.first().to(self._device)
            self._calls = discover(self._model, self._modules, sample=sample, dtype=self._dtype)

    def _prepare(self) -> None:
        specs = list(self._calls.values())
        digests = None
        self._last = self._committed = (-1, -1)
        if self._writer.is_new:
            self._writer.create(
                specs,
                n_samples=self._probe.n_samples,
                shard_samples=self._probe.batch_size,
                kind="probe",
            )
        else:
            self._last, digests = check_resumable(self._path, specs=specs, probe=self._probe)
            self._committed = self._last
        if not self._writer.n_snapshots:
            self._writer.attributes["classes"] = list(self._probe.classes)
        self._identity = Identity(self._probe, digests)
        self._writer.describe_session(
            {
                **provenance(self._model, device=self._device),
                "batch_size": self._probe.batch_size,
                "dtype": self._dtype,
                "overflow": self._overflow,
                "reductions": {},
                "notes": self._notes,
            }
        )
        self._steps.count = max(0, self._last[1])

    def _show_probe(self, taken: Taken) -> None:
        brings_samples = not self._identity.stored
        batches = []
        with undisturbed(self._model):
            for batch in self._probe:
                self._identity.check(batch)
                if brings_samples:
                    self._write_display(taken, batch)
                self._show_batch(taken, batch)
                self._raise_failure()
                batches.append(batch.without_images())
        self._identity.remember(batches)
        for name, moments in taken.moments.items():
            if moments.n_overflow and self._overflow == "error":
                raise CaptureError(
                    f"layer {name!r}, epoch {taken.epoch}, step {taken.step}: {moments.n_overflow} values are beyond "
                    f"what float16 can hold (65504), the largest {moments.overflow:g}. The snapshot was left out. "
                    f'Record with dtype="float32", or with overflow="clip".'
                )
        if brings_samples:
            self._identity.stored = True
            for name, values in self._identity.tables(batches).items():
                dimensions = ("item", "byte") if name == "digest" else ("item",)
                work = partial(self._writer.add_static, f"samples/{name}", values, dimensions=dimensions)
                self._write(taken, f"samples/{name}", work, nbytes=values.nbytes)

    def _show_batch(self, taken: Taken, batch: ProbeBatch) -> None:
        fired = set()
        several = {(firing.name, firing.call) for firing in self._calls if firing.part}

        def on_output(firing: Firing, module: nn.Module, output: torch.Tensor) -> None:
            spec = self._calls.get(firing)
            if spec is None and firing.part and (firing.name, firing.call) in several:
                return  # what was no batch in the first sample's output is left out
            expected = None if spec is None else (len(batch), *spec.shape)
            if spec is None or tuple(output.shape) != expected:
                raise CaptureError(
                    f"layer {firing.name + firing.part!r} changed in epoch {taken.epoch}: call {firing.call + 1} "
                    f"returned {tuple(output.shape)}, expected {expected or 'no such call'}, as for the first sample"
                )
            values, moments = reduce_output(output, dtype=spec.dtype, pool=self._pool, threads=self._threads)
            taken.add(spec.name, moments)
            fired.add(firing)
            work = partial(self._writer.write, spec.name, offset=batch.offset, values=values)
            self._write(taken, spec.name, work, nbytes=values.nbytes)

        with hooked(self._modules, on_output):
            self._model(batch.images.to(self._device))
        if missing := [spec.name for firing, spec in self._calls.items() if firing not in fired]:
            raise CaptureError(f"layer {missing[0]!r} did not fire for every batch of epoch {taken.epoch}")

    def _write_display(self, taken: Taken, batch: ProbeBatch) -> None:
        pictures = self._probe.display(batch.images)
        if pictures is not None:
            work = partial(
                self._writer.add_static,
                "inputs/display",
                pictures,
                dimensions=("item", "row", "column", "rgb"),
                offset=batch.offset,
                length=self._probe.n_samples,
            )
            self._write(taken, "inputs/display", work, nbytes=pictures.nbytes)

    def _write(self, taken: Taken, what: str, work: Any, *, nbytes: int) -> None:
        def attempt() -> None:
            if taken.failed or self._failure is not None:
                taken.failed = True
                return
            try:
                work()
            except Exception as error:
                self._fail(taken, what, error)

        self._queue.put(attempt, nbytes=nbytes)

    def _commit(self, taken: Taken) -> None:
        if taken.failed or self._failure is not None:
            self._discard(taken)
            return
        try:
            self._writer.commit(
                epoch=taken.epoch,
                step=taken.step,
                index=np.arange(self._probe.n_samples),
                statistics={name: moments.statistics() for name, moments in taken.moments.items()},
                metrics=taken.metrics,
                clipped={name: moments.n_overflow for name, moments in taken.moments.items()},
            )
        except Exception as error:
            self._fail(taken, "its commit", error)
            self._discard(taken)
        else:
            self._committed = (taken.epoch, taken.step)

    def _discard(self, taken: Taken) -> None:
        try:
            self._writer.discard()
        except Exception as error:
            self._fail(taken, "or removing a part", error)

    def _fail(self, taken: Taken, what: str, error: Exception) -> None:
        taken.failed = True
        failure = StoreError(
            f"writing {what} of epoch {taken.epoch}, step {taken.step} to {self._path} failed: "
            f"{type(error).__name__}: {error}. It was left out, and so was any taken since; earlier ones are whole. "
            f'Once there is room and permission, mode="a" goes on with the run.'
        )
        failure.__cause__ = error
        self._failure = self._failure or failure

    def _check_open(self) -> None:
        if not self._open:
            raise RuntimeError("the Recorder is not open; use it as: with Recorder(...) as recorder: ...")

    def _raise_failure(self) -> None:
        if self._failure is not None:
            self._queue.wait()  # what is queued behind it is left out as well
            failure, self._failure = self._failure, None
            self._last = self._committed
            self._identity.stored = self._writer.n_snapshots > 0
            raise failure
