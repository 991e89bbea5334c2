"""Cast and sum, by Numba on the processor: an output rounded to float16 and summed up by plane, in one read."""

import platform
from typing import Any

import llvmlite.binding
import numba
import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba.extending import intrinsic

from ...vectors import compiled

_INF = np.float32(np.inf)
_FAST = {"reassoc", "contract", "nsz"}
_BLOCK = 2048  # values that stay in the cache while they are gone over

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


def cast_and_sum(
    planes: npt.NDArray[np.float32],
    half: npt.NDArray[np.uint16] | None,
    *,
    sums: npt.NDArray[np.float64],
    converts: bool = CONVERTS,
) -> None:
    """Round each plane to float16, and sum it up on the way.

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
        _cast_and_sum_with_care(planes, half, sums)
    else:
        _cast_and_sum(planes, half, sums)


@compiled(error_model="numpy")
def _cast_and_sum(
    planes: npt.NDArray[np.float32], half: npt.NDArray[np.uint16] | None, sums: npt.NDArray[np.float64]
) -> None:  # pragma: no cover  (compiled)
    # a loop for each thing: together, the compiler finds no vector instructions for them
    for i in range(planes.shape[0]):
        total, squares, zeros = np.float64(0), np.float64(0), np.int64(0)
        lowest, highest = np.int32(0x7FFFFFFF), np.int32(-0x80000000)
        for start in range(0, planes.shape[1], _BLOCK):
            block = planes[i, start : start + _BLOCK]
            if half is not None:
                _convert(block, half[i, start : start + _BLOCK])
            block_total, block_squares = _add_up(block)
            total += block_total
            squares += block_squares
            zeros += _count_zeros(block)
            keys = _find_extremes(block.view(np.int32))
            lowest, highest = min(lowest, keys[0]), max(highest, keys[1])
        low, high = _value_of(lowest), _value_of(highest)
        # the squares of what float32 holds are finite in float64, so NaN and infinity show in their sum
        if squares < np.inf and (half is None or (high < 65520 and low > -65520)):
            sums[0, i], sums[1, i], sums[2, i] = planes.shape[1], total, squares
            sums[3, i], sums[4, i], sums[5, i] = low, high, zeros
            sums[6, i], sums[7, i] = 0, 0
        else:
            _sum_with_care(planes[i], None if half is None else half[i], sums[:, i])


@compiled(error_model="numpy")
def _convert(values: npt.NDArray[np.float32], out: npt.NDArray[np.uint16]) -> None:  # pragma: no cover  (compiled)
    for k in range(values.size):
        out[k] = _float16_bits(values[k])  # type: ignore[call-arg]  # numba passes the context


@compiled(fastmath=_FAST, error_model="numpy")
def _add_up(values: npt.NDArray[np.float32]) -> tuple[float, float]:  # pragma: no cover  (compiled)
    total, squares = np.float64(0), np.float64(0)
    for k in range(values.size):
        wide = np.float64(values[k])
        total += wide
        squares += wide * wide
    return total, squares


@compiled(error_model="numpy")
def _count_zeros(values: npt.NDArray[np.float32]) -> np.int32:  # pragma: no cover  (compiled)
    zeros = np.int32(0)
    for k in range(values.size):
        zeros += np.int32(values[k] == 0)
    return zeros


@compiled(error_model="numpy")
def _find_extremes(bits: npt.NDArray[np.int32]) -> tuple[np.int32, np.int32]:  # pragma: no cover  (compiled)
    """Find the extremes of float32 by their bits, in the order of `_key_of`."""
    lowest, highest = np.int32(0x7FFFFFFF), np.int32(-0x80000000)
    for k in range(bits.size):
        key = _key_of(bits[k])
        lowest, highest = min(lowest, key), max(highest, key)
    return lowest, highest


@compiled()
def _key_of(bits: np.int32) -> np.int32:  # pragma: no cover  (compiled)
    """Return an integer that is in the order of the float32 with these bits; it is its own inverse."""
    return np.int32(bits ^ (np.int32(bits >> np.int32(31)) & np.int32(0x7FFFFFFF)))


@compiled()
def _value_of(key: np.int32) -> np.float32:  # pragma: no cover  (compiled)
    bits = np.empty(1, np.int32)
    bits[0] = _key_of(key)
    value: np.float32 = bits.view(np.float32)[0]
    return value


@compiled(error_model="numpy")
def _cast_and_sum_with_care(
    planes: npt.NDArray[np.float32], half: npt.NDArray[np.uint16], sums: npt.NDArray[np.float64]
) -> None:  # pragma: no cover  (compiled)
    for i in range(planes.shape[0]):
        _sum_with_care(planes[i], half[i], sums[:, i])


@compiled(fastmath=_FAST, error_model="numpy")
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
