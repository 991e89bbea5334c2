"""Damage is told, by the name of what is damaged; it is never read as zeros or NaN."""

import errno
import json
import shutil
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from zarr.storage import FsspecStore

from fmcluster import StoreError
from fmcluster.store import Run, RunWriter, missing_files, open_run, verify

FILES = {
    "layers/conv1/activation/c.2.0.0.0.0": lambda run: run["conv1"].read(epoch=1),
    "layers/conv1/activation/c.1.1.0.0.0": lambda run: run["conv1"].read(snapshot=1, samples=3, channels=2),
    "layers/~43onv1/activation/c.2.1.0": lambda run: run["Conv1"].read(snapshot=2, samples=[2]),
    "layers/blocks.0/activation/c.0.2.0.0": lambda run: run["blocks.0"].read(),
    "layers/conv1/statistics/c.1.0.0": lambda run: run["conv1"].statistics,
    "layers/conv1/gradient/c.1.1.0.0.0": lambda run: run["conv1"].gradient.read(snapshot=1),
    "layers/conv1/gradient_statistics/c.2.0.0": lambda run: run["conv1"].gradient.statistics,
    "metrics/loss/c.0": lambda run: run.metrics,
    "epoch/c.1": lambda run: run.stored("epoch").read(),
    "step/c.2": lambda run: run.stored("step").read(),
    "index/c.1.0": lambda run: run["conv1"].read(snapshot=1),
    "samples/label/c.0": lambda run: run.samples,
    "samples/path/c.0": lambda run: run.samples,
    "samples/digest/c.0.0": lambda run: run.samples,
    "inputs/display/c.1.0.0.0": lambda run: run.display(2),
}


def remove(file: Path) -> None:
    file.unlink()


def empty(file: Path) -> None:
    file.write_bytes(b"")


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 0x10
    file.write_bytes(content)


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-1])


def grow(file: Path) -> None:
    file.write_bytes(file.read_bytes() + b"\0")


@pytest.mark.parametrize("harm", [remove, empty, flip, cut, grow], ids=lambda harm: harm.__name__)
@pytest.mark.parametrize("name", FILES)
def test_reading_raises_and_verify_lists_exactly_it(name: str, harm: object, stored: Path) -> None:
    read = FILES[name]
    read(open_run(stored))
    harm(stored / name)
    with pytest.raises(StoreError) as caught:
        read(open_run(stored))
    message = str(caught.value)
    assert name in message
    assert str(stored) in message
    found = verify(open_run(stored))
    assert len(found) == 1
    assert name in found[0]
    assert (missing_files(open_run(stored)) == [name]) == (harm in (remove, empty))


def test_the_rest_of_a_damaged_run_can_be_read(stored: Path, contents: ModuleType) -> None:
    flip(stored / "layers/conv1/activation/c.1.1.0.0.0")
    layer = open_run(stored)["conv1"]
    for samples in ([0, 1], [4]):
        expected = contents.activation(contents.SPECS[0], 1)[samples]
        np.testing.assert_array_equal(layer.read(snapshot=1, samples=samples), expected)
    np.testing.assert_array_equal(layer.read(snapshot=2), contents.activation(contents.SPECS[0], 2))


def test_samples_that_are_all_nan_are_absent_and_read_back(reference: Path, contents: ModuleType) -> None:
    assert not (reference / "layers/blocks.0/activation/c.1.1.0.0").exists()
    values = open_run(reference)["blocks.0"].read(snapshot=1)
    np.testing.assert_array_equal(values, contents.activation(contents.SPECS[2], 1))
    assert np.isnan(values[2:4]).all()
    assert np.isfinite(values[[0, 1, 4]]).all()


@pytest.fixture(scope="module")
def victim(reference: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(shutil.copytree(reference, tmp_path_factory.mktemp("victim") / "run.zarr"))


def everything(run: Run) -> list[bytes]:
    layers = [run[name] for name in run.layers]
    layers += [layer.gradient for layer in layers if "gradient" in layer.quantities]
    values = [layer.read().tobytes() for layer in layers]
    tables = [layer.statistics.to_csv().encode() for layer in layers]
    tables.append(run.stored("statistic").read().tobytes())
    tables += [frame.to_csv().encode() for frame in (run.samples, run.metrics, run.snapshots)]
    return [*values, *tables, *(run.display(sample).tobytes() for sample in run.samples.index)]


@pytest.mark.slow
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_flipped_bit_is_detected_and_never_read(data: st.DataObject, victim: Path, reference: Path) -> None:
    files = sorted(file.relative_to(victim) for file in victim.rglob("c.*") if file.is_file())
    file = victim / data.draw(st.sampled_from(files))
    content = file.read_bytes()
    place = data.draw(st.integers(0, 8 * len(content) - 1))
    flipped = bytearray(content)
    flipped[place // 8] ^= 1 << place % 8
    file.write_bytes(flipped)
    try:
        damage = verify(open_run(victim))
        assert len(damage) == 1
        assert str(file.relative_to(victim)) in damage[0]
        try:
            read = everything(open_run(victim))
        except StoreError:
            return
        # what a commit says itself, an epoch's number, is not read from its array
        assert file.parent.name in {"epoch", "step"}
        assert read == everything(open_run(reference))
    finally:
        file.write_bytes(content)


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"\xff\xfe", b"null", b'{"zarr_format": 3}', b'{"zarr_format": 2}']
)
def test_a_damaged_root_is_said_to_be_so(content: bytes, stored: Path) -> None:
    (stored / "zarr.json").write_bytes(content)
    with pytest.raises((StoreError, FileNotFoundError), match=str(stored)):
        open_run(stored)
    for mode in ("x", "a", "w"):
        with pytest.raises((StoreError, FileExistsError), match=str(stored)):
            RunWriter(stored, mode=mode)
    assert (stored / "zarr.json").read_bytes() == content
    assert (stored / "layers/conv1/activation").is_dir()


@pytest.mark.parametrize("key", ["layers", "commits", "sessions"])
def test_a_root_that_lacks_a_part_is_said_to_be_damaged(key: str, stored: Path) -> None:
    root = json.loads((stored / "zarr.json").read_bytes())
    del root["attributes"]["fmcluster"][key]
    (stored / "zarr.json").write_text(json.dumps(root))
    with pytest.raises(StoreError, match=key):
        open_run(stored)


def test_a_root_that_lacks_an_array_is_said_to_be_damaged(stored: Path) -> None:
    root = json.loads((stored / "zarr.json").read_bytes())
    del root["consolidated_metadata"]["metadata"]["layers/conv1/activation"]
    (stored / "zarr.json").write_text(json.dumps(root))
    with pytest.raises(StoreError, match="has no array"):
        open_run(stored)["conv1"].read()


def test_a_batch_that_was_never_written_is_not_committed(tmp_path: Path, contents: ModuleType) -> None:
    with RunWriter(tmp_path / "run.zarr") as writer:
        writer.create(contents.SPECS, n_samples=5, shard_samples=2, kind="probe")
        for batch in contents.BATCHES[:2]:
            for spec in contents.SPECS:
                writer.write(spec.name, offset=batch.start, values=contents.activation(spec, 0)[batch])
        statistics = {(spec.name, "activation"): contents.statistics(spec, 0) for spec in contents.SPECS}
        with pytest.raises(StoreError, match=r"layers/.*/activation/c\.0\.2\.0"):
            writer.commit(epoch=0, step=0, index=np.arange(5), statistics=statistics, metrics={}, clipped={})
        writer.discard()
        contents.write_snapshot(writer, 0)
    assert verify(open_run(tmp_path / "run.zarr")) == []


def test_a_file_that_vanishes_before_the_commit_is_noticed(tmp_path: Path, contents: ModuleType) -> None:
    path = tmp_path / "run.zarr"
    with RunWriter(path) as writer:
        writer.create(contents.SPECS, n_samples=5, shard_samples=2, kind="probe")
        contents.write_maps(writer, 0)
        (path / "layers/conv1/activation/c.0.1.0.0.0").unlink()
        with pytest.raises(StoreError, match=r"c\.0\.1\.0\.0\.0"):
            writer.commit(epoch=0, step=0, index=np.arange(5), statistics={}, metrics={}, clipped={})


def test_verify_tells_how_far_it_is(reference: Path) -> None:
    seen: list[tuple[int, int]] = []
    verify(open_run(reference), progress=lambda done, total: seen.append((done, total)))
    assert [done for done, _ in seen] == list(range(1, len(seen) + 1))
    assert {total for _, total in seen} == {len(seen)}


def test_what_is_missing_is_one_listing_and_no_look_at_each_file(stored: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At a URL: a listing and the commits' own records, however many files there are."""
    (stored / "layers/conv1/activation/c.1.1.0.0.0").unlink()
    (stored / "layers/conv1/activation/c.0.0.0.0.7").write_bytes(b"what no commit vouches for")
    (stored / "layers/conv1/activation/c.9.0.0.0.0").write_bytes(b"of a snapshot that is being written")
    expected = [f"layers/conv1/activation/c.{key}" for key in ("0.0.0.0.7", "1.1.0.0.0")]
    assert missing_files(open_run(stored)) == expected
    asked: list[str] = []
    for name in ("get", "getsize"):
        method = getattr(FsspecStore, name)

        async def counted(
            store: FsspecStore, key: str, *args: object, method: object = method, **how: object
        ) -> object:
            asked.append(key)
            return await method(store, key, *args, **how)

        monkeypatch.setattr(FsspecStore, name, counted)
    run = open_run(f"file://{stored}")
    opening = len(asked)
    assert opening <= 2  # the root: its size, and what it holds
    assert missing_files(run) == expected
    assert len(asked) - opening == 2 * len(run)


def test_opening_a_remote_run_asks_for_its_root_alone(stored: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    get = FsspecStore.get

    async def counted(store: FsspecStore, key: str, *args: object, **how: object) -> object:
        asked.append(key)
        return await get(store, key, *args, **how)

    monkeypatch.setattr(FsspecStore, "get", counted)
    run = open_run(f"file://{stored}")
    assert run.epochs == open_run(stored).epochs
    assert run.snapshots["step"].tolist() == open_run(stored).snapshots["step"].tolist()
    assert asked == ["zarr.json"]


@pytest.mark.parametrize(
    ("number", "advice"),
    [
        (errno.EACCES, "With permission to read it"),
        (errno.EMFILE, r"may open more files \(ulimit -n\)"),
    ],
    ids=["permission", "files"],
)
def test_what_may_not_be_read_is_not_called_damaged(
    number: int, advice: str, reference: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(number, "the system says no")

    run = open_run(reference)
    monkeypatch.setattr("fmcluster.store.format._arrays.StoredArray._decode", refuse)
    with pytest.raises(StoreError, match=rf"cannot be read \(.*says no\)\. .*{advice}, try again\.$") as caught:
        run["conv1"].read(epoch=1)
    assert "damage" not in str(caught.value)


def test_metadata_of_a_node_that_is_gone_is_found_and_listed(stored):
    (stored / "layers/conv1/activation/zarr.json").unlink()
    assert verify(open_run(stored)) == [f"{stored} is damaged: layers/conv1/activation/zarr.json is missing."]
    assert missing_files(open_run(stored)) == ["layers/conv1/activation/zarr.json"]
