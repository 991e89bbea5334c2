"""First output: what is noted of a module's output when it is first seen."""

from dataclasses import dataclass

import torch
from torch import nn

from ...store import KernelGeometry, Quantization
from ._axis_tracker import AxisTracker, ChannelAxis, Fold
from ._links import kernel_geometry
from ._samples_first import channels_behind_samples, samples_first


@dataclass(frozen=True)
class FirstOutput:
    """What a module returned when it was first seen.

    Attributes
    ----------
    shape : tuple of int
        Of one row.
    module : str
        The module's class.
    axis : ChannelAxis
        Which axis of the output holds the channels.
    fold : Fold or None
        How several rows belong to one sample.
    quantization : (float, int), a tuple of each, or None
        Scale and zero point, or those of each channel, where it was quantized.
    kernel : KernelGeometry or None
        Of a 2-D convolution.
    samples_axis : int
        Which axis of the output holds the samples.
    """

    shape: tuple[int, ...]
    module: str
    axis: ChannelAxis
    fold: Fold | None = None
    quantization: Quantization | None = None
    kernel: KernelGeometry | None = None
    samples_axis: int = 0


def first_output(
    output: torch.Tensor, *, module: nn.Module, tracker: AxisTracker, samples_axis: int = 0
) -> FirstOutput:
    """Note what a module has just returned."""
    axis = channels_behind_samples(tracker.of(module, output), n_axes=output.ndim, samples_axis=samples_axis)
    return FirstOutput(
        tuple(samples_first(output, samples_axis).shape[1:]),
        type(module).__name__,
        axis,
        quantization=_quantization_of(output) if output.is_quantized else None,
        kernel=kernel_geometry(module),
        samples_axis=samples_axis,
    )


def _quantization_of(output: torch.Tensor) -> Quantization:
    """Return scale and zero point, or those of each channel."""
    if output.qscheme() in (torch.per_tensor_affine, torch.per_tensor_symmetric):
        return output.q_scale(), output.q_zero_point()
    points = [round(each) for each in output.q_per_channel_zero_points().tolist()]
    return tuple(output.q_per_channel_scales().tolist()), tuple(points)
