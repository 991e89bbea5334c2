"""Data tree: xarray's view of a run is what the run holds, read as the run reads it."""

import os
import pickle
import shutil
import struct
from math import prod
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import xarray as xr
from google_crc32c import value as crc32c

from fmcluster import StoreError
from fmcluster.store import open_run

from ..format.test_check_root import bomb
from ..sealing import seal

MAPS = "layers/conv1/activation"


def test_any_part_of_an_array_is_what_xarray_alone_reads(reference: Path) -> None:
    draw = np.random.default_rng(0)
    with xr.open_datatree(reference, engine="zarr") as alone, open_run(reference).to_xarray() as ours:
        for path in (MAPS, "inputs/display", "samples/path", "index"):
            truth = alone[path]
            for _ in range(12):
                key = {str(name): any_key(draw, size) for name, size in truth.sizes.items()}
                xr.testing.assert_identical(ours[path].isel(key), truth.isel(key))
        points = {name: xr.DataArray([1, 0, 1], dims="point") for name in ("sample", "channel")}
        xr.testing.assert_identical(ours[MAPS].isel(points), alone[MAPS].isel(points))


def any_key(draw: np.random.Generator, size: int) -> Any:
    choices = [
        int(draw.integers(-size, size)),
        slice(None),
        slice(None, None, -2),
        slice(1, 3),
        draw.integers(-size, size, size=draw.integers(0, 4)),
        draw.random(size) < 0.5,
    ]
    return choices[draw.integers(len(choices))]


def test_it_is_lazy_and_goes_to_a_worker(reference: Path, tmp_path: Path) -> None:
    path = Path(shutil.copytree(reference, tmp_path / "run.zarr"))
    truth = open_run(path)["conv1"].read()
    tree = pickle.loads(pickle.dumps(open_run(path).to_xarray()))
    np.testing.assert_array_equal(tree[MAPS].values, truth)
    tree = open_run(path).to_xarray()
    shutil.rmtree(path / MAPS)
    assert tree[MAPS].shape == truth.shape
    with pytest.raises(StoreError, match="is missing"):
        assert tree[MAPS].values is not None


@pytest.mark.slow
def test_it_shows_the_snapshots_that_were_there_when_the_run_was_opened(tmp_path: Path, contents: ModuleType) -> None:
    path = tmp_path / "run.zarr"
    contents.record(path, mode="x", n_snapshots=1)
    run = open_run(path)
    contents.record(path, mode="w", n_snapshots=3)
    assert len(run.to_xarray()["epoch"]) == 1


def test_a_chunk_that_was_swapped_is_not_read(reference: Path, tmp_path: Path) -> None:
    """Xarray alone takes it for what was recorded: its own checksum fits."""
    path = Path(shutil.copytree(reference, tmp_path / "run.zarr"))
    first, second = path / MAPS / "c.0.0.0.0.0", path / MAPS / "c.1.0.0.0.0"
    shutil.copyfile(second, first)
    with xr.open_datatree(path, engine="zarr") as alone:
        assert alone[MAPS][0].values is not None
    with pytest.raises(StoreError, match=r"c\.0\.0\.0\.0\.0 cannot be decoded"):
        assert open_run(path).to_xarray()[MAPS][0].values is not None


def test_a_chunk_that_says_it_is_huge_takes_no_memory(reference: Path, tmp_path: Path) -> None:
    """Read by zarr, it takes 3 GB before it is found to be too much."""
    path = Path(shutil.copytree(reference, tmp_path / "run.zarr"))
    (path / "index/c.0.0").write_bytes(bomb(3 << 30))
    seal(path)
    with pytest.raises(StoreError, match="unpacks to 3221225472 bytes"):
        assert open_run(path).to_xarray()["index"].values is not None


def test_a_shard_that_is_long_and_empty_takes_no_memory(reference: Path, tmp_path: Path) -> None:
    """Of a file of 50 GB that takes nothing on the disk, its index says that all is one chunk."""
    path = Path(shutil.copytree(reference, tmp_path / "run.zarr"))
    file, node = path / MAPS / "c.0.0.0.0.0", open_run(path).nodes[MAPS]
    shard = node["chunk_grid"]["configuration"]["chunk_shape"]
    count = prod(shard) // prod(node["codecs"][0]["configuration"]["chunk_shape"])
    length = 50 << 30
    os.truncate(file, length)
    table = struct.pack("<2Q", 0, length) * count
    with file.open("ab") as opened:
        opened.write(table + struct.pack("<I", crc32c(table)))
    with pytest.raises(StoreError, match=f"says that it has {length} bytes in its file"):
        assert open_run(path)["conv1"].read(snapshot=0) is not None
