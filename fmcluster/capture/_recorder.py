"""The Recorder: feature maps from a model in training to a run on disk."""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from types import TracebackType
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

from ..store import LayerSpec, Mode, Quantity, RunWriter, open_run
from ._budget import check_budget
from ._estimate import Estimate, estimate_kept
from ._isolation import isolated
from ._live import LiveCapture, count_slots
from ._models import device_of, plain_model
from ._options import Channels, Crop, Keep, Overflow, PerLayer, Size
from ._probe_set import Probe
from ._probing import Loss, ProbeCapture
from ._provenance import provenance
from ._select import Layers, select_modules
from ._steps import StepCounter
from .transfer import Copier
from .writing import Session, Taken, as_numbers, check_epoch, check_order, last_snapshot


class Recorder:
    """Records what the layers of a model return, snapshot by snapshot: for a fixed probe set, or in training itself.

    Use it as a context manager around the training loop. With a `probe`, call `snapshot` whenever the model is worth a
    look: it is shown the probe, and is afterwards what it was. Without one, wrap each epoch in `epoch` and each
    training batch in `batch`. Hooks exist only inside `snapshot` and `batch`: between them the model is the caller's
    own. Writing goes on in the background while training continues; leaving the block waits for it.

    Parameters
    ----------
    model : Module
        The model. A probe is shown to it on the device of its first parameter.
    path : path-like
        Where the run goes.
    layers : {"children", "leaves"}, str, re.Pattern, module class, iterable of these, or callable
        What to capture: the direct children, all modules without children, names and patterns (``*`` and ``?`` stop
        at dots), regular expressions, module classes, or a function of name and module. A module that fires several
        times is stored per call, one that returns several tensors per tensor.
    probe : Dataset or DataLoader, optional
        The probe set, seen with evaluation transforms; items are (image, label) or an image.
    n_samples : int, optional
        Without a probe: how many samples an epoch shows at most.
    dataset : Dataset, optional
        Without a probe: what the indices of `batch` number; the run keeps its labels, classes and paths. `n_samples`
        is its length by default.
    record : iterable of {"activation", "gradient"}
        What to record of a layer's output: its values; and the gradient of the loss with respect to it, in float32.
        Of a layer that no gradient reaches, such as a frozen one, it is NaN.
    batch_size : int
        How many samples of a probe are shown at a time, for a data set; and about how many samples are written at a
        time.
    dtype : {"float16", "float32"}, or mapping of str to these
        Stored dtype of the values; here and below, a mapping says it by layer name or pattern.
    channels : slice or sequence of int, or mapping, optional
        Which channels to keep. All by default.
    crop : (slice, slice), or mapping, optional
        Which rows and columns of the maps to keep, in a layer's own pixels. All by default.
    max_size : int or (int, int), or mapping, optional
        Average larger maps (after the crop) down to this height and width. The statistics are of the whole maps.
    overflow : {"error", "clip"}
        What to do about finite values that the dtype cannot hold (beyond 65504 in float16): refuse the snapshot, or
        clip and count them.
    mode : {"x", "a", "w"}
        "x" refuses an existing run, "a" goes on after its last whole snapshot, "w" replaces it.
    max_bytes : int, optional
        Refuse to begin where the run would be larger than this, uncompressed.
    n_snapshots : int
        How many snapshots are planned; only `max_bytes` asks.
    max_pending_bytes : int
        How much may wait to be written before capture waits for the disk.
    notes : mapping, optional
        JSON-like values to keep with the provenance, such as the seed.

    Raises
    ------
    ValueError, TypeError
        For a layer that the model does not have, a probe without fixed order, an option that cannot be meant, or a run
        larger than `max_bytes` (on entry, or in the first batch).
    FileExistsError
        Where something is at `path` already (on entry).
    StoreError
        Where another recorder is writing the run, or the run to go on with is of other layers or samples.
    CaptureError
        Where a layer does not fire or returns no maps.

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
        probe: Dataset[Any] | DataLoader[Any] | None = None,
        n_samples: int | None = None,
        dataset: Dataset[Any] | None = None,
        record: Sequence[Quantity] = ("activation",),
        batch_size: int = 32,
        dtype: PerLayer[str] = "float16",
        channels: PerLayer[Channels] | None = None,
        crop: PerLayer[Crop] | None = None,
        max_size: PerLayer[Size] | None = None,
        overflow: Overflow = "error",
        mode: Mode = "x",
        max_bytes: int | None = None,
        n_snapshots: int = 1,
        max_pending_bytes: int = 512 << 20,
        notes: Mapping[str, Any] | None = None,
    ) -> None:
        if batch_size < 1 or max_pending_bytes < 1 or n_snapshots < 1:
            raise ValueError(
                f"batch_size={batch_size}, max_pending_bytes={max_pending_bytes} and n_snapshots={n_snapshots} have "
                f"to be positive"
            )
        self._model = plain_model(model)
        self._modules = select_modules(self._model, layers)
        self._keep = Keep(dtype, channels, crop, max_size, overflow, tuple(record))
        self._path = os.fspath(path)
        self._mode: Mode = mode
        self._max_bytes, self._n_snapshots = max_bytes, n_snapshots
        self._max_pending_bytes = max_pending_bytes
        self._notes: dict[str, Any] = json.loads(json.dumps(dict(notes or {})))  # a copy; what JSON cannot hold raises
        self._capture: ProbeCapture | LiveCapture
        if probe is not None:
            if n_samples is not None or dataset is not None:
                raise ValueError("n_samples and dataset are for recording without a probe; pass one or the other")
            shown = Probe(probe, batch_size=batch_size)
            self._n_samples = shown.n_samples
            self._capture = ProbeCapture(self._model, self._modules, probe=shown, keep=self._keep)
        else:
            self._n_samples = count_slots(n_samples, dataset=dataset)
            self._capture = LiveCapture(
                self._model,
                self._modules,
                keep=self._keep,
                n_samples=self._n_samples,
                written_at_once=batch_size,
                dataset=dataset,
                check=self._check_budget,
            )
        self._steps = StepCounter(self._model)
        self._last = (-1, -1)
        self._entered = False
        self._open = False

    def __enter__(self) -> "Recorder":
        if self._entered:
            raise RuntimeError("this Recorder was entered before; make a new one (mode='a' goes on with its run)")
        self._entered = True
        if isinstance(self._capture, ProbeCapture):  # before an existing run is touched
            self._capture.discover()
            self._check_budget([layer.spec for layer in self._capture.layers.values()])
        writer = RunWriter(self._path, mode=self._mode)
        try:
            self._last = (-1, -1) if writer.is_new else last_snapshot(open_run(self._path))
            self._session = Session(
                writer, provenance=self._provenance(), refuses_overflow=self._keep.overflow == "error"
            )
        except BaseException:
            writer.close()
            raise
        self._session.committed = self._last
        threads = max(1, torch.get_num_threads())
        self._copier = Copier(max_bytes=self._max_pending_bytes, clips=self._keep.overflow == "clip", threads=threads)
        try:
            self._capture.start(self._session, self._copier)
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
        """Optimizer steps that the model has taken since the run began; counted by itself."""
        return self._steps.count

    @property
    def last_epoch(self) -> int:
        """Epoch of the last snapshot taken, also of the run that is gone on with; -1 where there is none."""
        return self._last[0]

    def snapshot(
        self,
        *,
        epoch: int,
        step: int | None = None,
        metrics: Mapping[str, float] | None = None,
        loss: Loss | None = None,
    ) -> None:
        """Show the model the probe set and record what its layers return.

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
        loss : callable, optional
            To record gradients: called with the model's outputs and the labels of each batch of the probe, returns the
            number whose gradient is recorded. With a mean over samples, it depends on the size of the batches.

        Raises
        ------
        CaptureError
            Where a sample is not what it was, a layer changed its shape, or a value does not fit the stored dtype.
            The snapshot is left out; earlier ones stay. From a CUDA device, a value that does not fit is found while
            it is written, and raised by the next call, or on leaving the block.
        StoreError
            Where writing this or an earlier snapshot failed (disk full, no permission).
        """
        self._check_open()
        self._raise_failure()
        if not isinstance(self._capture, ProbeCapture):
            raise ValueError("this Recorder has no probe to show; pass probe=, or record batches with epoch and batch")
        if (loss is not None) != self._keep.gradient:
            raise ValueError(
                "gradients need both record=('activation', 'gradient') and snapshot(loss=...); one of them is missing"
            )
        step = self._steps.count if step is None else step
        check_order(epoch, step, last=self._last)
        self._steps.count = int(step)
        taken = Taken(epoch=epoch, step=self._steps.count, metrics=as_numbers(metrics or {}))
        try:
            self._capture.take(taken, loss=loss, check=self._raise_failure)
        except BaseException:
            self._session.discard(taken)
            raise
        self._last = (epoch, taken.step)

    @contextmanager
    def epoch(self, epoch: int) -> Iterator[dict[str, float]]:
        """Record the batches of an epoch; they become one snapshot when the block ends, however early it ends.

        Parameters
        ----------
        epoch : int
            The epoch. The snapshot's step is that at the end of the block.

        Yields
        ------
        dict of str to float
            Empty; what is put into it is kept beside the snapshot, such as the loss.

        Raises
        ------
        CaptureError, StoreError
            As for `snapshot`. Where the block raises, the epoch is left out.
        """
        capture = self._live()
        if capture.taken is not None:
            raise RuntimeError("an epoch is being recorded already; leave its block first")
        check_epoch(epoch, last=self._last[0])
        taken = Taken(epoch=epoch, step=self._steps.count, metrics={})
        metrics: dict[str, float] = {}
        capture.begin(taken)
        try:
            yield metrics
            self._raise_failure()
            check_order(epoch, self._steps.count, last=self._last)
            taken.step, taken.metrics = self._steps.count, as_numbers(metrics)
            capture.end()
        except BaseException:
            capture.taken = None
            self._session.discard(taken)
            raise
        if not taken.failed:
            self._last = (epoch, taken.step)

    def batch(self, indices: Any) -> AbstractContextManager[None]:
        """Record what the layers return, and the gradients that come back, inside the block.

        A batch may be shown in parts (their rows follow one another), or several times (each pass is a layer of its
        own, ``conv1.call0``, ``conv1.call1``, as for a module that fires several times). What backward recomputes for
        gradient checkpointing is not recorded again. A compiled model runs eagerly inside the block, as hooks do not
        fire in a compiled graph.

        Parameters
        ----------
        indices : Tensor, ndarray or sequence of int, of shape (n,)
            The samples' indices in the data set, as `with_index` gives them. An index may come again.

        Raises
        ------
        CaptureError
            Where a layer did not fire, changed its shape or got no gradient. The batch is left out; where the caller
            goes on, so does the epoch.
        ValueError, TypeError
            For indices that are none, or more samples than `n_samples`.
        StoreError
            Where writing failed.
        """
        capture = self._live()
        if capture.taken is None:
            raise RuntimeError("no epoch is being recorded; use batch inside: with recorder.epoch(number):")
        return capture.batch(indices)

    def estimate(self, *, n_snapshots: int) -> Estimate:
        """Say how many bytes and seconds so many snapshots will take, from the probe's first batch.

        Nothing is recorded; the recorder need not be entered.
        """
        if not isinstance(self._capture, ProbeCapture):
            raise ValueError("without a probe there is nothing to measure with; call fmcluster.capture.estimate")
        with isolated(self._model):  # a loader draws from the random generators
            images = next(iter(self._capture.probe)).images
        chosen: Layers = lambda name, _module: name in self._modules  # noqa: E731
        counts = {"n_samples": self._n_samples, "n_snapshots": n_snapshots}
        return estimate_kept(self._model, images, layers=chosen, keep=self._keep, **counts)

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

    def _live(self) -> LiveCapture:
        self._check_open()
        self._raise_failure()
        if not isinstance(self._capture, LiveCapture):
            raise ValueError("this Recorder shows a probe; to record training batches, pass n_samples= and no probe")
        return self._capture

    def _provenance(self) -> dict[str, Any]:
        made = provenance(self._model, device=device_of(self._model))
        return {**made, **self._keep.told(), "notes": self._notes}

    def _check_budget(self, specs: Sequence[LayerSpec]) -> None:
        if self._max_bytes is not None:
            check_budget(specs, max_bytes=self._max_bytes, n_samples=self._n_samples, n_snapshots=self._n_snapshots)

    def _check_open(self) -> None:
        if not self._open:
            raise RuntimeError("the Recorder is not open; use it as: with Recorder(...) as recorder: ...")

    def _raise_failure(self) -> None:
        failure = self._session.take_failure()
        if failure is not None:
            self._last = self._session.committed
            self._capture.after_failure()
            raise failure
