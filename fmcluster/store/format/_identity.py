"""Identity of snapshots: what their commits vouch for, as a few digests."""

import json
from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Any

from ._format import CHECKSUMS

_READING = ("layers", "classes", "constant", "kind")


def identify(attributes: Mapping[str, Any], nodes: Mapping[str, Any], *, snapshots: Sequence[int]) -> dict[str, Any]:
    """Return what tells snapshots from any others: two runs of which it is equal hold the same, wherever they lie.

    Parameters
    ----------
    attributes : mapping
        What the root says of the run.
    nodes : mapping
        The metadata of each group and array, by path.
    snapshots : sequence of int
        Their numbers.

    Returns
    -------
    dict
        ``snapshots``: of each, the SHA-256 that its commit has of the checksums of all its files. ``run``: one of all
        that does not change from snapshot to snapshot: samples, classes, pictures, and what is said of each layer.
    """
    said = {path: node["attributes"] for path, node in nodes.items() if path.startswith("layers/")}
    constant = {name: attributes.get(name) for name in _READING}
    text = json.dumps([constant, said], sort_keys=True).encode()
    commits = attributes["commits"]
    return {"snapshots": [commits[number][CHECKSUMS] for number in snapshots], "run": sha256(text).hexdigest()}
