"""Axis tracker: which axis of an output holds its samples, and which its channels, by class or by what made it."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn

from .._compat import BATCH_NORM, CONVOLUTION, INSTANCE_NORM, OTHERS_OF_CHANNELS, POOLING
from ._axis_flow import AxisFlow

Source = Literal["module", "option", "shape"]

_SECOND = (
    CONVOLUTION,
    BATCH_NORM,
    INSTANCE_NORM,
    nn.GroupNorm,
    nn.LocalResponseNorm,
    *POOLING,
    nn.PixelShuffle,
    nn.PixelUnshuffle,
    nn.ChannelShuffle,
)
_LAST = (nn.Linear, nn.Embedding, nn.MultiheadAttention, nn.RNNBase)
_SIZES = ("out_channels", "out_features", "num_features", "num_channels", "embedding_dim")


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
        feature maps more time, and of feature maps frames.
    """

    axis: int
    fold: Fold | None = None

    def of(self, output: torch.Tensor) -> torch.Tensor:
        """Return a batch in this order, a view where that is possible.

        Returns
        -------
        Tensor
            Of shape (n, channel), (n, token, channel), (n, channel, height, width) or (n, channel, frame, height,
            width). 1-D feature maps get a height of 1.
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
        """Whether a batch of so many axes, as the module returned it, is of 1-D feature maps."""
        return n_axes == 3 and self.axis == 1

    def shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return the shape of one sample in this order, of rows of this shape."""
        rows = 1 if self.fold is None else self.fold.count
        return tuple(self.of(torch.empty((rows, *shape), device="meta")).shape[1:])


class AxisTracker:
    """Follows a forward pass, and knows the channel axis of what each module has just returned.

    Convolutions, BatchNorm and pooling have it second; Linear and Embedding last. From what these return it is followed
    through all operations to what others do, such as an activation, a normalization, a block or a permutation. Where
    samples lie is followed from the model's inputs.

    Parameters
    ----------
    n_samples : int
        How many samples the model is shown, where they need not be first in what it is given; 0 where they are. Of a
        model with modules that take sequences first, an input of three axes has them second where only that fits.

    Attributes
    ----------
    is_either : bool
        Whether a module that takes sequences first was given what has the samples first, as far as that is known, and
        as many tokens as samples: the tokens may come first.
    """

    def __init__(self, *, n_samples: int = 0) -> None:
        self.is_either = False
        self._n_samples = n_samples
        self._flow = AxisFlow()
        self._last: tuple[tuple[int, ...], int] | None = None
        self._given_constants = False  # of the module that has just returned

    @contextmanager
    def watch(self, model: nn.Module) -> Iterator[None]:
        """Within the block, follow what the model's modules return."""
        handles = [module.register_forward_hook(self._note) for module in model.modules()]
        handles.append(model.register_forward_pre_hook(self._begin, with_kwargs=True))
        try:
            with self._flow:
                yield
        finally:
            for handle in handles:
                handle.remove()

    def of(self, module: nn.Module, output: torch.Tensor) -> ChannelAxis:
        """Return the channel axis of what a module has just returned."""
        if output.ndim < 3:
            return ChannelAxis(output.ndim - 1, "module")
        axis = _of_class(module)
        if axis is None:
            axis = self._flow.axis_of(output, "channel")
        if axis is None:
            axis = _where_it_fits(module, tuple(output.shape))
        if axis:
            return ChannelAxis(axis % output.ndim, "module")
        guess = self._of_last(tuple(output.shape))
        return ChannelAxis(standard_axis(output.ndim) if guess is None else guess, "shape")

    def samples_axis(self, output: torch.Tensor) -> int | None:
        """Return which axis of what a module has just returned holds the samples; None where that is not known."""
        return self._flow.axis_of(output, "batch")

    def is_constant(self, output: torch.Tensor) -> bool:
        """Whether what a module has just returned is the same whatever the model is shown, as a table of positions.

        A module that is given what depends on that may return a row for each sample all the same.
        """
        return self._given_constants and self._flow.is_constant(output)

    def _begin(self, model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._flow.note_given((args, kwargs))
        for tensor in (*args, *kwargs.values()):
            if isinstance(tensor, torch.Tensor) and tensor.ndim > 1:
                self._flow.label(tensor, self._given_samples_axis(model, tensor), label="batch")

    def _given_samples_axis(self, model: nn.Module, tensor: torch.Tensor) -> int:
        """Return which axis of an input of the model holds the samples."""
        if tensor.ndim != 3 or tensor.shape[0] == self._n_samples or tensor.shape[1] != self._n_samples:
            return 0
        of_sequences = (nn.RNNBase, nn.MultiheadAttention)
        return int(any(isinstance(each, of_sequences) and not each.batch_first for each in model.modules()))

    def _note(self, module: nn.Module, inputs: Any, output: Any) -> None:
        self._given_constants = self._flow.are_constant(inputs)
        for number, tensor in enumerate(output if isinstance(output, (tuple, list)) else (output,)):
            parts = tensor if isinstance(tensor, tuple) and isinstance(module, nn.RNNBase) else (tensor,)
            for part in parts:
                if isinstance(part, torch.Tensor) and part.ndim >= 2:
                    self._note_tensor(module, part, number=number, given=inputs)

    def _note_tensor(self, module: nn.Module, tensor: torch.Tensor, *, number: int, given: Any) -> None:
        if tensor.ndim == 3 and isinstance(module, nn.RNNBase | nn.MultiheadAttention):
            self._flow.label(tensor, self._samples_axis_of(module, number=number, given=given), label="batch")
        axis = _of_class(module)
        if axis is not None:
            self._flow.label(tensor, axis % tensor.ndim, label="channel")
        known = self._flow.axis_of(tensor, "channel")
        if known is not None:
            self._last = tuple(tensor.shape), known

    def _samples_axis_of(self, module: nn.RNNBase | nn.MultiheadAttention, *, number: int, given: Any) -> int:
        """Return which axis of a tensor of its output holds the samples: with the outputs, that of its input's."""
        if number > 0:
            return int(isinstance(module, nn.RNNBase))  # of last states; attention's weights have the samples first
        first = given[0] if isinstance(given, tuple) and given and isinstance(given[0], torch.Tensor) else None
        known = None if first is None or first.ndim != 3 else self._flow.axis_of(first, "batch")
        if known == 0 and first is not None and not module.batch_first:
            self.is_either |= tuple(first.shape[:2]) == (self._n_samples, self._n_samples)
        return int(not module.batch_first) if known is None else known

    def _of_last(self, shape: tuple[int, ...]) -> int | None:
        """Guess the axis that has as many channels as the last output whose axis is known, where there is one such."""
        if self._last is None:
            return None
        before, axis = self._last
        if before == shape:
            return axis
        fitting = [i for i in range(1, len(shape)) if shape[i] == before[axis]]
        return fitting[0] if len(fitting) == 1 else None


def _of_class(module: nn.Module) -> int | None:
    """Return the axis that a module's class tells; None where it tells none.

    A class of somebody's own may turn what torch's returns, as one that flattens patches to tokens does.
    """
    return _of_kind(module) if _is_torchs_own(module) else None


def _of_kind(module: nn.Module) -> int | None:
    if isinstance(module, _SECOND):
        return 1
    return -1 if isinstance(module, _LAST) else None


def _is_torchs_own(module: nn.Module) -> bool:
    """Whether what a module computes is written in torch, and not in a class of somebody's own, or put into it."""
    return "forward" not in vars(module) and (type(module).forward.__module__ or "").partition(".")[0] == "torch"


def _where_it_fits(module: nn.Module, shape: tuple[int, ...]) -> int | None:
    """Return the axis that a module tells where what it was given does not: of its kind, where that has its size."""
    if isinstance(module, nn.LayerNorm | nn.RMSNorm):
        return _of_normalization(module, shape)
    axis = _of_kind(module)
    if axis is None:
        by_channel = isinstance(module, nn.PReLU) and module.num_parameters > 1
        return 1 if by_channel or isinstance(module, OTHERS_OF_CHANNELS) else None
    size = next((getattr(module, name) for name in _SIZES if isinstance(getattr(module, name, None), int)), shape[axis])
    fitting = [each for each in range(1, len(shape)) if shape[each] == size]
    return fitting[0] if len(fitting) == 1 and shape[axis] != size else axis


def _of_normalization(module: nn.LayerNorm | nn.RMSNorm, shape: tuple[int, ...]) -> int:
    """Return the axis that a normalization tells, where what it is given does not."""
    size, last = module.normalized_shape[-1], len(shape) - 1
    return 1 if shape[1] == size and (shape[last] != size or type(module).__name__.endswith("2d")) else last
