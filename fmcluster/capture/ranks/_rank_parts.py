"""Parts of ranks: what each process of a job recorded of an epoch, put together for the one commit."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from ...errors import CaptureError
from ...store import LayerSpec, RunWriter
from ..passes import LiveEpoch
from ..transfer import Moments
from ._ranks import Message


def check_same(said: Sequence[Message]) -> None:
    """See that all ranks say the same; raise `CaptureError` with the first difference."""
    first = said[0].about
    for rank, message in enumerate(said):
        for key, here in message.about.items():
            there = first.get(key)
            if here == there:
                continue
            if isinstance(here, list) and isinstance(there, list):
                at = next((k for k, (a, b) in enumerate(zip(here, there, strict=False)) if a != b), None)
                if at is None:
                    here, there = f"{len(here)} of them", f"{len(there)}"
                else:
                    here, there = here[at], there[at]
            raise CaptureError(
                f"rank {rank} records something else than rank 0: of its {key}, it has {here}, and rank 0 {there}. "
                f"Every rank records the same layers of the same model with the same options; nothing was recorded"
            )


def describe(specs: Sequence[LayerSpec]) -> list[str]:
    """Return what is to be the same of layers."""
    return [
        f"{spec.name} of shape {spec.shape} in {spec.dtype}{', gradients' if spec.gradient else ''}"
        f"{'' if spec.channels is None else f', channels {list(spec.channels)}'}"
        f"{'' if spec.crop is None else f', cropped to {spec.crop}'}"
        for spec in specs
    ]


def part_of(epoch: LiveEpoch, *, written: Mapping[str, str | None]) -> Message:
    """Return what this process recorded of an epoch: indices, moments, and the files that it wrote.

    Parameters
    ----------
    epoch : LiveEpoch
        The epoch, with nothing left to write.
    written : mapping
        `PendingShards.written`.
    """
    arrays: dict[str, npt.NDArray[Any]] = {"index": epoch.index, "scale": epoch.scale}
    moments = []
    for number, ((layer, quantity), total) in enumerate(epoch.snapshot.totals().items()):
        moments.append((layer, quantity, total.overflow, total.n_overflow))
        arrays[f"moments {number}"] = total.values
    normalized = []
    for number, (name, (count, sums, squares)) in enumerate(epoch.normalized.totals().items()):
        normalized.append((name, count))
        arrays[f"normalized {number}"] = np.stack([sums.numpy(), squares.numpy()])
    about = {"epoch": epoch.snapshot.epoch, "n_batches": epoch.n_whole, "written": dict(written)}
    return Message({**about, "moments": moments, "normalized": normalized}, arrays)


def put_together(
    parts: Sequence[Message], *, epoch: LiveEpoch, writer: RunWriter, n_slots: int, n_slots_in_all: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Add what the other ranks recorded of an epoch to what the first did.

    Parameters
    ----------
    parts : sequence of Message
        Of every rank, in their order; the first is of this process.
    epoch : LiveEpoch
        Of the first; the moments are added to it, in the order of the ranks.
    writer : RunWriter
        Takes the files over.
    n_slots, n_slots_in_all : int
        Slots of a rank, and of the run.

    Returns
    -------
    index : ndarray of shape (n_slots_in_all,), int64
        The dataset index of the sample in each slot; -1 where there is none.
    scale : ndarray of shape (n_slots_in_all,), float64
        What the loss was multiplied with.

    Raises
    ------
    CaptureError
        Where the ranks showed different numbers of batches.
    """
    counts = [int(part.about["n_batches"]) for part in parts]
    if odd := next((rank for rank, count in enumerate(counts) if count != counts[0]), 0):
        raise CaptureError(
            f"the ranks recorded different numbers of batches in epoch {epoch.snapshot.epoch}: rank 0 {counts[0]}, "
            f"rank {odd} {counts[odd]}. The epoch was left out. Give every rank as many, as DistributedSampler does"
        )
    index = np.full(n_slots_in_all, -1, np.int64)
    scale = np.full(len(index), np.nan)
    for rank, part in enumerate(parts):
        first = rank * n_slots
        index[first : first + len(part.arrays["index"])] = part.arrays["index"]
        scale[first : first + len(part.arrays["scale"])] = part.arrays["scale"]
        if rank:
            writer.shards.take_over(part.about["written"])
            _add_moments(part, epoch=epoch, slot=first, batch=-rank)
    return index, scale


def _add_moments(part: Message, *, epoch: LiveEpoch, slot: int, batch: int) -> None:
    for number, (layer, quantity, overflow, n_overflow) in enumerate(part.about["moments"]):
        moments = Moments(part.arrays[f"moments {number}"], overflow, n_overflow)
        epoch.snapshot.add(layer, quantity, slot=slot, moments=moments, batch=batch)
    totals = {}
    for number, (name, count) in enumerate(part.about["normalized"]):
        sums, squares = torch.from_numpy(part.arrays[f"normalized {number}"])
        totals[name] = (count, sums, squares)
    epoch.normalized.add(totals)
