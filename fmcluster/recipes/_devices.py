"""Devices: the one to train on, and random generators there."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


def choose_device(device: str | torch.device | None) -> torch.device:
    """Return the device asked for, or a CUDA device where there is one and the CPU elsewhere.

    Parameters
    ----------
    device : str, torch.device or None
        Such as ``"cpu"`` or ``"cuda:1"``.

    Returns
    -------
    torch.device
        Usable here.

    Raises
    ------
    ValueError
        A name torch does not know, or a CUDA device that is not there.
    """
    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
    except RuntimeError as error:
        raise ValueError(f"unknown device {device!r}: expected such as cpu, cuda or cuda:0") from error
    if chosen.type == "cuda" and (chosen.index or 0) >= torch.cuda.device_count():
        raise ValueError(f"no device {device!r}: torch sees {torch.cuda.device_count()} CUDA devices; use cpu")
    return chosen


@contextmanager
def seeded(random_state: int, *, device: torch.device) -> Iterator[None]:
    """Give torch a random state of its own for a while; the caller's comes back afterwards.

    Parameters
    ----------
    random_state : int
        Of that state, on the CPU and on `device`.
    device : torch.device
        Where else random numbers are drawn.
    """
    cuda = [torch.cuda.current_device() if device.index is None else device.index] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=cuda):
        # torch.manual_seed would reseed every accelerator, also those that fork_rng does not give back.
        torch.default_generator.manual_seed(random_state)
        for index in cuda:
            with torch.cuda.device(index):
                torch.cuda.manual_seed(random_state)
        yield
