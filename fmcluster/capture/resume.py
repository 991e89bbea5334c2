"""Whether a recorder can go on with a run."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ..errors import StoreError
from ..store import LayerSpec, open_run
from .probe import Probe


def check_resumable(
    path: str, *, specs: Sequence[LayerSpec], probe: Probe
) -> tuple[tuple[int, int], npt.NDArray[np.uint8] | None]:
    """Compare a run with what would be added to it.

    Returns
    -------
    last : (int, int)
        Epoch and step of its last snapshot; (-1, -1) where it has none.
    digests : ndarray of shape (n_samples, 32), uint8, or None
        Of its samples, where they are known.

    Raises
    ------
    StoreError
        Where layers, shapes, dtypes, the number of samples or the batch size differ.
    """
    run = open_run(path)
    stored = [(layer.name, layer.shape[2:], str(layer.dtype)) for layer in (run[name] for name in run.layers)]
    offered = [(spec.name, spec.shape, spec.dtype) for spec in specs]
    for there, here in zip(stored, offered, strict=False):
        _require(path, f"layer {_describe(there)}", f"layer {_describe(here)}")
    _require(path, f"{len(stored)} layers", f"{len(offered)} layers")
    _require(path, f"a probe of {run.n_samples} samples", f"a probe of {probe.n_samples} samples")
    batch = min(probe.batch_size, probe.n_samples)
    _require(path, f"batches of {run.shard_samples}", f"batches of {batch}")
    if not len(run):
        return (-1, -1), None
    last = run.snapshots.iloc[-1]
    digests = np.stack([np.frombuffer(bytes.fromhex(digest), np.uint8) for digest in run.samples["digest"]])
    return (int(last["epoch"]), int(last["step"])), digests


def _require(path: str, there: str, here: str) -> None:
    if there != here:
        raise StoreError(
            f"cannot go on with {path}: it holds {there}, and this recorder has {here}. Record into another path."
        )


def _describe(layer: tuple[str, tuple[int, ...], str]) -> str:
    name, shape, dtype = layer
    return f"{name} of shape {shape} in {dtype}"
