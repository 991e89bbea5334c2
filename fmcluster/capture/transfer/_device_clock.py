"""Device clock: waiting for a device, and timing its copies to the host by its own events."""

from statistics import median

import torch

_MOST_BYTES = 64 << 20
_COPIES = 5


def wait_for(device: torch.device) -> None:
    """Return when what was queued on the device's current stream is done."""
    if device.type == "cuda":
        torch.cuda.current_stream(device).synchronize()
    elif device.type != "cpu":
        torch.accelerator.synchronize(device)


def pinned_rate(device: torch.device, *, nbytes: int) -> float:
    """Return how many bytes a second a CUDA device copies to page-locked memory, timed by events.

    Parameters
    ----------
    device : device
        A CUDA device.
    nbytes : int
        How many are copied at a time; beyond 64 MiB, 64 MiB. The median of five copies counts, after one to warm up.
    """
    size = max(1, min(nbytes, _MOST_BYTES))
    there = torch.zeros(size, dtype=torch.uint8, device=device)
    here = torch.empty(size, dtype=torch.uint8, pin_memory=True)
    stream = torch.cuda.current_stream(device)
    times: list[float] = []
    for _ in range(_COPIES + 1):
        start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
        start.record(stream)
        here.copy_(there, non_blocking=True)
        stop.record(stream)
        stop.synchronize()
        times.append(start.elapsed_time(stop) / 1000)
    return size / max(float(median(times[1:])), 1e-9)
