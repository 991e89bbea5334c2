"""Format v1: what the nodes of a run are called, and how its arrays are laid out.

`docs/store-format.md` is the specification; this module is its only implementation.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import zarr
from zarr.abc.codec import BytesBytesCodec
from zarr.codecs import Crc32cCodec, ZstdCodec

VERSION = 1
KEY = "fmcluster"

STATISTICS = ("mean", "std", "min", "max", "zeros", "nonfinite")

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
        Shape of one sample's output: (channel,), (token, channel) or (channel, height, width).
    dtype : str
        NumPy name of the stored dtype.
    module : str
        The module's class.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    module: str

    @property
    def dimensions(self) -> tuple[str, ...]:
        """Names of the axes of a batch of this layer's outputs."""
        return DIMENSIONS[1 + len(self.shape)]

    @property
    def n_channels(self) -> int:
        """Number of channels."""
        return self.shape[self.dimensions.index("channel") - 1]

    @property
    def sample_bytes(self) -> int:
        """Bytes of one sample's output, uncompressed."""
        return int(np.prod(self.shape)) * np.dtype(self.dtype).itemsize


def codecs() -> list[BytesBytesCodec]:
    """Compression, then a CRC-32C of what it gave."""
    return [ZstdCodec(level=1), Crc32cCodec()]


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
    kind = "U" if dtype is str else np.dtype(dtype).kind
    if chunks is None:
        chunks = tuple(1 if axis == "snapshot" else max(1, n) for axis, n in zip(dimensions, shape, strict=True))
    return group.create_array(
        name,
        shape=shape,
        dtype=dtype,
        chunks=chunks,
        shards=shards,
        fill_value={"f": float("nan"), "i": -1, "u": 0, "U": ""}[kind],
        compressors=codecs(),
        chunk_key_encoding={"name": "default", "configuration": {"separator": "."}},
        dimension_names=dimensions,
        attributes=dict(attributes or {}),
        overwrite=True,
    )


def create_layer(group: zarr.Group, spec: LayerSpec, *, n_samples: int, shard_samples: int) -> None:
    """Create a layer's arrays with no snapshots yet.

    A shard is one batch of samples, written once; within it the chunks are about 1 MiB before compression, so that a
    picture of one sample decodes little.
    """
    shard_samples = min(shard_samples, n_samples)
    chunk = _chunk_shape(spec, shard_samples)
    create_array(
        group,
        "activation",
        dimensions=("snapshot", *spec.dimensions),
        shape=(0, n_samples, *spec.shape),
        dtype=spec.dtype,
        chunks=(1, *chunk),
        shards=(1, shard_samples, *spec.shape),
    )
    create_array(
        group,
        "statistics",
        dimensions=("snapshot", "statistic", "channel"),
        shape=(0, len(STATISTICS), spec.n_channels),
        dtype="float64",
    )


def _chunk_shape(spec: LayerSpec, shard_samples: int) -> tuple[int, ...]:
    shape = list(spec.shape)
    if spec.sample_bytes > CHUNK_BYTES:
        axis = spec.dimensions.index("channel") - 1
        shape[axis] = _divisor(shape[axis], CHUNK_BYTES * shape[axis] // spec.sample_bytes)
    samples = _divisor(shard_samples, CHUNK_BYTES // max(1, spec.sample_bytes))
    return (samples, *shape)


def _divisor(n: int, limit: int) -> int:
    """Return the largest divisor of `n` that is at most `limit`, and 1 at least."""
    return max((d for d in range(1, min(n, limit) + 1) if n % d == 0), default=1)
