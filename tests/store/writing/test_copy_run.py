"""A run in an object store: copied there, read there, and what becomes of both where the network fails."""

import json
import os
import shutil
import struct
from hashlib import sha256

import numpy as np
import pytest
from google_crc32c import value as crc32c

import fmcluster as fm
from fmcluster import StoreError
from fmcluster.store import LayerSpec, RunWriter, missing_files, verify
from fmcluster.store.format._metadata import root_metadata

pytest.importorskip("obstore")
pytest.importorskip("moto")
from tests.store.bucket import keys_of

SPEC = LayerSpec("conv", (4, 6, 6), "float16", "Conv2d")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.usefixtures("s3_environment"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning"),
]


def values(epoch, half):
    return np.random.default_rng(10 * epoch + half).normal(size=(4, 4, 6, 6)).astype(np.float16)


def add_epoch(writer, epoch):
    for half in (0, 1):
        writer.write("conv", offset=4 * half, values=values(epoch, half))
    writer.commit(
        epoch=epoch,
        step=epoch,
        index=np.arange(8),
        statistics={("conv", "activation"): np.zeros((6, 4))},
        metrics={"loss": float(epoch)},
        clipped={},
    )


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "run.zarr"
    with RunWriter(path) as writer:
        writer.create([SPEC], n_samples=8, shard_samples=4, kind="live")
        writer.describe_session({})
        for epoch in range(3):
            add_epoch(writer, epoch)
    return path


def check(url, path):
    there, here = fm.open_run(url), fm.open_run(path)
    assert verify(there) == []
    assert missing_files(there) == []
    assert there.epochs == here.epochs
    assert list(there.metrics["loss"]) == list(here.metrics["loss"])
    for epoch in here.epochs:
        np.testing.assert_array_equal(there["conv"].read(epoch=epoch), here["conv"].read(epoch=epoch))
        np.testing.assert_array_equal(
            there["conv"].read(epoch=epoch, samples=[6, 1]),
            np.concatenate([values(epoch, 1)[2:3], values(epoch, 0)[1:2]]),
        )


def test_a_copy_is_the_run_and_what_is_there_is_not_sent_again(s3_server, path):
    url = "s3://bucket/whole.zarr"
    seen = []
    copied = fm.copy_run(path, url, progress=lambda done, total: seen.append((done, total)))
    assert copied.n_snapshots == 3
    assert copied.n_there == 0
    assert copied.n_files == len(keys_of(s3_server, "whole.zarr"))
    assert seen[-1][0] == seen[-1][1] == len(seen)
    check(url, path)
    again = fm.copy_run(path, url)
    assert (again.n_files, again.nbytes, again.n_there) == (0, 0, copied.n_files)
    with RunWriter(path, mode="a") as writer:
        writer.tidy()
        add_epoch(writer, 3)
    more = fm.copy_run(path, url)
    assert more.n_snapshots == 4
    assert 0 < more.n_files < copied.n_files
    check(url, path)
    scores = fm.pca(fm.open_run(url)["conv"].vectors("channel"), n_components=2)
    np.testing.assert_array_equal(
        scores.values, fm.pca(fm.open_run(path)["conv"].vectors("channel"), n_components=2).values
    )


def test_requests_that_fail_are_made_again(s3_server, path):
    url = "s3://bucket/faults.zarr"
    s3_server.plan += [("PUT", "faults.zarr/", kind) for kind in (500, 503, "drop", "lost")]
    s3_server.plan += [("PUT", "faults.zarr/zarr.json", "lost")]
    fm.copy_run(path, url)
    assert len(s3_server.failed) == 5
    s3_server.plan += [("GET", "activation", kind) for kind in (500, 503, "drop", "truncate")]
    check(url, path)
    assert len(s3_server.failed) == 9


def test_a_copy_that_breaks_off_shows_nothing_and_goes_on(s3_server, path, monkeypatch):
    from fmcluster.store.writing import _copy_run as module

    url, sent = "s3://bucket/broken.zarr", []
    put = module._Sender.put

    def break_off(self, name, *args, **kwargs):
        if len(sent) == 5:
            raise KeyboardInterrupt
        sent.append(name)
        put(self, name, *args, **kwargs)

    monkeypatch.setattr(module._Sender, "put", break_off)
    with pytest.raises(KeyboardInterrupt):
        fm.copy_run(path, url)
    monkeypatch.setattr(module._Sender, "put", put)
    n_there = len(keys_of(s3_server, "broken.zarr"))
    assert n_there
    with pytest.raises(
        FileNotFoundError, match=r"broken\.zarr is a part of a run.*Run the same `fmcluster copy` again"
    ):
        fm.open_run(url)
    assert fm.copy_run(path, url).n_there == n_there
    check(url, path)


CHUNK = "layers/conv/activation/c.1.1.0.0.0"


def linked(path):
    """Put a link in the place of a file or folder."""
    elsewhere = path.with_name("elsewhere")
    path.rename(elsewhere)
    path.symlink_to(elsewhere)


def stolen(path, array, name):
    """Have a run's first commit vouch for a file that lies elsewhere."""
    record = path / "checksums/c.0"
    files = json.loads(record.read_bytes()[8:-4])
    files.setdefault(array, {})[name] = (path.parent / "foreign").read_bytes()[-4:][::-1].hex()
    text = json.dumps(files).encode()
    content = struct.pack("<II", 1, len(text)) + text
    content += struct.pack("<I", crc32c(content))
    record.write_bytes(content)
    root = json.loads((path / "zarr.json").read_bytes())
    attributes = root["attributes"]["fmcluster"]
    attributes["commits"][0]["checksums"] = sha256(content).hexdigest()
    attributes.pop("digest")
    (path / "zarr.json").write_bytes(root_metadata(attributes, root["consolidated_metadata"]["metadata"]))


@pytest.mark.parametrize(
    ("how", "said"),
    [
        (lambda path: ((path / CHUNK).unlink(), os.mkfifo(path / CHUNK)), "is a FIFO, not a file"),
        (lambda path: linked(path / CHUNK), "is a link, not a file"),
        (lambda path: linked(path / "layers"), "is a link, and a run has none"),
        (lambda path: stolen(path, "index", "../../foreign"), "'../../foreign' is no chunk's name"),
        (lambda path: stolen(path, "..", "c.0"), r"vouch for files of '\.\.', which it does not hold"),
        (lambda path: (path / CHUNK).unlink(), "it is missing or empty"),
    ],
    ids=["FIFO", "link", "linked folder", "outside", "no array", "gone"],
)
def test_nothing_but_the_runs_own_files_is_read_to_be_copied(how, said, s3_server, path):
    foreign = b"a secret" * 8
    (path.parent / "foreign").write_bytes(foreign + struct.pack("<I", crc32c(foreign)))
    how(path)
    with pytest.raises(StoreError, match=said):
        fm.copy_run(path, "s3://bucket/hostile.zarr")
    assert "zarr.json" not in keys_of(s3_server, "hostile.zarr")


def test_a_damaged_file_is_not_copied(s3_server, path):
    file = path / "layers/conv/activation/c.1.1.0.0.0"
    content = bytearray(file.read_bytes())
    content[20] ^= 1
    file.write_bytes(content)
    with pytest.raises(
        StoreError, match=r"run.zarr is damaged: layers/conv/activation/c\.1\.1\.0\.0\.0 cannot be copied"
    ):
        fm.copy_run(path, "s3://bucket/damaged.zarr")
    assert "zarr.json" not in keys_of(s3_server, "damaged.zarr")


def test_another_run_is_left_as_it_is(s3_server, path, tmp_path):
    url = "s3://bucket/other.zarr"
    fm.copy_run(path, url)
    other = write_other(tmp_path / "other.zarr")
    with pytest.raises(StoreError, match=r"holds another run than .*other\.zarr"):
        fm.copy_run(other, url)
    check(url, path)


@pytest.mark.parametrize("at", ["zarr.json", CHUNK])
def test_two_may_copy_one_run_at_once(at, s3_server, path, tmp_path, monkeypatch):
    url = f"s3://bucket/{tmp_path.name}.zarr"
    part = shutil.copytree(path, tmp_path / "part.zarr")
    raced = race(monkeypatch, at=at, copy=lambda: fm.copy_run(part, url))
    fm.copy_run(path, url)
    assert raced == [at]
    check(url, path)


@pytest.mark.parametrize("at", ["zarr.json", CHUNK])
def test_of_two_who_copy_other_runs_at_once_none_puts_its_files_over_the_others(
    at, s3_server, path, tmp_path, monkeypatch
):
    url, refused = f"s3://bucket/{tmp_path.name}.zarr", []
    other = write_other(tmp_path / "other.zarr")

    def copy(run):
        try:
            fm.copy_run(run, url)
        except StoreError as error:
            refused.append(str(error))

    raced = race(monkeypatch, at=at, copy=lambda: copy(other))
    copy(path)
    assert raced == [at]
    assert refused
    assert all(f"{url} was written by another process meanwhile" in each for each in refused)
    if len(refused) == 1:
        assert verify(fm.open_run(url)) == []


def race(monkeypatch, *, at, copy):
    """Have another copy made right before a file is put; return the names of those before which it was."""
    from fmcluster.store.writing import _copy_run as module

    put, raced = module._Sender.put, []

    def late(self, name, content, **options):
        if name == at and not raced:
            raced.append(name)
            copy()
        put(self, name, content, **options)

    monkeypatch.setattr(module._Sender, "put", late)
    return raced


def write_other(path):
    """Write another run of the same layer."""
    with RunWriter(path) as writer:
        writer.create([SPEC], n_samples=8, shard_samples=4, kind="live")
        writer.describe_session({})
        add_epoch(writer, 7)
    return path


def test_what_is_wrong_is_one_sentence(s3_server, path, monkeypatch, tmp_path):
    with pytest.raises(StoreError, match=r"s3://nobucket/run\.zarr cannot be reached: there is no such bucket"):
        fm.copy_run(path, "s3://nobucket/run.zarr")
    with pytest.raises(StoreError, match=r"s3://nobucket/run\.zarr cannot be reached: there is no such bucket"):
        fm.open_run("s3://nobucket/run.zarr")
    with pytest.raises(FileNotFoundError, match=r"there is no run at s3://bucket/nothing\.zarr"):
        fm.open_run("s3://bucket/nothing.zarr")
    with pytest.raises(ValueError, match=r"url is '/tmp/x'; expected one of an object store"):
        fm.copy_run(path, "/tmp/x")
    with pytest.raises(ValueError, match="path is s3://bucket, a whole bucket; expected a folder in it"):
        fm.copy_run(path, "s3://bucket/")
    with pytest.raises(ValueError, match="expected a folder of this machine"):
        fm.copy_run("s3://bucket/run.zarr", "s3://bucket/copy.zarr")
    s3_server.plan += [("HEAD", "", 503)] * 20
    with pytest.raises(StoreError, match=r"s3://bucket/run\.zarr cannot be reached: "):
        fm.open_run("s3://bucket/run.zarr")
