"""Shards' files, against both of the pipelines that read them; and what becomes of a disk that fails."""

import errno
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
import zarrs  # noqa: F401  registers its pipeline
from hypothesis import given, settings
from hypothesis import strategies as st

from fmcluster.store.format._shards import shard_layout, write_shard
from fmcluster.store.writing._create import codecs

PIPELINES = ["zarr.core.codec_pipeline.BatchedCodecPipeline", "zarrs.ZarrsCodecPipeline"]
LEVEL = -7


def write(path: Path, values: np.ndarray, *, chunks: tuple[int, ...], shard: tuple[int, ...]) -> Path:
    write_shard(path, values, chunks=chunks, shard=shard, level=LEVEL)
    return path


def make_array(folder: Path, *, shape: tuple[int, ...], chunks: tuple[int, ...], shard: tuple[int, ...], dtype: str):
    zarr.create_array(
        folder, shape=shape, dtype=dtype, chunks=chunks, shards=shard, compressors=codecs(), fill_value=float("nan")
    )


def read(folder: Path, pipeline: str) -> np.ndarray:
    with zarr.config.set({"codec_pipeline.path": pipeline}):
        return np.asarray(zarr.open_array(folder, mode="r")[...])


def bits(values: np.ndarray) -> np.ndarray:
    native = np.ascontiguousarray(values.astype(values.dtype.newbyteorder("=")))
    return native.view(f"u{values.dtype.itemsize}")


def any_bits(shape: tuple[int, ...], dtype: str, seed: int = 0) -> np.ndarray:
    """Values of any bits: infinities, NaN of any payload, both zeros and subnormals among them."""
    size = np.dtype(dtype).itemsize
    numbers = np.random.default_rng(seed).integers(0, 256**size, shape, dtype=f"u{size}")
    values = numbers.view(dtype)
    special = np.array([np.nan, np.inf, -np.inf, -0.0, 0.0, 6e-8, -6e-8], dtype)
    values.reshape(-1)[: len(special)] = special[: values.size]
    return values


divisors = st.sampled_from([(1, 1), (2, 1), (2, 2), (6, 1), (6, 3), (5, 5), (4, 2)])


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(
    axes=st.lists(divisors, min_size=1, max_size=4),
    n_shards=st.integers(1, 3),
    missing=st.integers(0, 5),
    dtype=st.sampled_from(["<f2", "<f4", ">f2", ">f4"]),
    layout=st.sampled_from(["C", "F", "strided"]),
    seed=st.integers(0, 99),
)
def test_both_pipelines_read_back_every_bit(axes, n_shards, missing, dtype, layout, seed) -> None:
    """Also of the last shard, which the array's end cuts, in the middle of a chunk maybe."""
    shard, chunks = (tuple(axis[part] for axis in axes) for part in (0, 1))
    shape = (n_shards * shard[0] - missing % shard[0], *shard[1:])
    values = any_bits((*shape, 2), dtype, seed)
    values = values[..., 1] if layout == "strided" else np.array(values[..., 1], order=layout)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "array"
        make_array(folder, shape=shape, chunks=chunks, shard=shard, dtype=dtype[1:])
        for start in range(0, shape[0], shard[0]):
            key = folder.joinpath("c", str(start // shard[0]), *("0" for _ in shard[1:]))
            key.parent.mkdir(parents=True, exist_ok=True)
            write(key, values[start : start + shard[0]], chunks=chunks, shard=shard)
        for pipeline in PIPELINES:
            np.testing.assert_array_equal(bits(read(folder, pipeline)), bits(values))


def test_what_is_missing_of_a_shard_is_nan(tmp_path: Path) -> None:
    values = any_bits((3, 4), "f2")
    make_array(tmp_path / "a", shape=(8, 4), chunks=(2, 4), shard=(8, 4), dtype="f2")
    (tmp_path / "a/c/0").mkdir(parents=True)
    write(tmp_path / "a/c/0/0", values, chunks=(2, 4), shard=(8, 4))
    for pipeline in PIPELINES:
        found = read(tmp_path / "a", pipeline)
        np.testing.assert_array_equal(bits(found[:3]), bits(values))
        assert np.isnan(found[3:]).all()


def large_shard(seed: int = 0) -> np.ndarray:
    """More than is written at a time, and no multiple of a block."""
    return np.random.default_rng(seed).normal(size=(5, 700, 1501)).astype(np.float16)


LARGE = {"chunks": (1, 350, 1501), "shard": (5, 700, 1501)}


@pytest.fixture(scope="module")
def large_bytes(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The file of `large_shard`, which both pipelines have read back."""
    folder = tmp_path_factory.mktemp("large") / "a"
    make_array(folder, shape=LARGE["shard"], dtype="f2", **LARGE)
    (folder / "c/0/0").mkdir(parents=True)
    content = write(folder / "c/0/0/0", large_shard(), **LARGE).read_bytes()
    assert len(content) > 8 << 20
    assert len(content) % 4096
    for pipeline in PIPELINES:
        np.testing.assert_array_equal(read(folder, pipeline), large_shard())
    return content


@pytest.mark.parametrize("pipeline", PIPELINES)
def test_a_flipped_byte_is_found_wherever_it_is(pipeline: str, tmp_path: Path) -> None:
    make_array(tmp_path / "a", shape=(4, 30), chunks=(2, 15), shard=(4, 30), dtype="f2")
    (tmp_path / "a/c/0").mkdir(parents=True)
    file = write(tmp_path / "a/c/0/0", any_bits((4, 30), "f2"), chunks=(2, 15), shard=(4, 30))
    content = file.read_bytes()
    for place in range(0, len(content), 3):
        damaged = bytearray(content)
        damaged[place] ^= 0x40
        file.write_bytes(damaged)
        with pytest.raises(Exception, match=r"(?i)checksum|crc|invalid|index|offset|range"):
            read(tmp_path / "a", pipeline)


@pytest.mark.slow
def test_the_same_values_give_the_same_bytes_from_several_threads_at_once(tmp_path: Path, large_bytes: bytes) -> None:
    others = [large_shard(seed) for seed in range(3)]

    def work(number: int) -> bytes:
        return write(tmp_path / str(number), others[number % 3], **LARGE).read_bytes()

    with ThreadPoolExecutor(4) as pool:
        contents = list(pool.map(work, range(12)))
    assert contents[0] == large_bytes
    assert len(set(contents)) == 3
    for number, content in enumerate(contents):
        assert content == contents[number % 3]


def test_a_shorter_shard_replaces_a_longer_one(tmp_path: Path, large_bytes: bytes) -> None:
    file = tmp_path / "shard"
    file.write_bytes(b"x" * 3 * len(large_bytes))
    assert write(file, large_shard(), **LARGE).read_bytes() == large_bytes


def is_direct(handle: int) -> bool:
    import fcntl

    return bool(fcntl.fcntl(handle, fcntl.F_GETFL) & getattr(os, "O_DIRECT", 0))


def refuses_to_open(monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.open

    def refuse(path: Any, flags: int, *mode: int) -> int:
        if flags & getattr(os, "O_DIRECT", 0):
            raise OSError(errno.EINVAL, "Invalid argument")
        return real(path, flags, *mode)

    monkeypatch.setattr(os, "open", refuse)


def refuses_to_write(monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.write

    def refuse(handle: int, data: Any) -> int:
        if is_direct(handle):
            raise OSError(errno.EINVAL, "Invalid argument")
        return real(handle, data)

    monkeypatch.setattr(os, "write", refuse)


def writes_little_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.write
    monkeypatch.setattr(os, "write", lambda handle, data: real(handle, memoryview(data)[:12345]))


@pytest.mark.parametrize("how", [refuses_to_open, refuses_to_write, writes_little_at_a_time])
def test_a_file_system_without_direct_writes_gets_the_same_bytes(
    how: Callable[[pytest.MonkeyPatch], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, large_bytes: bytes
) -> None:
    how(monkeypatch)
    path = write(tmp_path / "shard", large_shard(), **LARGE)
    monkeypatch.undo()
    assert path.read_bytes() == large_bytes


@pytest.mark.skipif(not Path("/dev/shm").is_dir(), reason="needs a file system in memory")
def test_a_file_system_in_memory_gets_the_same_bytes(large_bytes: bytes) -> None:
    with tempfile.TemporaryDirectory(dir="/dev/shm") as name:
        assert write(Path(name) / "shard", large_shard(), **LARGE).read_bytes() == large_bytes


@pytest.mark.slow
@pytest.mark.parametrize("call", ["write", "ftruncate"])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
def test_a_disk_that_fails_is_an_error_and_the_next_shard_is_whole(
    call: str, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, large_bytes: bytes
) -> None:
    def fail(*_: Any) -> int:
        raise OSError(code, os.strerror(code))

    open_files = len(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").is_dir() else None  # noqa: PTH208
    with monkeypatch.context() as patch, ThreadPoolExecutor(2) as pool:
        patch.setattr(os, call, fail)
        for number in range(4):
            task = pool.submit(write, tmp_path / str(number), large_shard(), **LARGE)
            with pytest.raises(OSError, match=os.strerror(code)) as caught:
                task.result(timeout=60)
            assert caught.value.errno == code
    if open_files is not None:
        assert len(os.listdir("/proc/self/fd")) == open_files  # noqa: PTH208
    assert write(tmp_path / "0", large_shard(), **LARGE).read_bytes() == large_bytes


def test_a_disk_that_becomes_full_in_the_middle_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, room = os.write, [9 << 20]

    def fill(handle: int, data: Any) -> int:
        if room[0] == 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        done = real(handle, memoryview(data)[: room[0]])
        room[0] -= done
        return done

    monkeypatch.setattr(os, "write", fill)
    with pytest.raises(OSError, match="No space"):
        write(tmp_path / "shard", large_shard(), **LARGE)


def test_a_folder_that_may_not_be_written_or_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        write(tmp_path / "nowhere" / "shard", large_shard(), **LARGE)
    with pytest.raises(IsADirectoryError):
        write(tmp_path, large_shard(), **LARGE)


FORKED = """
import os, sys
from pathlib import Path
import numpy as np
from fmcluster.store.format._shards import write_shard

def write(name, number):
    values = np.full((1, 3, 50), number, np.float32)
    write_shard(Path(sys.argv[1]) / name, values, chunks=(1, 3, 50), shard=(1, 3, 50), level=1)

real = os.write
def forks_first(handle, data):
    os.write = real
    child = os.fork()
    if child == 0:
        write("child", 7)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    return real(handle, data)

write("expected", 1)
os.write = forks_first
write("parent", 1)
"""


def test_a_forked_process_writes_nothing_into_its_parents_shards(tmp_path: Path) -> None:
    """The buffer is memory that processes share, and the child writes while its parent is about to."""
    done = subprocess.run([sys.executable, "-c", FORKED, str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "child").read_bytes() != (tmp_path / "expected").read_bytes()
    assert (tmp_path / "parent").read_bytes() == (tmp_path / "expected").read_bytes()


@pytest.mark.skipif(os.name == "nt", reason="needs POSIX permissions")
def test_a_shard_may_be_read_and_written_by_whom_the_umask_lets(tmp_path: Path) -> None:
    before = os.umask(0o002)
    try:
        write(tmp_path / "shard", np.zeros((1, 2), np.float16), chunks=(1, 2), shard=(1, 2))
        (tmp_path / "other").write_bytes(b"")
    finally:
        os.umask(before)
    assert (tmp_path / "shard").stat().st_mode == (tmp_path / "other").stat().st_mode


def test_the_layout_is_read_from_the_metadata(tmp_path: Path) -> None:
    make_array(tmp_path / "a", shape=(1, 9, 6), chunks=(1, 2, 3), shard=(1, 4, 6), dtype="f2")
    layout = shard_layout(json.loads((tmp_path / "a" / "zarr.json").read_bytes()), path="a")
    assert (layout.shape, layout.shard, layout.chunks) == ((9, 6), (4, 6), (2, 3))
    assert (layout.dtype, layout.level) == ("float16", LEVEL)
    for other in ({"compressors": [zarr.codecs.BloscCodec()]}, {"compressors": []}, {"shards": None}):
        how = {"shape": (1, 9, 6), "dtype": "f2", "chunks": (1, 2, 3), "shards": (1, 4, 6), **other}
        zarr.create_array(tmp_path / "other", overwrite=True, **how)
        with pytest.raises(ValueError, match="other codecs than this package writes"):
            shard_layout(json.loads((tmp_path / "other" / "zarr.json").read_bytes()), path="a")
