"""Files of results, in a folder and in a bucket: what was kept is found, and a link is not followed."""

from io import BytesIO
from pathlib import Path

import pytest

from fmcluster.analysis import _result_files as module
from fmcluster.analysis._result_files import result_files, results_beside


def write(path: Path) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"result")


def test_results_lie_beside_their_run() -> None:
    assert results_beside("runs/run.zarr/") == "runs/run.zarr.results"
    assert results_beside("s3://bucket/run.zarr") == "s3://bucket/run.zarr.results"


def test_what_was_kept_in_a_folder_is_found_and_a_link_is_not_followed(tmp_path: Path) -> None:
    files = result_files(tmp_path / "run.zarr.results")
    assert files.find("a.npz") is None
    files.write("a.npz", write)
    found = files.find("a.npz")
    assert isinstance(found, Path)
    assert found.read_bytes() == b"result"
    assert str(found) == files.path_of("a.npz")
    (found.parent / "link.npz").symlink_to(found)
    assert files.find("link.npz") is None


def test_what_was_kept_in_a_bucket_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    objects: dict[str, bytes] = {}
    monkeypatch.setattr(module, "write_object", objects.__setitem__)
    monkeypatch.setattr(module, "read_object", lambda url, at_most: objects.get(url))
    files = result_files("s3://bucket/run.zarr.results")
    assert files.find("a.npz") is None
    files.write("a.npz", write)
    assert objects == {files.path_of("a.npz"): b"result"}
    found = files.find("a.npz")
    assert isinstance(found, BytesIO)
    assert found.read() == b"result"
