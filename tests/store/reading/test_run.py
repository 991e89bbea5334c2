"""Reading parts of a run, against NumPy; and what is said where something is not there."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fmcluster import StoreError
from fmcluster.store import LayerSpec, Run, RunWriter, open_run, verify

indices = st.integers(-6, 6) | st.none()
slices = st.builds(slice, indices, indices, st.sampled_from([None, 1, 2, -1, -2]))


@pytest.fixture(scope="module")
def run(reference: Path) -> Run:
    return open_run(reference)


def picks(length: int) -> st.SearchStrategy[object]:
    """Ints, lists with repetitions in any order, arrays, slices, None."""
    one = st.integers(0, length - 1)
    many = st.lists(one, max_size=7)
    return st.none() | one | many | many.map(lambda picked: np.array(picked, dtype=np.int32)) | slices


def taken(values: np.ndarray, pick: object, axis: int) -> np.ndarray:
    if isinstance(pick, slice):
        return values.take(np.arange(values.shape[axis])[pick], axis)
    return values if pick is None else values.take(np.atleast_1d(np.asarray(pick, dtype=int)), axis)


@pytest.mark.slow
@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_any_part_is_what_numpy_would_give(data: st.DataObject, run: Run, contents: ModuleType) -> None:
    spec = data.draw(st.sampled_from(contents.SPECS))
    axis = 2 if len(spec.shape) == 2 else 1
    samples = data.draw(picks(contents.N_SAMPLES))
    channels = data.draw(picks(spec.n_channels))
    snapshot = data.draw(st.none() | st.integers(0, 2))
    numbers = range(3) if snapshot is None else [snapshot]
    expected = [taken(taken(contents.activation(spec, k), samples, 0), channels, axis) for k in numbers]
    found = run[spec.name].read(snapshot=snapshot, samples=samples, channels=channels)
    assert found.dtype == spec.dtype
    np.testing.assert_array_equal(found, np.stack(expected) if snapshot is None else expected[0])


def test_an_epoch_means_its_last_snapshot(run: Run, contents: ModuleType) -> None:
    np.testing.assert_array_equal(run["conv1"].read(epoch=1), contents.activation(contents.SPECS[0], 2))
    np.testing.assert_array_equal(run["conv1"].read(epoch=0), contents.activation(contents.SPECS[0], 0))
    assert run.epochs == [0, 1]


def test_epochs_1_10_and_100_are_told_apart(tmp_path: Path) -> None:
    path = tmp_path / "run.zarr"
    with RunWriter(path) as writer:
        writer.create([LayerSpec("fc", (2,), "float32", "Linear")], n_samples=1, shard_samples=1, kind="probe")
        for epoch in (1, 10, 100, 100):
            writer.write("fc", offset=0, values=np.full((1, 2), epoch, np.float32))
            statistics = {("fc", "activation"): np.zeros((6, 2))}
            writer.commit(epoch=epoch, step=epoch, index=np.arange(1), statistics=statistics, metrics={}, clipped={})
    run = open_run(path)
    assert run.epochs == [1, 10, 100]
    assert [run["fc"].read(epoch=epoch)[0, 0] for epoch in (1, 10, 100)] == [1, 10, 100]
    with pytest.raises(ValueError, match="epoch 0; the run has epochs 1, 10, 100"):
        run["fc"].read(epoch=0)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"epoch": 7}, ValueError, "no snapshot was taken in epoch 7; the run has epochs 0 to 1"),
        ({"snapshot": 3}, ValueError, "snapshot 3 is not in the run; it has 0 to 2"),
        ({"snapshot": -1}, ValueError, "snapshot -1"),
        ({"epoch": 1, "snapshot": 1}, ValueError, "either an epoch or a snapshot"),
        ({"snapshot": 0, "samples": [0, 9]}, ValueError, "no sample 9; it holds 5 samples from 0 to 4"),
        ({"snapshot": 0, "samples": -1}, ValueError, "no sample -1"),
        ({"snapshot": 0, "channels": 4}, ValueError, "no channel 4 of conv1; 4 were recorded: 0 to 3"),
        ({"snapshot": 0, "channels": [-1]}, ValueError, "no channel -1 of conv1"),
        ({"snapshot": 0, "samples": [True, False, True, False, True]}, TypeError, "samples is of dtype bool"),
        ({"snapshot": 0, "samples": pd.Series([True, False, True, False, True])}, TypeError, "flatnonzero"),
        ({"snapshot": 0, "channels": np.ones(4, bool)}, TypeError, "channels is of dtype bool"),
        ({"snapshot": 0, "channels": [0.5]}, TypeError, "float64"),
        ({"snapshot": 0, "samples": [[0, 1]]}, TypeError, "one row"),
    ],
)
def test_what_is_not_there_is_said(arguments: dict, error: type, message: str, run: Run) -> None:
    with pytest.raises(error, match=message):
        run["conv1"].read(**arguments)


def test_an_unknown_layer_comes_with_the_nearest(run: Run) -> None:
    with pytest.raises(KeyError, match="did you mean conv1"):
        run["conv2"]
    with pytest.raises(KeyError, match=r"it has: conv1, Conv1, blocks\.0"):
        run["zzz"]
    assert "conv1" in run
    assert "conv2" not in run


def test_tables(run: Run, contents: ModuleType) -> None:
    assert run.snapshots.to_dict("list") == {"snapshot": [0, 1, 2], "epoch": [0, 1, 1], "step": [0, 4, 8]}
    assert run.metrics["loss"].tolist() == [1.0, 1 / 2, 1 / 3]
    assert np.isnan(run.metrics["Late"][0])
    assert run.metrics["Late"].tolist()[1:] == [1.0, 2.0]
    assert run.samples["label"].tolist() == [0, 1, 0, 1, 0]
    assert run.samples.index.name == "sample"
    assert run.samples["path"].tolist() == [f"images/{i}.png" for i in range(5)]
    assert all(len(digest) == 64 for digest in run.samples["digest"])
    table = run["blocks.0"].statistics
    assert table.columns.tolist() == [
        "snapshot",
        "epoch",
        "step",
        "channel",
        *["mean", "std", "min", "max", "zeros", "nonfinite"],
    ]
    spec = contents.SPECS[2]
    for snapshot in range(3):
        found = table[table["snapshot"] == snapshot]
        assert found["channel"].tolist() == list(range(5))
        np.testing.assert_array_equal(found.iloc[:, 4:].to_numpy().T, contents.statistics(spec, snapshot))
    np.testing.assert_array_equal(run.display(3), contents.pictures()[3])
    with pytest.raises(ValueError, match="no sample 9"):
        run.display(9)


def test_sizes(run: Run, contents: ModuleType) -> None:
    assert run.n_samples == 5
    assert run.nbytes == sum(3 * 5 * spec.sample_bytes for spec in contents.SPECS)
    files = [file for file in Path(run.path).rglob("*") if file.is_file()]
    assert run.nbytes_stored == sum(len(file.read_bytes()) for file in files)
    layer = run["conv1"]
    assert layer.shape == (3, 5, 4, 6, 6)
    assert layer.dimensions == ("snapshot", "sample", "channel", "height", "width")
    assert (layer.n_channels, layer.feature_map_shape, layer.module, layer.dtype) == (
        4,
        (4, 6, 6),
        "Conv2d",
        np.float16,
    )
    assert run["blocks.0"].feature_map_shape == (5, 3, 1)
    assert run["Conv1"].feature_map_shape == (3, 1, 1)


def test_samples_out_of_order_and_gaps_are_found_by_their_index(tmp_path: Path) -> None:
    path = tmp_path / "run.zarr"
    values = np.arange(8, dtype=np.float32).reshape(4, 2)
    with RunWriter(path) as writer:
        writer.create([LayerSpec("fc", (2,), "float32", "Linear")], n_samples=4, shard_samples=4, kind="live")
        for order in ([30, 10, -1, 20], [10, 20, 30, 40]):
            writer.write("fc", offset=0, values=values)
            statistics = {("fc", "activation"): np.zeros((6, 2))}
            writer.commit(
                epoch=0, step=len(order), index=np.array(order), statistics=statistics, metrics={}, clipped={}
            )
    layer = open_run(path)["fc"]
    np.testing.assert_array_equal(layer.read(snapshot=0), values[[0, 1, 3]])
    np.testing.assert_array_equal(layer.read(snapshot=0, samples=[20, 10]), values[[3, 1]])
    np.testing.assert_array_equal(layer.read(samples=10), [values[[1]], values[[0]]])
    with pytest.raises(ValueError, match="no sample 40; it holds 3 samples from 10 to 30"):
        layer.read(snapshot=0, samples=[40])
    with pytest.raises(ValueError, match="no sample -1"):
        layer.read(snapshot=0, samples=[-1])


@pytest.mark.parametrize("what", ["nothing", "file", "empty folder", "other folder", "other store", "array"])
def test_what_is_not_a_run_is_said_to_be_none(what: str, tmp_path: Path) -> None:
    import zarr

    path = tmp_path / "there"
    if what == "file":
        path.write_text("hello")
    elif "folder" in what:
        path.mkdir()
        if what == "other folder":
            (path / "a.txt").write_text("hello")
    elif what == "other store":
        zarr.create_array(path, name="x", shape=(1,), dtype="f4")
    elif what == "array":
        zarr.create_array(path, shape=(1,), dtype="f4")
    with pytest.raises((FileNotFoundError, StoreError), match=rf"{path}.*(Pass|Record)"):
        open_run(path)


def test_a_run_without_snapshots_says_so(tmp_path: Path, contents: ModuleType) -> None:
    contents.record(tmp_path / "run.zarr", mode="x", n_snapshots=0)
    layer = open_run(tmp_path / "run.zarr")["conv1"]
    for attempt in (layer.read, lambda: layer.read(epoch=0), lambda: layer.vectors("channel")):
        with pytest.raises(StoreError, match="holds no whole snapshot yet"):
            attempt()


@pytest.fixture
def nobody() -> Iterator[Path]:
    """A folder that anyone may enter; within the test, this process is not allowed what root is."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    root = os.geteuid() == 0
    yield folder
    if root:
        os.seteuid(0)
    for path in [folder, *folder.rglob("*")]:
        path.chmod(0o755)
    shutil.rmtree(folder)


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="needs POSIX permissions")
def test_a_run_that_may_only_be_read_is_read(nobody: Path, reference: Path, contents: ModuleType) -> None:
    path = nobody / "run.zarr"
    shutil.copytree(reference, path)
    verify(open_run(path)["conv1"]._run)  # imports all that is imported late, while that may be read
    before = sorted((str(f), f.stat().st_mtime_ns) for f in nobody.rglob("*"))
    for folder, _, files in os.walk(path):
        for name in files:
            (Path(folder) / name).chmod(0o444)
        Path(folder).chmod(0o555)
    nobody.chmod(0o555)
    if os.geteuid() == 0:
        os.seteuid(65534)
    with pytest.raises(PermissionError):
        (path / "x").write_text("x")
    run = open_run(path)
    np.testing.assert_array_equal(run["conv1"].read(epoch=1), contents.activation(contents.SPECS[0], 2))
    assert verify(run) == []
    assert not run.metrics.empty
    with pytest.raises(PermissionError, match=r"run\.zarr"):
        RunWriter(path, mode="a")
    assert sorted((str(f), f.stat().st_mtime_ns) for f in nobody.rglob("*")) == before


def test_layers_match_names_and_patterns_that_stop_at_dots(run: Run) -> None:
    assert run.match(list(reversed(run.layers))) == run.layers
    assert run.match([run.layers[0]]) == run.layers[:1]
    assert run.match(["*"]) == [name for name in run.layers if "." not in name]
    assert run.match([run.layers[0][:-1] + "?"])[:1] == run.layers[:1]
    with pytest.raises(KeyError, match="no layer 'nothing like this'"):
        run.match([run.layers[0], "nothing like this"])
