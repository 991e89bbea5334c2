"""Description of a layer: what a run says of the module, of what it was given, and of what was kept."""

from collections.abc import Callable
from functools import cached_property
from typing import Any, TypeVar

from ...errors import StoreError
from ..format import KernelGeometry, LayerInput, Pair, Quantization, layer_path
from ._snapshots import Snapshots

Parsed = TypeVar("Parsed")

_MOST = 1 << 53  # of a number that is stored, as JSON has it


class LayerDescription:
    """What the attributes of a layer's group say.

    Attributes
    ----------
    name : str
        The module's name in the model.
    """

    def __init__(self, run: Snapshots, name: str) -> None:
        self.name = name
        self._run = run
        self._path = layer_path(name)

    @property
    def module(self) -> str:
        """Class of the module."""
        return self._parsed("module", _words) or "unknown"

    @property
    def channel_axis(self) -> int | None:
        """Which axis of a batch of what the module returned holds the channels; None where it was not stored."""
        return self._parsed("channel_axis", lambda found: _integer(found["axis"]))

    @property
    def channel_axis_source(self) -> str:
        """How it was known which axis holds the channels.

        ``"module"``, from a module's class; ``"option"``; or ``"shape"``, from the number of axes alone, which may be
        wrong.
        """
        return self._parsed("channel_axis", lambda found: _words(found["source"])) or "shape"

    @property
    def quantization(self) -> Quantization | None:
        """Scale and zero point of a quantized module's output, which is stored dequantized; None of any other.

        Where each channel has its own, a tuple of each.
        """
        return self._parsed("quantization", _quantization)

    @property
    def rows_folded(self) -> int:
        """How many rows the module returned for each sample: they are stored beside one another."""
        return self._parsed("rows_folded", lambda found: _integer(found, least=1)) or 1

    @property
    def crop(self) -> tuple[Pair, Pair] | None:
        """Rows and columns of the output that were kept, ((top, bottom), (left, right)); None: all."""
        return self._parsed("crop", _sides)

    @property
    def average_pooled(self) -> bool:
        """Whether the feature maps, once cropped, were averaged down."""
        described = self._attributes
        return bool(described.get("average_pooled", described.get("pooled")))  # earlier versions wrote "pooled"

    @property
    def input(self) -> LayerInput | None:
        """The recorded layer whose output was the first tensor that the module was given.

        None where that was computed outside of what is recorded, as the sum at the end of a residual branch is, in live
        runs, and where it was not stored.

        Raises
        ------
        StoreError
            Where what is stored is no such layer.
        """
        return self._parsed("input", lambda found: LayerInput(_words(found["layer"]), bool(found["relu"])))

    @cached_property
    def kernel(self) -> KernelGeometry | None:
        """Size, stride, padding, dilation and groups of a 2-D convolution's kernel; None of other modules.

        Raises
        ------
        StoreError
            Where what is stored is no such geometry.
        """
        return self._parsed("kernel", KernelGeometry.of)

    @property
    def stream(self) -> str | None:
        """Name of the residual stream that the layer's channels are part of: that of its first recorded layer.

        Layers of one stream are added to one another, channel by channel, or return such a sum. None where there are no
        others, in live runs, and where it was not stored.
        """
        return self._parsed("stream", _words)

    def _parsed_shape(self, name: str, *, n_axes: int | None = None) -> tuple[int, ...] | None:
        """Return the shape of what a module returned for one sample; None where it was not stored."""

        def parse(found: Any) -> tuple[int, ...]:
            shape = tuple(_integer(n, least=1) for n in found)
            if isinstance(found, str) or len(shape) != (n_axes or len(shape)):
                raise ValueError(f"{len(shape)} axes, not {n_axes}")
            return shape

        return self._parsed(name, parse)

    def _parsed(self, name: str, parse: Callable[[Any], Parsed]) -> Parsed | None:
        """Return what an attribute stands for; None where there is none."""
        found = self._attributes.get(name)
        if found is None:
            return None
        try:
            return parse(found)
        except (LookupError, TypeError, ValueError, OverflowError) as error:
            raise StoreError(
                f"{self._run.path} is damaged: the {name} of layer {self.name!r} is {str(found)[:100]}"
            ) from error

    @cached_property
    def _attributes(self) -> dict[str, Any]:
        return self._run.group_attributes(self._path)


def _words(found: Any) -> str:
    if not isinstance(found, str):
        raise TypeError(f"a {type(found).__name__}, not words")
    return found


def _integer(found: Any, *, least: int = -_MOST) -> int:
    if type(found) is not int or not least <= found <= _MOST:
        raise ValueError(f"not an integer from {least} to {_MOST}")
    return found


def _quantization(found: Any) -> Quantization:
    scale, zero_point = found["scale"], found["zero_point"]
    if not isinstance(scale, list):
        return float(scale), _integer(zero_point)
    if len(scale) != len(zero_point):
        raise ValueError(f"{len(scale)} scales and {len(zero_point)} zero points")
    return tuple(map(float, scale)), tuple(map(_integer, zero_point))


def _sides(found: Any) -> tuple[Pair, Pair]:
    (top, bottom), (left, right) = found
    for start, stop in ((top, bottom), (left, right)):
        if _integer(start, least=0) >= _integer(stop):
            raise ValueError("a part of nothing")
    return (top, bottom), (left, right)
