"""Replay: the run that a recorder would have recorded, from checkpoints that were saved earlier."""

import copy
import os
from collections.abc import Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

from ..store import Mode, open_run
from ._inputs import ToInputs
from ._options import Channels, Crop, Overflow, PerLayer, Recorded, Size
from ._patterns import Layers
from ._plain_model import plain_model
from ._probe_pass import Loss
from ._recorder import Recorder

Checkpoint = str | os.PathLike[str] | Mapping[str, Any]
_WRAPPINGS = ("state_dict", "model_state_dict", "model")


def replay(
    model: nn.Module,
    path: str | os.PathLike[str],
    *,
    checkpoints: Mapping[int, Checkpoint] | Mapping[tuple[int, int], Checkpoint],
    layers: Layers = "children",
    probe: Dataset[Any] | DataLoader[Any],
    to_inputs: ToInputs | None = None,
    metrics: Mapping[Any, Mapping[str, float]] | None = None,
    record: Sequence[Recorded] = ("activation",),
    loss: Loss | None = None,
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
) -> None:
    r"""Record the run that a `Recorder` would have recorded, had it been there.

    With the same weights, probe, batch size, software, device and precision flags, the stored values are the same bit
    for bit. Another batch size, device or number of threads rounds differently; the run's provenance says which were
    used.

    Parameters
    ----------
    model : Module
        The architecture. Its own weights and buffers are put back at the end.
    path : path-like
        Where the run goes.
    checkpoints : mapping of int, or of (int, int), to path or state dict
        By epoch, or by epoch and optimizer step. A file is read without running code from it (``weights_only=True``);
        it holds a state dict, or a dict with one under ``state_dict``, ``model_state_dict`` or ``model``. Names may
        start with ``module.`` or ``_orig_mod.``, as DistributedDataParallel, AveragedModel and torch.compile write
        them, or with one other prefix under which all of the model's names are, as Lightning's modules write them.
    metrics : mapping, optional
        By the same keys, numbers to keep beside a snapshot.
    loss : callable, optional
        As for `Recorder.snapshot`, where gradients are recorded.
    layers, probe, to_inputs, record, batch_size, dtype, channels, crop, max_size, channel_axis, overflow, mode, \
    max_bytes, max_pending_bytes, \ notes
        As for `Recorder`. With ``mode="a"``, checkpoints whose snapshots are in the run already are passed over.

    Raises
    ------
    FileNotFoundError
        Where a checkpoint is missing: before anything is recorded.
    ValueError
        Where there is no checkpoint, or one does not hold this model's weights: snapshots before it stay. Where all of
        them would take more than `max_bytes`: before anything is recorded.
    StoreError, CaptureError, FileExistsError
        As `Recorder`.
    """
    if not checkpoints:
        raise ValueError("checkpoints is empty; pass at least one, by epoch")
    for checkpoint in checkpoints.values():
        if not isinstance(checkpoint, Mapping) and not os.path.isfile(checkpoint):  # noqa: PTH113
            raise FileNotFoundError(f"there is no checkpoint at {os.fspath(checkpoint)}; nothing was recorded")
    ordered = sorted((_coordinates(key), key) for key in checkpoints)
    plain = plain_model(model)
    recorder = Recorder(
        plain,
        path,
        layers=layers,
        probe=probe,
        to_inputs=to_inputs,
        record=record,
        batch_size=batch_size,
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
    )
    if max_bytes is not None:  # refuse before anything is recorded, rather than at the last checkpoint
        recorder.estimate(n_snapshots=len(ordered), max_bytes=max_bytes)
    with _own_weights(plain), recorder:
        for (epoch, step), key in _after(recorder.last, ordered, path=os.fspath(path)):
            _load(plain, checkpoints[key], what=f"the checkpoint of epoch {epoch}")
            recorder.snapshot(epoch=epoch, step=step, metrics=(metrics or {}).get(key), loss=loss)


def _after(
    last: tuple[int, int], ordered: list[tuple[tuple[int, int], Any]], *, path: str
) -> list[tuple[tuple[int, int], Any]]:
    """Return the checkpoints that are not in the run yet; raise `ValueError` where one would belong between its own."""
    early = [coordinates for coordinates, _ in ordered if coordinates <= last]
    if early:
        there = open_run(path).snapshots[["epoch", "step"]].itertuples(index=False, name=None)
        if unknown := sorted(set(early) - {(int(e), int(s)) for e, s in there}):
            raise ValueError(
                f"checkpoints holds epoch {unknown[0][0]}, step {unknown[0][1]}, which {path} does not, and its last "
                f"snapshot is of epoch {last[0]}, step {last[1]}: snapshots are recorded in order. Leave that "
                f"checkpoint out, or record into another path"
            )
    return ordered[len(early) :]


def _coordinates(key: object) -> tuple[int, int]:
    pair = key if isinstance(key, tuple) else (key, 0)
    if len(pair) != 2 or not all(isinstance(part, int) and not isinstance(part, bool) for part in pair):
        raise ValueError(f"checkpoints has the key {key!r}; expected an epoch, or (epoch, step)")
    return pair


@contextmanager
def _own_weights(model: nn.Module) -> Iterator[None]:
    before = copy.deepcopy(model.state_dict())
    try:
        yield
    finally:
        model.load_state_dict(before)


def _fitting(state: Mapping[Any, Any], model: nn.Module) -> dict[str, Any]:
    """Return a state dict under the model's own names: prefixes of wrappers go where names then match, only there."""
    own = set(model.state_dict())
    names = {str(name): value for name, value in state.items()}
    for prefix in ("", "module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module."):
        cut = {name.removeprefix(prefix): value for name, value in names.items() if name.startswith(prefix)}
        if own <= cut.keys():
            averaged = prefix.startswith("module.") and "n_averaged" in names  # of AveragedModel, beside its module
            return {name: cut[name] for name in cut if name in own} if averaged else cut
    if (inner := _one_inner_model(names, own)) is not None:
        return inner
    return {name.removeprefix("module."): value for name, value in names.items()}


def _one_inner_model(names: Mapping[str, Any], own: Set[str]) -> dict[str, Any] | None:
    """Return what is under the one prefix beneath which all names of the model are, as Lightning's modules write them.

    None where there is none, or several, such as a student and its teacher.
    """
    names = {name.replace("_orig_mod.", ""): value for name, value in names.items()}
    if own == names.keys():  # of a model of which a part is compiled
        return names
    one = min(own, key=len, default="")
    prefixes = [name.removesuffix(one) for name in names if name.endswith(f".{one}")]
    fitting = [prefix for prefix in prefixes if all(prefix + name in names for name in own)]
    if len(fitting) != 1 or not own:
        return None
    return {name: names[fitting[0] + name] for name in own}


def _load(model: nn.Module, checkpoint: Checkpoint, *, what: str) -> None:
    if isinstance(checkpoint, Mapping):
        state: Any = checkpoint
    else:
        what = f"{what} ({os.fspath(checkpoint)})"
        try:
            state = torch.load(checkpoint, map_location="cpu", weights_only=True)
        except Exception as error:  # unpickling raises whatever it likes
            raise ValueError(f"{what} cannot be read as weights: {str(error).splitlines()[0]}") from error
    for key in _WRAPPINGS:
        if isinstance(state, Mapping) and isinstance(state.get(key), Mapping):
            state = state[key]
    if not isinstance(state, Mapping):
        raise ValueError(f"{what} holds a {type(state).__name__}; expected a state dict")
    names = _fitting(state, model)
    try:
        model.load_state_dict(names)
    except (RuntimeError, TypeError) as error:
        lines = [line.strip() for line in str(error).splitlines()[1:4]] or [str(error)]
        raise ValueError(f"{what} does not hold this model's weights: {' '.join(lines)}") from error
