"""Channel axes: which axis of a module's output holds its channels, as its class or what made the output tells."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn
from torch.nn.modules import batchnorm, conv, instancenorm, pooling

Source = Literal["module", "option", "shape"]

_SECOND = (
    conv._ConvNd,
    batchnorm._BatchNorm,
    instancenorm._InstanceNorm,
    nn.GroupNorm,
    nn.LocalResponseNorm,
    pooling._MaxPoolNd,
    pooling._AvgPoolNd,
    pooling._AdaptiveMaxPoolNd,
    pooling._AdaptiveAvgPoolNd,
    nn.PixelShuffle,
    nn.PixelUnshuffle,
    nn.ChannelShuffle,
)
_LAST = (nn.Linear, nn.Embedding, nn.MultiheadAttention, nn.RNNBase)


@dataclass(frozen=True)
class ChannelAxis:
    """Which axis of a batch of outputs holds the channels, and how that is known.

    Attributes
    ----------
    axis : int
        Counted from 0, the batch.
    source : {"module", "option", "shape"}
        Known from a module's class, given by an option, or taken from the number of axes alone.
    """

    axis: int
    source: Source


def standard_axis(n_axes: int) -> int:
    """Return where the channels of a batch of so many axes are by convention: second of four or five, else last."""
    return 1 if n_axes >= 4 else n_axes - 1


@dataclass(frozen=True)
class Fold:
    """How the rows of an output, several for each sample, belong to the samples.

    Attributes
    ----------
    count : int
        Rows per sample.
    by_sample : bool
        Whether the rows of a sample follow one another, as windows do; else the samples follow one another, as in a
        batch that was concatenated with another.
    """

    count: int
    by_sample: bool

    def of(self, rows: torch.Tensor) -> torch.Tensor:
        """Return a view of shape (n_samples, count, ...) of rows of shape (n_samples * count, ...)."""
        if self.by_sample:
            return rows.reshape(-1, self.count, *rows.shape[1:])
        return rows.reshape(self.count, -1, *rows.shape[1:]).transpose(0, 1)


@dataclass(frozen=True)
class Arrangement:
    """How an output is brought to the order in which it is stored.

    Attributes
    ----------
    axis : int
        Which axis of what the module returned holds the channels.
    fold : Fold or None
        Where it returned several rows for each sample: of vectors they become tokens, of tokens more tokens, of 1-D
        maps more time, and of feature maps frames.
    """

    axis: int
    fold: Fold | None = None

    def of(self, output: torch.Tensor) -> torch.Tensor:
        """Return a batch in this order, a view where that is possible.

        Returns
        -------
        Tensor
            Of shape (n, channel), (n, token, channel), (n, channel, height, width) or (n, channel, frame, height,
            width). 1-D maps get a height of 1.
        """
        axis = self.axis
        if self.fold is not None:
            n_axes = output.ndim
            output = self.fold.of(output)
            if n_axes == 3 and axis == 2:
                output = output.flatten(1, 2)
            elif n_axes == 3:
                output = output.movedim(1, 2).flatten(2, 3)
            else:
                axis += 1
        if output.ndim == 3 and axis == 1:
            return output.unsqueeze(2)
        standard = standard_axis(output.ndim)
        return output if axis == standard else output.movedim(axis, standard)

    def is_time(self, n_axes: int) -> bool:
        """Whether a batch of so many axes, as the module returned it, is of 1-D maps."""
        return n_axes == 3 and self.axis == 1

    def shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return the shape of one sample in this order, of rows of this shape."""
        rows = 1 if self.fold is None else self.fold.count
        return tuple(self.of(torch.empty((rows, *shape), device="meta")).shape[1:])


class AxisTracker:
    """Follows a forward pass through all modules of a model, and knows the channel axis of what each returned last.

    Convolutions, BatchNorm and pooling have it second; Linear, LayerNorm and Embedding last. What hands on or contains
    others, such as an activation, a block or a permutation, has it where the last output of known axis has as many
    channels.
    """

    def __init__(self) -> None:
        self._last: tuple[tuple[int, ...], int] | None = None
        self._known: dict[tuple[int, tuple[int, ...]], int] = {}

    @contextmanager
    def watch(self, model: nn.Module) -> Iterator[None]:
        """Within the block, follow what the model's modules return."""
        handles = [module.register_forward_hook(self._note) for module in model.modules()]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def of(self, module: nn.Module, output: torch.Tensor) -> ChannelAxis:
        """Return the channel axis of what a module has just returned."""
        if output.ndim < 3:
            return ChannelAxis(output.ndim - 1, "module")
        axis = self._known.get((id(module), tuple(output.shape)))
        return ChannelAxis(standard_axis(output.ndim), "shape") if axis is None else ChannelAxis(axis, "module")

    def _note(self, module: nn.Module, _inputs: Any, output: Any) -> None:
        for tensor in output if isinstance(output, (tuple, list)) else (output,):
            if isinstance(tensor, torch.Tensor) and tensor.ndim >= 2:
                shape = tuple(tensor.shape)
                axis = _of_class(module, shape)
                if axis is None:
                    axis = self._of_last(shape)
                if axis is not None:
                    self._known[id(module), shape] = axis
                    self._last = shape, axis

    def _of_last(self, shape: tuple[int, ...]) -> int | None:
        """Return the axis that has as many channels as the last output whose axis is known, where there is one such."""
        if self._last is None:
            return None
        before, axis = self._last
        if before == shape:
            return axis
        fitting = [i for i in range(1, len(shape)) if shape[i] == before[axis]]
        if len(shape) == len(before) and axis in fitting and len(fitting) > 1:
            return axis if sorted(before) != sorted(shape) else None
        return fitting[0] if len(fitting) == 1 else None


def _of_class(module: nn.Module, shape: tuple[int, ...]) -> int | None:
    """Return the axis that a module's class tells; None where it tells none."""
    last = len(shape) - 1
    if isinstance(module, _SECOND):
        return 1
    if isinstance(module, _LAST):
        return last
    if isinstance(module, nn.LayerNorm | nn.RMSNorm):
        size = module.normalized_shape[-1]
        second = shape[1] == size and (shape[last] != size or type(module).__name__.endswith("2d"))
        return 1 if second else last
    return None
