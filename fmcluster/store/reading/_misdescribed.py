"""Misdescribed layers: whether what a run says of a module's output can be, beside what lies in its arrays."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ...errors import StoreError
from ..format import LayerSpec

if TYPE_CHECKING:
    from ._layer import Layer
    from ._run import Run


def find_misdescribed(run: "Run") -> list[str]:
    """Return a line for each layer whose description fits neither its arrays nor the other layers.

    What fits is not known to be true: who can write to a run can describe it as anything that could be.
    """
    found = []
    for name in run.layers:
        try:
            found += [f"{run.path} is damaged: layer {name!r}: {what}." for what in _contradictions(run, run[name])]
        except StoreError as error:  # of what cannot be read, or is no description
            found.append(str(error))
    return found


def _contradictions(run: "Run", layer: "Layer") -> Iterator[str]:
    output, axis = layer.output_shape, layer.channel_axis
    every = layer.n_channels == layer.n_output_channels
    try:
        spec = LayerSpec(
            layer.name,
            layer.shape[2:],
            layer.dtype.name,
            layer.module,
            output=output,
            channels=None if every else tuple(layer.channels.tolist()),
            crop=layer.crop,
            is_time=layer.dimensions[-1] == "time",
        )
    except ValueError as error:
        yield str(error)
    else:
        if spec.average_pooled != layer.average_pooled:
            yield f"of outputs of {output}, {spec.shape} were kept, averaged or not as it does not say"
    returned = layer.returned_shape
    if layer.rows_folded == 1 and sorted(returned) != sorted(output):
        yield f"an output of {output} was not returned as {returned}"
    elif axis is not None and not (1 <= axis <= len(returned) and returned[axis - 1] == layer.n_output_channels):
        yield f"axis {axis} of what was returned, {returned} a sample, holds no {layer.n_output_channels} channels"
    if layer.kernel is not None and layer.n_output_channels % layer.kernel.groups:
        yield f"{layer.n_output_channels} channels are not of {layer.kernel.groups} groups"
    for other in filter(None, (layer.stream, layer.input and layer.input.layer)):
        if other not in run:
            yield f"it names the layer {other!r}, which the run does not hold"
