"""Triton kernel for CUDA devices: the cast, reductions and channel sums in one read (two where it averages)."""

from typing import Any

import torch
import triton
import triton.language as tl

from ..options import Reduction
from ._reduce import LARGEST, OVERFLOW, by_channel, stored_shape

N_SUMS = 10  # rows of a partial result: those of `Moments`, then lowest, highest and number of values that do not fit
_TILE = 1024
_WARPS = 8  # of 32 lanes: with fewer, the sums of a tile do not fit into the registers
_MOST_PROGRAMS = 2048
_MOST_POSITIONS = 2**31 - 1  # that 32 bits number
DTYPES = (torch.float32, torch.float16, torch.bfloat16)


@triton.jit
def _add(total, lost, value):  # type: ignore[no-untyped-def]
    """Add with the rounding error kept apart: Knuth's TwoSum (TAOCP 2, 4.2.2), lane by lane."""
    new = total + value
    part = new - total
    lost += (total - (new - part)) + (value - part)
    return new, lost


@triton.jit
def _square(value):  # type: ignore[no-untyped-def]
    """Return a float32 square and its rounding error: Dekker's product (Numerische Mathematik 18, 1971)."""
    split = 4097.0 * value
    high = split - (split - value)
    low = value - high
    square = value * value
    return square, ((high * high - square) + 2.0 * high * low) + low * low


@triton.jit  # type: ignore[untyped-decorator]
def _reduce(  # type: ignore[no-untyped-def]
    source,
    kept_channels,
    out,
    partial,
    n_channels,
    height,
    width,
    n_positions,
    per_program,
    source_n,
    source_c,
    source_h,
    source_w,
    out_n,
    out_c,
    out_h,
    out_w,
    top,
    bottom,
    left,
    right,
    out_height,
    out_width,
    WIDE: tl.constexpr,
    HAS_CHANNELS: tl.constexpr,
    POOLS: tl.constexpr,
    WINDOW_H: tl.constexpr,
    WINDOW_W: tl.constexpr,
    IS_FLOAT16: tl.constexpr,
    EXACT_SQUARES: tl.constexpr,
    CAN_OVERFLOW: tl.constexpr,
    CLIPS: tl.constexpr,
    LIMIT: tl.constexpr,
    LARGEST_STORED: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_P: tl.constexpr,
    N_ROWS: tl.constexpr,
):
    """Sum up some channels over some positions (of one image, where it averages), and store what is kept of them."""
    channel = tl.program_id(0) * BLOCK_C + tl.arange(0, BLOCK_C)
    there = channel < n_channels
    number = tl.load(kept_channels + channel, mask=there, other=0) if HAS_CHANNELS else channel
    base = number.to(tl.int64) * source_c
    out_base = channel.to(tl.int64) * out_c
    # positions are divided, for which 64 bits cost several times as much; where they lie may need them
    share = tl.program_id(1).to(tl.int64) if WIDE else tl.program_id(1)
    first = share * per_program
    last = tl.minimum(first + per_program, n_positions)

    zero = tl.zeros((BLOCK_C, BLOCK_P), tl.float32)
    total, total_lost = zero, zero
    large, large_lost = zero, zero  # of values beyond 2 ** 60, times 2 ** -64
    squares, squares_lost = zero, zero
    large_squares, large_squares_lost = zero, zero  # times 2 ** -192
    small_squares, small_squares_lost = zero, zero  # of values below 2 ** -60, times 2 ** 200
    lowest, highest = zero + float("inf"), zero - float("inf")
    low_beyond, high_beyond = zero, zero
    count = tl.zeros((BLOCK_C, BLOCK_P), tl.int32)
    zeros, nonfinite, beyond = count, count, count

    for start in range(first, last, BLOCK_P):
        position = start + tl.arange(0, BLOCK_P)
        mask = there[:, None] & (position < last)[None, :]
        image = position // (height * width)
        y = (position // width) % height
        x = position % width
        where = image.to(tl.int64) * source_n + y * source_h + x * source_w
        value = tl.load(source + base[:, None] + where[None, :], mask=mask, other=0).to(tl.float32)
        size = tl.abs(value)
        finite = mask & (size < float("inf"))
        kept = tl.where(finite, value, 0.0)
        if IS_FLOAT16:  # neither so large nor so small
            total, total_lost = _add(total, total_lost, kept)
            squares, squares_lost = _add(squares, squares_lost, kept * kept)
        else:
            is_large = finite & (size > 1.152921504606847e18)
            is_small = finite & (size < 8.673617379884035e-19)
            middle = tl.where(is_large, 0.0, kept)
            total, total_lost = _add(total, total_lost, middle)
            large, large_lost = _add(large, large_lost, tl.where(is_large, kept, 0.0) * 5.421010862427522e-20)
            square, rest = _square(tl.where(is_small, 0.0, middle))
            squares, squares_lost = _add(squares, squares_lost, square)
            if not EXACT_SQUARES:
                squares_lost += rest
            square, rest = _square(tl.where(is_large, kept, 0.0) * 1.262177448353619e-29)
            large_squares, large_squares_lost = _add(large_squares, large_squares_lost + rest, square)
            square, rest = _square(tl.where(is_small, kept, 0.0) * 1.2676506002282294e30)
            small_squares, small_squares_lost = _add(small_squares, small_squares_lost + rest, square)
        lowest = tl.minimum(lowest, tl.where(finite, value, float("inf")))
        highest = tl.maximum(highest, tl.where(finite, value, -float("inf")))
        count += finite.to(tl.int32)
        zeros += (mask & (value == 0.0)).to(tl.int32)
        nonfinite += (mask & ~finite).to(tl.int32)
        if not POOLS:
            inside = mask & ((y >= top) & (y < bottom) & (x >= left) & (x < right))[None, :]
            stored = value
            if CAN_OVERFLOW:
                too_large = inside & finite & (size >= LIMIT)
                beyond += too_large.to(tl.int32)
                low_beyond = tl.minimum(low_beyond, tl.where(too_large, value, 0.0))
                high_beyond = tl.maximum(high_beyond, tl.where(too_large, value, 0.0))
                if CLIPS:
                    clipped = tl.minimum(tl.maximum(value, -LARGEST_STORED), LARGEST_STORED)
                    stored = tl.where(finite, clipped, value)
            to = image.to(tl.int64) * out_n + (y - top) * out_h + (x - left) * out_w
            tl.store(out + out_base[:, None] + to[None, :], stored.to(out.dtype.element_ty), mask=inside)

    if POOLS:
        image = tl.program_id(1).to(tl.int64)
        kept_height, kept_width = bottom - top, right - left
        for start in range(0, out_height * out_width, BLOCK_P):
            cell = start + tl.arange(0, BLOCK_P)
            inside = there[:, None] & (cell < out_height * out_width)[None, :]
            row, column = cell // out_width, cell % out_width
            y0, y1 = row * kept_height // out_height, ((row + 1) * kept_height + out_height - 1) // out_height
            x0, x1 = column * kept_width // out_width, ((column + 1) * kept_width + out_width - 1) // out_width
            mean, mean_lost = zero, zero
            special = zero
            for dy in range(WINDOW_H):
                for dx in range(WINDOW_W):
                    part = inside & ((y0 + dy < y1) & (x0 + dx < x1))[None, :]
                    where = image * source_n + (top + y0 + dy) * source_h + (left + x0 + dx) * source_w
                    value = tl.load(source + base[:, None] + where[None, :], mask=part, other=0).to(tl.float32)
                    finite = tl.abs(value) < float("inf")
                    special += tl.where(finite, 0.0, value)
                    area = ((y1 - y0) * (x1 - x0)).to(tl.float32)[None, :]
                    mean, mean_lost = _add(mean, mean_lost, tl.where(finite, value, 0.0) / area)
            stored = mean + mean_lost + special
            size = tl.abs(stored)
            if CAN_OVERFLOW:
                too_large = inside & (size < float("inf")) & (size >= LIMIT)
                beyond += too_large.to(tl.int32)
                low_beyond = tl.minimum(low_beyond, tl.where(too_large, stored, 0.0))
                high_beyond = tl.maximum(high_beyond, tl.where(too_large, stored, 0.0))
                if CLIPS:
                    clipped = tl.minimum(tl.maximum(stored, -LARGEST_STORED), LARGEST_STORED)
                    stored = tl.where(size < float("inf"), clipped, stored)
            to = image * out_n + row * out_h + column * out_w
            tl.store(out + out_base[:, None] + to[None, :], stored.to(out.dtype.element_ty), mask=inside)

    # few numbers are left, for which float64 costs nothing
    big = 18446744073709551616.0  # 2 ** 64
    whole = tl.sum(total.to(tl.float64) + total_lost.to(tl.float64), axis=1)
    whole += tl.sum(large.to(tl.float64) + large_lost.to(tl.float64), axis=1) * big
    power = tl.sum(squares.to(tl.float64) + squares_lost.to(tl.float64), axis=1)
    power += tl.sum(large_squares.to(tl.float64) + large_squares_lost.to(tl.float64), axis=1) * big * big * big
    small = tl.sum(small_squares.to(tl.float64) + small_squares_lost.to(tl.float64), axis=1)
    power += small / big / big / big / 256.0  # in steps: the product of the divisors is beyond float32
    row = partial + tl.program_id(1).to(tl.int64) * N_ROWS * n_channels + channel
    tl.store(row, tl.sum(count, axis=1).to(tl.float64), mask=there)
    tl.store(row + n_channels, whole, mask=there)
    tl.store(row + 2 * n_channels, power, mask=there)
    tl.store(row + 3 * n_channels, tl.min(lowest, axis=1).to(tl.float64), mask=there)
    tl.store(row + 4 * n_channels, tl.max(highest, axis=1).to(tl.float64), mask=there)
    tl.store(row + 5 * n_channels, tl.sum(zeros, axis=1).to(tl.float64), mask=there)
    tl.store(row + 6 * n_channels, tl.sum(nonfinite, axis=1).to(tl.float64), mask=there)
    tl.store(row + 7 * n_channels, tl.min(low_beyond, axis=1).to(tl.float64), mask=there)
    tl.store(row + 8 * n_channels, tl.max(high_beyond, axis=1).to(tl.float64), mask=there)
    tl.store(row + 9 * n_channels, tl.sum(beyond, axis=1).to(tl.float64), mask=there)


def reduce_with_triton(output: torch.Tensor, reduction: Reduction, *, clips: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Store an output of a CUDA device and sum up its channels, without waiting for the device.

    It is read once, and a second time where it is averaged.

    The sums are taken in compensated float32, as most cards do float64 at 1/64 of the speed: of values and of their
    squares, with those beyond 2 ** 60 or below 2 ** -60 in accumulators of their own scale, after J. L. Blue (ACM TOMS
    4, 1978).

    Parameters
    ----------
    output : Tensor of shape (n, c, h, w), (n, t, c) or (n, c), float32, float16 or bfloat16
        Of any strides.
    reduction : Reduction
        What is kept.
    clips : bool
        Whether finite values beyond the stored dtype's largest are clipped; otherwise they become infinite.

    Returns
    -------
    values, sums : Tensor
        As `reduce_with_torch` returns them.
    """
    by_channels = by_channel(output)
    while by_channels.ndim < 4:
        by_channels = by_channels.unsqueeze(-1)
    n, c, height, width = by_channels.shape
    stored = torch.empty(stored_shape(output, reduction), dtype=getattr(torch, reduction.dtype), device=output.device)
    out = by_channel(stored)
    while out.ndim < 4:
        out = out.unsqueeze(-1)
    n_channels = out.shape[1]
    (top, bottom), (left, right) = reduction.crop or ((0, height), (0, width))
    pools = reduction.size is not None
    block_c = min(32, triton.next_power_of_2(n_channels)) if by_channels.stride(1) == 1 and c > 1 else 1
    block_p = _TILE // block_c
    n_blocks = triton.cdiv(n_channels, block_c)
    n_positions = n * height * width
    if pools:
        per_program = height * width
    else:
        programs = max(1, min(triton.cdiv(n_positions, block_p), _MOST_PROGRAMS // n_blocks))
        per_program = triton.cdiv(triton.cdiv(n_positions, programs), block_p) * block_p
    n_parts = triton.cdiv(n_positions, per_program)
    partial = torch.empty((n_parts, N_SUMS, n_channels), dtype=torch.float64, device=output.device)
    # Triton launches on the current device, wherever its arguments are
    with torch.cuda.device_of(output):  # type: ignore[no-untyped-call]
        _reduce[(n_blocks, n_parts)](
            by_channels,
            by_channels if reduction.channels is None else _numbers(reduction.channels, output.device),
            out,
            partial,
            n_channels,
            height,
            width,
            n_positions,
            per_program,
            *by_channels.stride(),
            *out.stride(),
            top,
            bottom,
            left,
            right,
            *out.shape[2:],
            WIDE=n_positions + per_program > _MOST_POSITIONS,
            HAS_CHANNELS=reduction.channels is not None,
            POOLS=pools,
            WINDOW_H=_window(bottom - top, out.shape[2]),
            WINDOW_W=_window(right - left, out.shape[3]),
            IS_FLOAT16=output.dtype == torch.float16,
            EXACT_SQUARES=output.dtype != torch.float32,
            CAN_OVERFLOW=torch.finfo(output.dtype).max > LARGEST[reduction.dtype],
            CLIPS=clips,
            LIMIT=OVERFLOW[reduction.dtype],
            LARGEST_STORED=LARGEST[reduction.dtype],
            BLOCK_C=block_c,
            BLOCK_P=block_p,
            N_ROWS=N_SUMS,
            num_warps=_WARPS,
            enable_fp_fusion=False,  # a fused product would change what the rounding errors are taken for
        )
    return stored, _combine(partial)


def _combine(partial: torch.Tensor) -> torch.Tensor:
    """Add up partial results, a Tensor of shape (n_parts, N_SUMS, n_channels)."""
    added = partial.sum(dim=0)
    low, high = partial[:, 7].amin(), partial[:, 8].amax()
    rows = [*added[:3], partial[:, 3].amin(dim=0), partial[:, 4].amax(dim=0), *added[5:7]]
    return torch.cat([*rows, torch.where(high > -low, high, low).reshape(1), added[9].sum().reshape(1)])


def _window(kept: int, stored: int) -> int:
    """Return the longest window of an adaptive average from `kept` pixels to `stored`."""
    return max(-(-(cell + 1) * kept // stored) - cell * kept // stored for cell in range(stored))


def _numbers(channels: tuple[int, ...], device: torch.device) -> Any:
    """Return channel numbers on a device, without waiting for it."""
    aside = device.type == "cuda"
    return torch.tensor(channels, dtype=torch.int32, pin_memory=aside).to(device, non_blocking=aside)
