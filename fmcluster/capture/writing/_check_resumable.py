"""Resuming: whether a recorder can add to a run, and after which snapshot."""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from ...errors import StoreError
from ...store import Layer, LayerSpec, Run, RunKind, WeightSpec, open_run


def check_resumable(
    path: str, *, specs: Sequence[LayerSpec], kind: RunKind, n_samples: int, shard_samples: int
) -> None:
    """Compare a run with what would be added to it.

    Raises
    ------
    StoreError
        Where the kind of run, layers, shapes, dtypes, what is kept of them, the number of samples or the batch size
        differ.
    """
    run = open_run(path)
    _require(path, f"a {run.kind} run", f"a {kind} run")
    stored = [_stored(run[name]) for name in run.layers]
    offered = [_offered(spec) for spec in specs]
    for there, here in zip(stored, offered, strict=False):
        _require(path, there, here)
    _require(path, f"{len(stored)} layers", f"{len(offered)} layers")
    _require(path, f"{run.n_samples} samples", f"{n_samples} samples")
    _require(path, f"batches of {run.shard_samples}", f"batches of {min(shard_samples, n_samples)}")


def check_same_weights(path: str, *, specs: Sequence[WeightSpec], normalizations: Mapping[str, int]) -> None:
    """Compare the weights of a run with those that would be added to it.

    Raises
    ------
    StoreError
        Where names, shapes or dtypes of parameters or buffers differ, or the normalizations do; with the first.
    """
    run = open_run(path)
    stored = [f"the {spec.kind} {spec.name!r} of shape {spec.shape} in {spec.dtype}" for spec in run.weight_specs]
    offered = [f"the {spec.kind} {spec.name!r} of shape {spec.shape} in {spec.dtype}" for spec in specs]
    for there, here in zip(stored, offered, strict=False):
        _require(path, there, here)
    _require(path, f"{len(stored) or 'no'} weights", f"{len(offered) or 'no'} weights")
    known = [f"inputs of the normalization {name!r}" for name in run.normalization_names]
    new = [f"inputs of the normalization {name!r}" for name in normalizations]
    for there, here in zip(known, new, strict=False):
        _require(path, there, here)
    _require(path, f"inputs of {len(known)} normalizations", f"inputs of {len(new)} normalizations")


def last_snapshot(run: Run) -> tuple[int, int]:
    """Return epoch and step of a run's last snapshot; (-1, -1) where it has none."""
    if not len(run):
        return -1, -1
    last = run.snapshots.iloc[-1]
    return int(last["epoch"]), int(last["step"])


def stored_digests(run: Run) -> npt.NDArray[np.uint8] | None:
    """Return the digests of a run's samples, ndarray of shape (n_samples, 32); None where it has none yet."""
    if not len(run):
        return None
    if "digest" not in run.samples:
        raise StoreError(
            f"{run.path} cannot be resumed: it holds no digests of its samples, by which a probe is known to be the "
            f"same. Record into another path."
        )
    return np.stack([np.frombuffer(bytes.fromhex(digest), np.uint8) for digest in run.samples["digest"]])


def _require(path: str, there: str, here: str) -> None:
    if there != here:
        instead = "" if len(open_run(path)) else ', or, as it holds no snapshot, replace it with mode="w"'
        raise StoreError(
            f"{path} cannot be resumed: it holds {there}, and this recorder has {here}. Record into another path"
            f"{instead}."
        )


def _stored(layer: Layer) -> str:
    return _describe(
        layer.name, layer.shape[2:], str(layer.dtype), layer.channels, layer.crop, "gradient" in layer.quantities
    )


def _offered(spec: LayerSpec) -> str:
    channels = range(spec.n_channels) if spec.channels is None else spec.channels
    return _describe(spec.name, spec.shape, spec.dtype, channels, spec.crop, spec.gradient)


def _describe(
    name: str,
    shape: tuple[int, ...],
    dtype: str,
    channels: Sequence[int] | npt.NDArray[np.int64],
    crop: tuple[tuple[int, int], tuple[int, int]] | None,
    gradient: bool,
) -> str:
    """Say what is stored of a layer; two layers are the same where this is."""
    numbers = [int(number) for number in channels]
    parts = [f"layer {name} of shape {shape} in {dtype}"]
    if numbers != list(range(len(numbers))):
        parts.append(f"channels {numbers[:8]}{' and so on' if len(numbers) > 8 else ''}")
    if crop is not None:
        parts.append(f"cropped to {crop}")
    if gradient:
        parts.append("gradients")
    return ", ".join(parts)
