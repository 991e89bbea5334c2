"""From an output to what is stored of it: the cast and the six statistics, in one pass where the CPU does it."""

import math
from concurrent.futures import Executor
from dataclasses import dataclass
from itertools import pairwise

import numba
import numpy as np
import numpy.typing as npt
import torch

_INF = np.float32(np.inf)
LARGEST = {"float16": 65504.0, "float32": float(np.finfo(np.float32).max)}
OVERFLOW = {"float16": 65520.0, "float32": 2.0**128 - 2.0**103}  # the first number that rounds to infinity


@dataclass(frozen=True)
class Moments:
    """Sums over the finite values of each channel, from which statistics follow and which add up across batches.

    Attributes
    ----------
    values : ndarray of shape (7, n_channels), float64
        Count, sum, sum of squares, minimum, maximum, number of zeros, number of non-finite values.
    overflow : float
        The value of largest magnitude that the stored dtype cannot hold; 0 where it holds all of them.
    n_overflow : int
        How many it cannot hold.
    """

    values: npt.NDArray[np.float64]
    overflow: float = 0.0
    n_overflow: int = 0

    def __add__(self, other: "Moments") -> "Moments":
        a, b = self.values, other.values
        values = a + b
        values[3], values[4] = np.minimum(a[3], b[3]), np.maximum(a[4], b[4])
        overflow = max(self.overflow, other.overflow, key=abs)
        return Moments(values, overflow, self.n_overflow + other.n_overflow)

    def statistics(self) -> npt.NDArray[np.float64]:
        """Return mean, standard deviation (of the population), minimum, maximum, share of zeros, non-finite count.

        Returns
        -------
        ndarray of shape (6, n_channels), float64
            NaN where a channel has no finite value.
        """
        count, total, squares, low, high, zeros, nonfinite = self.values
        empty = count == 0
        n = np.where(empty, 1, count)
        mean = total / n
        variance = np.where(low == high, 0, np.maximum(squares / n - mean**2, 0))
        out = np.stack([mean, np.sqrt(variance), low, high, zeros / n, nonfinite])
        out[:5, empty] = np.nan
        return out


def reduce_output(
    output: torch.Tensor, *, dtype: str, pool: Executor, threads: int
) -> tuple[npt.NDArray[np.floating], Moments]:
    """Copy an output in its stored dtype, and sum up its channels.

    Parameters
    ----------
    output : Tensor of shape (n, c, h, w), (n, t, c) or (n, c)
        Of any device, dtype and memory format. It is read before this returns.
    dtype : {"float16", "float32"}
        Stored dtype. Finite values beyond its largest are clipped to it and counted.
    pool : Executor
        Where the parts of a CPU pass run.
    threads : int
        In how many parts.

    Returns
    -------
    values : ndarray of the shape of `output`, of `dtype`
        A copy; it shares no memory with `output`.
    moments : Moments
        Of the values before the cast.
    """
    tensor = output.detach()
    planes = tensor.transpose(1, 2) if tensor.ndim == 3 else tensor  # channels second
    if tensor.device.type == "cpu" and tensor.dtype in (torch.float32, torch.float16, torch.bfloat16):
        half, moments = _reduce_on_cpu(planes.float().contiguous(), pool, threads)
        if dtype == "float32":
            return _to_numpy(tensor, torch.float32), Moments(moments.values)
        return (half.transpose(0, 2, 1).copy() if tensor.ndim == 3 else half), moments
    moments = _reduce_with_torch(planes, OVERFLOW[dtype])
    clipped = tensor
    if moments.n_overflow:
        clipped = torch.where(tensor.isfinite(), tensor.clamp(-LARGEST[dtype], LARGEST[dtype]), tensor)
    if tensor.dtype == torch.float64:  # torch would round twice, by way of float32
        return clipped.cpu().contiguous().numpy().astype(dtype), moments
    return _to_numpy(clipped, getattr(torch, dtype)), moments


def _to_numpy(tensor: torch.Tensor, dtype: torch.dtype) -> npt.NDArray[np.floating]:
    copy = tensor.to(dtype=dtype, memory_format=torch.contiguous_format, copy=True)
    return copy.cpu().contiguous().numpy()


def _reduce_with_torch(planes: torch.Tensor, overflow: float) -> Moments:
    wide = planes if planes.device.type == "mps" else planes.double()
    flat = wide.movedim(1, 0).reshape(planes.shape[1], -1)
    finite = flat.isfinite()
    kept = torch.where(finite, flat, 0)
    rows = [
        finite.sum(1),
        kept.sum(1),
        (kept * kept).sum(1),
        torch.where(finite, flat, math.inf).amin(1),
        torch.where(finite, flat, -math.inf).amax(1),
        (flat == 0).sum(1),
        (~finite).sum(1),
    ]
    values = torch.stack([row.to(wide.dtype) for row in rows]).cpu().numpy().astype(np.float64)
    over = finite & (flat.abs() >= overflow)
    n_overflow = int(over.sum())
    largest = float(kept.flatten()[kept.abs().argmax()]) if n_overflow else 0.0
    return Moments(values, largest, n_overflow)


def _reduce_on_cpu(planes: torch.Tensor, pool: Executor, threads: int) -> tuple[npt.NDArray[np.float16], Moments]:
    values = planes.numpy()
    n, c = values.shape[:2]
    flat = values.reshape(n, c, -1)
    half = np.empty(flat.shape, np.uint16)
    sums = np.empty((7, n, c))
    over = np.zeros((n, c), np.int64)
    bounds = np.linspace(0, n, min(threads, n) + 1).astype(int)
    parts = [slice(start, stop) for start, stop in pairwise(bounds)]
    for _ in pool.map(lambda part: _pass(flat[part], half[part], sums[:, part], over[part]), parts):
        pass
    total = sums.sum(axis=1)
    total[3], total[4] = sums[3].min(axis=0), sums[4].max(axis=0)
    n_overflow = int(over.sum())
    largest = 0.0
    if n_overflow:
        low, high = float(sums[3].min()), float(sums[4].max())
        largest = high if high > -low else low
    return half.view(np.float16).reshape(values.shape), Moments(total, largest, n_overflow)


@numba.njit(nogil=True, cache=True, fastmath={"reassoc", "contract", "nsz"}, error_model="numpy")
def _pass(
    values: npt.NDArray[np.float32],
    half: npt.NDArray[np.uint16],
    sums: npt.NDArray[np.float64],
    over: npt.NDArray[np.int64],
) -> None:  # pragma: no cover  (compiled)
    """Round to float16, to nearest and ties to even, and sum up each plane, in one pass over the memory."""
    for i in range(values.shape[0]):
        for j in range(values.shape[1]):
            plane = values[i, j]
            bits = plane.view(np.uint32)
            out = half[i, j]
            total, squares = np.float64(0), np.float64(0)
            low, high = _INF, -_INF
            zeros, bad, beyond = 0, 0, 0
            for k in range(plane.size):
                value = plane[k]
                word = bits[k]
                size = word & np.uint32(0x7FFFFFFF)
                finite = size < np.uint32(0x7F800000)
                kept = value if finite else np.float32(0)
                total += kept
                squares += np.float64(kept) * np.float64(kept)
                lower = value if finite else _INF
                upper = value if finite else -_INF
                low = lower if lower < low else low
                high = upper if upper > high else high
                zeros += size == np.uint32(0)
                bad += not finite
                too_large = finite and size >= np.uint32(0x477FF000)
                beyond += too_large
                # normal: re-bias the exponent and round on the 13 bits that fall away
                normal = (size + np.uint32(0xC8000FFF) + ((size >> np.uint32(13)) & np.uint32(1))) >> np.uint32(13)
                # subnormal: a multiple of 2 ** -24
                tiny = abs(kept) if size < np.uint32(0x38800000) else np.float32(0)
                small = np.uint32(np.rint(tiny * np.float32(16777216)))
                special = np.uint32(0x7C00) if size == np.uint32(0x7F800000) else np.uint32(0x7E00)
                word16 = small if size < np.uint32(0x38800000) else normal
                word16 = np.uint32(0x7BFF) if too_large else word16
                word16 = word16 if finite else special
                out[k] = np.uint16(word16 | ((word >> np.uint32(16)) & np.uint32(0x8000)))
            sums[0, i, j] = plane.size - bad
            sums[1, i, j] = total
            sums[2, i, j] = squares
            sums[3, i, j] = low
            sums[4, i, j] = high
            sums[5, i, j] = zeros
            sums[6, i, j] = bad
            over[i, j] = beyond
