"""Replay: the run that a recorder would have recorded, from checkpoints that were saved earlier."""

import copy
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from torch import nn
from torch.utils.data import DataLoader, Dataset

from ..store import Mode, open_run
from ._compat import with_versions
from ._recorder import Recorder
from .forward import check_has_weights, plain_model
from .inputs import ToInputs
from .options import Channels, Crop, Layers, Overflow, PerLayer, Recorded, Size
from .passes import Loss
from .weights import choose_weights, read_checkpoint

Checkpoint = str | os.PathLike[str] | Mapping[str, Any]


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
    r"""Record a run from checkpoints that were saved during an earlier training, as a `Recorder` would have.

    With the same weights, probe, batch size, software, device and precision flags, the stored values are the same bit
    for bit. Another batch size, device or number of threads rounds differently; the run's provenance says which were
    used.

    Parameters
    ----------
    model : Module
        The architecture. Its own weights and buffers are put back at the end.
    path : path-like
        Where the run goes: a folder, or a URL of an object store such as ``s3://bucket/run.zarr``.
    checkpoints : mapping of int, or of (int, int), to path or state dict
        By epoch, or by epoch and optimizer step. A file, of ``torch.save`` or safetensors, is read without running code
        from it; it holds a state dict, or mappings with one, up to three keys deep (``state_dict``, ``model_ema``,
        ``net`` ...).
        Names may begin with ``module.``, ``_orig_mod.``, ``model.``, ``encoder_q.`` or whatever else all of the model's
        names are behind. Of several that fit and differ, those at the top or under ``state_dict``,
        ``model_state_dict`` or ``model`` are taken, with a warning; where that does not tell, such as of a student and
        its teacher, it is an error that names them.
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
            folder = " file, but a folder: pass one in it," if os.path.isdir(checkpoint) else ""  # noqa: PTH112
            raise FileNotFoundError(f"there is no checkpoint{folder} at {os.fspath(checkpoint)}; nothing was recorded")
    ordered = sorted((_coordinates(key), key) for key in checkpoints)
    plain = plain_model(model)
    check_has_weights(plain)
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
    warned = False
    with _own_weights(plain), recorder:
        for (epoch, step), key in _after(recorder.last, ordered, path=os.fspath(path)):
            others = _load(plain, checkpoints[key], what=f"the checkpoint of epoch {epoch}")
            if others and not warned:
                warned = True
                warnings.warn(f"{others}. To replay those, load the checkpoints and pass that part.", stacklevel=2)
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


def _load(model: nn.Module, checkpoint: Checkpoint, *, what: str) -> str:
    """Load a checkpoint; return, where it holds other weights that fit as well, which were taken and which were not."""
    if isinstance(checkpoint, Mapping):
        state: Any = checkpoint
    else:
        what = f"{what} ({os.fspath(checkpoint)})"
        try:
            state = read_checkpoint(checkpoint)
        except ValueError as error:
            raise ValueError(f"{what} {error}") from error
    own = model.state_dict()
    try:
        found, others = choose_weights(state, like=own)
    except ValueError as error:
        if _loads_as_it_is(model, state):
            return ""
        raise ValueError(f"{what} {error}") from None
    try:
        model.load_state_dict(with_versions(found.weights, like=own))
    except (RuntimeError, TypeError, KeyError) as error:
        lines = [line.strip() for line in str(error).splitlines()[1:4]] or [str(error)]
        raise ValueError(f"{what} does not hold this model's weights: {' '.join(lines)}") from error
    return f"{what} holds {found.where}, which were taken, and {'; '.join(others)}" if others else ""


def _loads_as_it_is(model: nn.Module, state: object) -> bool:
    """Whether a model takes a state dict whose names are not its own, as modules do that were renamed since."""
    if not isinstance(state, Mapping) or not state:
        return False
    try:
        model.load_state_dict(state)
    except Exception:  # of what is no state dict, whatever the modules' own hooks raise
        return False
    return True
