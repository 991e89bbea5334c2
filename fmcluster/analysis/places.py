"""Channels of two layers compared over places: canonical correlations from one pass over the samples."""

from functools import partial

import numpy as np

from ..vectors import Vectors
from .representations import canonical, weighted
from .results import Array

_ROUNDING = 1e-6  # averages of a constant differ by less than this share of it, where they are of unlike many places


def compare_places(
    pair: tuple[Vectors, Vectors], *, metric: str, n_directions: int | None, max_bytes: int
) -> tuple[float, float]:
    """Compare the channels of two layers over places, as seen from the first and from the second.

    Parameters
    ----------
    pair : tuple of Vectors
        Of the sample view, each at one snapshot, of the same samples.
    metric : {"svcca", "pwcca"}
        What is made of the canonical correlations.
    n_directions : int or None
        Directions kept of each; None: those that hold 99 % of the variance (``"svcca"``), or all.
    max_bytes : int
        Memory that may be taken.

    Raises
    ------
    ValueError
        For activations that are not finite, or too few places; the layers are named.
    MemoryError
        Where the maps of one sample, beside the channels' products, are too large for `max_bytes`.
    """
    xx, yy, xy, points = _sum_products(pair, max_bytes=max_bytes)
    relate = partial(canonical, n_points=points, n_directions=n_directions, variance=0.99 if metric == "svcca" else 1.0)
    try:
        there = relate(xx, yy, xy=xy)
    except ValueError as error:
        raise ValueError(f"{pair[0].layer} and {pair[1].layer}: {error}") from None
    if metric == "svcca":
        mean = float(there[0].mean()) if len(there[0]) else float("nan")
        return mean, mean
    return weighted(*there), weighted(*relate(yy, xx, xy=xy.T))


def _sum_products(pair: tuple[Vectors, Vectors], *, max_bytes: int) -> tuple[Array, Array, Array, int]:
    """Return the centred inner products of channels over all places of all samples, and how many places there are."""
    shapes = [vectors.source.map_shape for vectors in pair]
    size = min(shape[1] for shape in shapes), min(shape[2] for shape in shapes)
    channels = [shape[0] for shape in shapes]
    of_a_sample = sum(4 * int(np.prod(shape)) for shape in shapes) + 16 * sum(channels) * size[0] * size[1]
    matrices = 8 * 4 * sum(channels) ** 2
    step = (max_bytes - matrices) // (2 * of_a_sample)
    if step < 1:
        raise MemoryError(
            f"the products of {channels[0]} and {channels[1]} channels and the maps of one sample take "
            f"{matrices + 2 * of_a_sample >> 20:,} MiB, the budget is {max_bytes >> 20:,} MiB; raise max_bytes"
        )
    step = min(step, 64)
    total, sums, points = np.zeros((sum(channels),) * 2), np.zeros(sum(channels)), 0
    shift: Array | None = None
    for start in range(0, len(pair[0].samples), step):
        both = np.concatenate([_read_places(vectors, slice(start, start + step), size) for vectors in pair], axis=1)
        if shift is None:
            shift = both.mean(axis=0)
        both -= shift
        sums += both.sum(axis=0)
        total += both.T @ both
        points += len(both)
    total -= np.outer(sums, sums) / points
    assert shift is not None
    constant = np.diag(total) <= points * (_ROUNDING * (shift + sums / points)) ** 2
    total[constant] = total[:, constant] = 0
    c = channels[0]
    return total[:c, :c], total[c:, c:], total[:c, c:], points


def _read_places(vectors: Vectors, part: slice, size: tuple[int, int]) -> Array:
    """Read some samples, averaged to a size: ndarray of shape (n_samples * height * width, n_channels), float64."""
    import torch

    layer = vectors.source
    maps = layer.read_maps(
        snapshot=vectors.snapshots[0], samples=vectors.samples[part], channels=slice(None), rows=slice(None)
    )
    if not np.isfinite(maps).all():
        raise ValueError(
            f"{vectors.layer} holds NaN or infinite values at snapshot {vectors.snapshots[0]}; leave out the samples "
            f"that do (samples=[...])"
        )
    tensor = torch.from_numpy(maps if maps.flags.writeable else maps.copy()).float()
    pooled = torch.nn.functional.adaptive_avg_pool2d(tensor, size).numpy()
    places: Array = pooled.transpose(0, 2, 3, 1).reshape(-1, pooled.shape[1]).astype(np.float64)
    return places
