"""Seals a run that was changed by hand, as one who means harm would: its checksums and digests fit what lies there."""

import json
import struct
from hashlib import sha256
from math import prod
from pathlib import Path
from typing import Any

from google_crc32c import value as crc32c

from fmcluster.store.format._metadata import root_metadata


def seal(path: Path) -> None:
    """Make the commits of a run vouch for the files as they are now."""
    root = json.loads((path / "zarr.json").read_bytes())
    nodes, attributes = root["consolidated_metadata"]["metadata"], root["attributes"]["fmcluster"]
    arrays = {name: node for name, node in nodes.items() if node["node_type"] == "array" and name != "checksums"}
    constant = {name for name, node in arrays.items() if node["dimension_names"][0] != "snapshot"}
    attributes["constant"] = {name: _files(path / name, arrays[name], "c.") for name in constant}
    for snapshot, commit in enumerate(attributes["commits"]):
        files = {
            name: found
            for name in set(arrays) - constant
            if (found := _files(path / name, arrays[name], f"c.{snapshot}"))
        }
        text = json.dumps(files).encode()
        content = struct.pack("<II", 1, len(text)) + text
        content += struct.pack("<I", crc32c(content))
        (path / "checksums" / f"c.{snapshot}").write_bytes(content)
        commit["checksums"] = sha256(content).hexdigest()
    attributes.pop("digest", None)
    (path / "zarr.json").write_bytes(root_metadata(attributes, nodes))


def _files(folder: Path, node: dict[str, Any], prefix: str) -> dict[str, str]:
    found = [file for file in folder.glob("c.*") if f"{file.name}.".startswith(prefix.rstrip(".") + ".")]
    return {file.name: _checksums(file.read_bytes(), node) for file in found}


def _checksums(content: bytes, node: dict[str, Any]) -> str:
    if node["codecs"][0]["name"] != "sharding_indexed":
        return content[-4:][::-1].hex()
    shard = node["chunk_grid"]["configuration"]["chunk_shape"]
    chunks = node["codecs"][0]["configuration"]["chunk_shape"]
    count = prod(n // step for n, step in zip(shard, chunks, strict=True))
    table = struct.unpack(f"<{2 * count}Q", content[-16 * count - 4 : -4])
    ends = [None if offset == 2**64 - 1 else offset + length for offset, length in zip(*[iter(table)] * 2, strict=True)]
    return "".join("--------" if end is None else content[end - 4 : end][::-1].hex().rjust(8, "0") for end in ends)
