"""Runs at URLs: of a shard, a part is fetched where a part is asked for, and is what was committed."""

from pathlib import Path

import numpy as np
import pytest
from google_crc32c import value as crc32c
from zarr.storage import FsspecStore

from fmcluster import StoreError
from fmcluster.store import LayerSpec, Run, RunWriter, open_run, verify

SAMPLES, SHAPE = 64, (16, 32, 32)  # 64 KiB a sample: chunks of 16
SPEC = LayerSpec("conv", SHAPE, "float32", "Conv2d")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A run of one snapshot, whose one shard has several chunks."""
    rng, path = np.random.default_rng(0), tmp_path / "run.zarr"
    with RunWriter(path) as writer:
        writer.create([SPEC], n_samples=SAMPLES, shard_samples=SAMPLES, kind="probe")
        writer.write("conv", offset=0, values=rng.standard_normal((SAMPLES, *SHAPE)).astype(np.float32))
        writer.commit(
            epoch=0,
            step=0,
            index=np.arange(SAMPLES),
            statistics={("conv", "activation"): np.zeros((6, SHAPE[0]))},
            metrics={},
            clipped={},
        )
    return path


@pytest.fixture
def fetched(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The bytes of each request for feature maps."""
    sizes: list[int] = []
    get = FsspecStore.get

    async def counted(store: FsspecStore, key: str, *args: object, **options: object) -> object:
        found = await get(store, key, *args, **options)
        if "/activation/c." in key and found is not None:
            sizes.append(len(found))
        return found

    monkeypatch.setattr(FsspecStore, "get", counted)
    return sizes


def remote(path: Path) -> Run:
    return open_run(f"file://{path}")


def shard_of(path: Path) -> Path:
    (shard,) = (path / "layers/conv/activation").glob("c.*")
    return shard


def chunks_of(path: Path) -> tuple[list[tuple[int, int]], int]:
    """Return offset and length of each chunk of the shard, and the length of its index."""
    whole = shard_of(path).read_bytes()
    count = SAMPLES // open_run(path).stored("layers/conv/activation").array.chunks[1]
    index = np.frombuffer(whole[-16 * count - 4 : -4], "<u8").reshape(-1, 2)
    return [(int(offset), int(length)) for offset, length in index], 16 * count + 4


def test_one_sample_is_one_chunk_and_the_index(path: Path, fetched: list[int]) -> None:
    chunks, index = chunks_of(path)
    assert len(chunks) >= 2
    for sample in (0, SAMPLES - 1):
        fetched.clear()
        found = remote(path)["conv"].read(snapshot=0, samples=[sample])
        np.testing.assert_array_equal(found, open_run(path)["conv"].read(snapshot=0, samples=[sample]))
        assert sorted(fetched) == sorted([index, chunks[0 if sample == 0 else -1][1]])


def test_all_of_a_shard_is_one_request(path: Path, fetched: list[int]) -> None:
    found = remote(path)["conv"].read(snapshot=0)
    np.testing.assert_array_equal(found, open_run(path)["conv"].read(snapshot=0))
    assert fetched == [shard_of(path).stat().st_size]
    assert verify(remote(path)) == []


@pytest.mark.parametrize("harm", ["flip", "swap", "cut", "empty", "delete", "index"])
def test_a_part_that_is_not_what_was_committed_is_refused(harm: str, path: Path) -> None:
    shard, ((first, length), *_, (last, other)) = shard_of(path), chunks_of(path)[0]
    content = bytearray(shard.read_bytes())
    if harm == "flip":
        content[first + length // 2] ^= 1
    elif harm == "swap":  # whole chunks, each with a checksum that fits, in each other's stead
        index = np.frombuffer(bytes(content[-16 * len(chunks_of(path)[0]) - 4 : -4]), "<u8").reshape(-1, 2)
        content[first:] = seal(content, index[::-1])[first:]
    elif harm == "cut":
        del content[last:]
    elif harm == "empty":
        content.clear()
    elif harm == "index":
        content[-8] ^= 1
    shard.write_bytes(content)
    if harm == "delete":
        shard.unlink()
    assert other > 4
    with pytest.raises(StoreError, match="is damaged: layers/conv/activation/c"):
        remote(path)["conv"].read(snapshot=0, samples=[0])


def test_what_is_not_asked_for_is_not_fetched(path: Path) -> None:
    """Damage in another chunk does not keep a sample from being read."""
    expected = open_run(path)["conv"].read(snapshot=0, samples=[0])
    shard, (*_, (last, length)) = shard_of(path), chunks_of(path)[0]
    content = bytearray(shard.read_bytes())
    content[last + length // 2] ^= 1
    shard.write_bytes(content)
    np.testing.assert_array_equal(remote(path)["conv"].read(snapshot=0, samples=[0]), expected)
    with pytest.raises(StoreError, match="is damaged"):
        remote(path)["conv"].read(snapshot=0, samples=[SAMPLES - 1])


def seal(content: bytearray, index: np.ndarray) -> bytearray:
    """Return a shard with another index, and a checksum that fits it."""
    table = np.ascontiguousarray(index, "<u8").tobytes()
    return content[: -len(table) - 4] + bytearray(table) + bytearray(crc32c(table).to_bytes(4, "little"))
