"""Batch recorder: what the layers of a model return in training's own batches, epoch by epoch, to a run on disk."""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

import numpy as np
from torch import nn
from torch.utils.data import Dataset

from ..errors import CaptureError
from ..store import Mode
from ._compat import eagerly
from ._live_recording import LiveRecording
from .forward import CallCounts, hooked
from .inputs import Index, as_indices, check_in, count_slots, sample_tables
from .layers import AxisTracker
from .options import Channels, Crop, Layers, OnError, Overflow, PerLayer, Recorded, RecorderOptions, Size
from .passes import BatchPass, LiveEpoch, Scaler, as_scale
from .ranks import WhichRanks
from .writing import PendingSnapshot, as_numbers, check_epoch, check_order

_BATCHES_A_SUM = 8  # sums of so many batches are kept apart, before they are added up in the order of their slots


class BatchRecorder(LiveRecording):
    """Records what the layers of a model return in training itself: each epoch's batches become one snapshot.

    Use it as a context manager around the training loop, wrap each epoch in `epoch` and each training batch in `batch`.
    Hooks exist only inside `batch`. Writing happens in the background. A fixed probe set is recorded by `Recorder`.

    Parameters
    ----------
    model : Module
        The model.
    path : path-like
        Where the run goes: a folder, or a URL of an object store such as ``s3://bucket/run.zarr``.
    dataset : Dataset, optional
        What the indices of `batch` number; the run keeps its labels, classes and paths.
    n_samples : int, optional
        How many samples an epoch shows at most; by default as many as the data set has.
    samples_per_shard : int
        About how many samples are written at a time: a whole number of batches as long as the first.
    layers, record, dtype, channels, crop, max_size, channel_axis, overflow, mode, max_bytes, max_pending_bytes, notes
        As for `Recorder`. Weights are those at the end of an epoch's block.
    on_error : {"raise", "warn"}
        What to do where an epoch cannot be recorded: raise an error, also through the model's forward or backward
        pass, or warn once, leave the epoch out, and let the training go on. Where the disk takes no run on entry, each
        epoch tries again.
    ranks : {"all", "one"}
        In a job of torch.distributed (DistributedDataParallel): whether all ranks record the run together, each the
        batches that it is shown, or this process alone. "all" asks that every rank enters the recorder and each epoch.
        `n_samples` is of all ranks; metrics and weights are those of rank 0.
    rank_timeout : float
        Seconds that one rank waits for the others, which may evaluate meanwhile, before it is an error.

    Raises
    ------
    ValueError, TypeError
        For a layer that the model does not have, an option that cannot be meant, or a first epoch larger than
        `max_bytes` (in the first batch).
    FileExistsError
        Where something is at `path` already (on entry).
    StoreError
        Where another recorder is writing the run, or the run to resume is of other layers or samples.
    CaptureError
        Where a layer does not fire or returns no vectors, tokens or feature maps (in the first batch). With several
        ranks, on each of them in the same words: where one failed, did not come, has another model, other options or
        another number of batches. The epoch is left out.

    Examples
    --------
    >>> with BatchRecorder(model, "live.zarr", dataset=train_set) as recorder:  # doctest: +SKIP
    ...     for epoch in range(5):
    ...         with recorder.epoch(epoch):
    ...             for indices, images, labels in DataLoader(with_index(train_set), batch_size=100, shuffle=True):
    ...                 with recorder.batch(indices):
    ...                     criterion(model(images), labels).backward()
    ...                 optimizer.step()
    ...                 optimizer.zero_grad()
    """

    def __init__(
        self,
        model: nn.Module,
        path: str | os.PathLike[str],
        *,
        layers: Layers = "children",
        dataset: Dataset[Any] | None = None,
        n_samples: int | None = None,
        samples_per_shard: int = 32,
        record: Sequence[Recorded] = ("activation",),
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
        ranks: WhichRanks = "all",
        rank_timeout: float = 1800.0,
    ) -> None:
        if samples_per_shard < 1:
            raise ValueError(f"samples_per_shard is {samples_per_shard}; expected a positive number of samples")
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
        super().__init__(
            model,
            path,
            n_samples=count_slots(n_samples, dataset=dataset),
            options=options,
            dataset=dataset,
            samples_per_shard=samples_per_shard,
            ranks=ranks,
            rank_timeout=rank_timeout,
        )
        self._epoch: LiveEpoch | None = None
        self._in_batch = False

    @contextmanager
    def epoch(self, epoch: int, *, step: int | None = None) -> Iterator[dict[str, float]]:
        """Record the batches of an epoch; they become one snapshot when the block ends, however early it ends.

        Parameters
        ----------
        epoch : int
            The epoch. The snapshot's step is that at the end of the block.
        step : int, optional
            Optimizer steps before the block. By default they are counted, and a resumed run's go on from its last
            snapshot's.

        Yields
        ------
        dict of str to float
            Empty; what is put into it is kept beside the snapshot, such as the loss.

        Raises
        ------
        CaptureError, StoreError
            As for `snapshot`. Where the block raises, the epoch is left out.
        """
        self._check_open()
        if not self._takes(epoch, step):
            self._epoch = self._start(epoch)
            self._epoch.snapshot.failed = True  # of which no batch is recorded
            try:
                yield {}
            finally:
                self._epoch = None
            return
        with (
            nullcontext() if self._team is None else self._team.attempt(epoch),
            self._epoch_alone(epoch, step) as metrics,
        ):
            yield metrics

    @contextmanager
    def _epoch_alone(self, epoch: int, step: int | None) -> Iterator[dict[str, float]]:
        self._check_open()
        self._raise_failure()
        if self._epoch is not None:
            raise RuntimeError("an epoch is being recorded already; leave its block first")
        check_epoch(epoch, last=self._last[0])
        if self._layers:
            self._check_size([layer.spec for layer in self._layers.values()], n_snapshots=self._n_snapshots + 1)
        if step is not None:
            check_order(epoch, step, last=(-1, -1))
            self._steps.count, self._resumed_after = int(step), None
        self._epoch = self._start(epoch)
        snapshot = self._epoch.snapshot
        metrics: dict[str, float] = {}
        try:
            try:
                yield metrics
            except BaseException as error:
                self._session.discard(snapshot, error)
                raise
            try:
                self._end(self._epoch, metrics)
            except BaseException as error:
                if not self._leave_out(snapshot, error):
                    raise
                self._tell(error)
        finally:
            self._epoch = None
        if not snapshot.failed:
            self._last = (epoch, snapshot.step)
            self._n_snapshots += 1

    def _start(self, epoch: int) -> LiveEpoch:
        snapshot = PendingSnapshot(epoch=epoch, step=self._steps.count, metrics={})
        blank = np.full(self._capacity, np.nan)
        normalized = self._weights.inputs_of(snapshot)
        return LiveEpoch(snapshot, np.full(self._capacity, -1, np.int64), blank, normalized)

    def batch(self, indices: Any, *, loss_scale: float | Scaler = 1.0) -> AbstractContextManager[None]:
        """Record what the layers return, and the gradients that come back, inside the block.

        A batch may be shown in parts (their rows follow one another), or several times (each forward pass is a layer of
        its own, ``conv1.call0``, ``conv1.call1``, as for a module that fires several times). What backward recomputes
        for gradient checkpointing is not recorded again. A compiled model runs eagerly inside the block, as hooks do
        not fire in a compiled graph.

        Parameters
        ----------
        indices : Tensor, ndarray or sequence of int, of shape (n,)
            The samples' indices in the data set, as `with_index` gives them. An index may come again.
        loss_scale : float or GradScaler
            What the loss is multiplied with before ``backward``: a positive number, or anything with ``get_scale()``,
            asked when the block begins. It is stored beside the gradients, which ``layer.gradient.read(unscaled=True)``
            divides by it.

        Raises
        ------
        CaptureError
            Where a layer did not fire, changed its shape or got no gradient. The batch is left out; where the caller
            continues, so does the epoch.
        ValueError, TypeError
            For indices that are none, more samples than `n_samples`, or a loss scale that is not a positive number.
        StoreError
            Where writing failed.
        """
        self._check_open()
        self._raise_failure()
        if self._epoch is None:
            raise RuntimeError("no epoch is being recorded; use batch inside: with recorder.epoch(number):")
        epoch, numbers, scale = self._epoch, as_indices(indices), as_scale(loss_scale)
        if self._warns and epoch.snapshot.failed:
            return nullcontext()
        if self._dataset is not None:
            check_in(self._dataset, numbers)
        if epoch.count + len(numbers) > self._capacity:
            raise ValueError(
                f"this batch of {len(numbers)} does not fit into the epoch, which has room for {self._room}, and "
                f"{epoch.count} have been recorded. Pass n_samples=, at least as many as an epoch shows"
            )
        return self._record(epoch, numbers, scale=scale)

    @contextmanager
    def _record(self, epoch: LiveEpoch, numbers: Index, *, scale: float) -> Iterator[None]:
        if self._in_batch:
            raise RuntimeError("a batch is being recorded already, inside another; leave its block first")
        if epoch.context is None and self._layers:
            epoch.context = self._make_epoch_context(epoch)
        tracker = AxisTracker(n_samples=len(numbers))
        batch = BatchPass(
            epoch.context,
            keep=self._keep,
            copier=self._copier,
            slot=epoch.count,
            length=len(numbers),
            number=epoch.n_batches,
            tracker=tracker,
            optional=self._optional,
            on_error=partial(self._lose, epoch) if self._warns else None,
        )
        counts = CallCounts(self._modules)
        root = self._model.register_forward_pre_hook(
            lambda *_: counts.start(repeats=not batch.is_complete)  # the rest of the samples, or all of them anew
        )
        self._in_batch = True
        try:
            with (
                tracker.watch(self._model) if epoch.context is None else nullcontext(),
                hooked(
                    self._modules,
                    batch.on_output,
                    counts=counts,
                    on_recomputed=batch.on_recomputed,
                    optional=self._optional,
                    on_error=partial(self._lose, epoch) if self._warns else None,
                ),
                epoch.normalized.watched(on_error=partial(self._lose, epoch) if self._warns else None),
                eagerly(self._model),
            ):
                yield
            if not (self._warns and epoch.snapshot.failed):
                self._finish(batch, epoch)
        except BaseException as error:
            batch.release_held()
            self._withdraw(epoch)
            if not self._layers:  # the others wait for this rank to lay the run out
                self._tell(error)
            raise
        finally:
            self._in_batch = False
            root.remove()
            batch.remove_hooks()
        if self._warns and epoch.snapshot.failed:
            batch.release_held()
        else:
            self._count(epoch, numbers, scale=scale)

    def _finish(self, batch: BatchPass, epoch: LiveEpoch) -> None:
        """Check that a batch is whole; after the first, create the run."""
        try:
            batch.finish()
            if epoch.context is None:
                self._create(batch)
                epoch.context = self._make_epoch_context(epoch)
                batch.deliver_held(epoch.context)
            epoch.normalized.keep()
        except Exception as error:
            if not self._warns:
                raise
            self._lose(epoch, error)

    def _lose(self, epoch: LiveEpoch, error: Exception) -> None:
        """Give an epoch up, and warn of it."""
        epoch.snapshot.fail(error)
        self._tell(error)
        self._warn(error, epoch=epoch.snapshot.epoch)

    def _prepare(self) -> None:
        """Nothing is known before the first batch."""

    def _begin(self) -> None:
        self._brings_samples = self._session.writer.n_snapshots == 0

    def _after_failure(self) -> None:
        self._brings_samples = self._session.writer.n_snapshots == 0

    def _count(self, epoch: LiveEpoch, numbers: Index, *, scale: float) -> None:
        """Count a batch that is whole."""
        assert epoch.context is not None
        slots = slice(epoch.count, epoch.count + len(numbers))
        epoch.index[slots], epoch.scale[slots] = numbers, scale
        epoch.count += len(numbers)
        epoch.n_batches += 1
        epoch.n_whole += 1
        snapshot, buffer = epoch.snapshot, epoch.context.buffer
        # in turn: an earlier batch may still be withdrawn
        self._session.put(snapshot, partial(buffer.release, epoch.stop), what="a batch")
        if epoch.n_batches % _BATCHES_A_SUM == 0:
            self._session.put_alone(snapshot, partial(snapshot.add_up, epoch.stop), what="the statistics")

    def _withdraw(self, epoch: LiveEpoch) -> None:
        """Withdraw what was queued since the last whole batch: its moments at once, its rows in their turn."""
        snapshot, stop, number, context = epoch.snapshot, epoch.stop, epoch.n_batches, epoch.context
        epoch.n_batches += 1
        snapshot.withdraw(number, slot=stop)
        if context is not None:
            self._session.put_alone(snapshot, partial(context.buffer.rewind, stop), what="withdrawing a batch")

    def _end(self, epoch: LiveEpoch, metrics: Mapping[str, float]) -> None:
        """Queue what is left of an epoch, and its commit."""
        snapshot, session = epoch.snapshot, self._session
        if (failure := self._take_failure()) is not None:
            raise failure
        if self._warns and snapshot.failed:
            session.discard(snapshot)
            return
        self._check_steps(snapshot.epoch)
        check_order(snapshot.epoch, self._steps.count, last=self._last)
        snapshot.step, snapshot.metrics = self._steps.count, as_numbers(metrics)
        if not epoch.count or epoch.context is None:
            raise CaptureError(f"epoch {snapshot.epoch} ended without a batch, so there is nothing to record of it")
        session.check_overflow(snapshot)
        first = self._team is None or self._team.ranks.is_first  # the model is the same on every rank
        if first:
            self._weights.put(snapshot, copier=self._copier, session=session)
        session.put_alone(snapshot, partial(epoch.context.buffer.finish, epoch.stop), what="the last samples")
        if first and self._brings_samples and self._dataset is not None and not snapshot.failed:
            self._brings_samples = False
            for name, values in sample_tables(self._dataset).items():
                work = partial(session.writer.add_static, f"samples/{name}", values, dimensions=("item",))
                session.put_alone(snapshot, work, what=f"samples/{name}")
        if self._team is None:
            self._commit(snapshot, epoch.index, epoch.scale)
            return
        self._wait()
        self._team.finish(epoch, session=session, commit=partial(self._commit_now, snapshot))
