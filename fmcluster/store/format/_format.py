"""Format v1: the names, paths, axes and fill values of a run's nodes, and what is stored of a layer.

`docs/store-format.md` is the specification; `_create` makes the arrays that it describes, `_check_root` compares them.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from ._escape import escape

Quantity = Literal["activation", "gradient"]
RunKind = Literal["probe", "live"]
Pair = tuple[int, int]

VERSION = 1
KEY = "fmcluster"
LEVEL = -7  # of Zstandard: feature maps are nearly incompressible, so that a slower level buys little

LOSS_SCALE = "loss_scale"
CHECKSUMS = "checksums"
GRADIENT_DTYPE = "float32"  # in float16 more than half of the gradients measured became zero

STATISTICS = ("mean", "std", "min", "max", "zeros", "nonfinite")
STATISTICS_OF: Mapping[Quantity, str] = {"activation": "statistics", "gradient": "gradient_statistics"}

DIMENSIONS = {
    2: ("sample", "channel"),
    3: ("sample", "token", "channel"),
    4: ("sample", "channel", "height", "width"),
    5: ("sample", "channel", "frame", "height", "width"),
}
TIME = ("sample", "channel", "time")  # of 1-D feature maps, such as a Conv1d's

NORMS = ("norm", "gradient_norm", "update_norm")
INPUTS = ("mean", "variance")  # of what a normalization is given

# by the last part of a path; metrics have one axis, what lies in layers and weights has axes of its own
AXES: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys(("epoch", "step", CHECKSUMS), ("snapshot",)),
    **dict.fromkeys(("index", LOSS_SCALE), ("snapshot", "sample")),
    **dict.fromkeys(STATISTICS_OF.values(), ("snapshot", "statistic", "channel")),
    **dict.fromkeys(("sample", "label", "path"), ("item",)),
    **dict.fromkeys(NORMS, ("snapshot", "weight")),
    **dict.fromkeys(INPUTS, ("snapshot", "channel")),
    "statistic": ("statistic",),
    "channel": ("channel",),
    "weight": ("weight",),
    "digest": ("item", "byte"),
    "display": ("item", "row", "column", "rgb"),
}

FILL: Mapping[str, Any] = {  # by Zarr's name of the dtype, as it stands in JSON
    "string": "",
    "bool": False,
    **dict.fromkeys(("int8", "int16", "int32", "int64"), -1),
    **dict.fromkeys(("uint8", "uint16", "uint32", "uint64"), 0),
    **dict.fromkeys(("float16", "float32", "float64"), "NaN"),
    "complex64": ["NaN", "NaN"],
    "complex128": ["NaN", "NaN"],
}
ONLY_OF_WEIGHTS = frozenset(FILL) - {"string", "int64", "uint8", "float16", "float32", "float64"}


@dataclass(frozen=True)
class KernelGeometry:
    """Where the kernel of a 2-D convolution that is padded with zeros looks.

    Attributes
    ----------
    size, stride : (int, int)
        Of rows and columns.
    padding : ((top, bottom), (left, right))
        How many zeros are added.
    dilation : (int, int)
        Distances of neighboring weights.
    groups : int
        Groups of channels that are convolved by themselves.
    """

    size: Pair
    stride: Pair
    padding: tuple[Pair, Pair]
    dilation: Pair
    groups: int

    @staticmethod
    def of(attributes: Mapping[str, Any]) -> "KernelGeometry":
        """Return what `asdict` made attributes of.

        Raises
        ------
        KeyError, TypeError, ValueError
            For what is no geometry.
        """
        rows, columns = attributes["padding"]
        pairs = [attributes["size"], attributes["stride"], rows, columns, attributes["dilation"]]
        size, stride, rows, columns, dilation = ((int(first), int(second)) for first, second in pairs)
        groups = int(attributes["groups"])
        if min(*size, *stride, *dilation, groups) < 1 or min(*rows, *columns) < 0:
            raise ValueError(f"a kernel cannot be {dict(attributes)}")
        return KernelGeometry(size, stride, (rows, columns), dilation, groups)


@dataclass(frozen=True)
class LayerInput:
    """What a module was given.

    Attributes
    ----------
    layer : str
        The recorded layer whose output it is.
    relu : bool
        Whether its negative values were set to zero by a function that is no module.
    """

    layer: str
    relu: bool = False


Quantization = tuple[float, int] | tuple[tuple[float, ...], tuple[int, ...]]  # of the output, or of each channel


@dataclass(frozen=True)
class LayerSpec:
    """What is stored of a layer: the shape of one sample, its dtype, and which part of the output it is.

    Attributes
    ----------
    name : str
        The module's name in the model, with ``.call0``, ``.call1`` ... where it fires several times.
    shape : tuple of int
        Shape of what is stored of one sample: (channel,), (token, channel), (channel, time),
        (channel, height, width) or (channel, frame, height, width).
    dtype : str
        NumPy name of the stored dtype.
    module : str
        The module's class.
    output : tuple of int, optional
        Shape of one sample as the module returned it; that of what is stored by default.
    channels : tuple of int, optional
        Numbers of the module's channels that are kept, in the order in which they are stored; None: all.
    crop : ((top, bottom), (left, right)), optional
        The part of the feature maps that is kept: rows from `top` to before `bottom`, columns from `left` to before
        `right`.
    gradient : bool
        Whether gradients are stored beside the activations, in float32.
    returned : tuple of int, optional
        Shape of one sample as the module returned it, where its channels were moved to where they are stored.
    returned_axis : int, optional
        Which axis of a batch of what the module returned holds the channels; None: not known.
    axis_source : {"module", "option", "shape"}
        How that is known: from a module's class, by an option, or from the number of axes alone.
    is_time : bool
        Whether two axes are (channel, time) rather than (token, channel).
    rows_folded : int
        How many rows the module returned for each sample: those of one sample are stored beside one another.
    quantization : (float, int), or a tuple of each, optional
        Scale and zero point of a quantized module's output, or of each channel; it is stored dequantized.
    input : LayerInput, optional
        The recorded layer whose output is what the module is given.
    kernel : KernelGeometry, optional
        Of a 2-D convolution.
    stream : str, optional
        The first of the recorded layers whose outputs are added to this one's, or it to theirs.

    Raises
    ------
    ValueError
        Where the reductions do not lead from `output` to `shape`.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    module: str
    output: tuple[int, ...] | None = None
    channels: tuple[int, ...] | None = None
    crop: tuple[Pair, Pair] | None = None
    gradient: bool = False
    returned: tuple[int, ...] | None = None
    returned_axis: int | None = None
    axis_source: str = "shape"
    is_time: bool = False
    rows_folded: int = 1
    quantization: Quantization | None = None
    input: LayerInput | None = None
    kernel: KernelGeometry | None = None
    stream: str | None = None

    def __post_init__(self) -> None:
        returned = self.output_shape
        fits = len(returned) == len(self.shape) and (self.crop is None or len(self.shape) >= 3)
        if fits and self.channels is not None:
            fits = len(set(self.channels)) == len(self.channels)
            fits = fits and all(0 <= number < returned[self._channel_axis] for number in self.channels)
        if fits and self.crop is not None:
            fits = all(0 <= start < stop <= n for (start, stop), n in zip(self.crop, returned[-2:], strict=True))
        if fits and self.average_pooled:
            whole, axis = self._whole, self._channel_axis
            fits = len(self.shape) >= 3 and self.shape[:-2] == whole[:-2] and self.shape[axis] == whole[axis]
            fits = fits and all(n <= full for n, full in zip(self.shape, whole, strict=True))
        if not fits:
            raise ValueError(
                f"layer {self.name!r} cannot be stored as {self.shape} of outputs of shape {returned} with "
                f"channels={self.channels} and crop={self.crop}"
            )

    @property
    def dimensions(self) -> tuple[str, ...]:
        """Names of the axes of a batch of this layer's outputs."""
        return TIME if self.is_time else DIMENSIONS[1 + len(self.shape)]

    @property
    def n_channels(self) -> int:
        """Number of channels."""
        return self.shape[self._channel_axis]

    @property
    def output_shape(self) -> tuple[int, ...]:
        """Shape of one sample as the module returned it."""
        return self.shape if self.output is None else self.output

    @property
    def average_pooled(self) -> bool:
        """Whether the feature maps, once cropped, were averaged down."""
        return self.shape != self._whole

    @property
    def quantities(self) -> tuple[Quantity, ...]:
        """What is stored: activations, and gradients where they are wanted."""
        return ("activation", "gradient") if self.gradient else ("activation",)

    @property
    def sample_bytes(self) -> int:
        """Bytes of what is stored of one sample, of all quantities, uncompressed."""
        return sum(self.bytes_of(quantity) for quantity in self.quantities)

    def dtype_of(self, quantity: Quantity) -> str:
        """Return the stored dtype of a quantity: the layer's for activations, `GRADIENT_DTYPE` for gradients."""
        return self.dtype if quantity == "activation" else GRADIENT_DTYPE

    def bytes_of(self, quantity: Quantity) -> int:
        """Return the bytes of one sample of a quantity, uncompressed."""
        return int(np.prod(self.shape)) * np.dtype(self.dtype_of(quantity)).itemsize

    @staticmethod
    def channel_axis(output: tuple[int, ...]) -> int:
        """Return which axis of one sample's output holds the channels; in a batch it is the next one.

        Parameters
        ----------
        output : tuple of int
            Shape of one sample's output: (channel,), (token, channel), (channel, height, width) or (channel, frame,
            height, width).

        Examples
        --------
        >>> LayerSpec.channel_axis((64, 112, 112)), LayerSpec.channel_axis((197, 768))
        (0, 1)
        """
        return DIMENSIONS[1 + len(output)].index("channel") - 1

    @staticmethod
    def stored_shape(
        output: tuple[int, ...],
        *,
        channels: tuple[int, ...] | None = None,
        crop: tuple[Pair, Pair] | None = None,
        size: Pair | None = None,
    ) -> tuple[int, ...]:
        """Return the shape of what is stored of one sample's output.

        Parameters
        ----------
        output : tuple of int
            Shape of one sample as the module returned it.
        channels : tuple of int, optional
            Numbers of the channels that are kept; None: all.
        crop : ((top, bottom), (left, right)), optional
            The part of the feature maps that is kept, where they have a height and a width; None: all of them.
        size : (int, int), optional
            Height and width to which the feature maps are averaged down; None: as they are.

        Returns
        -------
        tuple of int
            As many axes as `output` has.

        Examples
        --------
        >>> LayerSpec.stored_shape((64, 112, 112), channels=(3, 5), crop=((0, 56), (0, 56)), size=(7, 7))
        (2, 7, 7)
        >>> LayerSpec.stored_shape((197, 768), channels=(3, 5))
        (197, 2)
        """
        shape = list(output)
        if channels is not None:
            shape[LayerSpec.channel_axis(output)] = len(channels)
        if crop is not None:
            shape[-2:] = [stop - start for start, stop in crop]
        if size is not None:
            shape[-2:] = size
        return tuple(shape)

    @property
    def _channel_axis(self) -> int:
        return self.dimensions.index("channel") - 1

    @property
    def _whole(self) -> tuple[int, ...]:
        """Shape of one sample, of the channels kept and cropped, before any averaging."""
        if self.is_time:
            channels, length = self.output_shape
            return (channels if self.channels is None else len(self.channels), length)
        return self.stored_shape(self.output_shape, channels=self.channels, crop=self.crop)

    def attributes(self) -> dict[str, Any]:
        """Return the attributes of the layer's group."""
        described: dict[str, Any] = {"name": self.name, "module": self.module, "output": list(self.output_shape)}
        if self.crop is not None:
            described["crop"] = [list(side) for side in self.crop]
        if self.average_pooled:
            described["average_pooled"] = True
        if self.returned is not None and self.returned != self.output_shape:
            described["returned"] = list(self.returned)
        if self.returned_axis is not None:
            described["channel_axis"] = {"axis": self.returned_axis, "source": self.axis_source}
        if self.rows_folded > 1:
            described["rows_folded"] = self.rows_folded
        if self.quantization is not None:
            scale, zero_point = self.quantization
            described["quantization"] = {"scale": scale, "zero_point": zero_point}
        if self.input is not None:
            described["input"] = asdict(self.input)
        if self.kernel is not None:
            described["kernel"] = asdict(self.kernel)
        if self.stream is not None:
            described["stream"] = self.stream
        return described


def layer_path(layer: str) -> str:
    """Return the path of a layer's group."""
    return f"layers/{escape(layer)}"


def array_path(layer: str, quantity: Quantity) -> str:
    """Return the path of a layer's activations or gradients."""
    return f"{layer_path(layer)}/{quantity}"


def statistics_path(layer: str, quantity: Quantity) -> str:
    """Return the path of a layer's statistics."""
    return f"{layer_path(layer)}/{STATISTICS_OF[quantity]}"


def metric_path(name: str) -> str:
    """Return the path of a metric's array."""
    return f"metrics/{escape(name)}"


def weight_path(name: str) -> str:
    """Return the path of the group of a parameter or buffer."""
    return f"weights/{escape(name)}"


def norms_path(norm: str) -> str:
    """Return the path of one of the `NORMS` of all parameters and buffers."""
    return f"weight_norms/{norm}"


def normalization_path(name: str) -> str:
    """Return the path of the group of a normalization's inputs."""
    return f"normalizations/{escape(name)}"


def holds_weights(path: str) -> bool:
    """Whether the array at a path is of the values of a parameter or buffer."""
    return path.startswith("weights/") and path.endswith("/value")


def holds_feature_maps(path: str) -> bool:
    """Whether the array at a path is of a layer's activations or gradients."""
    parent, _, name = path.rpartition("/")
    return parent.startswith("layers/") and name in STATISTICS_OF
