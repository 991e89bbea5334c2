"""Team: the ranks of a job that record one live run, each its own slots, in one commit an epoch."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import astuple, dataclass
from importlib.metadata import version
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
from torch import nn

from ...store import LayerSpec, RankWriter, Run, RunWriter
from ..passes import LiveEpoch
from ..writing import Session
from ._rank_parts import check_same, describe, part_of, put_together
from ._ranks import Message, Ranks

WhichRanks = Literal["all", "one"]
Commit = Callable[[npt.NDArray[np.int64], npt.NDArray[np.float64]], None]


@dataclass(frozen=True)
class Layout:
    """How the slots of a live run lie.

    Attributes
    ----------
    shard_samples : int
        Slots of a shard.
    n_slots : int
        Slots of each rank: rank r has those from ``r * n_slots`` on.
    n_slots_in_all : int
        Slots of the run.
    """

    shard_samples: int
    n_slots: int
    n_slots_in_all: int


def lay_out(n_samples: int, *, n_ranks: int, shard_samples: int, stored: Run | None) -> Layout:
    """Return how the slots of some samples lie: a rank's in whole shards, where there are several ranks.

    Parameters
    ----------
    n_samples : int
        The most that an epoch shows, on all ranks.
    n_ranks : int
        How many ranks there are.
    shard_samples : int
        Samples of a shard, of a new run.
    stored : Run, optional
        The run that is resumed. It may have been recorded by another number of ranks, where there is room.
    """
    share = -(-n_samples // n_ranks)
    shard = min(shard_samples, share) if stored is None else stored.shard_samples
    if n_ranks == 1:
        return Layout(shard, n_samples, n_samples)
    n_slots = -(-share // shard) * shard
    if stored is None or stored.n_samples < n_ranks * n_slots:
        return Layout(shard, n_slots, n_ranks * n_slots)
    return Layout(shard, n_slots, stored.n_samples)


def check_ranks(ranks: str, *, timeout: float) -> None:
    """Raise `ValueError` for what is no way to share a run among ranks."""
    if ranks not in get_args(WhichRanks):
        raise ValueError(
            f"ranks is {ranks!r}; expected 'all' (of a torch.distributed job) or 'one', this process alone"
        )
    if not timeout > 0:
        raise ValueError(f"rank_timeout is {timeout!r}; expected a positive number of seconds")


@dataclass(eq=False)
class Team:
    """What a rank does together with the others.

    Attributes
    ----------
    ranks : Ranks
        How they agree.
    last : (int, int)
        Epoch and step of the run's last snapshot when it was opened.
    n_snapshots : int
        How many there were.
    layout : Layout, optional
        How the slots lie, once that is known.
    """

    ranks: Ranks
    last: tuple[int, int] = (-1, -1)
    n_snapshots: int = 0
    layout: Layout | None = None

    def enter(
        self,
        path: str,
        *,
        model: nn.Module,
        modules: Mapping[str, nn.Module],
        options: Mapping[str, Any],
        open_writer: Callable[[], RunWriter],
        recorded: Callable[[RunWriter], tuple[tuple[int, int], int]],
    ) -> RunWriter:
        """Open the run on the first rank, once all ranks are there with the same model and options.

        Parameters
        ----------
        path : str
            The run's folder.
        model : Module
            The model.
        modules : mapping of str to Module
            Those that are recorded.
        options : mapping
            What else is to be the same, as JSON holds it.
        open_writer : callable
            Opens the run.
        recorded : callable
            Returns epoch and step of its last snapshot, and how many it has.
        """
        opened: list[RunWriter] = []

        def decide(said: Sequence[Message]) -> Mapping[str, Any]:
            check_same(said)
            opened.append(open_writer())
            last, n_snapshots = recorded(opened[0])
            return {"last": last, "n_snapshots": n_snapshots}

        tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
        about = {
            "version of fmcluster": [version("fmcluster")],
            "model": [type(model).__name__, *(f"{name} of shape {tuple(t.shape)}" for name, t in tensors.items())],
            "modules": list(modules),
            **options,
        }
        try:
            outcome = self.ranks.exchange("entering the recorder", Message(about), decide=decide)
        except BaseException:
            for writer in opened:
                writer.close()
            raise
        self.last, self.n_snapshots = (outcome["last"][0], outcome["last"][1]), outcome["n_snapshots"]
        return opened[0] if opened else RankWriter(path)

    @contextmanager
    def attempt(self, epoch: int) -> Iterator[None]:
        """Within the block, record an epoch together; what goes wrong in it is told to the others."""
        self.ranks.start()
        try:
            self.ranks.exchange("the beginning of an epoch", Message({"epochs": [int(epoch)]}), decide=_agree)
            yield
        except BaseException as error:
            self.fail(error)
            raise

    def fail(self, error: BaseException) -> None:
        """Tell the others that this epoch failed here."""
        self.ranks.fail(f"{type(error).__name__}: {error}")

    def lay_out(
        self,
        specs: Sequence[LayerSpec],
        *,
        about: Mapping[str, Any],
        session: Session,
        create: Callable[[], Layout],
    ) -> Layout:
        """Create the run on the first rank, or check that it can be resumed there; join it on the others.

        Parameters
        ----------
        specs : sequence of LayerSpec
            The layers.
        about : mapping
            What else is to be the same.
        session : Session
            Of this rank.
        create : callable
            Does it, on the first rank; returns how the slots lie.
        """

        def decide(said: Sequence[Message]) -> Mapping[str, Any]:
            check_same(said)
            return {"layout": astuple(create()), "digest": session.writer.digest}

        message = Message({"layers": describe(specs), **about})
        outcome = self.ranks.exchange("laying the run out", message, decide=decide)
        if not self.ranks.is_first:
            session.join(specs, digest=outcome["digest"])
        self.layout = Layout(*outcome["layout"])
        return self.layout

    def finish(self, epoch: LiveEpoch, *, session: Session, commit: Commit) -> None:
        """Commit an epoch of which every rank has written its part; all of it, or nothing.

        Parameters
        ----------
        epoch : LiveEpoch
            With nothing left to write.
        session : Session
            Of this rank.
        commit : callable
            Called on the first rank with the indices and the loss scales of all slots; raises where it fails.
        """

        assert self.layout is not None
        layout = self.layout

        def decide(parts: Sequence[Message]) -> Mapping[str, Any]:
            commit(
                *put_together(
                    parts,
                    epoch=epoch,
                    writer=session.writer,
                    n_slots=layout.n_slots,
                    n_slots_in_all=layout.n_slots_in_all,
                )
            )
            return {"step": epoch.snapshot.step}

        part = part_of(epoch, written=session.writer.shards.written)
        outcome = self.ranks.exchange("the end of an epoch", part, decide=decide)
        if not self.ranks.is_first:
            epoch.snapshot.step = outcome["step"]
            session.advance(epoch.snapshot)


def _agree(said: Sequence[Message]) -> Mapping[str, Any]:
    check_same(said)
    return {}
