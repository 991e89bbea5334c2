"""Descriptions of layers that were sealed, and cannot be: found beside the arrays and the other layers."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fmcluster.store import LayerSpec, RunWriter, open_run, verify

from ..sealing import seal

SHAPE = (4, 6, 9)


@pytest.fixture
def described(tmp_path: Path) -> Path:
    """A run without snapshots: its description and its arrays are there already."""
    spec = LayerSpec("conv", SHAPE, "float16", "Conv2d", returned=(6, 9, 4), returned_axis=3, axis_source="option")
    whole = LayerSpec("part", (2, 3, 3), "float16", "Conv2d", output=(4, 6, 6), channels=(1, 3), returned_axis=1)
    with RunWriter(tmp_path / "run.zarr") as writer:
        writer.create([spec, whole], n_samples=4, shard_samples=4, kind="probe")
        numbers = np.array([1, 3])
        writer.add_static("layers/part/channel", numbers, dimensions=("channel",))
        writer.replace_root()
    return tmp_path / "run.zarr"


def describe(run: Path, layer: str, **said: Any) -> None:
    """Describe a layer otherwise, in all places, and seal it."""
    root = json.loads((run / "zarr.json").read_bytes())
    node = root["consolidated_metadata"]["metadata"][f"layers/{layer}"]
    node["attributes"].update(said)
    node["attributes"] = {name: value for name, value in node["attributes"].items() if value is not None}
    (run / "zarr.json").write_text(json.dumps(root))
    (run / f"layers/{layer}/zarr.json").write_text(json.dumps(node))
    seal(run)


def test_what_was_written_is_described_as_it_is(described: Path) -> None:
    assert verify(open_run(described)) == []


@pytest.mark.parametrize(
    ("layer", "said", "expected"),
    [
        ("conv", {"output": [4, 9, 6], "returned": [6, 9, 4]}, "averaged or not|cannot be stored"),
        ("conv", {"output": [9, 6, 4], "returned": None}, "cannot be stored"),
        ("conv", {"output": [8, 6, 9]}, "cannot be stored|was not returned as"),
        ("conv", {"average_pooled": True}, "averaged or not"),
        ("conv", {"crop": [[0, 3], [0, 9]]}, "cannot be stored"),
        ("conv", {"channel_axis": {"axis": 1, "source": "module"}}, "axis 1 of what was returned"),
        ("conv", {"channel_axis": {"axis": 9, "source": "module"}}, "axis 9 of what was returned"),
        ("conv", {"returned": [6, 9, 5]}, "was not returned as"),
        ("conv", {"returned": "ab"}, "the returned of layer 'conv' is ab"),
        ("conv", {"stream": "gone"}, "it names the layer 'gone'"),
        ("conv", {"input": {"layer": "gone", "relu": False}}, "it names the layer 'gone'"),
        ("part", {"output": [3, 6, 6]}, "cannot be stored"),
        ("part", {"average_pooled": None}, "averaged or not"),
    ],
)
def test_what_cannot_be_is_found(described: Path, layer: str, said: dict[str, Any], expected: str) -> None:
    describe(described, layer, **said)
    found = verify(open_run(described))
    assert found
    assert all("is damaged: " in line and "\n" not in line for line in found)
    assert any(re.search(expected, line) for line in found), found
