"""Canonical correlations of channels: two layers compared over positions, from reading their samples once."""

from functools import partial

import numpy as np
import numpy.typing as npt

from ...vectors import Vectors
from .._canonical import canonical, weighted
from .._results import Array

_MOST_SAMPLES = 64  # that are read at a time
_ROUNDING = 1e-6  # averages of a constant differ by less than this share of it, where they are of unlike many positions


def compare_positions(
    pair: tuple[Vectors, Vectors], *, metric: str, n_directions: int | None, max_bytes: int
) -> tuple[float, float]:
    """Compare the channels of two layers over positions, as seen from the first and from the second.

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
        For activations that are not finite, or too few positions; the layers are named.
    MemoryError
        Where the feature maps of one sample, beside the channels' products, are too large for `max_bytes`.
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
    """Return the centered inner products of channels over all positions of all samples, and their number."""
    shapes = [vectors.source.feature_map_shape for vectors in pair]
    size = min(shape[1] for shape in shapes), min(shape[2] for shape in shapes)
    channels, n_positions = sum(shape[0] for shape in shapes), size[0] * size[1]
    matrices = 8 * 4 * channels**2
    # the positions of both in float64; the feature maps of one as they are stored, copies of them, and their averages
    of_a_sample = 8 * channels * n_positions + 16 * max(int(np.prod(shape)) for shape in shapes)
    step = min((max_bytes - matrices) // of_a_sample, _MOST_SAMPLES)
    if step < 1:
        raise MemoryError(
            f"the products of {shapes[0][0]} and {shapes[1][0]} channels and the feature maps of one sample take "
            f"{matrices + of_a_sample >> 20:,} MiB, the budget is {max_bytes >> 20:,} MiB; raise max_bytes"
        )
    samples, c = pair[0].samples, shapes[0][0]
    total, sums, shift = np.zeros((channels, channels)), np.zeros(channels), np.zeros(channels)
    block = np.empty((min(step, len(samples)) * n_positions, channels))
    for start in range(0, len(samples), step):
        both = block[: len(samples[start : start + step]) * n_positions]
        for vectors, out in zip(pair, (both[:, :c], both[:, c:]), strict=True):
            _read_positions(vectors, samples[start : start + step], size=size, out=out)
        if start == 0:
            shift = both.mean(axis=0)
        both -= shift
        sums += both.sum(axis=0)
        total += both.T @ both
    points = len(samples) * n_positions
    total -= np.outer(sums, sums) / points
    constant = np.diag(total) <= points * (_ROUNDING * (shift + sums / points)) ** 2
    total[constant] = total[:, constant] = 0
    return total[:c, :c], total[c:, c:], total[:c, c:], points


def _read_positions(
    vectors: Vectors, samples: npt.NDArray[np.int64], *, size: tuple[int, int], out: npt.NDArray[np.float64]
) -> None:
    """Read some samples, averaged to a size, to an array of shape (n_samples * height * width, n_channels)."""
    import torch

    maps = vectors.source.read_feature_maps(
        snapshot=vectors.snapshots[0], samples=samples, channels=slice(None), rows=slice(None)
    )
    if not np.isfinite(maps).all():
        raise ValueError(
            f"{vectors.layer} holds NaN or infinite values at snapshot {vectors.snapshots[0]}; leave out the samples "
            f"that do (samples=[...])"
        )
    values = torch.from_numpy(maps if maps.flags.writeable else maps.copy()).float()
    averaged = torch.nn.functional.adaptive_avg_pool2d(values, size).numpy()
    out.reshape(len(samples), *size, -1)[...] = averaged.transpose(0, 2, 3, 1)
