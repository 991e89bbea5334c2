"""What both storages go by: the snapshot that a file belongs to, and what a root is of."""

from pathlib import Path

import pytest

from fmcluster.store.writing._storage import content_of_root, files_from, snapshot_of


@pytest.mark.parametrize(
    ("name", "snapshot"),
    [("c.0", 0), ("layers/c.3/activation/c.12.0.0", 12), ("epoch/zarr.json", -1), ("c.x.1", -1), ("layers/c.7", 7)],
)
def test_the_snapshot_of_a_file(name: str, snapshot: int) -> None:
    assert snapshot_of(name) == snapshot


def test_files_of_a_snapshot_and_later_ones_of_the_arrays_named(tmp_path: Path) -> None:
    for name in ("epoch/c.0", "epoch/c.1", "epoch/c.10", "epoch/zarr.json", "other/c.5"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = files_from(1, folder=tmp_path, arrays=["epoch", "not there"])
    assert sorted(file.name for file in found) == ["c.1", "c.10"]


def test_what_a_root_is_of() -> None:
    assert content_of_root({"attributes": {"fmcluster": {"format": 1}}}) == "run"
    assert content_of_root({"attributes": {"fmcluster": {"format": 1, "unfinished": True}}}) == "unfinished"
    for other in ({}, {"attributes": []}, {"attributes": {"fmcluster": 3}}):
        assert content_of_root(other) == "other"
