"""Samples first: outputs whose samples are on another axis, as with sequences first, brought to that order."""

import torch

from ..forward import is_batch
from ._axis_tracker import ChannelAxis, standard_axis


def samples_first(output: torch.Tensor, axis: int) -> torch.Tensor:
    """Return a view of an output with this axis, of its samples, first; as it is where it has no such axis."""
    return output.movedim(axis, 0) if 0 < axis < output.ndim else output


def fitting_axis(output: torch.Tensor, n_samples: int) -> int | None:
    """Guess which axis but the first holds the samples: the only one with as many; None where none alone has.

    Whether it does, a batch of another size tells.
    """
    several = output.shape[0] if n_samples == 1 and output.ndim else n_samples
    if not is_batch(output) or several == 1 or (n_samples > 1 and output.shape[0] % n_samples == 0):
        return None
    fitting = [axis for axis in range(1, output.ndim) if output.shape[axis] == n_samples]
    return fitting[0] if len(fitting) == 1 else None


def channels_behind_samples(channels: ChannelAxis, *, n_axes: int, samples_axis: int) -> ChannelAxis:
    """Return the channel axis of an output as it is once its samples are first."""
    if not samples_axis or channels.axis > samples_axis:
        return channels
    if channels.axis == samples_axis:  # a guess by the number of axes
        return ChannelAxis(standard_axis(n_axes), "shape")
    return ChannelAxis(channels.axis + 1, channels.source)
