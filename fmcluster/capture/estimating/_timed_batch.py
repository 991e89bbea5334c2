"""Timed batch: what the parts of recording take of one batch, on the machine at hand."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from time import perf_counter

import torch
from torch import nn

from ...store import disk_rate, upload_rate, write_trial
from ..forward import Firing, device_of, hooked
from ..inputs import ModelInputs
from ..layers import PlannedLayer
from ..transfer import Copier, Copy, pinned_rate, wait_for
from ..writing import n_writer_threads
from ._recording_seconds import RecordingSeconds

Plan = Mapping[Firing, PlannedLayer]


@dataclass(frozen=True)
class TimedBatch:
    """What one batch took.

    Attributes
    ----------
    seconds : RecordingSeconds
        Of each part.
    nbytes : dict of str to int
        By layer, the size of its file.
    """

    seconds: RecordingSeconds
    nbytes: dict[str, int]


@dataclass(frozen=True)
class _Shown:
    """One forward pass: its seconds, those of the hooks among them, the processor's for encoding, and bytes."""

    whole: float
    hooks: float
    processor: float
    stored_bytes: int
    nbytes: dict[str, int]


def time_batch(
    model: nn.Module,
    modules: Mapping[str, nn.Module],
    *,
    inputs: ModelInputs,
    plans: Mapping[int | None, Plan],
    folder: Path,
    near: Path | str,
) -> dict[int | None, TimedBatch]:
    """Show a model one batch, once to warm up and once for each plan, and time the parts of recording it.

    Parameters
    ----------
    model : Module
        On its device, in evaluation mode.
    modules : mapping of str to Module
        Those of its modules that are recorded.
    inputs : ModelInputs
        The batch, on that device.
    plans : mapping
        What is to be kept of the layers; the same layers in each.
    folder : Path
        Where batches are written to know their size.
    near : Path or str
        An existing folder on the disk that a run will lie on, or the URL that it will have in an object store.

    Returns
    -------
    dict of the plans' keys to TimedBatch
    """
    device = device_of(model)
    copier = Copier(max_bytes=512 << 20, clips=True, threads=max(1, torch.get_num_threads()))
    try:
        first = next(iter(plans))
        _show(model, modules, inputs=inputs, plan=plans[first], copier=copier, folder=folder)  # warms up
        shown = {
            key: _show(model, modules, inputs=inputs, plan=plan, copier=copier, folder=folder)
            for key, plan in plans.items()
        }
    finally:
        copier.close()
    sizes = list(shown[first].nbytes.values())
    write: dict[str, int] = {"file_bytes": sum(sizes) // len(sizes), "n_threads": n_writer_threads()}
    rate = upload_rate(near, **write) if isinstance(near, str) else disk_rate(near, **write)
    on_cuda = device.type == "cuda"
    copied = pinned_rate(device, nbytes=shown[first].stored_bytes) if on_cuda else 0.0
    forward = median(each.whole - each.hooks for each in shown.values())
    encodes_in_turn, n_encoders = _encoders(device)
    in_turn: tuple[str, ...] = ()
    if not on_cuda:
        in_turn = ("forward", "copy", "encode") if encodes_in_turn else ("forward", "copy")
    return {
        key: TimedBatch(
            RecordingSeconds(
                each.whole if on_cuda else forward,
                each.stored_bytes / copied if on_cuda else each.hooks,
                each.processor / n_encoders,
                sum(each.nbytes.values()) / rate,
                in_turn,
            ),
            each.nbytes,
        )
        for key, each in shown.items()
    }


def _encoders(device: torch.device) -> tuple[bool, int]:
    """Return whether encoding takes turns with the forward pass, for lack of cores of its own, and by how many."""
    n_cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    idle = n_cores - torch.get_num_threads() if device.type == "cpu" else n_cores
    return (False, min(idle, n_writer_threads())) if idle > 0 else (True, n_cores)


def _show(
    model: nn.Module,
    modules: Mapping[str, nn.Module],
    *,
    inputs: ModelInputs,
    plan: Plan,
    copier: Copier,
    folder: Path,
) -> _Shown:
    device = device_of(model)
    copies: dict[Firing, Copy] = {}
    hooks = 0.0

    def keep(firing: Firing, output: torch.Tensor, *, module: nn.Module) -> None:
        nonlocal hooks
        if (layer := plan.get(firing)) is None:
            return
        if device.type not in ("cpu", "cuda"):
            wait_for(device)  # for what was queued before, which is the forward pass's
        start = perf_counter()
        copies[firing] = copier.copy(layer.in_order(output), layer.reduction, waits=False)
        if device.type != "cuda":  # where nothing has been done yet when it returns
            hooks += perf_counter() - start

    try:
        wait_for(device)
        start = perf_counter()
        with hooked(modules, keep):
            inputs.show(model)
        wait_for(device)
        whole = perf_counter() - start
        nbytes, processor, stored_bytes = {}, 0.0, 0
        for firing, copy in copies.items():
            spec = plan[firing].spec
            values = copy.result()[0]
            stored_bytes += values.nbytes
            values = values.reshape(-1, *spec.shape)
            nbytes[spec.name], seconds = write_trial(spec, values, folder=folder)
            processor += seconds
        return _Shown(whole, hooks, processor, stored_bytes, nbytes)
    finally:
        for copy in copies.values():
            copy.release()
