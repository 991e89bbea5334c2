"""Metadata of the root: what makes a folder a run, and which of its snapshots are whole."""

import json
from collections.abc import Mapping
from typing import Any

from ..errors import StoreError
from ._format import KEY, VERSION


def root_metadata(attributes: Mapping[str, Any], nodes: Mapping[str, Any]) -> bytes:
    """Return the root's `zarr.json`: the package's attributes and the metadata of every node."""
    root = {
        "zarr_format": 3,
        "node_type": "group",
        "attributes": {KEY: attributes, "coordinates": "epoch step index"},
        "consolidated_metadata": {
            "kind": "inline",
            "must_understand": False,
            "metadata": dict(sorted(nodes.items())),
        },
    }
    return json.dumps(root, indent=1).encode()


def checked_attributes(path: str, attributes: object) -> dict[str, Any]:
    """Return the package's part of a root's attributes.

    Raises
    ------
    StoreError
        Where the root is not a run's, is of a newer format, or was never finished.
    """
    found = attributes.get(KEY) if isinstance(attributes, dict) else None
    if not isinstance(found, dict) or not isinstance(found.get("format"), int):
        raise StoreError(
            f"{path} is a Zarr store but not a run of fmcluster (no {KEY!r} attributes). Pass the folder of a run."
        )
    if found["format"] > VERSION:
        raise StoreError(
            f"{path} is of format {found['format']}; this version of fmcluster reads formats up to {VERSION}. "
            f"Upgrade with: pip install --upgrade fmcluster"
        )
    if found.get("unfinished"):
        raise StoreError(f"{path} was interrupted before it was created in full and holds nothing. Record it again.")
    if lacks := [key for key in ("layers", "commits", "sessions") if not isinstance(found.get(key), list)]:
        raise StoreError(f"{path} is damaged: its zarr.json has no {lacks[0]!r}. Restore it from a copy.")
    return found


UNFINISHED = root_metadata({"format": VERSION, "unfinished": True}, {})
