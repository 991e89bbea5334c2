"""Creation of a run: what its mode asks for where it is to lie, and its empty arrays."""

from collections.abc import Mapping, Sequence
from math import prod
from typing import Any, Literal

import numpy as np
import zarr
from zarr.abc.codec import BytesBytesCodec
from zarr.codecs import Crc32cCodec, ZstdCodec

from ..format import (
    AXES,
    CHECKSUMS,
    FILL,
    INPUTS,
    KEY,
    LEVEL,
    LOSS_SCALE,
    MOST_BYTES,
    MOST_FILES,
    NORMS,
    STATISTICS,
    STATISTICS_OF,
    LayerSpec,
    Quantity,
    WeightSpec,
    layer_path,
    normalization_path,
    norms_path,
    read_root,
    weight_path,
)
from ._storage import Storage

Mode = Literal["x", "a", "w"]

CHUNK_BYTES = 1 << 20


def apply_mode(storage: Storage, mode: Mode) -> bool:
    """Apply the mode to what exists where a run is to be written; return whether there is one to resume.

    Raises
    ------
    FileExistsError
        With "x", where something exists there; with "w", where it is not a run.
    StoreError
        Where the run there is damaged.
    """
    if mode not in ("x", "a", "w"):
        raise ValueError(f'mode is {mode!r}; expected "x" (new), "a" (resume) or "w" (replace)')
    found = storage.content()
    if found == "other":
        raise FileExistsError(
            f"{storage.name} exists and is not a run of this package; it is left as it is. Pass another path."
        )
    if found == "run" and mode == "x":
        raise FileExistsError(
            f"{storage.name} already holds a run{_without_snapshot(storage.name)}. "
            f'Pass mode="a" to resume it, mode="w" to replace it, or another path.'
        )
    if found == "unfinished" or (found == "run" and mode == "w"):
        storage.remove_run()
    return found == "run" and mode == "a"


def _without_snapshot(path: str) -> str:
    """Say that a run holds no snapshot, and why, where that is so and known."""
    known = read_root(path)["attributes"][KEY]
    if known["commits"]:
        return ""
    try:
        missing = [each for session in known["sessions"] for each in session.get("missing", [])]
        why = f": epoch {missing[0]['epoch']} was not recorded ({missing[0]['reason']})" if missing else ""
    except (LookupError, TypeError, AttributeError):  # of a damaged one, which resuming will say
        why = ""
    return f" without a whole snapshot{why}"


def check_layout(specs: Sequence[LayerSpec], *, n_samples: int, shard_samples: int) -> None:
    """See that layers can be laid out so that every reader takes them.

    Raises
    ------
    ValueError
        Where a layer would have more files, or larger chunks, than a run may have, or no samples.
    """
    if n_samples < 1 or shard_samples < 1:
        raise ValueError(f"n_samples={n_samples} and shard_samples={shard_samples} have to be positive")
    per_shard = min(n_samples, shard_samples)
    n_files = -(-n_samples // per_shard)
    if n_files > MOST_FILES:
        raise ValueError(
            f"{n_samples:,} samples, {per_shard:,} in a file, would be {n_files:,} files for each layer and snapshot; "
            f"a run has at most {MOST_FILES:,}. Put at least {-(-n_samples // MOST_FILES)} samples into a file: "
            f"batch_size of Recorder, samples_per_shard of BatchRecorder."
        )
    for spec in specs:
        nbytes = 8 * len(STATISTICS) * spec.n_channels
        for quantity in spec.quantities:
            dtype = np.dtype(spec.dtype_of(quantity))
            nbytes = max(nbytes, prod(chunk_shape(spec, quantity, shard_samples=per_shard)) * dtype.itemsize)
        if nbytes > MOST_BYTES:
            raise ValueError(
                f"layer {spec.name!r} is {spec.shape} for each sample, which would be chunks of {nbytes >> 20:,} MiB; "
                f"a run's have at most {MOST_BYTES >> 20:,}. Keep some of its channels (channels=), or leave it out."
            )


def create_arrays(root: zarr.Group, specs: Sequence[LayerSpec], *, n_samples: int, shard_samples: int) -> list[str]:
    """Create the groups and arrays of a run without snapshots; return their paths."""
    coordinates = [("epoch", "int64"), ("step", "int64"), ("index", "int64")]
    if any(spec.gradient for spec in specs):
        coordinates.append((LOSS_SCALE, "float64"))
    for name, dtype in coordinates:
        create_array(root, name, shape=(0, n_samples)[: len(AXES[name])], dtype=dtype)
    # not compressed, so that what it takes to read a snapshot's checksums is the size of their file
    create_array(root, CHECKSUMS, shape=(0,), dtype=str, compressed=False)
    names = np.array(STATISTICS)
    create_array(root, "statistic", shape=names.shape, dtype=str)[...] = names
    paths = [*(name for name, _ in coordinates), CHECKSUMS, "statistic", "layers"]
    for spec in specs:
        path = layer_path(spec.name)
        group = root.create_group(path, attributes=spec.attributes())
        leaves = create_layer(group, spec, n_samples=n_samples, shard_samples=shard_samples)
        paths += [path, *(f"{path}/{leaf}" for leaf in leaves)]
    return paths


def codecs(*, compressed: bool = True) -> list[BytesBytesCodec]:
    """Return the codecs of a chunk: compression, then a CRC-32C of the compressed bytes."""
    return [ZstdCodec(level=LEVEL), Crc32cCodec()] if compressed else [Crc32cCodec()]


def create_array(
    group: zarr.Group,
    name: str,
    *,
    dimensions: tuple[str, ...] | None = None,
    shape: tuple[int, ...],
    dtype: Any,
    chunks: tuple[int, ...] | None = None,
    shards: tuple[int, ...] | None = None,
    attributes: Mapping[str, Any] | None = None,
    compressed: bool = True,
) -> zarr.Array[Any]:
    """Create an array of the format, with the axes of its name where no others are given.

    Along `snapshot`, a chunk holds one snapshot, so that none is ever rewritten.
    """
    dimensions = AXES[name] if dimensions is None else dimensions
    fill = FILL["string" if dtype is str else np.dtype(dtype).name]
    if chunks is None:
        chunks = tuple(1 if axis == "snapshot" else max(1, n) for axis, n in zip(dimensions, shape, strict=True))
    return group.create_array(
        name,
        shape=shape,
        dtype=dtype,
        chunks=chunks,
        shards=shards,
        fill_value=complex(*map(float, fill)) if isinstance(fill, list) else float(fill) if fill == "NaN" else fill,
        compressors=codecs(compressed=compressed),
        chunk_key_encoding={"name": "default", "configuration": {"separator": "."}},
        dimension_names=dimensions,
        attributes=dict(attributes or {}),
        overwrite=True,
    )


def create_layer(group: zarr.Group, spec: LayerSpec, *, n_samples: int, shard_samples: int) -> list[str]:
    """Create a layer's arrays with no snapshots yet; return their names.

    A shard is one batch of samples, written once; within it the chunks are about 1 MiB before compression, so that
    reading one sample decodes little.
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
            chunks=(1, *chunk_shape(spec, quantity, shard_samples=shard_samples)),
            shards=(1, shard_samples, *spec.shape),
        )
        create_array(
            group,
            STATISTICS_OF[quantity],
            shape=(0, len(STATISTICS), spec.n_channels),
            dtype="float64",
        )
        names += [quantity, STATISTICS_OF[quantity]]
    if spec.channels is not None:
        numbers = np.array(spec.channels, dtype=np.int64)
        create_array(group, "channel", shape=numbers.shape, dtype="int64")[...] = numbers
        names.append("channel")
    return names


def create_weights(root: zarr.Group, specs: Sequence[WeightSpec], *, normalizations: Mapping[str, int]) -> list[str]:
    """Create the arrays of parameters and buffers, their norms, and the inputs of normalizations; return their paths.

    Parameters
    ----------
    root : zarr.Group
        The run.
    specs : sequence of WeightSpec
        The parameters and buffers; where there are none, nothing is created for them.
    normalizations : mapping of str to int
        By module name, how many channels a normalization has.
    """
    paths = []
    for spec in specs:
        path = weight_path(spec.name)
        group = root.require_group("weights").create_group(path.rpartition("/")[2], attributes=spec.attributes())
        create_array(
            group,
            "value",
            dimensions=("snapshot", *spec.dimensions),
            shape=(0, *spec.shape),
            dtype=spec.stored_dtype,
            chunks=(1, *spec.chunks),
        )
        paths += [path, f"{path}/value"]
    if specs:
        names, group = np.array([spec.name for spec in specs]), root.create_group("weight_norms")
        create_array(group, "weight", shape=names.shape, dtype=str)[...] = names
        for norm in NORMS:
            create_array(group, norm, shape=(0, len(specs)), dtype="float64")
        paths += ["weights", "weight_norms", *map(norms_path, ("weight", *NORMS))]
    for name, n_channels in normalizations.items():
        path = normalization_path(name)
        group = root.require_group("normalizations")
        group = group.create_group(path.rpartition("/")[2], attributes={"name": name})
        for quantity in INPUTS:
            create_array(group, quantity, shape=(0, n_channels), dtype="float64")
        paths += [path, *(f"{path}/{quantity}" for quantity in INPUTS)]
    return [*paths, "normalizations"] if normalizations else paths


def chunk_shape(spec: LayerSpec, quantity: Quantity, *, shard_samples: int) -> tuple[int, ...]:
    """Return the shape of a chunk, without the axis of snapshots: about 1 MiB, and a part of each shard."""
    shape, sample_bytes = list(spec.shape), spec.bytes_of(quantity)
    if sample_bytes > CHUNK_BYTES:
        axis = spec.dimensions.index("channel") - 1
        shape[axis] = _divisor(shape[axis], CHUNK_BYTES * shape[axis] // sample_bytes)
    samples = _divisor(shard_samples, CHUNK_BYTES // max(1, sample_bytes))
    return (samples, *shape)


def _divisor(n: int, limit: int) -> int:
    """Return the largest divisor of `n` that is at most `limit`, and 1 at least."""
    return max((d for d in range(1, min(n, limit) + 1) if n % d == 0), default=1)
