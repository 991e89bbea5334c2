"""Trial writes: they weigh what a run's files do, and nothing is left of them."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fmcluster.store import LayerSpec, RunWriter, disk_rate, open_run, upload_rate, write_trial
from fmcluster.store.writing import _trial as trial


@pytest.mark.parametrize(
    "spec",
    [
        LayerSpec("maps", (64, 40, 40), "float16", "Conv2d"),
        LayerSpec("large", (8, 300, 300), "float32", "Conv2d"),
        LayerSpec("tokens", (17, 24), "float16", "Encoder"),
        LayerSpec("vectors", (10,), "float32", "Linear"),
    ],
    ids=lambda spec: spec.name,
)
def test_a_trial_weighs_what_the_file_of_a_run_does(spec: LayerSpec, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    values = np.maximum(rng.normal(size=(6, *spec.shape)), 0).astype(spec.dtype)
    nbytes, seconds = write_trial(spec, values, folder=tmp_path)
    assert list(tmp_path.iterdir()) == []
    with RunWriter(tmp_path / "run.zarr") as writer:
        writer.create([spec], n_samples=6, shard_samples=6, kind="probe")
        writer.write(spec.name, offset=0, values=values)
        folder = tmp_path / "run.zarr" / open_run(tmp_path / "run.zarr").layer_path(spec.name)
        (file,) = (folder / "activation").glob("c.*")
        assert nbytes == file.stat().st_size
    assert seconds >= 0


def test_the_processor_is_counted_and_the_disk_is_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter([3.0, 3.5])
    monkeypatch.setattr(trial, "thread_time", lambda: next(now))
    assert write_trial(LayerSpec("fc", (3,), "float32", "Linear"), np.ones((2, 3), "f4"), folder=tmp_path)[1] == 0.5


@pytest.mark.parametrize(
    ("file_bytes", "sizes"),
    [
        (1, [4096] * 16),
        (1 << 20, [1 << 20] * 16),
        (5 << 20, [5 << 20] * 6),
        (1 << 30, [16 << 20] * 2),
    ],
)
def test_the_disk_is_given_files_of_about_a_shard_and_is_left_as_it_was(
    file_bytes: int, sizes: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    flush = trial.flush

    def flushed(paths: list[Path]) -> None:
        seen.extend(path.stat().st_size for path in paths)
        flush(paths)

    now = iter([10.0, 12.0])
    monkeypatch.setattr(trial, "perf_counter", lambda: next(now))
    monkeypatch.setattr(trial, "flush", flushed)
    assert disk_rate(tmp_path, file_bytes=file_bytes, n_threads=2) == sum(sizes) / 2
    assert seen == sizes
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_fails_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, data: bytes) -> None:
        path.write_bytes(data[:10])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(trial, "write_bytes", full)
    with pytest.raises(OSError, match="No space left"):
        disk_rate(tmp_path, file_bytes=1 << 20, n_threads=2)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.usefixtures("s3_environment")
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
def test_an_object_store_is_given_objects_of_about_a_shard_and_is_left_as_it_was(url: str, s3_server: Any) -> None:
    from tests.store.bucket import key_of, keys_of

    assert upload_rate(url, file_bytes=8000, n_threads=2) > 0
    assert keys_of(s3_server, key_of(url)) == []
