"""Ranks: the processes of one torch.distributed job that record a run together, and how they agree."""

import io
import json
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch.distributed as dist

from ...errors import CaptureError, NotBegun, StoreError
from .._compat import job_store

_PIECE = 1 << 20  # bytes of a message under one key: a TCPStore takes 8 MiB
_ACKNOWLEDGED_WITHIN = 30.0  # seconds; whoever has not read a commit's outcome by then is noticed at the next exchange
_KINDS: dict[str, type[Exception]] = {
    kind.__name__: kind for kind in (CaptureError, StoreError, NotBegun, FileExistsError, ValueError, TypeError)
}


@dataclass(frozen=True, eq=False)
class Message:
    """What a rank says to the others.

    Attributes
    ----------
    about : mapping
        What JSON holds.
    arrays : mapping of str to ndarray
        Arrays by name; none of objects.
    """

    about: Mapping[str, Any] = field(default_factory=dict)
    arrays: Mapping[str, npt.NDArray[Any]] = field(default_factory=dict)

    def encode(self) -> bytes:
        """Return it as bytes, without pickles."""
        file = io.BytesIO()
        text = np.frombuffer(json.dumps(self.about).encode(), np.uint8)
        np.savez(file, allow_pickle=False, **{"about": text, **{f"array {key}": a for key, a in self.arrays.items()}})
        return file.getvalue()

    @staticmethod
    def decode(content: bytes) -> "Message":
        """Return what `encode` was called on."""
        with np.load(io.BytesIO(content), allow_pickle=False) as found:
            arrays = {key.removeprefix("array "): found[key] for key in found.files if key != "about"}
            return Message(json.loads(found["about"].tobytes()), arrays)


class Ranks:
    """The ranks of a job that record one run; they exchange messages through the job's own store of keys.

    No collective of torch is called, so that neither backend nor device matter, and a rank that fails tells the others
    without waiting for them.

    Parameters
    ----------
    store : torch.distributed.Store
        The job's store.
    rank, size : int
        Which process this is, and how many there are.
    timeout : float
        Seconds that one waits for the others.
    """

    def __init__(self, store: Any, *, rank: int, size: int, timeout: float) -> None:
        self._store = store
        self.rank, self.size = rank, size
        self._timeout = timeout
        # counted in the store, as every rank enters its recorders in the same order
        self._prefix = f"fmcluster/{self._ask('add', f'fmcluster/entered/{rank}', 1)}"
        self._attempt = 0

    @property
    def is_first(self) -> bool:
        """Whether this is rank 0, which lays the run out and commits."""
        return self.rank == 0

    def start(self) -> None:
        """Begin another attempt: an epoch. What failed in an earlier one is over."""
        self._attempt += 1

    def fail(self, reason: str) -> None:
        """Tell the others that this attempt failed here, without waiting for them; the first reason stays."""
        text = f"rank {self.rank} of {self.size} failed: {reason[:2000]}"
        with suppress(CaptureError):  # where none can be reached, they will notice
            self._ask("compare_set", self._failed, "", text)

    def exchange(
        self, what: str, message: Message, *, decide: Callable[[Sequence[Message]], Mapping[str, Any]]
    ) -> Mapping[str, Any]:
        """Say something to rank 0, which decides; return what it decided, the same on every rank.

        Parameters
        ----------
        what : str
            What it is about: every rank makes the same exchanges.
        message : Message
            What this rank says.
        decide : callable
            Called on rank 0 with what every rank said, in their order.

        Raises
        ------
        CaptureError
            On every rank, in the same words: where a rank failed or did not come.
        StoreError, FileExistsError, ValueError, TypeError
            As `decide` raised on rank 0.
        """
        key = f"{self._prefix}/{self._attempt}/{what}"
        if not self.is_first:
            self._post(f"{key}/{self.rank}", message)
            outcome = self._collect([0], f"{key}/outcome/", what=what)[0].about
            self._ask("add", f"{key}/read", 1)
            if "error" in outcome:
                raise _KINDS.get(outcome["kind"], CaptureError)(outcome["error"])
            return dict(outcome["decided"])
        said = [message, *self._collect(range(1, self.size), f"{key}/", what=what)]
        try:
            decided = decide(said)
        except Exception as error:
            self._post(f"{key}/outcome/0", Message({"error": str(error), "kind": type(error).__name__}))
            self._forget(key)
            raise
        self._post(f"{key}/outcome/0", Message({"decided": dict(decided)}))
        self._forget(key)
        return decided

    @property
    def _failed(self) -> str:
        return f"{self._prefix}/{self._attempt}/failed"

    def _post(self, key: str, message: Message) -> None:
        content = message.encode()
        pieces = range(0, max(1, len(content)), _PIECE)
        for number, start in enumerate(pieces):
            piece = content[start : start + _PIECE]
            self._ask("set", f"{key}/{number}", piece)
        self._ask("set", key, str(len(pieces)))

    def _collect(self, ranks: Sequence[int] | range, prefix: str, *, what: str) -> list[Message]:
        """Wait for a message of each of some ranks, and return them; their keys are removed."""
        missing, until, pause = list(ranks), time.monotonic() + self._timeout, 0.001
        while missing:
            if self._ask("check", [self._failed]):
                raise CaptureError(self._ask("get", self._failed).decode())
            missing = [rank for rank in missing if not self._ask("check", [f"{prefix}{rank}"])]
            if missing and time.monotonic() > until:
                late = ", ".join(map(str, missing[:8])) + (" and others" if len(missing) > 8 else "")
                reason = (
                    f"rank {late} did not come to {what!r} within {self._timeout:g} s. Every rank of the job enters "
                    f"the recorder and every epoch, and has as many batches in it: DistributedDataParallel waits in "
                    f"one that another rank does not have. Where only one rank is to record, pass ranks='one', and "
                    f"where a rank may take longer, a larger rank_timeout"
                )
                self.fail(reason)
                raise CaptureError(f"rank {self.rank} of {self.size} failed: {reason}")
            if missing:
                time.sleep(pause)
                pause = min(2 * pause, 0.02 * (1 + self.size / 16))
        return [self._take(f"{prefix}{rank}") for rank in ranks]

    def _take(self, key: str) -> Message:
        count = int(self._ask("get", key))
        pieces = [self._ask("get", f"{key}/{number}") for number in range(count)]
        return Message.decode(b"".join(pieces))

    def _forget(self, key: str) -> None:
        """Remove an exchange from the store, once every rank has read the outcome.

        Rank 0 may be the store's server: it must not end before.
        """
        until = time.monotonic() + min(self._timeout, _ACKNOWLEDGED_WITHIN)
        while self._ask("add", f"{key}/read", 0) < self.size - 1:
            if time.monotonic() > until:
                return
            time.sleep(0.002)
        for posted in (*(f"{key}/{rank}" for rank in range(1, self.size)), f"{key}/outcome/0"):
            count = int(self._ask("get", posted))
            for each in (*(f"{posted}/{number}" for number in range(count)), posted):
                self._ask("delete_key", each)
        self._ask("delete_key", f"{key}/read")

    def _ask(self, request: str, *arguments: Any) -> Any:
        """Make a request to the store, by the name of its method."""
        try:
            return getattr(self._store, request)(*arguments)
        except RuntimeError as error:  # of any kind of store: its server is gone
            raise CaptureError(
                f"the ranks of this job can no longer reach one another ({str(error).splitlines()[0]}): the process "
                f"that keeps their store has probably ended. Epochs that were committed are whole"
            ) from error


def ranks_of_job(*, timeout: float) -> Ranks | None:
    """Return the ranks of the torch.distributed job that this process belongs to; None where it is alone."""
    if not is_in_job():
        return None
    return Ranks(job_store(), rank=dist.get_rank(), size=dist.get_world_size(), timeout=timeout)


def is_in_job() -> bool:
    """Whether this process is one of several of a torch.distributed job."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def is_beside_first() -> bool:
    """Whether this process is a rank of a job, but not its first."""
    return is_in_job() and dist.get_rank() > 0
