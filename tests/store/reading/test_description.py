"""What a run says of a layer's input and kernel."""

import json
from pathlib import Path

import numpy as np
import pytest

from fmcluster import StoreError, open_run
from fmcluster.store import KernelGeometry, LayerInput, LayerSpec, RunWriter
from tests.store.sealing import seal

GEOMETRY = KernelGeometry((3, 1), (2, 1), ((1, 1), (0, 0)), (1, 1), 2)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    specs = [
        LayerSpec("stem", (2, 3, 4), "float16", "Conv2d"),
        LayerSpec("conv", (2, 3, 4), "float16", "Conv2d", input=LayerInput("stem", relu=True), kernel=GEOMETRY),
    ]
    path = tmp_path / "run.zarr"
    with RunWriter(path) as writer:
        writer.create(specs, n_samples=2, shard_samples=2, kind="probe")
        for spec in specs:
            writer.write(spec.name, offset=0, values=np.ones((2, *spec.shape), np.float16))
        statistics = {(spec.name, "activation"): np.zeros((6, 2)) for spec in specs}
        writer.commit(epoch=0, step=0, index=np.arange(2), statistics=statistics, metrics={}, clipped={})
    return path


def test_input_and_kernel_are_read_as_they_were_written(path: Path) -> None:
    run = open_run(path)
    assert (run["stem"].input, run["stem"].kernel) == (None, None)
    assert (run["conv"].input, run["conv"].kernel) == (LayerInput("stem", relu=True), GEOMETRY)


@pytest.mark.parametrize("kernel", [7, {}, {"size": [3]}, {"size": [0, 3]}, {"size": "x"}])
def test_a_kernel_that_is_none_is_damage(kernel: object, path: Path) -> None:
    root = path / "zarr.json"
    content = json.loads(root.read_text())
    whole = {"stride": [1, 1], "padding": [[0, 0], [0, 0]], "dilation": [1, 1], "groups": 1}
    node = content["consolidated_metadata"]["metadata"]["layers/conv"]
    node["attributes"]["kernel"] = whole | kernel if isinstance(kernel, dict) else kernel
    root.write_text(json.dumps(content))
    seal(path)
    with pytest.raises(StoreError, match=r"is damaged: the kernel of layer 'conv' is"):
        open_run(path)["conv"].kernel  # noqa: B018


@pytest.mark.parametrize("given", ["stem", {}, {"layer": "stem"}])
def test_an_input_that_is_none_is_damage(given: object, path: Path) -> None:
    root = path / "zarr.json"
    content = json.loads(root.read_text())
    content["consolidated_metadata"]["metadata"]["layers/conv"]["attributes"]["input"] = given
    root.write_text(json.dumps(content))
    seal(path)
    with pytest.raises(StoreError, match=r"is damaged: the input of layer 'conv' is"):
        open_run(path)["conv"].input  # noqa: B018
