"""Description of a layer: what a run says of the module, of what it was given, and of what was kept."""

from collections.abc import Callable
from functools import cached_property
from typing import Any, TypeVar

from ..errors import StoreError
from ._format import KernelGeometry, LayerInput, Pair, layer_path
from ._snapshots import Snapshots

Parsed = TypeVar("Parsed")


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
        return str(self._attributes["module"])

    @property
    def channel_axis(self) -> int | None:
        """Which axis of a batch of what the module returned holds the channels; None where it was not stored."""
        return self._attributes.get("channel_axis", {}).get("axis")  # type: ignore[no-any-return]

    @property
    def channel_axis_source(self) -> str:
        """How it was known which axis holds the channels.

        ``"module"``, from a module's class; ``"option"``; or ``"shape"``, from the number of axes alone, which may be
        wrong.
        """
        return str(self._attributes.get("channel_axis", {}).get("source", "shape"))

    @property
    def quantization(self) -> tuple[float, int] | None:
        """Scale and zero point of a quantized module's output, which is stored dequantized; None of any other."""
        found = self._attributes.get("quantization")
        return None if found is None else (float(found["scale"]), int(found["zero_point"]))

    @property
    def rows_folded(self) -> int:
        """How many rows the module returned for each sample: they are stored beside one another."""
        return int(self._attributes.get("rows_folded", 1))

    @property
    def crop(self) -> tuple[Pair, Pair] | None:
        """Rows and columns of the output that were kept, ((top, bottom), (left, right)); None: all."""
        found = self._attributes.get("crop")
        return None if found is None else tuple((start, stop) for start, stop in found)  # type: ignore[return-value]

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
        return self._parsed("input", lambda found: LayerInput(str(found["layer"]), bool(found["relu"])))

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
        found = self._attributes.get("stream")
        return None if found is None else str(found)

    def _parsed(self, name: str, parse: Callable[[Any], Parsed]) -> Parsed | None:
        """Return what an attribute stands for; None where there is none."""
        found = self._attributes.get(name)
        if found is None:
            return None
        try:
            return parse(found)
        except (KeyError, TypeError, ValueError) as error:
            raise StoreError(
                f"{self._run.path} is damaged: the {name} of layer {self.name!r} is {str(found)[:100]}"
            ) from error

    @cached_property
    def _attributes(self) -> dict[str, Any]:
        return self._run.group_attributes(self._path)
