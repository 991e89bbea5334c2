"""One writer at a time, and what the modes do to what is there."""

import errno
import json
import os
import shutil
import subprocess
import sys
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import zarr

from fmcluster import StoreError
from fmcluster.store import LayerSpec, RunWriter, open_run, verify
from fmcluster.store.files import _disk as disk
from fmcluster.store.writing import _folder
from fmcluster.store.writing._nodes import Nodes


@pytest.mark.slow
def test_a_second_writer_of_this_process_is_refused(stored: Path) -> None:
    with RunWriter(stored, mode="a"):
        for mode in ("x", "a", "w"):
            with pytest.raises(StoreError, match="one writer at a time"):
                RunWriter(stored, mode=mode)
    assert len(open_run(stored)) == 3
    RunWriter(stored, mode="a").close()


@pytest.mark.slow
def test_a_writer_of_another_process_is_refused_until_it_is_killed(stored: Path) -> None:
    code = (
        "import sys, time\nfrom fmcluster.store import RunWriter\n"
        f"writer = RunWriter({str(stored)!r}, mode='a')\nprint('locked', flush=True)\ntime.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "locked\n"
        with pytest.raises(StoreError, match="another process or recorder"):
            RunWriter(stored, mode="a")
        assert len(open_run(stored)) == 3
        other.kill()
        other.wait()
        with RunWriter(stored, mode="a") as writer:
            assert writer.n_snapshots == 3


def test_the_lock_is_freed_by_another_thread(stored: Path) -> None:
    writer = RunWriter(stored, mode="a")
    thread = threading.Thread(target=writer.close)
    thread.start()
    thread.join()
    RunWriter(stored, mode="a").close()


def test_the_lock_is_free_after_an_error(stored: Path) -> None:
    for _ in range(2):
        with pytest.raises(FileExistsError, match="already holds a run"):
            RunWriter(stored, mode="x")
        with pytest.raises(ValueError, match="mode is 'r'"):
            RunWriter(stored, mode="r")
    RunWriter(stored, mode="a").close()


def test_x_refuses_a_run_and_says_what_to_do(stored: Path) -> None:
    with pytest.raises(FileExistsError, match=r'mode="a".*mode="w".*another path'):
        RunWriter(stored)
    assert verify(open_run(stored)) == []


def test_a_makes_a_new_run_where_there_is_none(tmp_path: Path, contents: ModuleType) -> None:
    contents.record(tmp_path / "deep" / "er" / "run.zarr", mode="a")
    assert len(open_run(tmp_path / "deep" / "er" / "run.zarr")) == 3


def test_w_replaces_a_run(stored: Path) -> None:
    (stored / "mine.txt").write_text("in a run's folder, and not gone with it")
    with pytest.raises(FileExistsError, match=r"none of a run's, mine\.txt"):
        RunWriter(stored, mode="w")
    (stored / "mine.txt").unlink()
    with RunWriter(stored, mode="w") as writer:
        assert writer.is_new
        assert not stored.exists()
        writer.create([LayerSpec("other", (2,), "float32", "X")], n_samples=1, shard_samples=1, kind="probe")
    assert open_run(stored).layers == ["other"]


@pytest.mark.parametrize("mode", ["x", "a", "w"])
def test_what_is_not_a_run_is_left_alone(mode: str, tmp_path: Path) -> None:
    folder, file, foreign = tmp_path / "photos", tmp_path / "file", tmp_path / "foreign.zarr"
    folder.mkdir()
    (folder / "holiday.jpg").write_bytes(b"precious")
    file.write_bytes(b"precious")
    zarr.create_array(foreign, name="temperature", shape=(2,), dtype="f4")
    odd = tmp_path / "odd"
    odd.mkdir()
    (odd / "zarr.json").write_text("precious, though not JSON")
    for path in (folder, file, foreign, odd):
        before = sorted((str(f), f.read_bytes()) for f in [path, *path.rglob("*")] if f.is_file())
        with pytest.raises((FileExistsError, StoreError), match=str(path)):
            RunWriter(path, mode=mode)
        assert sorted((str(f), f.read_bytes()) for f in [path, *path.rglob("*")] if f.is_file()) == before


@pytest.mark.parametrize("mode", ["x", "a", "w"])
def test_an_empty_folder_is_used(mode: str, tmp_path: Path, contents: ModuleType) -> None:
    contents.record(tmp_path, mode=mode)
    assert len(open_run(tmp_path)) == 3


def test_a_newer_format_is_neither_gone_on_with_nor_read(stored: Path) -> None:
    root = json.loads((stored / "zarr.json").read_bytes())
    root["attributes"]["fmcluster"]["format"] = 99
    (stored / "zarr.json").write_text(json.dumps(root))
    for attempt in (lambda: open_run(stored), lambda: RunWriter(stored, mode="a")):
        with pytest.raises(StoreError, match=r"format 99.*up to 1.*Upgrade.*pip install"):
            attempt()


@pytest.mark.slow
def test_a_snapshot_can_be_discarded(stored: Path, contents: ModuleType, reference: Path) -> None:
    shutil.rmtree(stored)
    with RunWriter(stored) as writer:
        writer.create(contents.SPECS, n_samples=5, shard_samples=2, kind="probe")
        contents.write_maps(writer, 2)
        contents.write_samples(writer)
        writer.discard()
        for snapshot in range(3):
            contents.write_maps(writer, 0)
            writer.discard()
            contents.write_snapshot(writer, snapshot)
    files = [f.relative_to(stored) for f in stored.rglob("*") if f.is_file()]
    assert {str(f): (stored / f).read_bytes() for f in files} == {str(f): (reference / f).read_bytes() for f in files}


@pytest.mark.parametrize(
    ("names", "step"), [(["loss"], "root"), (["extra", "loss"], "root"), ([], "root"), (["loss"], "lengths")]
)
def test_a_commit_that_failed_leaves_nothing_in_the_next(
    names: list[str], step: str, tmp_path: Path, contents: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "run.zarr"
    contents.record(path, mode="x", n_snapshots=2)
    statistics = contents.all_statistics(2)
    common = {"epoch": 5, "step": 9, "index": np.arange(5), "statistics": statistics, "clipped": {}}
    with RunWriter(path, mode="a") as writer:
        contents.write_maps(writer, 2)
        failures = [OSError(28, "No space left")]
        resize = Nodes.resize
        with monkeypatch.context() as patch:
            if step == "root":
                patch.setattr(RunWriter, "replace_root", lambda _: (_ for _ in ()).throw(failures.pop()))
            else:  # once: they are put back

                def fails_once(nodes: Nodes, n_snapshots: int) -> None:
                    if failures:
                        raise failures.pop()
                    resize(nodes, n_snapshots)

                patch.setattr(Nodes, "resize", fails_once)
            with pytest.raises(OSError, match="No space"):
                writer.commit(metrics={"loss": 7.0, "doomed": 8.0}, **common)
        assert len(open_run(path)) == 2
        writer.discard()
        contents.write_maps(writer, 2)
        writer.commit(metrics=dict.fromkeys(names, 1.0), **common)
    run = open_run(path)
    assert len(run) == 3
    assert verify(run) == []
    last = run.metrics.iloc[2]
    assert {name for name in last.index[3:] if not np.isnan(last[name])} == set(names)


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), MemoryError("no more")])
def test_a_commit_is_whole_though_the_arrays_own_metadata_could_not_be_written(
    error: Exception, stored: Path, contents: ModuleType, monkeypatch: pytest.MonkeyPatch, reference: Path
) -> None:
    shutil.rmtree(stored)
    contents.record(stored, mode="x", n_snapshots=1)

    def full(*_: object, **how: object) -> None:
        raise error

    with RunWriter(stored, mode="a") as writer:
        monkeypatch.setattr("fmcluster.store.writing._folder.replace_unawaited", full)
        contents.write_snapshot(writer, 1)
        assert writer.n_snapshots == 2
        assert len(open_run(stored)) == 2
        monkeypatch.undo()
        contents.write_snapshot(writer, 2)
    assert zarr.open_array(stored / "epoch", mode="r").shape == (3,)
    assert verify(open_run(stored)) == []


def test_clipped_values_are_counted_in_the_commit(tmp_path: Path, contents: ModuleType) -> None:
    path = tmp_path / "run.zarr"
    with RunWriter(path) as writer:
        writer.create(contents.SPECS, n_samples=5, shard_samples=2, kind="probe")
        contents.write_maps(writer, 0)
        clipped = {"conv1": 3, "Conv1": 0}
        writer.commit(epoch=0, step=0, index=np.arange(5), statistics={}, metrics={}, clipped=clipped)
    commits = json.loads((path / "zarr.json").read_bytes())["attributes"]["fmcluster"]["commits"]
    assert commits[0]["clipped"] == {"conv1": 3}


@pytest.mark.slow
def test_writing_and_reading_leave_the_settings_of_zarr_alone(tmp_path: Path, contents: ModuleType) -> None:
    before = dict(zarr.config.config)
    path = tmp_path / "run.zarr"
    contents.record(path, mode="x", n_snapshots=1)

    def read() -> None:
        for _ in range(20):
            open_run(path)["conv1"].read(snapshot=0)

    threads = [threading.Thread(target=read) for _ in range(3)]
    for thread in threads:
        thread.start()
    contents.record(path, mode="a")
    for thread in threads:
        thread.join()
    assert dict(zarr.config.config) == before


def test_two_layers_of_one_name_are_refused(tmp_path: Path) -> None:
    specs = [LayerSpec("relu.call0", (2,), "float16", "A"), LayerSpec("relu.call0", (3,), "float16", "B")]
    with RunWriter(tmp_path / "run.zarr") as writer, pytest.raises(ValueError, match=r"relu\.call0"):
        writer.create(specs, n_samples=1, shard_samples=1, kind="probe")


SPEC = LayerSpec("fc", (2,), "float32", "Linear", gradient=True)


def new_run(path: Path, **how: object) -> RunWriter:
    writer = RunWriter(path)
    writer.create([SPEC], **{"n_samples": 5, "shard_samples": 2, "kind": "probe", **how})
    return writer


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"layer": "conv1"}, "no array for the activation of layer 'conv1'"),
        ({"quantity": "weights"}, "no array for the weights of layer 'fc'"),
        ({"offset": 1}, "offset is 1; expected a multiple of 2 from 0 to 4"),
        ({"offset": 6}, "offset is 6"),
        ({"offset": -2}, "offset is -2"),
        ({"offset": 1, "values": None}, "offset is 1"),
        ({"offset": 6, "values": None}, "offset is 6"),
        ({"offset": 4, "values": np.zeros((2, 2), np.float32)}, r"received \(2, 2\); expected \(1 to 1"),
        ({"values": np.zeros((3, 2), np.float32)}, r"received \(3, 2\); expected \(1 to 2"),
        ({"values": np.zeros((0, 2), np.float32)}, r"received \(0, 2\)"),
        ({"values": np.zeros((2, 3), np.float32)}, r"received \(2, 3\)"),
        ({"values": np.zeros((2, 2, 1), np.float32)}, r"received \(2, 2, 1\)"),
        ({"values": np.zeros((2, 2))}, "dtype float64; expected float32"),
    ],
)
def test_maps_that_do_not_fit_are_refused(arguments: dict, message: str, tmp_path: Path) -> None:
    with new_run(tmp_path / "run.zarr") as writer:
        given = {"layer": "fc", "offset": 0, "values": np.zeros((1, 2), np.float32), **arguments}
        with pytest.raises(ValueError, match=message):
            writer.write(given.pop("layer"), **given)


@pytest.mark.parametrize("how", [{"kind": "other"}, {"n_samples": 0}, {"shard_samples": 0}])
def test_a_layout_that_cannot_be_is_refused(how: dict, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"expected 'probe' or 'live'|have to be positive"):
        new_run(tmp_path / "run.zarr", **how).close()


ONES, TWOS = np.full((2, 2), 1, np.float32), np.full((2, 2), 2, ">f4")


@pytest.mark.parametrize("quantity", ["activation", "gradient"])
@pytest.mark.parametrize("versions", [[ONES, TWOS], [None, ONES], [ONES, None], [ONES, None, TWOS], [None, None]])
def test_a_shard_that_is_written_again_is_replaced(versions: list, quantity: str, tmp_path: Path) -> None:
    path = tmp_path / "run.zarr"
    with new_run(path, n_samples=2) as writer:
        other = "gradient" if quantity == "activation" else "activation"
        writer.write("fc", offset=0, values=ONES, quantity=other)
        for values in versions:
            writer.write("fc", offset=0, values=values, quantity=quantity)
        writer.commit(epoch=0, step=0, index=np.arange(2), statistics={}, metrics={}, clipped={})
    run = open_run(path)
    assert verify(run) == []
    assert (path / f"layers/fc/{quantity}/c.0.0.0").exists() == (versions[-1] is not None)
    layer = run["fc"] if quantity == "activation" else run["fc"].gradient
    np.testing.assert_array_equal(layer.read(epoch=0), ONES * np.nan if versions[-1] is None else versions[-1])


def test_shards_are_written_from_several_threads_at_once(tmp_path: Path) -> None:
    values = {
        quantity: np.random.default_rng(len(quantity)).normal(size=(40, 2)).astype(np.float32)
        for quantity in SPEC.quantities
    }

    def work(writer: RunWriter, quantity: str, offset: int) -> None:
        for blank in (False, True, False):
            rows = None if blank else values[quantity][offset : offset + 2]
            writer.write("fc", offset=offset, values=rows, quantity=quantity)

    with new_run(tmp_path / "run.zarr", n_samples=40) as writer:
        for snapshot in range(2):
            with ThreadPoolExecutor(8) as pool:
                tasks = [
                    pool.submit(work, writer, quantity, at) for quantity in SPEC.quantities for at in range(0, 40, 2)
                ]
            assert [task.result() for task in tasks] == [None] * 40
            writer.commit(epoch=snapshot, step=0, index=np.arange(40), statistics={}, metrics={}, clipped={})
    run = open_run(tmp_path / "run.zarr")
    assert verify(run) == []
    for snapshot in range(2):
        np.testing.assert_array_equal(run["fc"].read(snapshot=snapshot), values["activation"])
        np.testing.assert_array_equal(run["fc"].gradient.read(snapshot=snapshot), values["gradient"])


@pytest.mark.parametrize("index", [[0, 1], [-1, -1]])
def test_a_shard_that_could_not_be_written_is_not_committed(
    index: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not what there was of it before either, and its torn file is not mistaken for a whole one."""
    path = tmp_path / "run.zarr"
    with new_run(path, n_samples=2, kind="live") as writer:
        for quantity in SPEC.quantities:
            writer.write("fc", offset=0, values=ONES, quantity=quantity)
        with monkeypatch.context() as patch:
            patch.setattr(os, "ftruncate", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
            with pytest.raises(OSError, match="No space"):
                writer.write("fc", offset=0, values=TWOS)
        assert (path / "layers/fc/activation/c.0.0.0").exists()
        how = {"step": 0, "statistics": {}, "metrics": {}, "clipped": {}}
        if index[0] >= 0:
            with pytest.raises(StoreError, match=r"activation/c\.0\.0\.0 was not written"):
                writer.commit(epoch=0, index=np.array(index), **how)
            writer.write("fc", offset=0, values=TWOS)
        writer.commit(epoch=0, index=np.array(index), **how)
    run = open_run(path)
    assert verify(run) == []
    assert run["fc"].read(epoch=0).tolist() == ([[2, 2], [2, 2]] if index[0] >= 0 else [])
    assert (path / "layers/fc/activation/c.0.0.0").exists() == (index[0] >= 0)


def test_a_discarded_snapshot_leaves_no_gradients(tmp_path: Path) -> None:
    path = tmp_path / "run.zarr"
    with new_run(path) as writer:
        before = sorted(path.rglob("*"))
        for quantity in SPEC.quantities:
            writer.write("fc", offset=0, values=ONES, quantity=quantity)
            writer.write("fc", offset=2, values=None, quantity=quantity)
        writer.discard()
        assert sorted(path.rglob("*")) == before
        with pytest.raises(StoreError, match="was not written"):
            writer.commit(epoch=0, step=0, index=np.arange(5), statistics={}, metrics={}, clipped={})


def test_a_run_with_other_codecs_is_refused(stored: Path) -> None:
    text = (stored / "zarr.json").read_text()
    assert text.count('"level": -7') > 3
    (stored / "zarr.json").write_text(text.replace('"checksum": false', '"checksum": true', 1))
    for attempt in (lambda: open_run(stored), lambda: RunWriter(stored, mode="a")):
        with pytest.raises(StoreError, match=r"is damaged: its zarr\.json is not"):
            attempt()


@pytest.mark.parametrize("at_once", [True, False])
def test_every_file_of_a_run_was_flushed_to_the_disk(
    at_once: bool, tmp_path: Path, contents: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    flushed = set()

    def watched(handle: int) -> None:
        flushed.add(os.fstat(handle).st_ino)

    def watched_at_once(folder: Path) -> None:
        flushed.update(path.stat().st_ino for path in folder.rglob("*"))

    monkeypatch.setattr(os, "fsync", watched)
    monkeypatch.setattr(disk, "_flush_file_system", watched_at_once)
    monkeypatch.setattr(disk, "orders_renames", lambda _: False)
    for module in (disk, _folder):
        monkeypatch.setattr(module, "flushes_at_once", lambda _: at_once)
    spec = LayerSpec("part", (2,), "float32", "Linear", output=(3,), channels=(2, 0))
    with RunWriter(tmp_path / "part.zarr") as writer:
        writer.create([spec], n_samples=1, shard_samples=1, kind="probe")
    contents.record(tmp_path / "run.zarr", mode="x")
    found = [path for path in tmp_path.rglob("*") if path.is_file() and path.suffix != ".lock"]
    assert len(found) > 100
    assert [str(path.relative_to(tmp_path)) for path in found if path.stat().st_ino not in flushed] == []


@pytest.mark.parametrize("at_once", [True, False])
def test_a_commit_waits_for_the_disk_as_often_with_many_layers_as_with_few(
    at_once: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where one call flushes all; else once for each file and folder that the root then names."""
    waits: list[str] = []
    monkeypatch.setattr(os, "fsync", lambda _: waits.append("file"))
    monkeypatch.setattr(disk, "_flush_file_system", lambda _: waits.append("all"))
    monkeypatch.setattr(disk, "orders_renames", lambda _: at_once)
    for module in (disk, _folder):
        monkeypatch.setattr(module, "flushes_at_once", lambda _: at_once)
    counts = {}
    for n_layers in (2, 12):
        specs = [LayerSpec(f"fc{k}", (2,), "float32", "Linear") for k in range(n_layers)]
        with RunWriter(tmp_path / f"{n_layers}.zarr") as writer:
            writer.create(specs, n_samples=2, shard_samples=2, kind="probe")
            waits.clear()
            for spec in specs:
                writer.write(spec.name, offset=0, values=np.ones((2, 2), np.float32))
            statistics = {(spec.name, "activation"): np.ones((6, 2)) for spec in specs}
            writer.commit(epoch=0, step=0, index=np.arange(2), statistics=statistics, metrics={}, clipped={})
        counts[n_layers] = Counter(waits)
        assert verify(open_run(writer.path)) == []
    if at_once:
        assert counts[2] == counts[12] == {"all": 1, "file": 2}
    else:
        assert set(counts[12]) == {"file"}
        assert counts[12]["file"] - counts[2]["file"] == 6 * 10  # it was 8 for each layer


def test_the_system_is_asked_for_one_flush_and_an_error_of_the_disk_is_raised(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    if not disk.flushes_at_once(tmp_path):
        pytest.skip("the file system, or the kernel, is none of which this is known")
    calls: list[int] = []
    library = SimpleNamespace(syncfs=lambda handle: calls.append(os.fstat(handle).st_ino) or -1, statfs=None)
    monkeypatch.setattr(disk, "_system", lambda: library)
    monkeypatch.setattr(disk.ctypes, "get_errno", lambda: errno.EIO)
    with pytest.raises(OSError, match="Input/output error"):
        disk._flush_file_system(tmp_path)
    assert calls == [tmp_path.stat().st_ino]
