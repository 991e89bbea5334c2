"""Live recording: how the slots of a live run are laid out and committed, by one process or all ranks of a job."""

import os
import warnings
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import nn
from torch.utils.data import Dataset

from ..errors import Unreachable
from ..store import LayerSpec, RunWriter, open_run
from ._recording import Recording
from .inputs import Index, describe, listed_classes, look_like_labels, unusable_labels, why_no_labels
from .layers import plan
from .options import RecorderOptions
from .passes import BatchPass, LiveEpoch, SnapshotContext
from .ranks import Layout, Team, WhichRanks, check_ranks, lay_out, ranks_of_job
from .writing import PendingSnapshot


class LiveRecording(Recording):
    """A live run that is being recorded, by this process or all ranks of its job.

    Parameters
    ----------
    model, path, n_samples, options
        As for `Recording`.
    dataset : Dataset, optional
        What the indices number.
    samples_per_shard : int
        About how many samples are written at a time.
    ranks : {"all", "one"}
        Who records, in a job.
    rank_timeout : float
        Seconds that a rank waits for the others.
    """

    def __init__(
        self,
        model: nn.Module,
        path: str | os.PathLike[str],
        *,
        n_samples: int,
        options: RecorderOptions,
        dataset: Dataset[Any] | None,
        samples_per_shard: int,
        ranks: WhichRanks,
        rank_timeout: float,
    ) -> None:
        check_ranks(ranks, timeout=rank_timeout)
        super().__init__(model, path, n_samples=n_samples, options=options)
        self._dataset = dataset
        self._samples_per_shard = samples_per_shard
        self._which_ranks, self._rank_timeout = ranks, rank_timeout
        self._team: Team | None = None
        self._capacity = n_samples  # slots that this process fills

    @property
    def _alone(self) -> bool:
        return self._team is None

    @property
    def _room(self) -> str:
        share = "" if self._team is None else f", {self._capacity} of them on each rank"
        return f"n_samples={self._n_samples}{share}"

    def _create(self, batch: BatchPass) -> None:
        """Create the run, or check that it can be resumed: the first batch has shown what the layers return."""
        layers = plan(
            batch.seen,
            modules=self._modules,
            keep=self._keep,
            shown="the first batch",
            optional=self._optional,
            left_out=batch.left_out,
        )
        specs = [layer.spec for layer in layers.values()]
        self._check_size(specs, n_snapshots=self._n_snapshots + 1)
        create = partial(self._lay_out, specs, batch)
        if self._team is None:
            self._layout = create()
        else:
            about = {"reasons to leave layers out": batch.left_out}
            self._layout = self._team.lay_out(specs, about=about, session=self._session, create=create)
        self._capacity, self._n_samples = self._layout.n_slots, self._layout.n_slots_in_all
        self._layers = layers

    def _lay_out(self, specs: Sequence[LayerSpec], batch: BatchPass) -> Layout:
        """Create the run, or check that it can be resumed; return how its slots lie."""
        stored = None if self._session.writer.is_new else open_run(self._session.path)
        several = batch.length * max(1, self._samples_per_shard // batch.length)
        n_ranks = 1 if self._team is None else self._team.ranks.size
        layout = lay_out(self._n_samples, n_ranks=n_ranks, shard_samples=several, stored=stored)
        try:
            self._session.create_or_resume(
                specs,
                kind="live",
                n_samples=layout.n_slots_in_all,
                shard_samples=layout.shard_samples,
                classes=listed_classes(self._dataset) if self._dataset is not None else (),
                left_out=batch.left_out,
                weights=self._weights.specs,
                normalizations=self._weights.normalizations,
            )
        except (OSError, Unreachable) as error:
            raise self._not_created(error) from error
        if stored is None and look_like_labels(listed := unusable_labels(self._dataset)):
            warnings.warn(f"{why_no_labels(describe(listed), what='the data set')}.", stacklevel=3)
        return layout

    def _make_epoch_context(self, epoch: LiveEpoch) -> SnapshotContext:
        first = 0 if self._team is None else self._team.ranks.rank * self._layout.n_slots
        return self._make_context(epoch.snapshot, shard_samples=self._layout.shard_samples, first=first)

    def _open_writer(self) -> RunWriter:
        ranks = ranks_of_job(timeout=self._rank_timeout) if self._which_ranks == "all" else None
        if ranks is None:
            return super()._open_writer()
        self._team = Team(ranks)
        self._capacity = -(-self._n_samples // ranks.size)
        return self._team.enter(
            self._path,
            model=self._model,
            modules=self._modules,
            options={"n_samples": [self._n_samples], **{key: [value] for key, value in self._keep.as_json().items()}},
            open_writer=super()._open_writer,
            recorded=super()._recorded_so_far,
        )

    def _recorded_so_far(self, writer: RunWriter) -> tuple[tuple[int, int], int]:
        if self._team is None:
            return super()._recorded_so_far(writer)
        return self._team.last, self._team.n_snapshots

    def _commit(self, snapshot: PendingSnapshot, index: Index, scale: npt.NDArray[np.float64]) -> None:
        self._session.commit(snapshot, index, loss_scale=scale if self._keep.gradient else None)

    def _commit_now(self, snapshot: PendingSnapshot, index: Index, scale: npt.NDArray[np.float64]) -> None:
        self._commit(snapshot, index, scale)
        self._wait()

    def _wait(self) -> None:
        """Return when everything queued is done; raise what went wrong."""
        self._session.wait()
        if (failure := self._take_failure()) is not None:
            raise failure

    def _tell(self, error: BaseException) -> None:
        """Tell the other ranks of the job that the epoch failed."""
        if self._team is not None:
            self._team.fail(error)
