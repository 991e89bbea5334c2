"""Metadata of the root: what makes a folder a run, and which of its snapshots are whole."""

import json
from collections.abc import Mapping
from hashlib import sha256
from typing import Any

from ...errors import StoreError
from ._format import KEY, VERSION


class Unfinished(StoreError):
    """A run was not laid out to the end: it holds nothing."""


def root_metadata(attributes: Mapping[str, Any], nodes: Mapping[str, Any]) -> bytes:
    """Return the root's `zarr.json`: the package's attributes and the metadata of every node."""
    root: dict[str, Any] = {
        "zarr_format": 3,
        "node_type": "group",
        "attributes": {KEY: attributes, "coordinates": "epoch step index"},
        "consolidated_metadata": {
            "kind": "inline",
            "must_understand": False,
            "metadata": dict(sorted(nodes.items())),
        },
    }
    root["attributes"][KEY] = {**attributes, "digest": _digest(root)}
    return json.dumps(root, indent=1).encode()


def check_digest(path: str, root: Mapping[str, Any]) -> None:
    """See that a root of which `checked_attributes` approved says what was committed.

    Raises
    ------
    StoreError
        Where it was changed since, or does not vouch for itself.
    """
    try:
        same = root["attributes"][KEY].get("digest") == _digest(root)
    except RecursionError:
        same = False
    if not same:
        raise StoreError(
            f"{path} is damaged: its zarr.json is not what was committed (its SHA-256 differs). Nothing was read or "
            f"changed; restore it from a copy, or record into another path."
        )


def _digest(root: Mapping[str, Any]) -> str:
    """Return the SHA-256 of what a root says, its digest apart: of JSON without spaces, keys in order."""
    attributes = root["attributes"]
    own = {name: value for name, value in attributes[KEY].items() if name != "digest"}
    said = {**root, "attributes": {**attributes, KEY: own}}
    return sha256(json.dumps(said, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def checked_attributes(path: str, attributes: object) -> dict[str, Any]:
    """Return the package's part of a root's attributes.

    Raises
    ------
    StoreError
        Where the root is not a run's, or is of a newer format; `Unfinished` where it was never finished.
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
        raise Unfinished(f"{path} was interrupted before it was created in full and holds nothing. Record it again.")
    if lacks := [key for key in ("layers", "commits", "sessions") if not isinstance(found.get(key), list)]:
        raise StoreError(f"{path} is damaged: its zarr.json has no {lacks[0]!r}. Restore it from a copy.")
    return found


UNFINISHED = root_metadata({"format": VERSION, "unfinished": True}, {})
