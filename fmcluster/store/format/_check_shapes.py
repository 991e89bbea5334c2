"""Check of a run's shapes: that what its root says of arrays agrees, and takes no more memory than a run's can."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from math import prod
from typing import Any

import numpy as np

from ._format import (
    STATISTICS,
    STATISTICS_OF,
    array_path,
    holds_feature_maps,
    holds_weights,
    layer_path,
    statistics_path,
)

MOST_BYTES = 1 << 30  # of a chunk, which is decoded as a whole; this package writes at most some 40 MB
MOST_FILES = 1 << 20  # of an array at one snapshot
LARGEST_PICTURE = 224  # pixels a side
LARGEST_NUMBER = (1 << 63) - 1

_DTYPES = {
    **dict.fromkeys(("epoch", "step", "index", "sample", "label", "channel"), "int64"),
    **dict.fromkeys(("path", "checksums", "weight", "statistic"), "string"),
    **dict.fromkeys(("digest", "display"), "uint8"),
}
_MAPS = ("float16", "float32", "float64")


def check_node_shape(name: str, node: Mapping[str, Any]) -> None:
    """See that an array is of the type that its name asks for, in chunks that memory can be taken for.

    Raises
    ------
    ValueError
        Where it is not.
    """
    dtype, shape = node["data_type"], node["shape"]
    files = chunks = node["chunk_grid"]["configuration"]["chunk_shape"]
    if holds_feature_maps(name):
        _require(dtype in _MAPS, f"{name} is of {dtype}")
    elif not holds_weights(name):
        expected = "float64" if name.startswith("metrics/") else _DTYPES.get(name.rpartition("/")[2], "float64")
        _require(dtype == expected, f"{name} is of {dtype}, not {expected}")
    if node["codecs"][0]["name"] == "sharding_indexed":
        _require(holds_feature_maps(name), f"{name} has shards")
        chunks = node["codecs"][0]["configuration"]["chunk_shape"]
        fits = isinstance(chunks, list) and len(chunks) == len(files) and chunks[0] == 1
        fits = fits and all(type(each) is int and each > 0 for each in chunks)
        fits = fits and all(whole % part == 0 for whole, part in zip(files, chunks, strict=True))
        _require(fits, f"{name} has chunks of {chunks} in shards of {files}")
        n_chunks = prod(whole // part for whole, part in zip(files, chunks, strict=True))
        _require(n_chunks <= MOST_FILES, f"{name} has {n_chunks:,} chunks in a shard")
    nbytes = prod(chunks) * (16 if dtype == "string" else np.dtype(dtype).itemsize)
    _require(nbytes <= MOST_BYTES, f"{name} has chunks of {nbytes >> 20:,} MiB")
    per_snapshot = [-(-n // step) for n, step in zip(shape, files, strict=True)]
    n_files = prod(per_snapshot[1:] if node["dimension_names"][0] == "snapshot" else per_snapshot)
    _require(n_files <= MOST_FILES, f"{name} has {n_files:,} files")


def check_commits(commits: Sequence[Mapping[str, Any]]) -> None:
    """See that snapshots are in order: neither epoch nor step goes back.

    Raises
    ------
    ValueError
        Where they are not.
    """
    stamps = [(each["epoch"], each["step"]) for each in commits]
    for epoch, step in stamps:
        fits = -1 <= epoch <= LARGEST_NUMBER and -1 <= step <= LARGEST_NUMBER
        _require(fits, f"a commit is of epoch {_short(epoch)}, step {_short(step)}")
    for (epoch, step), (next_epoch, next_step) in pairwise(stamps):
        fits = epoch <= next_epoch and step <= next_step
        _require(fits, f"epoch {next_epoch}, step {next_step} was committed after epoch {epoch}, step {step}")


def check_layers(layers: Sequence[str], nodes: Mapping[str, Any]) -> None:
    """See that each layer has its arrays, of shapes that fit one another and the index of samples.

    Raises
    ------
    ValueError
        Where one has not.
    """
    _require(len(layers) > 0 and len(set(layers)) == len(layers), "layers are none, or one is named twice")
    n_slots = _shape("index", nodes)[1]
    for layer in layers:
        group = nodes.get(layer_path(layer))
        _require(group is not None and group["node_type"] == "group", f"it names the layer {layer!r}, and has no group")
        _require(nodes[layer_path(layer)]["attributes"]["name"] == layer, f"{layer_path(layer)} is of another layer")
        maps = array_path(layer, "activation")
        shape = _shape(maps, nodes)
        channel = nodes[maps]["dimension_names"].index("channel")
        _require(shape[1] == n_slots, f"{maps} holds {shape[1]} samples, and the index {n_slots}")
        _require(min(shape[1:]) > 0, f"{maps} has the shape {shape}")
        for quantity in STATISTICS_OF:
            path, there = array_path(layer, quantity), array_path(layer, quantity) in nodes
            _require(not there or _shape(path, nodes) == shape, f"{path} is not of the shape {shape}")
            path, expected = statistics_path(layer, quantity), [shape[0], len(STATISTICS), shape[channel]]
            _require(not there or _shape(path, nodes) == expected, f"{path} is not of the shape {expected}")
        numbers = f"{layer_path(layer)}/channel"
        _require(numbers not in nodes or _shape(numbers, nodes) == [shape[channel]], f"{numbers} is of another length")


def check_samples(nodes: Mapping[str, Any]) -> None:
    """See that what is said of samples is said of as many each time.

    Raises
    ------
    ValueError
        Where it is not.
    """
    said = {name: _shape(name, nodes) for name in nodes if name.startswith(("samples/", "inputs/"))}
    for name, shape in said.items():
        _require(shape[0] == min(said.values())[0], f"{name} is of {shape[0]} samples")
        tail = {"samples/digest": [32], "inputs/display": [*shape[1:3], 3]}.get(name, [])
        _require(shape[1:] == tail and min(shape[1:], default=1) > 0, f"{name} has the shape {shape}")
        _require(max(shape[1:], default=0) <= LARGEST_PICTURE, f"{name} has pictures of {shape[1:3]} pixels")


def _shape(path: str, nodes: Mapping[str, Any]) -> list[int]:
    _require(path in nodes and nodes[path]["node_type"] == "array", f"it has no array {path}")
    return list(nodes[path]["shape"])


def _short(number: int) -> str:
    return str(number) if abs(number) <= LARGEST_NUMBER else "beyond 64 bits"


def _require(fits: bool, otherwise: str) -> None:
    if not fits:
        raise ValueError(otherwise)
