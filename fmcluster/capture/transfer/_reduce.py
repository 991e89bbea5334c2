"""Reductions of an output to what is stored of it: crop, average pooling, cast and sums, on its own device."""

import math
from concurrent.futures import Executor
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from ..options import Reduction
from ._cast_and_sum import CONVERTS, cast_and_sum
from ._moments import Moments

LARGEST = {"float16": 65504.0, "float32": float(np.finfo(np.float32).max)}
OVERFLOW = {"float16": 65520.0, "float32": 2.0**128 - 2.0**103}  # the first number that rounds to infinity


def stored_shape(output: torch.Tensor, reduction: Reduction) -> tuple[int, ...]:
    """Return the shape of what is stored of an output."""
    return (output.shape[0], *reduction.stored_shape(tuple(output.shape[1:])))


def by_channel(output: torch.Tensor) -> torch.Tensor:
    """Return a view with the channels second."""
    return output.transpose(1, 2) if output.ndim == 3 else output


def reduce_on_cpu(
    output: torch.Tensor, reduction: Reduction, *, out: npt.NDArray[Any], pool: Executor, threads: int
) -> Moments:
    """Store an output of float32 or shorter that lies in the processor's memory.

    Parameters
    ----------
    output : Tensor of shape (n, c, h, w), (n, t, c) or (n, c)
        Read before this returns.
    reduction : Reduction
        What is kept.
    out : ndarray of `stored_shape`
        Takes it. Finite values beyond the dtype's largest are clipped.
    pool : Executor
        Where the parts are reduced.
    threads : int
        In how many parts.
    """
    kept = reduction.of_channels(output)
    planes = by_channel(kept).float().contiguous().numpy()
    n, c = planes.shape[:2]
    flat = planes.reshape(n * c, -1)
    at_once = reduction.crop is None and reduction.size is None and out.dtype == np.float16 and output.ndim != 3
    half = out.view(np.uint16).reshape(flat.shape) if at_once else None
    sums = np.empty((8, n * c))
    bounds = np.linspace(0, n * c, min(threads, n * c) + 1).astype(int)
    parts = [slice(start, stop) for start, stop in pairwise(bounds)]

    def one(part: slice) -> None:
        cast_and_sum(flat[part], None if half is None else half[part], sums=sums[:, part], converts=CONVERTS)

    for _ in pool.map(one, parts):
        pass
    by_plane = sums.reshape(8, n, c)
    total = by_plane[:7].sum(axis=1)
    total[3], total[4] = by_plane[3].min(axis=0), by_plane[4].max(axis=0)
    low, high = float(total[3].min()), float(total[4].max())
    if not at_once:
        # of many values just under the limit, an average in float32 may round to beyond it
        fits = reduction.size is None and max(-low, high) < OVERFLOW[out.dtype.name]
        return Moments(total, *_store(reduction.of_positions(kept), out, fits=fits))
    n_overflow = int(sums[7].sum())
    return Moments(total, (high if high > -low else low) if n_overflow else 0.0, n_overflow)


def _store(values: torch.Tensor, out: npt.NDArray[Any], *, fits: bool = False) -> tuple[float, int]:
    """Cast values into `out`; return the largest that it cannot hold, and how many those are."""
    largest, count = (0.0, 0) if fits else overflow_of(values, out.dtype.name).tolist()
    clipped = clip(values, out.dtype.name) if count else values
    if values.dtype == torch.float64:  # torch would round twice, by way of float32
        out[...] = clipped.numpy()
    else:
        torch.from_numpy(out).copy_(clipped)
    return largest, int(count)


def reduce_with_torch(output: torch.Tensor, reduction: Reduction, *, clips: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Do the same with torch, on any device, without waiting for it.

    Parameters
    ----------
    output : Tensor of shape (n, c, h, w), (n, t, c) or (n, c)
        Read by what is queued on the current stream.
    reduction : Reduction
        What is kept.
    clips : bool
        Whether finite values beyond the dtype's largest are clipped; otherwise they become infinite.

    Returns
    -------
    values : Tensor of `stored_shape`, in the stored dtype
        Contiguous, and a copy.
    sums : Tensor of shape (7 * n_channels + 2,), float64 (float32 on MPS)
        Rows as in `Moments`, then the largest value that does not fit and how many do not.
    """
    kept = reduction.of_channels(output)
    planes = by_channel(kept)
    wide = torch.float32 if planes.device.type == "mps" else torch.float64
    axes = [axis for axis in range(planes.ndim) if axis != 1]
    finite = planes.isfinite()
    zeroed = torch.where(finite, planes, 0)
    rows = [
        finite.sum(axes),
        zeroed.sum(axes, dtype=wide),
        torch.linalg.vector_norm(zeroed, dim=axes, dtype=wide).square(),
        torch.where(finite, planes, math.inf).amin(axes),
        torch.where(finite, planes, -math.inf).amax(axes),
        (planes == 0).sum(axes),
        (~finite).sum(axes),
    ]
    values = reduction.of_positions(kept)
    beyond = overflow_of(values, reduction.dtype)
    if clips:
        values = clip(values, reduction.dtype)
    stored = values.to(dtype=getattr(torch, reduction.dtype), memory_format=torch.contiguous_format, copy=True)
    return stored, torch.cat([*(row.to(wide) for row in rows), beyond.to(wide)])


def moments_of(sums: npt.NDArray[Any]) -> Moments:
    """Return what `reduce_with_torch` summed up."""
    numbers = sums.astype(np.float64)
    return Moments(numbers[:-2].reshape(7, -1), float(numbers[-2]), int(numbers[-1]))


def reduce_in_turn(output: torch.Tensor, reduction: Reduction, *, out: npt.NDArray[Any]) -> Moments:
    """Do the same for an output of any device and dtype, and wait for it."""
    if output.dtype == torch.float64 and output.device.type == "cpu":
        _, sums = reduce_with_torch(output, reduction, clips=False)
        largest, count = _store(reduction.of_positions(reduction.of_channels(output)), out)
        return Moments(moments_of(sums.numpy()).values, largest, count)
    stored, sums = reduce_with_torch(output, reduction, clips=True)
    out[...] = stored.cpu().numpy()
    return moments_of(sums.cpu().numpy())


def overflow_of(values: torch.Tensor, dtype: str) -> torch.Tensor:
    """Return the finite value of largest magnitude that a dtype cannot hold, and how many there are; both 0 if none."""
    wide = torch.float32 if values.device.type == "mps" else torch.float64
    if torch.finfo(values.dtype).max <= LARGEST[dtype]:
        return torch.zeros(2, dtype=wide, device=values.device)
    beyond = values.isfinite() & (values.abs() >= OVERFLOW[dtype])
    sizes = torch.where(beyond, values, 0)
    low, high = sizes.amin(), sizes.amax()
    return torch.stack([torch.where(high > -low, high, low).to(wide), beyond.sum().to(wide)])


def clip(values: torch.Tensor, dtype: str) -> torch.Tensor:
    """Clip finite values to the largest that a dtype holds."""
    if torch.finfo(values.dtype).max <= LARGEST[dtype]:
        return values
    if values.dtype == torch.bfloat16:  # has no 65504 itself
        values = values.float()
    return torch.where(values.isfinite(), values.clamp(-LARGEST[dtype], LARGEST[dtype]), values)
