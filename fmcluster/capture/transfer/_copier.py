"""Copier: copies what is kept of outputs from the device to the host's memory."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch

from ...errors import CaptureError
from ...store import LayerSpec
from ..options import Reduction
from ._memory import Bytes, HostMemory, PinnedRing
from ._moments import Moments
from ._reduce import moments_of, reduce_in_turn, reduce_on_cpu, reduce_with_torch, stored_shape

Reduce = Callable[..., tuple[torch.Tensor, torch.Tensor]]

_ONE_PASS = (torch.float32, torch.float16, torch.bfloat16)


class Copy(Protocol):
    """What is kept of one output.

    Attributes
    ----------
    has_arrived : bool
        Whether `result` need not wait.
    """

    @property
    def has_arrived(self) -> bool:
        """See above."""

    def result(self) -> tuple[npt.NDArray[Any], Moments]:
        """Return values and sums; waits until they have arrived. The values are valid until `release`."""

    def release(self) -> None:
        """Give the memory back."""


@dataclass(frozen=True, eq=False)
class ExactCopy:
    """A copy of a tensor in the host's memory.

    Attributes
    ----------
    values : ndarray
        What it holds; valid until `release`.
    """

    values: npt.NDArray[Any]
    _memory: HostMemory
    _piece: Bytes

    def release(self) -> None:
        """Give the memory back."""
        self._memory.release(self._piece)


class Copier:
    """Copies what is kept of outputs to the host's memory.

    From a CUDA device the copy runs beside the computation: `copy` queues the cast, the sums and the copy, and
    returns; the computation waits for none of them, unless there is no room left. From any other device the copy has
    been made when `copy` returns.

    Parameters
    ----------
    max_bytes : int
        How much may wait to be written; `copy` waits for room.
    clips : bool
        Whether finite values beyond the stored dtype's largest are clipped to it.
    threads : int
        For outputs that lie in the host's memory already.
    """

    def __init__(self, *, max_bytes: int, clips: bool, threads: int) -> None:
        self._host = HostMemory(max_bytes=max_bytes)
        self._pinned = PinnedRing(max_bytes=max_bytes)
        self._clips = clips
        self._threads = threads
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="fmcluster-reduce")
        self._streams: dict[torch.device, torch.cuda.Stream] = {}

    @property
    def peak_bytes(self) -> int:
        """The most that has been waiting to be written."""
        return max(self._host.peak_bytes, self._pinned.peak_bytes)

    def copy(self, output: torch.Tensor, reduction: Reduction, *, waits: bool = True) -> Copy:
        """Take what is kept of an output, as it is now; without waiting, where nothing is being written yet."""
        output = output.detach()
        with torch.no_grad(), torch.autocast(output.device.type, enabled=False):
            if output.device.type == "cuda":
                if torch.cuda.is_current_stream_capturing():  # what waits for a copy cannot be a part of a graph
                    raise CaptureError(
                        "a forward pass cannot be recorded while it is captured into a CUDA graph, as it does not run: "
                        "leave the recorder's block while the graph is made"
                    )
                return self._copy_aside(output, reduction, waits)
            return self._copy_now(output, reduction, waits)

    def copy_exactly(self, tensor: torch.Tensor, dtype: str, *, waits: bool = True) -> ExactCopy:
        """Copy a tensor as it is now, to a NumPy dtype that holds it exactly; it has been made when this returns."""
        piece = self._host.acquire(tensor.numel() * np.dtype(dtype).itemsize, waits=waits)
        out = piece.view(dtype).reshape(tuple(tensor.shape))
        try:
            with torch.no_grad():
                torch.from_numpy(out).copy_(tensor.detach())
        except BaseException:
            self._host.release(piece)
            raise
        return ExactCopy(out, self._host, piece)

    def close(self) -> None:
        """End the threads."""
        self._pool.shutdown()

    def _copy_now(self, output: torch.Tensor, reduction: Reduction, waits: bool) -> Copy:
        shape = stored_shape(output, reduction)
        piece = self._host.acquire(int(np.prod(shape)) * np.dtype(reduction.dtype).itemsize, waits=waits)
        out = piece.view(reduction.dtype).reshape(shape)
        try:
            if output.device.type == "cpu" and output.dtype in _ONE_PASS:
                moments = reduce_on_cpu(output, reduction, out=out, pool=self._pool, threads=self._threads)
            else:
                moments = reduce_in_turn(output, reduction, out=out)
        except BaseException:  # such as an interrupt: whoever continues must not wait for this piece for ever
            self._host.release(piece)
            raise
        return _HostCopy(out, moments, self._host, piece)

    def _copy_aside(self, output: torch.Tensor, reduction: Reduction, waits: bool) -> Copy:
        shape = stored_shape(output, reduction)
        n_channels = shape[1 + LayerSpec.channel_axis(tuple(shape[1:]))]
        nbytes = int(np.prod(shape)) * np.dtype(reduction.dtype).itemsize
        values_end = -(-nbytes // 8) * 8
        reduce = reduce_on_cuda(output)
        values, sums = reduce(output, reduction, clips=self._clips)  # first: the device may lack the memory
        piece = self._pinned.acquire(values_end + 8 * (7 * n_channels + 2), waits=waits)
        host_values = piece[:nbytes].view(values.dtype).view(shape)
        host_sums = piece[values_end:].view(sums.dtype)
        compute = torch.cuda.current_stream(output.device)
        if output.device not in self._streams:
            self._streams[output.device] = torch.cuda.Stream(output.device)  # type: ignore[no-untyped-call]
        aside = self._streams[output.device]
        try:
            aside.wait_stream(compute)
            with torch.cuda.stream(aside):
                host_values.copy_(values, non_blocking=True)
                host_sums.copy_(sums, non_blocking=True)
                for tensor in (values, sums):  # their memory is not to be used again before the copy has been made
                    tensor.record_stream(aside)
                arrived = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]
                arrived.record(aside)
        except BaseException:  # such as an interrupt: whoever continues must not wait for this piece for ever
            with suppress(Exception):
                aside.synchronize()  # one of the copies may be on its way
            self._pinned.release(piece)
            raise
        return _CopyFromCuda(host_values, host_sums, arrived, self._pinned, piece)


def reduce_on_cuda(output: torch.Tensor) -> Reduce:
    """Return what reduces an output of a CUDA device: one kernel where Triton is there, or torch."""
    if output.dtype in _ONE_PASS and output.ndim < 5 and find_spec("triton") is not None:
        from ._reduce_with_triton import reduce_with_triton

        return reduce_with_triton
    return reduce_with_torch


@dataclass(frozen=True, eq=False)
class _HostCopy:
    values: npt.NDArray[Any]
    moments: Moments
    memory: HostMemory
    piece: Bytes
    has_arrived: bool = True

    def result(self) -> tuple[npt.NDArray[Any], Moments]:
        return self.values, self.moments

    def release(self) -> None:
        self.memory.release(self.piece)


@dataclass(frozen=True, eq=False)
class _CopyFromCuda:
    values: torch.Tensor
    sums: torch.Tensor
    arrived: torch.cuda.Event
    ring: PinnedRing
    piece: torch.Tensor
    has_arrived: bool = False

    def result(self) -> tuple[npt.NDArray[Any], Moments]:
        self.arrived.synchronize()
        return self.values.numpy(), moments_of(self.sums.numpy())

    def release(self) -> None:
        try:
            self.arrived.synchronize()  # also where nobody asked for the result
        finally:
            self.ring.release(self.piece)  # also of a device that failed: others wait for room
