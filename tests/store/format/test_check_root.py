"""Root checks: what a `zarr.json` names lies in the run and is of the format; nothing is believed before that."""

import json
import os
import shutil
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from google_crc32c import value as crc32c
from numcodecs.zstd import compress

from fmcluster.errors import StoreError
from fmcluster.store import LayerSpec, RunWriter, open_run, verify

from ..sealing import seal

ACTIVATION = "layers/conv1/activation"


def root_of(path: Path) -> dict[str, Any]:
    return json.loads((path / "zarr.json").read_bytes())


def nodes_of(root: dict[str, Any]) -> dict[str, Any]:
    return root["consolidated_metadata"]["metadata"]


def put(path: Path, root: dict[str, Any]) -> None:
    (path / "zarr.json").write_text(json.dumps(root))


def files_of(path: Path) -> dict[str, bytes]:
    return {str(file.relative_to(path)): file.read_bytes() for file in path.rglob("*") if file.is_file()}


def refused(path: Path, match: str = "") -> None:
    """Neither read nor written, in one sentence; and nothing in it is changed."""
    before = files_of(path)
    for attempt in (lambda: open_run(path), lambda: RunWriter(path, mode="a")):
        with pytest.raises(StoreError, match=match):
            attempt()
    assert files_of(path) == before


@pytest.mark.parametrize("how", ["relative", "absolute", "dots within", "windows"])
def test_a_node_outside_the_run_is_refused_and_what_lies_there_is_left_alone(how, stored, tmp_path, reference):
    victim = Path(shutil.copytree(reference, tmp_path / "victim.zarr"))
    name = {
        "relative": f"../victim.zarr/{ACTIVATION}",
        "absolute": f"{victim}/{ACTIVATION}",
        "dots within": f"layers/../../victim.zarr/{ACTIVATION}",
        "windows": "layers\\..\\..\\victim.zarr",
    }[how]
    before, root = files_of(victim), root_of(stored)
    nodes_of(root)[name] = {**nodes_of(root)[ACTIVATION], "shape": [0, *nodes_of(root)[ACTIVATION]["shape"][1:]]}
    put(stored, root)
    refused(stored, "is no path of a run's")
    assert files_of(victim) == before
    assert verify(open_run(victim)) == []


@pytest.mark.parametrize("what", [ACTIVATION, "layers/conv1", "layers", f"{ACTIVATION}/c.0.0.0.0.0", "index/c.0.0"])
def test_a_link_is_neither_followed_nor_written_through(what, stored, tmp_path, reference):
    victim = Path(shutil.copytree(reference, tmp_path / "victim.zarr"))
    linked = stored / what
    shutil.rmtree(linked) if linked.is_dir() else linked.unlink()
    linked.symlink_to(victim / what)
    before = files_of(victim)
    with pytest.raises(StoreError, match="is a link"):
        RunWriter(stored, mode="a")
    with pytest.raises(StoreError, match="is a link"):
        run = open_run(stored)
        assert run.snapshots is not None
        run["conv1"].read(snapshot=0)
    if linked.is_symlink() and "/c." in what:
        assert any("is a link" in line for line in verify(open_run(stored)))
    assert files_of(victim) == before


def test_a_run_that_is_replaced_takes_no_linked_folder_with_it(stored, tmp_path, reference, contents):
    victim = Path(shutil.copytree(reference, tmp_path / "victim.zarr"))
    shutil.rmtree(stored / "layers")
    (stored / "layers").symlink_to(victim / "layers")
    before = files_of(victim)
    contents.record(stored, mode="w")
    assert files_of(victim) == before
    assert len(open_run(stored)) == 3


def test_the_run_itself_may_be_behind_a_link(stored, tmp_path):
    (tmp_path / "behind.zarr").symlink_to(stored)
    run = open_run(tmp_path / "behind.zarr")
    assert run["conv1"].read(snapshot=0).shape == open_run(stored)["conv1"].read(snapshot=0).shape


def test_nothing_is_removed_before_the_run_is_known_to_be_resumable(stored):
    (stored / "epoch/c.3").write_bytes(b"of a snapshot that was not committed")
    before = files_of(stored)
    RunWriter(stored, mode="a").close()
    assert files_of(stored) == before
    with RunWriter(stored, mode="a") as writer:
        writer.tidy()
    assert "epoch/c.3" not in files_of(stored)


def test_a_layer_may_be_called_as_files_are_that_are_not_finished(tmp_path):
    path = tmp_path / "run.zarr"
    with RunWriter(path) as writer:
        writer.create([LayerSpec("a.partial", (4,), "float16", "Linear")], n_samples=2, shard_samples=2, kind="probe")
    with RunWriter(path, mode="a") as writer:
        writer.tidy()
    assert open_run(path).layers == ["a.partial"]


def change_node(**values):
    return lambda root: nodes_of(root)[ACTIVATION].update(values)


def regular(*chunks):
    return {"name": "regular", "configuration": {"chunk_shape": list(chunks)}}


WRONG = {
    "another separator": change_node(chunk_key_encoding={"name": "default", "configuration": {"separator": "/"}}),
    "no separator": change_node(chunk_key_encoding={"name": "default", "confhguration": {"separator": "."}}),
    "a chunk of nothing": change_node(
        chunk_grid={"name": "regular", "configuration": {"chunk_shape": [1, 0, 1, 1, 1]}}
    ),
    "chunks of fewer axes": change_node(chunk_grid={"name": "regular", "configuration": {"chunk_shape": [1, 1]}}),
    "a huge shape": change_node(shape=[3, 10**15, 10**15, 1, 1]),
    "a shape below zero": change_node(shape=[3, -1, 4, 6, 6]),
    "a shape that is a number": change_node(shape=7),
    "more snapshots than commits": change_node(shape=[9, 5, 4, 6, 6]),
    "another fill value": change_node(fill_value=0),
    "text as numbers": change_node(data_type="object"),
    "no codecs": change_node(codecs=[]),
    "no axes": change_node(dimension_names=None),
    "too few commits": lambda root: root["attributes"]["fmcluster"]["commits"].pop(),
    "a commit without files": lambda root: root["attributes"]["fmcluster"]["commits"].__setitem__(0, {}),
    "classes that are a number": lambda root: root["attributes"]["fmcluster"].update(classes=7),
    "layers that are numbers": lambda root: root["attributes"]["fmcluster"].update(layers=[1, 2]),
    "another kind": lambda root: root["attributes"]["fmcluster"].update(kind="dream"),
    "sessions that are words": lambda root: root["attributes"]["fmcluster"].update(sessions=["yesterday"]),
    "files that lie outside": lambda root: root["attributes"]["fmcluster"]["constant"].update(x={"../../c.0": "0" * 8}),
    "no nodes": lambda root: root.update(consolidated_metadata=None),
    "no epochs": lambda root: nodes_of(root).pop("epoch"),
    "a node that is a word": lambda root: nodes_of(root).update(epoch="yes"),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_is_not_of_the_format_is_refused(what, stored):
    root = root_of(stored)
    WRONG[what](root)
    put(stored, root)
    refused(stored, "is damaged: its zarr.json is not of format v1")


@pytest.mark.parametrize(
    "content",
    [b"[" * 3000 + b"]" * 3000, b'{"a":' * 100_000, b'"' + b"a" * (65 << 20) + b'"', b"7", b"null", b"\xff\xfe"],
    ids=["nested", "nested and cut", "large", "a number", "null", "no text"],
)
def test_json_that_is_no_root_is_refused(content, stored):
    (stored / "zarr.json").write_bytes(content)
    refused(stored, r"is damaged: its zarr\.json cannot be read")


def test_a_store_of_another_version_is_no_run(tmp_path):
    group = zarr.open_group(tmp_path / "old.zarr", mode="w", zarr_format=2)
    group.create_array("epoch", shape=(2,), dtype="i8")
    with pytest.raises(StoreError, match="is a store of Zarr version 2, not a run"):
        open_run(tmp_path / "old.zarr")
    with pytest.raises(FileExistsError, match="is not a run"):
        RunWriter(tmp_path / "old.zarr", mode="a")


def bomb(nbytes: int, *, said: int | None = None) -> bytes:
    """Return a Zstandard frame of a few bytes that unpacks to many (and says another number), with its checksum."""
    parts = [struct.pack("<I", 0xFD2FB528) + bytes([0xE0]) + struct.pack("<Q", nbytes if said is None else said)]
    while nbytes:
        count = min(1 << 17, nbytes)
        nbytes -= count
        parts.append((count << 3 | 2 | (not nbytes)).to_bytes(3, "little") + b"\0")
    return sealed_chunk(b"".join(parts))


def sealed_chunk(frames: bytes) -> bytes:
    """Return what a chunk's file holds, with its checksum."""
    return frames + struct.pack("<I", crc32c(frames))


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="limits of memory are Linux's")
@pytest.mark.parametrize("follows", [False, True], ids=["its own frame", "a frame that follows"])
@pytest.mark.parametrize("where", ["index/c.0.0", f"{ACTIVATION}/c.0.0.0.0.0"])
def test_a_chunk_that_unpacks_to_more_than_it_should_takes_no_memory(where, follows, stored):
    content = bomb(3 << 30)
    if follows:
        size = _chunk_bytes(stored, where.split("/c.")[0])
        content = sealed_chunk(compress(bytes(size), 1) + content[:-4])
    if where.startswith("layers"):
        count = _chunks_of(stored)
        table = struct.pack(f"<{2 * count}Q", *([0, len(content)] * count))
        content += table + struct.pack("<I", crc32c(table))
    (stored / where).write_bytes(content)
    seal(stored)
    code = (
        "import sys; from fmcluster.store import open_run\n"
        "import resource; resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))\n"
        "run = open_run(sys.argv[1])\n"
        "try: run['conv1'].read(snapshot=0)\n"
        "except Exception as error: print(type(error).__name__, error)\n"
        "print(open('/proc/self/status').read().split('VmHWM:')[1].split()[0])\n"  # kB; of rusage, the parent's counts
    )
    done = subprocess.run([sys.executable, "-c", code, str(stored)], capture_output=True, text=True, check=True)
    said, peak = done.stdout.strip().splitlines()
    assert said.startswith("StoreError")
    assert ("buffer too small" if follows else "unpacks to 3221225472 bytes") in said
    assert int(peak) < 1_500_000

    assert any(where.split("/c.")[0] in line for line in verify(open_run(stored)))


def _chunk_bytes(path: Path, array: str) -> int:
    node = nodes_of(root_of(path))[array]
    inner = node["codecs"][0].get("configuration", {}).get("chunk_shape")
    shape = inner or node["chunk_grid"]["configuration"]["chunk_shape"]
    return int(np.prod(shape)) * np.dtype(node["data_type"]).itemsize


def _chunks_of(path: Path) -> int:
    node = nodes_of(root_of(path))[ACTIVATION]
    shard = node["chunk_grid"]["configuration"]["chunk_shape"]
    chunks = node["codecs"][0]["configuration"]["chunk_shape"]
    return int(np.prod([n // step for n, step in zip(shard, chunks, strict=True)]))


def test_a_device_in_place_of_the_root_is_not_read(tmp_path):
    (tmp_path / "run.zarr").mkdir()
    os.mkfifo(tmp_path / "run.zarr" / "zarr.json")
    with pytest.raises(StoreError, match="is a FIFO, not a file"):
        open_run(tmp_path / "run.zarr")


def test_a_url_that_a_library_cannot_read_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(StoreError, match=r"zip://absent\.zip cannot be reached"):
        open_run("zip://absent.zip")


@pytest.mark.parametrize("name", ["another", "epoch", "\ud800"])
def test_a_metric_lies_where_its_name_says(name, stored):
    """Of two that are called alike, one would be read as the other."""
    root = root_of(stored)
    path = next(each for each in nodes_of(root) if each.startswith("metrics/"))
    assert nodes_of(root)[path]["attributes"]["name"] != name
    nodes_of(root)[path]["attributes"]["name"] = name
    put(stored, root)
    seal(stored)
    refused(stored, "is not of format v1")


def test_a_folder_that_was_copied_in_part_is_told_from_one_that_is_no_run(stored):
    (stored / "zarr.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"is a part of a run, without its zarr\.json: a copy that was"):
        open_run(stored)
    shutil.rmtree(stored / "layers")
    with pytest.raises(FileNotFoundError, match="there is no run at"):
        open_run(stored)
