"""Runs that say they are large: refused before memory is taken for what does not lie there."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from fmcluster import StoreError
from fmcluster.store import open_run, verify

from ..store.format.test_check_root import bomb
from ..store.sealing import seal
from .test_hostile import Root, change, nodes

MANY = 4 * 10**8  # samples: an index of 3 GB


def of_many(root: Root, *, chunk: int) -> None:
    """Let a live run have many samples a snapshot, in few files."""
    for node in nodes(root).values():
        axes = node.get("dimension_names", [])
        if "sample" in axes:
            at, grid = axes.index("sample"), node["chunk_grid"]["configuration"]["chunk_shape"]
            inner = node["codecs"][0]["configuration"].get("chunk_shape")
            node["shape"][at], grid[at] = MANY, chunk if inner is None else MANY // 1000
            if inner is not None:
                inner[at] = MANY // 4000


@pytest.mark.parametrize("what", ["nothing", "zeros"])
def test_an_index_that_does_not_lie_there_is_not_made(
    what: str, originals: Callable[[str, int], Path], copy_of: Callable[[Path], Path]
) -> None:
    """Fill values, or the zeros of a few frames: both would take three gigabytes, of thirty kilobytes."""
    path, chunk = copy_of(originals("live", 0)), MANY // 4
    for folder in ("index", "loss_scale", *(f"layers/{name}/{q}" for name in ("conv", "fc") for q in QUANTITIES)):
        for file in (path / folder).glob("c.*"):
            file.unlink()
    if what == "zeros":
        zeros = bomb(8 * chunk)
        for number in range(12):
            (path / f"index/c.{number // 4}.{number % 4}").write_bytes(zeros)
    change(path, lambda root: of_many(root, chunk=chunk))
    run = open_run(path)
    with pytest.raises(StoreError, match=r"index says that it holds 3,051 MiB, of which [\d,]+ bytes lie there"):
        run.sample_ids(0)


QUANTITIES = ("activation", "gradient")


def test_a_weight_that_does_not_lie_there_is_missing(
    originals: Callable[[str, int], Path], copy_of: Callable[[Path], Path]
) -> None:
    """Of maps, what was not committed is NaN; of a weight, all is written."""
    path = copy_of(originals("live", 0))
    (path / "weights/conv.weight/value/c.1.0.0.0.0").unlink()
    seal(path)
    run = open_run(path)
    assert run.read_weights(snapshot=0)
    with pytest.raises(StoreError, match=r"value/c\.1\.0\.0\.0\.0 is missing"):
        run.read_weights(snapshot=1)
    assert any("is missing" in line for line in verify(run))


def test_a_shard_has_no_more_chunks_than_there_may_be(
    originals: Callable[[str, int], Path], copy_of: Callable[[Path], Path]
) -> None:
    path = copy_of(originals("live", 0))
    shutil.rmtree(path / "layers/conv/activation")
    (path / "layers/conv/activation").mkdir()

    def how(root: Root) -> None:
        of_many(root, chunk=MANY // 4)
        nodes(root)["layers/conv/activation"]["codecs"][0]["configuration"]["chunk_shape"][1] = 1
        nodes(root)["layers/conv/activation"]["chunk_grid"]["configuration"]["chunk_shape"][1] = MANY

    change(path, how)
    with pytest.raises(StoreError, match="chunks in a shard"):
        open_run(path)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32", "utf-16-le"])
def test_a_root_is_utf_8(encoding: str, originals: Callable[[str, int], Path], copy_of: Callable[[Path], Path]) -> None:
    """Python's json takes others, too, of bytes; other programs do not."""
    path = copy_of(originals("probe", 0))
    content = (path / "zarr.json").read_text(encoding="utf-8")
    (path / "zarr.json").write_text(content, encoding=encoding)
    with pytest.raises(StoreError, match=r"is damaged: its zarr\.json cannot be read") as refused:
        open_run(path)
    assert "\n" not in str(refused.value)


def test_metadata_of_a_node_is_utf_8(originals: Callable[[str, int], Path], copy_of: Callable[[Path], Path]) -> None:
    path = copy_of(originals("probe", 0))
    file = path / "layers/conv/activation/zarr.json"
    file.write_text(json.dumps(json.loads(file.read_bytes())), encoding="utf-16")
    assert verify(open_run(path)) == [f"{path} is damaged: layers/conv/activation/zarr.json is not what was committed."]
