"""Normalization inputs: mean and variance of what each BatchNorm is given, channel by channel, in float64."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from ...store import normalization_path
from .._compat import in_backward, is_transformed

_BLOCK = 1 << 22  # values that are float64 at a time
OfChannels = tuple[int, torch.Tensor, torch.Tensor]
"""How many values a channel had, their sum and the sum of their squares: two arrays of shape (n_channels,), float64.

A variance of such sums has lost about as many of 16 digits as the square of mean over standard deviation has.
"""


class NormalizationInputs:
    """What the BatchNorms of a model are given in one snapshot, over samples and positions.

    Parameters
    ----------
    modules : mapping of str to Module
        The BatchNorms by name.
    """

    def __init__(self, modules: Mapping[str, nn.Module]) -> None:
        self._modules = modules
        self._batch: dict[str, OfChannels] = {}
        self._total: dict[str, OfChannels] = {}

    @contextmanager
    def watched(self, *, on_error: Callable[[Exception], None] | None = None) -> Iterator[None]:
        """Within the block, take the inputs of one batch; they count once `keep` is called.

        Parameters
        ----------
        on_error : callable, optional
            Takes what goes wrong, which otherwise goes through the model's forward pass.
        """
        self._batch = {}
        handles = [
            module.register_forward_pre_hook(partial(self._on_call, name, on_error), with_kwargs=True)
            for name, module in self._modules.items()
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def keep(self) -> None:
        """Count the batch that was watched last."""
        self.add({name: (count, sums.cpu(), squares.cpu()) for name, (count, sums, squares) in self._batch.items()})
        self._batch = {}

    def totals(self) -> dict[str, OfChannels]:
        """Return what was counted so far, by module."""
        return dict(self._total)

    def add(self, totals: Mapping[str, OfChannels]) -> None:
        """Count more, such as what another process did, as its `totals` says."""
        for name, more in totals.items():
            self._total[name] = merged(self._total[name], more) if name in self._total else more

    def arrays(self) -> dict[str, npt.NDArray[np.float64]]:
        """Return means and variances by the paths of their arrays; NaN of a module that was not called."""
        found: dict[str, npt.NDArray[np.float64]] = {}
        for name, module in self._modules.items():
            mean, variance = (np.full(n_channels(module), np.nan) for _ in range(2))
            if name in self._total:
                count, sums, squares = self._total[name]
                mean = sums.numpy() / count
                variance = squares.numpy() / count - np.square(mean)
                variance[variance < 0] = 0  # rounding, of a channel that does not vary
            found |= {f"{normalization_path(name)}/mean": mean, f"{normalization_path(name)}/variance": variance}
        return found

    def _on_call(
        self,
        name: str,
        on_error: Callable[[Exception], None] | None,
        module: nn.Module,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
    ) -> None:
        given = args[0] if args else next(iter(kwargs.values()), None)
        try:
            if isinstance(given, torch.Tensor) and _counts(module, given):
                here = of_channels(given)
                self._batch[name] = merged(self._batch[name], here) if name in self._batch else here
        except Exception as error:
            if on_error is None:
                raise
            on_error(error)


def n_channels(module: nn.Module) -> int:
    """Return how many channels a BatchNorm has."""
    count = module.num_features
    assert isinstance(count, int)
    return count


def _counts(module: nn.Module, given: torch.Tensor) -> bool:
    """Whether an input is one of samples and channels, and no recomputation of one."""
    plain = given.layout == torch.strided and not is_transformed(given) and not in_backward()
    return plain and given.ndim >= 2 and given.numel() > 0 and given.shape[1] == n_channels(module)


def of_channels(values: torch.Tensor) -> OfChannels:
    """Return how many values each channel of a batch has, their sums, and those of their squares.

    Parameters
    ----------
    values : Tensor of shape (n, n_channels, ...)
        Of any number of positions. Each is converted to float64 before it is squared, some of them at a time.

    Returns
    -------
    tuple of int, Tensor of shape (n_channels,), and another, float64
    """
    values = values.detach()
    values = values.cpu() if values.device.type == "mps" else values  # which has no float64
    per_channel = values.numel() // values.shape[1]
    if values.device.type == "cpu":
        return per_channel, *_on_cpu(values)
    axes = [axis for axis in range(values.ndim) if axis != 1]
    sums, squares = (torch.zeros(values.shape[1], dtype=torch.float64, device=values.device) for _ in range(2))
    with torch.no_grad():
        for piece in torch.split(values, max(1, _BLOCK // values[0].numel())):
            wide = piece.double()
            sums = sums + wide.sum(axes)
            squares = squares + wide.square().sum(axes)
    return per_channel, sums, squares


def _on_cpu(values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Do so with NumPy, which casts in small blocks on the way: a fifth of the time that a cast of its own takes."""
    sums, squares = (np.zeros(values.shape[1]) for _ in range(2))
    axes = "nchwdefg"[: values.ndim]
    for piece in torch.split(values, max(1, _BLOCK // values[0].numel())):
        array = (piece if piece.dtype in (torch.float32, torch.float64) else piece.float()).numpy()
        sums += array.sum(axis=tuple(range(2, array.ndim)), dtype=np.float64).sum(axis=0)
        squares += np.einsum(f"{axes},{axes}->nc", array, array, dtype=np.float64).sum(axis=0)
    return torch.from_numpy(sums), torch.from_numpy(squares)


def merged(one: OfChannels, other: OfChannels) -> OfChannels:
    """Return count and sums of two sets of values together."""
    return one[0] + other[0], one[1] + other[1], one[2] + other[2]
