"""Importance of channels: the loss without each, to first order, from stored feature maps and gradients."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from ..store import Layer
from ._results import MAX_BYTES, Array, Labels
from ._validation import require

_BLOCK_BYTES = 32 << 20
_COPIES = 4  # of a block: as stored, in float64, the gradient, the product


@dataclass(frozen=True, eq=False)
class Importance:
    """How much each channel of a layer matters to the loss.

    Attributes
    ----------
    layer : str
        The layer.
    frame : DataFrame
        One row per snapshot and channel: ``snapshot, epoch, step, channel``; ``importance``, the mean over images of
        the squared sum over positions of gradient times activation, in squared units of the recorded loss, and
        ``importance_se``, its standard error over images; ``share``, the part of the sum over the layer's channels
        (NaN where that is 0); ``effect``, the mean over images of what the loss would change to first order were the
        channel's feature map zero, and ``effect_se``; ``nonfinite``, the images left out, as their feature maps or
        gradients hold NaN or infinite values.
    n_samples : int
        Images that were looked at.
    """

    layer: str
    frame: pd.DataFrame
    n_samples: int

    def __repr__(self) -> str:
        return f"<Importance of {self.layer}: {len(self.frame)} rows, {self.n_samples} images>"

    def least(self, *, n: int = 5) -> pd.DataFrame:
        """Return the channels of least importance at the last snapshot."""
        last: pd.DataFrame = self.frame[self.frame["snapshot"] == self.frame["snapshot"].max()]
        return last.nsmallest(n, "importance")


def importance(
    layer: Layer,
    *,
    snapshots: Sequence[int] | None = None,
    samples: Sequence[int] | None = None,
    unscaled: bool = False,
    max_bytes: int = MAX_BYTES,
) -> Importance:
    """Estimate how much each channel matters to the loss, at every snapshot.

    Parameters
    ----------
    layer : Layer
        A layer of a run that holds its gradients, too.
    snapshots : sequence of int, optional
        Numbers of the snapshots; all by default.
    samples : sequence of int, optional
        Dataset indices; by default all that every one of the snapshots holds.
    unscaled : bool
        Divide gradients by the loss scale that was recorded with them (``torch.amp.GradScaler``).
    max_bytes : int
        Memory that may be taken; at least one image is read at a time.

    Returns
    -------
    Importance
        ``.frame`` has a row per snapshot and channel.

    Raises
    ------
    TypeError
        For what is not a layer.
    ValueError
        For a layer without gradients, snapshots or samples that do not exist, or fewer than two images.
    MemoryError
        Where one image does not fit.

    References
    ----------
    P. Molchanov, A. Mallya, S. Tyree, I. Frosio, J. Kautz, Importance estimation for neural network pruning, CVPR 2019
    (the squared sum of gradient times activation).
    """
    require(layer, Layer, verb="importance", made_by="open_run(path)[name]")
    if layer.quantity == "gradient":
        raise ValueError(f"importance received the gradients of {layer.name}; pass run[{layer.name!r}], which has both")
    gradient = layer.gradient
    vectors = layer.vectors("sample", snapshots=snapshots, samples=samples)
    chosen = vectors.samples
    if len(chosen) < 2:
        raise ValueError("there is one image; expected at least two, for means and standard errors")
    one = _COPIES * 8 * int(np.prod(layer.shape[2:]))
    if one > max_bytes:
        raise MemoryError(
            f"one image of {layer.name} takes {one / 2**20:,.1f} MiB, the budget is {max_bytes / 2**20:,.1f} MiB; "
            f"raise max_bytes"
        )
    size = max(1, min(_BLOCK_BYTES * _COPIES, max_bytes) // one)
    frames = []
    for snapshot in vectors.snapshots:
        blocks = (chosen[start : start + size] for start in range(0, len(chosen), size))
        terms = np.concatenate(
            [gradient_terms(layer, gradient, snapshot=snapshot, samples=block, unscaled=unscaled) for block in blocks]
        )
        frames.append(_summary(terms).assign(channel=layer.channels, snapshot=snapshot))
    time = layer.snapshots[["snapshot", "epoch", "step"]]
    columns = ["snapshot", "epoch", "step", "channel", "importance", "importance_se", "share", "effect", "effect_se"]
    frame = pd.concat(frames, ignore_index=True).merge(time, on="snapshot")
    return Importance(layer=layer.name, frame=frame[[*columns, "nonfinite"]], n_samples=len(chosen))


def gradient_terms(layer: Layer, gradient: Layer, *, snapshot: int, samples: Labels, unscaled: bool) -> Array:
    """Return the sum over positions of gradient times activation, ndarray of shape (n_samples, n_channels), float64."""
    numbers = samples.tolist()
    maps = layer.read(snapshot=snapshot, samples=numbers).astype(np.float64)
    slopes = gradient.read(snapshot=snapshot, samples=numbers, unscaled=unscaled)
    axes = tuple(axis for axis, name in enumerate(layer.dimensions[1:]) if name not in ("sample", "channel"))
    with np.errstate(invalid="ignore"):  # what is not finite is counted by the caller
        terms: Array = np.multiply(maps, slopes, out=maps).sum(axis=axes)
    return terms


def _summary(terms: Array) -> pd.DataFrame:
    """Return means over images, of those that are finite."""
    finite = np.isfinite(terms)
    kept = np.where(finite, terms, np.nan)
    squares = np.square(kept)
    count = finite.sum(axis=0)
    mean, error = _mean_and_error(squares, count)
    effect, effect_error = _mean_and_error(-kept, count)
    total = np.nansum(mean)
    return pd.DataFrame(
        {
            "importance": mean,
            "importance_se": error,
            "share": mean / total if total > 0 else np.full_like(mean, np.nan),
            "effect": effect,
            "effect_se": effect_error,
            "nonfinite": len(terms) - count,
        }
    )


def _mean_and_error(values: Array, count: Labels) -> tuple[Array, Array]:
    """Return the mean of each column without NaN, and its standard error; NaN where one or none is left."""
    some = np.maximum(count, 1)
    mean = np.nansum(values, axis=0) / some
    spread = np.sqrt(np.nansum(np.square(values - mean), axis=0) / np.maximum(count - 1, 1))
    return np.where(count > 0, mean, np.nan), np.where(count > 1, spread / np.sqrt(some), np.nan)
