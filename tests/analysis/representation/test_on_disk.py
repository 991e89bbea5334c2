"""Inner products that memory cannot hold: on the disk, bit for bit those in memory, and nothing is left there."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from fmcluster.analysis.representation import _on_disk, _similarity
from fmcluster.analysis.representation._on_disk import OnDisk, on_disk
from fmcluster.analysis.representation._similarity import similarity
from tests.analysis.representation.test_similarity import record

TOO_SMALL = 33_000  # for the products of 24 samples at 3 layers and 2 snapshots, not for one of them


@pytest.mark.slow
@pytest.mark.parametrize("metric", ["cka", "rbf_cka"])
def test_numbers_are_those_in_memory_and_nothing_is_left(metric, tmp_path: Path, monkeypatch) -> None:
    run, other = record(tmp_path / "run.zarr"), record(tmp_path / "other.zarr", seed=1)
    (tmp_path / "run.zarr.results").mkdir()
    kinds: list[Any] = []
    pair = _similarity._pair
    monkeypatch.setattr(_similarity, "_pair", lambda kept, *a, **k: kinds.append(type(kept[0])) or pair(kept, *a, **k))
    for second in (None, other):
        here = similarity(run, second, metric=metric)
        there = similarity(run, second, metric=metric, max_bytes=TOO_SMALL)
        np.testing.assert_array_equal(there.values, here.values)
    assert kinds == [np.ndarray, OnDisk] * 2
    assert list((tmp_path / "run.zarr.results").iterdir()) == []
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".lock", ".lock", ".results", ".zarr", ".zarr"]


@pytest.mark.slow
def test_what_is_constant_stays_without_a_number(tmp_path: Path) -> None:
    run = record(tmp_path / "run.zarr", dead=2)
    found = similarity(run, max_bytes=TOO_SMALL)
    np.testing.assert_array_equal(found.values, similarity(run).values)


def test_thousands_of_samples_at_hundreds_of_snapshots_are_not_refused() -> None:
    """Ten layers at 91 snapshots were refused beyond 750 samples in 1 GiB."""
    vectors = SimpleNamespace(samples=np.arange(3000), n_features=64 * 56 * 56)
    workers, block_bytes, on_the_disk = _similarity._plan_blocks([vectors] * 910, "cka", 1 << 30, alone=True)
    assert (workers, on_the_disk) == (1, 4 * 910 * 3000 * 3001 // 2)
    assert block_bytes > 1 << 20
    few = SimpleNamespace(samples=np.arange(700), n_features=64 * 56 * 56)
    assert _similarity._plan_blocks([few] * 910, "cka", 1 << 30, alone=True)[2] == 0


def test_a_full_disk_is_said_with_the_way_out(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(_on_disk.shutil, "disk_usage", lambda _: SimpleNamespace(free=5 << 20))
    with (
        pytest.raises(OSError, match=r"take 7 MiB, more than memory may hold, and .* has 5 MiB free.*fewer samples"),
        on_disk(iter([]), beside=str(tmp_path / "run.zarr"), nbytes=7 << 20),
    ):
        pass


def test_a_run_that_cannot_be_written_beside_uses_the_systems_folder(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setattr(_on_disk, "gettempdir", lambda: str(tmp_path))
    vectors = [np.arange(5, dtype=np.float32), np.zeros(5, np.float32)]
    with on_disk(vectors, beside="s3://bucket/run.zarr", nbytes=40) as kept:
        np.testing.assert_array_equal(kept[0][1:3], [1, 2])
        np.testing.assert_array_equal(kept[0][3:9], [3, 4])
        assert [each.any() for each in kept] == [True, False]
