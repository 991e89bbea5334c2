"""Format v1: what the nodes of a run are called, and how its arrays are laid out.

`docs/store-format.md` is the specification; this module is its only implementation.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import zarr
from zarr.abc.codec import BytesBytesCodec
from zarr.codecs import Crc32cCodec, ZstdCodec

from ._escape import escape

Quantity = Literal["activation", "gradient"]
RunKind = Literal["probe", "live"]
Pair = tuple[int, int]

VERSION = 1
KEY = "fmcluster"
LEVEL = -7  # of Zstandard: feature maps are nearly incompressible, so that a slower level buys little

STATISTICS = ("mean", "std", "min", "max", "zeros", "nonfinite")
STATISTICS_OF: Mapping[Quantity, str] = {"activation": "statistics", "gradient": "gradient_statistics"}

DIMENSIONS = {
    2: ("sample", "channel"),
    3: ("sample", "token", "channel"),
    4: ("sample", "channel", "height", "width"),
}
CHUNK_BYTES = 1 << 20


@dataclass(frozen=True)
class LayerSpec:
    """What a stored layer looks like: one sample's shape, and the dtype it is stored in.

    Attributes
    ----------
    name : str
        The module's name in the model, with ``.call0``, ``.call1`` ... where it fires several times.
    shape : tuple of int
        Shape of what is stored of one sample: (channel,), (token, channel) or (channel, height, width).
    dtype : str
        NumPy name of the stored dtype.
    module : str
        The module's class.
    output : tuple of int, optional
        Shape of one sample as the module returned it; that of what is stored by default.
    channels : tuple of int, optional
        Numbers of the module's channels that are kept, in the order in which they are stored; None: all.
    crop : ((top, bottom), (left, right)), optional
        The part of the maps that is kept: rows from `top` to before `bottom`, columns from `left` to before `right`.
    gradient : bool
        Whether gradients are stored beside the activations, in float32.

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

    def __post_init__(self) -> None:
        returned = self.output_shape
        fits = len(returned) == len(self.shape) and (self.crop is None or len(self.shape) == 3)
        if fits and self.channels is not None:
            fits = len(set(self.channels)) == len(self.channels)
            fits = fits and all(0 <= number < returned[self._channel_axis] for number in self.channels)
        if fits and self.crop is not None:
            fits = all(0 <= start < stop <= n for (start, stop), n in zip(self.crop, returned[1:], strict=True))
        if fits and self.average_pooled:
            whole, axis = self._unpooled, self._channel_axis
            fits = len(self.shape) == 3 and self.shape[axis] == whole[axis]
            fits = fits and all(n <= full for n, full in zip(self.shape, whole, strict=True))
        if not fits:
            raise ValueError(
                f"layer {self.name!r} cannot be stored as {self.shape} of outputs of shape {returned} with "
                f"channels={self.channels} and crop={self.crop}"
            )

    @property
    def dimensions(self) -> tuple[str, ...]:
        """Names of the axes of a batch of this layer's outputs."""
        return DIMENSIONS[1 + len(self.shape)]

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
        """Whether the maps, once cropped, were averaged down."""
        return self.shape != self._unpooled

    @property
    def quantities(self) -> tuple[Quantity, ...]:
        """What is stored: activations, and gradients where they are wanted."""
        return ("activation", "gradient") if self.gradient else ("activation",)

    @property
    def sample_bytes(self) -> int:
        """Bytes of what is stored of one sample, of all quantities, uncompressed."""
        return sum(self.bytes_of(quantity) for quantity in self.quantities)

    def dtype_of(self, quantity: Quantity) -> str:
        """Return the stored dtype of a quantity: gradients are too small for float16."""
        return self.dtype if quantity == "activation" else "float32"

    def bytes_of(self, quantity: Quantity) -> int:
        """Return the bytes of one sample of a quantity, uncompressed."""
        return int(np.prod(self.shape)) * np.dtype(self.dtype_of(quantity)).itemsize

    @property
    def _channel_axis(self) -> int:
        return self.dimensions.index("channel") - 1

    @property
    def _unpooled(self) -> tuple[int, ...]:
        """Shape of one sample, of the channels kept and cropped, before any averaging."""
        shape = list(self.output_shape)
        if self.channels is not None:
            shape[self._channel_axis] = len(self.channels)
        if self.crop is not None:
            shape[1:] = [stop - start for start, stop in self.crop]
        return tuple(shape)

    def attributes(self) -> dict[str, Any]:
        """Return the attributes of the layer's group."""
        told: dict[str, Any] = {"name": self.name, "module": self.module, "output": list(self.output_shape)}
        if self.crop is not None:
            told["crop"] = [list(side) for side in self.crop]
        if self.average_pooled:
            told["average_pooled"] = True
        return told


def codecs() -> list[BytesBytesCodec]:
    """Compression, then a CRC-32C of what it gave."""
    return [ZstdCodec(level=LEVEL), Crc32cCodec()]


def create_array(
    group: zarr.Group,
    name: str,
    *,
    dimensions: tuple[str, ...],
    shape: tuple[int, ...],
    dtype: Any,
    chunks: tuple[int, ...] | None = None,
    shards: tuple[int, ...] | None = None,
    attributes: Mapping[str, Any] | None = None,
) -> zarr.Array[Any]:
    """Create an array of the format; along `snapshot`, a chunk holds one snapshot, so that none is ever rewritten."""
    code = "U" if dtype is str else np.dtype(dtype).kind
    if chunks is None:
        chunks = tuple(1 if axis == "snapshot" else max(1, n) for axis, n in zip(dimensions, shape, strict=True))
    return group.create_array(
        name,
        shape=shape,
        dtype=dtype,
        chunks=chunks,
        shards=shards,
        fill_value={"f": float("nan"), "i": -1, "u": 0, "U": ""}[code],
        compressors=codecs(),
        chunk_key_encoding={"name": "default", "configuration": {"separator": "."}},
        dimension_names=dimensions,
        attributes=dict(attributes or {}),
        overwrite=True,
    )


def create_layer(group: zarr.Group, spec: LayerSpec, *, n_samples: int, shard_samples: int) -> list[str]:
    """Create a layer's arrays with no snapshots yet; return their names.

    A shard is one batch of samples, written once; within it the chunks are about 1 MiB before compression, so that a
    picture of one sample decodes little.
    """
    shard_samples = min(shard_samples, n_samples)
    names = []
    for quantity in spec.quantities:
        create_array(
            group,
            quantity,
            dimensions=("snapshot", *spec.dimensions),
            shape=(0, n_samples, *spec.shape),
            dtype=spec.dtype_of(quantity),
            chunks=(1, *_chunk_shape(spec, quantity, shard_samples)),
            shards=(1, shard_samples, *spec.shape),
        )
        create_array(
            group,
            STATISTICS_OF[quantity],
            dimensions=("snapshot", "statistic", "channel"),
            shape=(0, len(STATISTICS), spec.n_channels),
            dtype="float64",
        )
        names += [quantity, STATISTICS_OF[quantity]]
    if spec.channels is not None:
        numbers = np.array(spec.channels, dtype=np.int64)
        create_array(group, "channel", dimensions=("channel",), shape=numbers.shape, dtype="int64")[...] = numbers
        names.append("channel")
    return names


def layer_path(layer: str) -> str:
    """Return where a layer's arrays lie in the hierarchy."""
    return f"layers/{escape(layer)}"


def array_path(layer: str, quantity: Quantity) -> str:
    """Return where a layer's maps lie in the hierarchy."""
    return f"{layer_path(layer)}/{quantity}"


def statistics_path(layer: str, quantity: Quantity) -> str:
    """Return where a layer's statistics lie in the hierarchy."""
    return f"{layer_path(layer)}/{STATISTICS_OF[quantity]}"


def holds_feature_maps(path: str) -> bool:
    """Whether the array at a path is of a layer's activations or gradients."""
    parent, _, name = path.rpartition("/")
    return parent.startswith("layers/") and name in STATISTICS_OF


def _chunk_shape(spec: LayerSpec, quantity: Quantity, shard_samples: int) -> tuple[int, ...]:
    shape, sample_bytes = list(spec.shape), spec.bytes_of(quantity)
    if sample_bytes > CHUNK_BYTES:
        axis = spec.dimensions.index("channel") - 1
        shape[axis] = _divisor(shape[axis], CHUNK_BYTES * shape[axis] // sample_bytes)
    samples = _divisor(shard_samples, CHUNK_BYTES // max(1, sample_bytes))
    return (samples, *shape)


def _divisor(n: int, limit: int) -> int:
    """Return the largest divisor of `n` that is at most `limit`, and 1 at least."""
    return max((d for d in range(1, min(n, limit) + 1) if n % d == 0), default=1)
