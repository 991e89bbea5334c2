"""Modules of a smaller network: what stands where there were larger ones."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from ...store import KernelGeometry
from .._first_input import first_name


class Skip(nn.Module):
    """Returns a copy of what it is given first, so that an activation behind it may change that in place.

    Parameters
    ----------
    names : sequence of str
        The arguments of the module that it stands for, which may be called by name.
    """

    def __init__(self, names: Sequence[str] = ()) -> None:
        super().__init__()
        self.names = tuple(names)
        self.register_forward_pre_hook(_by_position, with_kwargs=True)

    def forward(self, given: torch.Tensor, *_others: Any) -> torch.Tensor:
        """Return what is given, Tensor of the same shape."""
        return given.clone()


def _by_position(module: Skip, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return what is given first as an argument by position, and none by name."""
    name = None if args else first_name(module.names, kwargs)
    return (args if name is None else (kwargs[name],)), {}


class Zeros(nn.Module):
    """Returns zeros of the shape that a module would return, at no cost.

    Parameters
    ----------
    n_channels : int, optional
        Of the output; by default those of the input.
    kernel : KernelGeometry, optional
        Of the convolution whose output has this shape.
    """

    def __init__(self, n_channels: int | None = None, *, kernel: KernelGeometry | None = None) -> None:
        super().__init__()
        self.n_channels, self.kernel = n_channels, kernel

    def forward(self, given: torch.Tensor) -> torch.Tensor:
        """Return zeros."""
        if self.n_channels is None:
            return torch.zeros_like(given)
        if self.kernel is None:
            return given.new_zeros(*given.shape[:-1], self.n_channels)
        return given.new_zeros(len(given), self.n_channels, *output_size(given.shape[2:], self.kernel))


class Channels(nn.Module):
    """Puts channels into another order.

    Parameters
    ----------
    order : Tensor of int64
        Which channel of the input each one of the output is.
    """

    order: torch.Tensor

    def __init__(self, order: torch.Tensor) -> None:
        super().__init__()
        self.register_buffer("order", order.clone())

    def forward(self, given: torch.Tensor) -> torch.Tensor:
        """Return the channels in their order, Tensor of the same shape."""
        return given.index_select(1, self.order)


class LowResolution(nn.Module):
    """A convolution whose outputs are averaged down and interpolated back, computed at the lower resolution.

    The average of what a convolution returns at neighboring positions is what it returns of the averaged inputs; so
    these are averaged, and the convolution makes larger steps.

    Parameters
    ----------
    convolution : Conv2d
        It makes larger steps and pads nothing, and has the weights of the one that it stands for.
    kernel : KernelGeometry
        Of the one that it stands for.
    factor : int
        By how much each side of the output is averaged.
    """

    def __init__(self, convolution: nn.Conv2d, *, kernel: KernelGeometry, factor: int) -> None:
        super().__init__()
        self.convolution, self.kernel, self.factor = convolution, kernel, factor

    def forward(self, given: torch.Tensor) -> torch.Tensor:
        """Return feature maps of the original resolution."""
        (top, bottom), (left, right) = self.kernel.padding
        padded = functional.pad(given, [left, right, top, bottom])
        small: torch.Tensor = self.convolution(self._averaged(padded))
        size = output_size(given.shape[2:], self.kernel)
        return functional.interpolate(small, size=size, mode="bilinear", align_corners=False)

    def _averaged(self, padded: torch.Tensor) -> torch.Tensor:
        if self.kernel.stride == (1, 1):
            return functional.avg_pool2d(padded, self.factor, stride=1)
        for axis, step in zip((2, 3), self.kernel.stride, strict=True):
            length = padded.shape[axis] - step * (self.factor - 1)
            parts = [padded.narrow(axis, step * number, length) for number in range(self.factor)]
            padded = torch.stack(parts).mean(0)
        return padded

    def extra_repr(self) -> str:
        """Say the factor."""
        return f"factor={self.factor}"


def output_size(size: torch.Size, kernel: KernelGeometry) -> list[int]:
    """Return height and width of what a convolution returns.

    Examples
    --------
    >>> output_size(torch.Size([32, 32]), KernelGeometry((3, 3), (2, 2), ((1, 1), (1, 1)), (1, 1), 1))
    [16, 16]
    """
    geometry = zip(size, kernel.padding, kernel.dilation, kernel.size, kernel.stride, strict=True)
    return [(n + sum(padding) - d * (k - 1) - 1) // s + 1 for n, padding, d, k, s in geometry]
