"""Check of a run's root: what its `zarr.json` says is of format v1, and leads nowhere but into the run."""

import json
import os
import stat
from collections.abc import Collection, Mapping, Sequence
from math import prod
from pathlib import Path
from typing import Any

from ...errors import NoSnapshotYet, StoreError
from .._compat import open_store, read_bytes
from ..files import (
    has_writer,
    holds_parts_of_runs,
    is_bucket,
    kind_of_file,
    read_at_most,
    some_names,
    unreachable,
    walk,
)
from ._check_shapes import check_commits, check_layers, check_node_shape, check_samples
from ._checksums import check_files
from ._escape import escape
from ._format import (
    AXES,
    CHECKSUMS,
    DIMENSIONS,
    FILL,
    KEY,
    ONLY_OF_WEIGHTS,
    TIME,
    holds_feature_maps,
    holds_weights,
    weight_path,
)
from ._metadata import Unfinished, checked_attributes
from ._names import is_node
from ._shards import shard_layout
from ._weight_spec import are_weight_axes

LARGEST = 64 << 20  # bytes of JSON; a thousand layers with gradients take 7 MB
_SAID = 300  # characters of what is wrong with it, which it may quote
MOST_VALUES = 1 << 53  # in an array

_KEYS = {"name": "default", "configuration": {"separator": "."}}
_NEEDED = ("epoch", "step", "index", CHECKSUMS, "layers")


def load_root(path: Path) -> dict[str, Any]:
    """Return the content of a run's `zarr.json`, before anything is believed of it.

    Raises
    ------
    FileNotFoundError
        Where there is none.
    StoreError
        Where it is a link, too large, or no JSON object.
    """
    file = path / "zarr.json"
    mode = file.lstat().st_mode
    if not stat.S_ISREG(mode):
        raise StoreError(
            f"{file} is a {kind_of_file(mode)}, not a file: nothing was read. Pass the folder that Recorder wrote."
        )
    return parse_root(str(path), read_at_most(file, LARGEST))


def parse_root(path: str, content: bytes | None) -> dict[str, Any]:
    """Return a root as JSON; `content` is None where it is larger than `LARGEST`."""
    try:
        if content is None:
            raise ValueError(f"it is larger than {LARGEST >> 20} MiB")
        root = json.loads(content.decode())  # of bytes, json takes UTF-16 and UTF-32, too, which others do not
        if not isinstance(root, dict):
            raise ValueError(f"it holds a {type(root).__name__}, not an object")
    except (ValueError, RecursionError) as error:
        raise StoreError(
            f"{path} is damaged: its zarr.json cannot be read ({error}). Nothing was changed; restore it from a copy, "
            f"or record into another path."
        ) from error
    return root


def read_root(path: str) -> dict[str, Any]:
    """Return the content of a run's `zarr.json`, at a path or a URL, before more than its attributes is believed of it.

    Raises
    ------
    FileNotFoundError
        Where there is none.
    NoSnapshotYet
        Where there is none yet, or an unfinished one, and a writer holds the run's lock.
    StoreError
        Where it cannot be reached, is a link, too large, no JSON object, an array's, or none of a whole run.
    """
    try:
        return _laid_out(path)
    except (FileNotFoundError, Unfinished):
        if has_writer(path):
            raise NoSnapshotYet(no_snapshot_yet(path)) from None
    return _laid_out(path)  # nobody writes: it is there by now, or never will be


def no_snapshot_yet(path: str) -> str:
    """Say that a run is being recorded and has nothing to read."""
    return (
        f"{path} holds no whole snapshot yet: its recording has begun and goes on. Try again once it has one; "
        f"`fmcluster report --watch` waits for it."
    )


def _laid_out(path: str) -> dict[str, Any]:
    root = _stored_root(path)
    checked_attributes(path, root.get("attributes"))
    return root


def _part_of_a_run(path: str, remedy: str) -> FileNotFoundError:
    return FileNotFoundError(
        f"{path} is a part of a run, without its zarr.json: a copy that was interrupted, or goes on. {remedy}"
    )


def _stored_root(path: str) -> dict[str, Any]:
    if "://" in path:
        try:
            content = read_bytes(open_store(path), "zarr.json", at_most=LARGEST)
        except (StoreError, FileNotFoundError):
            raise
        except Exception as error:  # of whatever library there is for such URLs
            raise unreachable(path, error) from error
        if content is not None:
            return parse_root(path, content)
        if is_bucket(path) and (names := some_names(path)) and holds_parts_of_runs(names):
            raise _part_of_a_run(path, "Run the same `fmcluster copy` again, which sends what is missing.")
    elif not Path(path).is_dir():
        raise FileNotFoundError(f"there is no run at {path}. Pass the folder that Recorder wrote.")
    elif os.path.lexists(f"{path}/zarr.json"):
        root = load_root(Path(path))
        if root.get("node_type") == "array":
            raise StoreError(f"{path} is a Zarr array by itself, not a run. Pass the folder that Recorder wrote.")
        return root
    elif any((Path(path) / name).exists() for name in (".zgroup", ".zarray")):
        raise StoreError(f"{path} is a store of Zarr version 2, not a run: runs are of version 3. Nothing was read.")
    elif next(Path(path).glob("layers/*/activation"), None) is not None:
        raise _part_of_a_run(path, "Copy the run again.")
    raise FileNotFoundError(
        f"there is no run at {path}: the folder holds no zarr.json. Pass the folder that Recorder wrote."
    )


def check_root(path: str, root: Mapping[str, Any]) -> None:
    """Compare the nodes of a root with format v1; its attributes are checked already.

    Raises
    ------
    StoreError
        Where a node lies outside the run or is none of the format's, or an array is not laid out as the format says.
    """
    attributes = root["attributes"][KEY]
    try:
        _require((root["zarr_format"], root["node_type"]) == (3, "group"), "it is no group of Zarr v3")
        nodes = root["consolidated_metadata"]["metadata"]
        for name in _NEEDED:
            _require(name in nodes, f"it names no {name}")
        _check_attributes(attributes)
        for name, node in nodes.items():
            _require(is_node(name), f"{name!r} is no path of a run's")
            _check_node(name, node, n_snapshots=len(attributes["commits"]))
        lost = attributes["constant"].keys() - nodes.keys()
        _require(not lost, f"it vouches for files of {sorted(lost)[:1]}, which it does not hold")
        check_commits(attributes["commits"])
        check_layers(attributes["layers"], nodes)
        check_samples({name: node for name, node in nodes.items() if node["node_type"] == "array"})
        _check_weights(attributes.get("weights", []), nodes)
    except (LookupError, TypeError, ValueError, AttributeError, RecursionError) as error:
        what = (f"no {error}" if isinstance(error, KeyError) else str(error))[:_SAID]
        raise StoreError(
            f"{path} is damaged: its zarr.json is not of format v1 ({what}). Nothing was changed; restore it from a "
            f"copy."
        ) from error


def check_no_links(path: Path, *, nodes: Mapping[str, Any] | None = None) -> None:
    """See that in a run there is nothing but folders and files: no link, FIFO, socket or device.

    Parameters
    ----------
    path : Path
        The run's folder, which may be a link itself.
    nodes : mapping, optional
        By path, the nodes whose folders are looked at; by default, everything in the folder is.

    Raises
    ------
    StoreError
        Where something is.
    """
    if nodes is not None:
        found = {path / name: (path / name).lstat().st_mode for name in nodes if os.path.lexists(path / name)}
        wrong = {file: mode for file, mode in found.items() if not stat.S_ISDIR(mode)}
    else:
        entries = {Path(entry.path): entry.stat(follow_symlinks=False).st_mode for entry in walk(path)}
        wrong = {file: mode for file, mode in entries.items() if not (stat.S_ISDIR(mode) or stat.S_ISREG(mode))}
    for file, mode in wrong.items():
        what = kind_of_file(mode)
        expected = f"is a {what}, and a run has none" if what != "file" else "is a file, and a run has a folder there"
        raise StoreError(f"{file} {expected}: nothing was read or changed. Copy the run instead.")


def _check_attributes(attributes: Mapping[str, Any]) -> None:
    for name in ("layers", "classes", "weights", "normalizations"):
        names = attributes.get(name, [])
        fits = isinstance(names, list) and all(isinstance(each, str) for each in names)
        _require(fits and (name == "classes" or len(set(names)) == len(names)), f"{name} are no names")
    _require(attributes.get("kind", "probe") in ("probe", "live"), f"kind is {attributes.get('kind')!r}")
    for each in attributes["sessions"]:
        _require(isinstance(each, dict) and type(each["first_snapshot"]) is int, "a session is not described")
        lost, left_out = each.get("missing", []), each.get("left_out", {})
        fits = all(type(k["epoch"]) is type(k["step"]) is int and isinstance(k["reason"], str) for k in lost)
        fits = fits and all(isinstance(why, str) for why in left_out.values())
        _require(fits and isinstance(lost, list), "a session does not say what it left out")
        fits = all(isinstance(each.get(name, {}), dict) for name in ("notes", "versions"))
        varying = each.get("varying", [])
        fits = fits and isinstance(varying, list) and all(isinstance(name, str) for name in varying)
        _require(fits and isinstance(each.get("model", ""), str), "a session does not say what made it")
    for each in attributes["commits"]:
        fits = type(each["epoch"]) is type(each["step"]) is int and isinstance(each["checksums"], str)
        _require(fits and len(each["checksums"]) == 64, "a commit does not say what it is of")
    check_files(attributes["constant"])


def _check_node(name: str, node: Mapping[str, Any], *, n_snapshots: int) -> None:
    _require(node["zarr_format"] == 3 and isinstance(node["attributes"], dict), f"{name} is no node of Zarr v3")
    parent, _, _ = name.rpartition("/")
    if parent in ("layers", "metrics", "weights", "normalizations"):
        said = node["attributes"]["name"]
        _require(isinstance(said, str), f"{name} does not say what it is of")
        _require(name == f"{parent}/{escape(said)}", f"{name} says that it is of {said!r}, which lies elsewhere")
    if node["node_type"] == "group":
        return
    _require(node["node_type"] == "array", f"{name} is a {node['node_type']!r}")
    _require(
        set(node["attributes"]) <= ({"name"} if parent == "metrics" else set()),
        f"{name} has attributes by which xarray might read other numbers",
    )
    shape, chunks = node["shape"], node["chunk_grid"]["configuration"]["chunk_shape"]
    _require(node["chunk_grid"]["name"] == "regular", f"{name} has a grid of chunks that is not regular")
    _require(_are_lengths(shape, least=0), f"{name} has the shape {shape}")
    _require(_are_lengths(chunks, least=1) and len(chunks) == len(shape), f"{name} has chunks of {chunks}")
    _require(max(prod(shape), prod(chunks)) <= MOST_VALUES, f"{name} has {shape} values in chunks of {chunks}")
    _require(node["chunk_key_encoding"] == _KEYS, f"{name} names its chunks another way")
    dtype = node["data_type"]
    known = isinstance(dtype, str) and dtype in FILL and (dtype not in ONLY_OF_WEIGHTS or holds_weights(name))
    _require(known, f"{name} is of {dtype!r}")
    fill = node["fill_value"]
    _require(type(fill) is type(FILL[dtype]) and fill == FILL[dtype], f"{name} is filled with {fill!r}")
    dimensions = node["dimension_names"]
    _require(isinstance(dimensions, list) and len(dimensions) == len(shape) > 0, f"{name} has the axes {dimensions}")
    fits = are_weight_axes(dimensions) if holds_weights(name) else tuple(dimensions) in _axes(name)
    _require(fits, f"{name} has the axes {dimensions}")
    _check_codecs(name, node)
    check_node_shape(name, node)
    if dimensions[0] == "snapshot":
        what = f"{name} has {shape[0]} snapshots, and {n_snapshots} were committed"
        _require(shape[0] == n_snapshots and chunks[0] == 1, what)


def _check_weights(weights: Sequence[str], nodes: Mapping[str, Any]) -> None:
    """See that every parameter and buffer that is named is there, and has its norms."""
    lost = [each for each in weights if f"{weight_path(each)}/value" not in nodes]
    _require(not lost, f"it names the weights {lost[:1]}, and no array of theirs")
    for name, node in nodes.items():
        if name.startswith("weight_norms/"):
            _require(node["shape"][-1] == len(weights), f"{name} is of {node['shape']}, for {len(weights)} weights")


def _check_codecs(name: str, node: Mapping[str, Any]) -> None:
    """See that an array's files are laid out as this package writes them, and none is decoded by other code."""
    names = [codec["name"] for codec in node["codecs"]]
    if names == ["sharding_indexed"]:
        shard_layout(node, path=name)
        return
    number = "vlen-utf8" if node["data_type"] == "string" else "bytes"
    _require(names in ([number, "zstd", "crc32c"], [number, "crc32c"]), f"{name} has the codecs {names}")
    endian = node["codecs"][0].get("configuration", {}).get("endian", "little")
    _require(endian == "little", f"{name} holds {endian}-endian numbers")


def _axes(name: str) -> Collection[tuple[str, ...]]:
    """Return the axes that an array may have, by its path."""
    if holds_feature_maps(name):
        return [("snapshot", *axes) for axes in (*DIMENSIONS.values(), TIME)]
    if name.startswith("metrics/"):
        return [("snapshot",)]
    return [AXES[name.rpartition("/")[2]]]


def _are_lengths(values: object, *, least: int) -> bool:
    return isinstance(values, list) and all(type(each) is int and each >= least for each in values)


def _require(fits: bool, otherwise: str) -> None:
    if not fits:
        raise ValueError(otherwise)
