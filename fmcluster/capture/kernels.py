"""The processor's one pass over an output: rounded to float16 and summed up by plane."""

import platform
from typing import Any

import llvmlite.binding
import numba
import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba.extending import intrinsic

_INF = np.float32(np.inf)
_FAST = {"reassoc", "contract", "nsz"}

# elsewhere the conversion would be a call into a library that may not be there
CONVERTS = platform.machine().lower() in ("arm64", "aarch64") or bool(
    llvmlite.binding.get_host_cpu_features().get("f16c")
)


@intrinsic
def _float16_bits(_typing: Any, _value: Any) -> Any:  # pragma: no cover  (compiled)
    """Round a float32 to float16, to nearest and ties to even, as the processor does; return its bits."""

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.bitcast(builder.fptrunc(arguments[0], ir.HalfType()), ir.IntType(16))

    return numba.uint16(numba.float32), generate


def sum_planes(
    planes: npt.NDArray[np.float32],
    half: npt.NDArray[np.uint16] | None,
    *,
    sums: npt.NDArray[np.float64],
    converts: bool = CONVERTS,
) -> None:
    """Sum up each plane, and round it to float16 on the way.

    Parameters
    ----------
    planes : ndarray of shape (n_planes, n_values), float32
        What is summed up.
    half : ndarray of shape (n_planes, n_values), uint16, or None
        Takes the bits of the float16; finite values that it cannot hold are clipped to 65504.
    sums : ndarray of shape (8, n_planes), float64
        Takes count, sum, sum of squares, minimum, maximum, zeros, non-finite values, and clipped ones.
    converts : bool
        Whether the processor converts to float16 itself.
    """
    if half is not None and not converts:
        _sum_planes_with_care(planes, half, sums)
    else:
        _sum_planes(planes, half, sums)


@numba.njit(nogil=True, cache=True, fastmath=_FAST, error_model="numpy")
def _sum_planes(
    planes: npt.NDArray[np.float32], half: npt.NDArray[np.uint16] | None, sums: npt.NDArray[np.float64]
) -> None:  # pragma: no cover  (compiled)
    for i in range(planes.shape[0]):
        plane = planes[i]
        out = None if half is None else half[i]
        total, squares = np.float64(0), np.float64(0)
        low, high = _INF, -_INF
        zeros = 0
        for k in range(plane.size):
            value = plane[k]
            if out is not None:
                out[k] = _float16_bits(value)  # type: ignore[call-arg]  # numba passes the context
            wide = np.float64(value)
            total += wide
            squares += wide * wide
            low = value if value < low else low
            high = value if value > high else high
            zeros += value == 0
        # the squares of what float32 holds are finite in float64, so NaN and infinity show in their sum
        if squares < np.inf and (half is None or (high < 65520 and low > -65520)):
            sums[0, i], sums[1, i], sums[2, i] = plane.size, total, squares
            sums[3, i], sums[4, i], sums[5, i] = low, high, zeros
            sums[6, i], sums[7, i] = 0, 0
        else:
            _sum_with_care(plane, out, sums[:, i])


@numba.njit(nogil=True, cache=True, error_model="numpy")
def _sum_planes_with_care(
    planes: npt.NDArray[np.float32], half: npt.NDArray[np.uint16], sums: npt.NDArray[np.float64]
) -> None:  # pragma: no cover  (compiled)
    for i in range(planes.shape[0]):
        _sum_with_care(planes[i], half[i], sums[:, i])


@numba.njit(nogil=True, cache=True, fastmath=_FAST, error_model="numpy")
def _sum_with_care(
    plane: npt.NDArray[np.float32], out: npt.NDArray[np.uint16] | None, sums: npt.NDArray[np.float64]
) -> None:  # pragma: no cover  (compiled)
    """Do the same for a plane that holds NaN, infinities or values beyond float16; in integers, without branches."""
    bits = plane.view(np.uint32)
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
        if out is not None:
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
    sums[0], sums[1], sums[2], sums[3], sums[4] = plane.size - bad, total, squares, low, high
    sums[5], sums[6], sums[7] = zeros, bad, beyond
