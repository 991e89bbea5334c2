"""Where a run is kept, by what a path or a URL names."""

from pathlib import Path

import pytest

from fmcluster.store import run_location
from fmcluster.store.writing._folder import Folder
from fmcluster.store.writing._open_storage import open_storage


def test_a_path_is_a_folder_of_this_machine(tmp_path: Path) -> None:
    storage = open_storage(tmp_path / "run.zarr")
    try:
        assert isinstance(storage, Folder)
        assert (storage.name, storage.folder) == (str(tmp_path / "run.zarr"), tmp_path / "run.zarr")
    finally:
        storage.close()


@pytest.mark.parametrize("url", ["s3://bucket/run.zarr", "gs://b/a b", "az://container/run.zarr"])
def test_a_url_is_whole_also_after_path_took_a_slash_from_it(url: str) -> None:
    assert run_location(url) == run_location(Path(url)) == url


@pytest.mark.parametrize("url", ["https://host/run.zarr", "memory://run.zarr"])
def test_what_is_no_object_store_is_refused(url: str) -> None:
    for ask in (run_location, open_storage):
        with pytest.raises(ValueError, match=f"path is the URL {url}; expected a folder of this machine"):
            ask(url)
