"""Recorder: what the layers of a model return for a fixed probe set, snapshot by snapshot, to a run on disk."""

import os
import warnings
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

from ..errors import CaptureError
from ..store import Mode, open_run
from ._recording import Recording
from .estimating import Estimate, estimate_kept
from .forward import device_of, isolated
from .inputs import Identity, Probe, ProbeBatch, ToInputs, classes, forward_arguments, why_no_labels
from .layers import discover, why_varying
from .options import Channels, Crop, Layers, OnError, Overflow, PerLayer, Recorded, RecorderOptions, Size
from .passes import Loss, ProbePass
from .ranks import is_beside_first
from .writing import PendingSnapshot, as_numbers, check_order, stored_digests


class Recorder(Recording):
    """Records what the layers of a model return for a fixed probe set, snapshot by snapshot.

    Use it as a context manager around the training loop, and call `snapshot` whenever the model is worth a look: it is
    shown the probe, and is afterwards what it was. Hooks exist only inside `snapshot`: between snapshots the model is
    the caller's own. Writing happens in the background while training continues; leaving the block waits for it.
    Training's own batches are recorded by `BatchRecorder`.

    Parameters
    ----------
    model : Module
        The model. The probe is shown to it on the device of its first parameter.
    path : path-like
        Where the run goes: a folder, or a URL of an object store such as ``s3://bucket/run.zarr``.
    probe : Dataset or DataLoader
        The probe set, seen with evaluation transforms; items are (image, label), an image, or a mapping, of which the
        model is given what its ``forward`` takes by name, or what is under ``pixel_values`` or ``image``. A model that
        needs several arguments is given as many of a tuple's first tensors; a detector, whose ``forward`` takes a list
        of tensors, a list of images, whose sizes may differ.
    to_inputs : callable, optional
        Makes of a batch of the probe (without its index) what the model is called with: a function that returns
        ``(args, kwargs)``, a tuple and a dict. For models of several inputs, or items of another kind.
    layers : {"children", "leaves"}, str, re.Pattern, module class, iterable of these, or callable
        What to capture: the direct children, all modules without children, names and patterns (``*`` and ``?`` stop
        at dots), regular expressions, module classes, or a function of name and module. A module that fires several
        times is stored per call, one that returns several tensors per tensor.
    record : iterable of {"activation", "gradient", "weight"}
        What to record of a layer's output: its values; and the gradient of the loss with respect to it, in float32.
        Of a layer that no gradient reaches, such as a frozen one, it is NaN. With ``"weight"``, also all parameters
        and buffers of the model at each snapshot, bit for bit, with their norms, and the mean and variance of what
        each BatchNorm is given.
    batch_size : int
        How many samples of the probe are shown, and written, at a time; a `DataLoader` has its own.
    dtype : {"float16", "float32"}, or mapping of str to these
        Stored dtype of the values; here and below, a mapping says it by layer name or pattern.
    channels : slice or sequence of int, or mapping, optional
        Which channels to keep. All by default.
    crop : (slice, slice), or mapping, optional
        Which rows and columns of the feature maps to keep, in a layer's own pixels. All by default.
    max_size : int or (int, int), or mapping, optional
        Average larger feature maps (after the crop) down to this height and width. The statistics are of the whole
        feature maps.
    channel_axis : int, or mapping of str to int, optional
        Which axis of a batch of outputs holds the channels, such as 1 or -1, where the modules do not tell: by default
        it is known from their classes, and stored with how it was known. Channels are stored first of feature maps,
        last of tokens.
    overflow : {"error", "clip"}
        What to do about finite values that the dtype cannot hold (beyond 65504 in float16): refuse the snapshot, or
        clip and count them.
    mode : {"x", "a", "w"}
        "x" refuses an existing run, "a" resumes it after its last whole snapshot, "w" replaces it.
    max_bytes : int, optional
        Refuse the snapshot that would make the run larger than this, uncompressed.
    max_pending_bytes : int
        How much may wait to be written before capture waits for the disk.
    notes : mapping, optional
        JSON-like values to keep with the provenance, such as the seed.
    on_error : {"raise", "warn"}
        What to do where a snapshot cannot be recorded: raise an error, or warn once, leave the snapshot out, and let
        the training go on; the next one is tried again. The run says which are missing. So it is where the disk takes
        no run on entry: each snapshot tries to lay it out. Bad arguments always raise, as does an existing run.

    Raises
    ------
    ValueError, TypeError
        For a layer that the model does not have, a probe without fixed order, an option that cannot be meant, a
        first snapshot larger than `max_bytes`, or weights that cannot be stored as they are (on entry).
    FileExistsError
        Where something is at `path` already (on entry).
    StoreError
        Where another recorder is writing the run, or the run to resume is of other layers or samples.
    CaptureError
        Where a layer does not fire or returns no vectors, tokens or feature maps.

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
        probe: Dataset[Any] | DataLoader[Any],
        to_inputs: ToInputs | None = None,
        layers: Layers = "children",
        record: Sequence[Recorded] = ("activation",),
        batch_size: int = 32,
        dtype: PerLayer[str] = "float16",
        channels: PerLayer[Channels] | None = None,
        crop: PerLayer[Crop] | None = None,
        max_size: PerLayer[Size] | None = None,
        channel_axis: PerLayer[int] | None = None,
        overflow: Overflow = "error",
        mode: Mode = "x",
        max_bytes: int | None = None,
        max_pending_bytes: int = 512 << 20,
        notes: Mapping[str, Any] | None = None,
        on_error: OnError = "raise",
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size is {batch_size}; expected a positive number of samples")
        options = RecorderOptions(
            layers=layers,
            record=record,
            dtype=dtype,
            channels=channels,
            crop=crop,
            max_size=max_size,
            channel_axis=channel_axis,
            overflow=overflow,
            mode=mode,
            max_bytes=max_bytes,
            max_pending_bytes=max_pending_bytes,
            notes=notes,
            on_error=on_error,
        )
        takes = forward_arguments(model)
        self._probe = Probe(probe, batch_size=batch_size, to_inputs=to_inputs, takes=takes)
        super().__init__(model, path, n_samples=self._probe.n_samples, options=options)
        self._left_out: dict[str, str] = {}
        self._varying: tuple[str, ...] = ()
        self._recorded: dict[str, nn.Module] = {}
        self._warned_of_labels = False

    def snapshot(
        self,
        *,
        epoch: int,
        step: int | None = None,
        metrics: Mapping[str, float] | None = None,
        loss: Loss | None = None,
    ) -> None:
        """Show the model the probe set and record what its layers return.

        In a job of torch.distributed, rank 0 alone records: on the others this does nothing.

        The model, its gradients and the global random generators are afterwards what they were. Returns when the
        outputs are copied; they are written in the background, and visible to a reader once all of them are on the
        disk.

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
        ValueError
            Where the run would become larger than `max_bytes`.
        CaptureError
            Where a sample is not what it was, a layer changed its shape, or a value does not fit the stored dtype.
            The snapshot is left out; earlier ones stay. From a CUDA device, a value that does not fit is found while
            it is written, and raised by the next call, or on leaving the block.
        StoreError
            Where writing this or an earlier snapshot failed (disk full, no permission).
        """
        self._check_open()
        if self._idle:
            return
        self._raise_failure()
        if (loss is not None) != self._keep.gradient:
            raise ValueError(
                "gradients need both record=('activation', 'gradient') and snapshot(loss=...); one of them is missing"
            )
        if not self._takes(epoch, step):
            return
        if step is None:
            self._check_steps(epoch)
            step = self._steps.count
        check_order(epoch, step, last=self._last)
        self._resumed_after = None
        specs = [layer.spec for layer in self._layers.values()]
        snapshot = PendingSnapshot(epoch=epoch, step=step, metrics=as_numbers(metrics or {}))
        try:
            self._check_size(specs, n_snapshots=self._n_snapshots + 1)
            self._steps.count = snapshot.step
            self._take(snapshot, loss)
        except BaseException as error:
            if self._leave_out(snapshot, error):
                return
            raise
        self._last = (epoch, snapshot.step)
        self._n_snapshots += 1

    def estimate(self, *, n_snapshots: int = 1, max_bytes: int | None = None) -> Estimate:
        """Say how many bytes and seconds so many snapshots will take, from the probe's first batch.

        Nothing is recorded; the recorder need not be entered.

        Parameters
        ----------
        n_snapshots : int
            How many snapshots are planned.
        max_bytes : int, optional
            Refuse where they would take more than this, uncompressed.

        Raises
        ------
        ValueError
            Where the snapshots would take more than `max_bytes`: with the largest layers, and what would be smaller.
        """
        with isolated(self._model, reads=self._probe.generators()):  # a loader draws from the random generators
            inputs = self._probe.batch()
        chosen: Layers = lambda name, _module: name in self._modules  # noqa: E731
        return estimate_kept(
            self._model,
            inputs,
            layers=chosen,
            keep=self._keep,
            n_samples=self._n_samples,
            n_snapshots=n_snapshots,
            max_bytes=max_bytes,
            path=self._path,
        )

    def _leaves_it_to_another(self) -> bool:
        return is_beside_first()

    def _prepare(self) -> None:
        with isolated(self._model, reads=self._probe.generators()):
            inputs = self._probe.batch().to(device_of(self._model))
            found = discover(self._model, self._modules, inputs=inputs, keep=self._keep, optional=self._optional)
        self._layers, self._left_out, self._varying = found.layers, found.left_out, found.varying
        recorded = {firing.name for firing in found.layers}
        self._recorded = {name: module for name, module in self._modules.items() if name in recorded}
        self._check_size([layer.spec for layer in self._layers.values()], n_snapshots=1)
        if found.varying:
            warnings.warn(f"{why_varying(found.varying)}.", stacklevel=3)

    def _begin(self) -> None:
        self._session.create_or_resume(
            [layer.spec for layer in self._layers.values()],
            kind="probe",
            n_samples=self._probe.n_samples,
            shard_samples=self._probe.batch_size,
            classes=classes(self._probe.dataset),
            left_out=self._left_out,
            varying=self._varying,
            weights=self._weights.specs,
            normalizations=self._weights.normalizations,
        )
        self._identity = Identity(self._probe, stored_digests(open_run(self._session.path)))

    def _after_failure(self) -> None:
        self._identity.stored = self._session.writer.n_snapshots > 0

    def _take(self, snapshot: PendingSnapshot, loss: Loss | None) -> None:
        """Show the model all of the probe, and queue what its layers return and the commit."""
        session = self._session
        context = self._make_context(snapshot, shard_samples=self._probe.batch_size)
        self._weights.put(snapshot, copier=self._copier, session=session)
        normalized = self._weights.inputs_of(snapshot)
        brings_samples = not self._identity.stored
        batches = []
        inference = loss is None and torch.is_inference_mode_enabled()  # which allows of no gradients
        with (
            torch.inference_mode(inference),
            isolated(self._model, gradients=loss is not None, reads=(*self._probe.generators(), loss)),
        ):
            for number, batch in enumerate(self._probe):
                self._check_whole(batch)
                self._identity.check(batch)
                if brings_samples:
                    self._put_pictures(snapshot, batch)
                with normalized.watched():
                    ProbePass(self._model, self._recorded, context=context, batch=batch, number=number).run(loss)
                normalized.keep()
                if (failure := self._take_failure()) is not None:
                    raise failure
                batches.append(batch.without_images())
        self._identity.remember(batches)
        session.check_overflow(snapshot)
        if brings_samples:
            self._identity.stored = True
            tables, session.writer.attributes["classes"] = self._identity.tables(batches)
            self._warn_of_labels(batches)
            for name, values in tables.items():
                dimensions = ("item", "byte") if name == "digest" else ("item",)
                work = partial(session.writer.add_static, f"samples/{name}", values, dimensions=dimensions)
                session.put_alone(snapshot, work, what=f"samples/{name}")
        loss_scale = None if loss is None else np.ones(self._probe.n_samples)  # the loss is what the caller returned
        session.commit(snapshot, np.arange(self._probe.n_samples), loss_scale=loss_scale)

    def _warn_of_labels(self, batches: Sequence[ProbeBatch]) -> None:
        """Warn, once, of labels that are no classes."""
        unusable = next((batch.unusable for batch in batches if batch.unusable), "")
        if unusable and not self._warned_of_labels:
            self._warned_of_labels = True
            warnings.warn(why_no_labels(unusable, what="the probe"), stacklevel=4)

    def _check_whole(self, batch: ProbeBatch) -> None:
        due = min(self._probe.batch_size, self._probe.n_samples - batch.offset)
        if len(batch) != due:
            raise CaptureError(
                f"the probe gave {len(batch)} samples from sample {batch.offset} on, where {due} are due; pass a data "
                f"set whose items are all there"
            )

    def _put_pictures(self, snapshot: PendingSnapshot, batch: ProbeBatch) -> None:
        pictures = self._probe.display(batch.inputs.images)
        if pictures is not None:
            work = partial(
                self._session.writer.add_static,
                "inputs/display",
                pictures,
                dimensions=("item", "row", "column", "rgb"),
                offset=batch.offset,
                length=self._probe.n_samples,
            )
            self._session.put_alone(snapshot, work, what="inputs/display")
