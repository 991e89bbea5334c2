"""Creation of a run: its folder by the mode that was asked for, and its empty arrays."""

import os
import re
import shutil
from collections.abc import Mapping, Sequence
from math import prod
from pathlib import Path
from typing import Any, Literal

import numpy as np
import zarr
from zarr.abc.codec import BytesBytesCodec
from zarr.codecs import Crc32cCodec, ZstdCodec

from ._check_root import load_root
from ._check_shapes import MOST_BYTES, MOST_FILES
from ._disk import replace_file, walk
from ._format import (
    AXES,
    CHECKSUMS,
    FILL,
    INPUTS,
    KEY,
    LEVEL,
    LOSS_SCALE,
    NORMS,
    STATISTICS,
    STATISTICS_OF,
    LayerSpec,
    Quantity,
    layer_path,
    normalization_path,
    norms_path,
    weight_path,
)
from ._metadata import UNFINISHED
from ._weight_spec import WeightSpec

Mode = Literal["x", "a", "w"]

CHUNK_BYTES = 1 << 20
# names of a run's files; also of those that it, or zarr, was writing
_OWN = re.compile(r"zarr\.json(\.partial)?|c(\.[0-9]+)*(\.partial)?|(zarr|c(\.[0-9]+)*)\.[0-9a-f]{32}\.partial")


def prepare_folder(path: Path, *, mode: Mode) -> bool:
    """Apply the mode to what exists at a path; return whether there is a run in it to resume.

    Raises
    ------
    FileExistsError
        With "x", where something exists at `path`; with "w", where it is not a run.
    StoreError
        Where the run at `path` is damaged.
    """
    if mode not in ("x", "a", "w"):
        raise ValueError(f'mode is {mode!r}; expected "x" (new), "a" (resume) or "w" (replace)')
    found = _content_of(path)
    if found == "other":
        raise FileExistsError(
            f"{path} exists and is not a run of this package; it is left as it is. Pass another path."
        )
    if found == "run" and mode == "x":
        raise FileExistsError(
            f'{path} already holds a run. Pass mode="a" to resume it, mode="w" to replace it, or another path.'
        )
    if found == "unfinished" or (found == "run" and mode == "w"):
        remove_run(path)
    return found == "run" and mode == "a"


def _content_of(path: Path) -> Literal["nothing", "unfinished", "run", "other"]:
    """Say what exists at a path."""
    if not path.exists():
        return "nothing"
    if not path.is_dir():
        return "other"
    names = {child.name for child in path.iterdir()}
    if "zarr.json" not in names:
        return "unfinished" if names <= {"zarr.json.partial"} else "other"
    attributes = load_root(path).get("attributes")
    known = attributes.get(KEY) if isinstance(attributes, dict) else None
    if not isinstance(known, dict):
        return "other"
    return "unfinished" if known.get("unfinished") else "run"


def remove_run(path: Path) -> None:
    """Remove a run; if this is interrupted, what is left is still recognized as a run that holds nothing.

    Raises
    ------
    FileExistsError
        Where its folder is a link, or holds a file that no run has: whatever its root says, that is somebody else's.
        Nothing is removed then.
    """
    if path.is_symlink():
        raise FileExistsError(
            f"{path} is a link, and what lies elsewhere is not removed: nothing was changed. Pass the folder to which "
            f"it leads, or another path."
        )
    for entry in walk(path):
        if entry.is_file(follow_symlinks=False) and not _OWN.fullmatch(entry.name):
            raise FileExistsError(
                f"{path} holds a file that is none of a run's, {os.path.relpath(entry.path, path)}, which would be "
                f"removed with it: nothing was changed. Move the file away, or pass another path."
            )
    if (path / "zarr.json").exists():
        replace_file(path / "zarr.json", UNFINISHED)
    for child in path.iterdir():
        if child.is_dir() and not child.is_symlink():
            shutil.rmtree(child)
    shutil.rmtree(path)


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
