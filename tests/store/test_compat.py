"""zarr's private interfaces: each test says what a new version has changed, and what of the store needs it."""

import inspect
import json
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
import zarr
from zarr.storage import LocalStore, MemoryStore

from fmcluster.errors import StoreError
from fmcluster.store import _compat as compat
from fmcluster.store import open_run

ADAPT = "adapt it in fmcluster/store/_compat.py"


@pytest.fixture
def array(tmp_path: Path) -> zarr.Array:
    made = zarr.create_array(LocalStore(tmp_path), name="a", shape=(5, 4), chunks=(2, 4), dtype="float32")
    made[:] = np.arange(20).reshape(5, 4)
    return zarr.open_array(LocalStore(tmp_path, read_only=True), path="a")


def test_the_careful_pipeline_is_zarrs_own_and_is_kept_by_what_was_opened_in_it(array: zarr.Array) -> None:
    before = zarr.config.get("codec_pipeline.path")
    with compat.careful_pipeline():
        inside = zarr.open_array(array.store, path="a", mode="r")
    assert zarr.config.get("codec_pipeline.path") == before
    pipeline = type(inside.async_array.codec_pipeline)
    assert pipeline.__name__ == "BatchedCodecPipeline", (
        f"an array opened with the setting codec_pipeline.path has {pipeline}; without zarr's own pipeline a damaged "
        f"chunk may be read in silence: careful_pipeline, {ADAPT}"
    )


def test_an_array_is_written_by_the_metadata_that_one_has_not_by_its_file(array: zarr.Array, tmp_path: Path) -> None:
    described = {**array.metadata.to_dict(), "shape": (9, 4)}
    larger = compat.array_from_metadata(tmp_path, "a", metadata=described)
    assert larger.shape == (9, 4), f"Array.from_dict does not take the metadata it is given: {ADAPT}"
    larger[8] = 7
    assert (tmp_path / "a" / "c" / "4" / "0").exists()
    assert zarr.open_array(LocalStore(tmp_path), path="a").shape == (5, 4)


def test_a_group_shows_the_metadata_that_it_was_given_not_its_file(stored: Path) -> None:
    root = json.loads((stored / "zarr.json").read_bytes())
    before = json.dumps(root)
    shorter = json.loads(before)
    shorter["consolidated_metadata"]["metadata"]["epoch"]["shape"] = [1]
    group = compat.group_from_metadata(LocalStore(stored, read_only=True), shorter)
    assert group["epoch"].shape == (1,), f"Group does not take the metadata it is given: group_from_metadata, {ADAPT}"
    assert group["step"].shape == (3,)
    assert "layers/conv1/activation" in group
    assert shorter["consolidated_metadata"]["metadata"]["epoch"]["shape"] == [1]  # what was given is as it was
    with pytest.raises(ValueError, match="read-only"):
        group["epoch"][:] = 0


def test_the_size_of_a_file_is_asked_of_any_store(array: zarr.Array) -> None:
    there = (array.store.root / "a" / "c" / "0" / "0").stat().st_size
    assert compat.stored_bytes(array, "c/0/0") == there
    assert compat.stored_bytes(array, "c/9/0") == 0
    memory = zarr.create_array(MemoryStore(), name="a", shape=(2, 4), chunks=(2, 4), dtype="float32", compressors=None)
    memory[:] = 1
    assert compat.stored_bytes(memory, "c/0/0") == 2 * 4 * 4, f"zarr.core.sync.sync or Store.getsize changed: {ADAPT}"
    assert compat.stored_bytes(memory, "c/9/0") == 0


def test_the_versions_it_was_checked_with_are_named() -> None:
    stated = inspect.getdoc(compat) or ""
    minor = ".".join(version("zarr").split(".")[:2])
    assert f"{minor}." in stated, f"zarr {version('zarr')} is installed; run these tests and name it"


def test_a_host_that_is_not_reached_is_no_run_that_is_missing() -> None:
    """Whether a run is there, nobody knows: fsspec says of both that nothing was found."""
    pytest.importorskip("aiohttp")
    with pytest.raises(StoreError, match="cannot be reached"):
        open_run("http://localhost:1/run.zarr")
