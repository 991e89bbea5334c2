"""What a run looks like to xarray and plain zarr, without this package."""

import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import xarray as xr
import zarr

from fmcluster.store import LayerSpec, RunWriter, open_run

DIMENSIONS = {
    "conv1": ("snapshot", "sample", "channel", "height", "width"),
    "Conv1": ("snapshot", "sample", "channel"),
    "blocks.0": ("snapshot", "sample", "token", "channel"),
}


def test_xarray_alone_reads_everything(reference: Path, contents: ModuleType) -> None:
    with xr.open_datatree(reference, engine="zarr") as tree:
        assert tree["epoch"].values.tolist() == list(contents.EPOCHS)
        assert tree["step"].values.tolist() == list(contents.STEPS)
        assert {tree[name].dtype.kind for name in ("epoch", "step", "index")} == {"i"}
        assert {"epoch", "step", "index"} <= set(tree.to_dataset().coords)
        assert tree["index"].dims == ("snapshot", "sample")
        for spec in contents.SPECS:
            node = tree[f"layers/{contents.FOLDERS[spec.name]}"]
            assert node.attrs["name"] == spec.name
            array = node["activation"]
            assert array.dims == DIMENSIONS[spec.name]
            assert array.dtype == spec.dtype
            for snapshot in range(contents.N_SNAPSHOTS):
                np.testing.assert_array_equal(array[snapshot].values, contents.activation(spec, snapshot))
                chosen = node["statistics"][snapshot].sel(statistic="min")
                np.testing.assert_array_equal(chosen.values, contents.statistics(spec, snapshot)[2])
        np.testing.assert_array_equal(tree["inputs/display"].values, contents.pictures())
        np.testing.assert_array_equal(tree["samples/label"].values, [0, 1, 0, 1, 0])
        assert tree["samples/path"].values.tolist() == [f"images/{i}.png" for i in range(5)]
        assert np.isnan(tree["metrics/~4cate"].values[0])


@pytest.mark.slow
def test_a_subprocess_without_this_package_reads_it(reference: Path) -> None:
    code = (
        "import sys, xarray\n"
        f"tree = xarray.open_datatree({str(reference)!r}, engine='zarr')\n"
        "print(float(tree['layers/conv1/activation'].astype('float64').sum()))\n"
        "assert not [name for name in sys.modules if name.startswith('fmcluster')]\n"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) == open_run(reference)["conv1"].read().astype(np.float64).sum()


def test_to_xarray_is_the_same(reference: Path) -> None:
    with xr.open_datatree(reference, engine="zarr") as alone, open_run(reference).to_xarray() as ours:
        xr.testing.assert_identical(alone.load(), ours.load())


def test_nothing_is_an_object_and_everything_has_a_checksum(reference: Path) -> None:
    arrays = [node for _, node in zarr.open_group(reference, mode="r").members(max_depth=None)]
    for array in (node for node in arrays if isinstance(node, zarr.Array)):
        assert array.dtype.kind != "O"
        assert array.metadata.zarr_format == 3
        assert array.metadata.dimension_names is not None
        assert b"crc32c" in (reference / array.path / "zarr.json").read_bytes()
        files = (reference / array.path).glob("c.*")
        assert not any(b"pickle" in file.read_bytes() for file in files)


def test_every_array_says_the_same_as_the_root(reference: Path) -> None:
    together = dict(zarr.open_group(reference, mode="r").members(max_depth=None))
    alone = dict(zarr.open_group(reference, mode="r", use_consolidated=False).members(max_depth=None))
    assert together.keys() == alone.keys()
    for name, node in together.items():
        if isinstance(node, zarr.Array):
            assert node.metadata.to_dict() == alone[name].metadata.to_dict()


def test_readers_see_nothing_of_a_snapshot_under_way(tmp_path: Path, contents: ModuleType) -> None:
    path = tmp_path / "run.zarr"
    contents.record(path, mode="x", n_snapshots=1)

    def check() -> None:
        for name, node in zarr.open_group(path, mode="r").members(max_depth=None):
            if isinstance(node, zarr.Array) and node.metadata.dimension_names[0] == "snapshot":
                assert node.shape[0] == 1
                assert zarr.open_array(path / name, mode="r").shape[0] == 1
        with xr.open_datatree(path, engine="zarr") as tree:
            assert tree.sizes["snapshot"] == 1
        assert len(open_run(path)) == 1

    with RunWriter(path, mode="a") as writer:
        check()
        contents.write_maps(writer, 1)
        check()
        writer.discard()
        check()
    assert not list(path.glob("layers/*/activation/c.1.*"))


def test_a_run_opened_earlier_stays_as_it_was(stored: Path, contents: ModuleType, tmp_path: Path) -> None:
    path = tmp_path / "growing.zarr"
    contents.record(path, mode="x", n_snapshots=1)
    before = open_run(path)
    contents.record(path, mode="a", n_snapshots=2)
    assert len(before) == 1
    assert before["conv1"].read().shape[0] == 1
    assert before.metrics.columns.tolist() == ["snapshot", "epoch", "step", "loss"]
    assert len(open_run(path)) == 2


def test_a_run_without_snapshots_can_be_opened(tmp_path: Path, contents: ModuleType) -> None:
    path = tmp_path / "run.zarr"
    contents.record(path, mode="x", n_snapshots=0)
    run = open_run(path)
    assert (len(run), run.epochs, run.layers) == (0, [], ["conv1", "Conv1", "blocks.0"])
    assert len(run.samples) == 0
    assert run.metrics.empty
    with xr.open_datatree(path, engine="zarr") as tree:
        assert tree.sizes["snapshot"] == 0


@pytest.mark.parametrize(
    "shape",
    [(1,), (7,), (3, 5), (1, 1, 1), (64, 3, 3), (3, 200, 333), (2048, 7, 7), (1, 1100, 1100)],
    ids=str,
)
def test_any_shape_is_stored_and_partly_read(shape: tuple[int, ...], tmp_path: Path) -> None:
    path = tmp_path / "run.zarr"
    values = np.random.default_rng(0).normal(size=(5, *shape)).astype(np.float16)
    spec = LayerSpec("layer", shape, "float16", "Module")
    with RunWriter(path) as writer:
        writer.create([spec], n_samples=5, shard_samples=3, kind="probe")
        for start in (0, 3):
            writer.write("layer", offset=start, values=values[start : start + 3])
        statistics = {("layer", "activation"): np.zeros((6, spec.n_channels))}
        writer.commit(epoch=0, step=0, index=np.arange(5), statistics=statistics, metrics={}, clipped={})
    layer = open_run(path)["layer"]
    np.testing.assert_array_equal(layer.read(snapshot=0), values)
    last = layer.n_channels - 1
    axis = -1 if len(shape) == 2 else 1
    np.testing.assert_array_equal(layer.read(snapshot=0, samples=4, channels=last), values[4:].take([last], axis))


def test_black_pictures_and_missing_labels_are_not_damage(tmp_path: Path, contents: ModuleType) -> None:
    path = tmp_path / "run.zarr"
    with RunWriter(path) as writer:
        writer.create(contents.SPECS, n_samples=5, shard_samples=2, kind="probe")
        contents.write_maps(writer, 0)
        black = np.zeros((3, 4, 4, 3), np.uint8)
        writer.add_static("inputs/display", black, dimensions=("item", "row", "column", "rgb"), length=5)
        writer.add_static("inputs/display", black[:2], dimensions=("item", "row", "column", "rgb"), offset=3)
        writer.add_static("samples/sample", np.arange(5), dimensions=("item",))
        writer.add_static("samples/label", np.full(5, -1), dimensions=("item",))
        writer.add_static("samples/path", np.array([""] * 5), dimensions=("item",))
        writer.add_static("samples/digest", np.zeros((5, 32), np.uint8), dimensions=("item", "byte"))
        statistics = {(spec.name, "activation"): np.full((6, spec.n_channels), np.nan) for spec in contents.SPECS}
        writer.commit(epoch=0, step=-1, index=np.arange(5), statistics=statistics, metrics={"x": np.nan}, clipped={})
    run = open_run(path)
    assert run.samples["label"].tolist() == [-1] * 5
    assert run.samples["path"].tolist() == [""] * 5
    assert run.display(4).shape == (4, 4, 3)
    assert run.snapshots["step"].tolist() == [-1]
    assert run["conv1"].statistics["mean"].isna().all()


@pytest.mark.slow
def test_the_store_needs_no_torch(reference: Path) -> None:
    code = (
        "import sys\n"
        "from fmcluster.store import open_run, verify\n"
        f"run = open_run({str(reference)!r})\n"
        "run['conv1'].read(epoch=1); run.samples; run.metrics; verify(run)\n"
        "run['conv1'].vectors('channel').to_numpy()\n"
        "print([name for name in ('torch', 'numba', 'matplotlib', 'sklearn') if name in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, "[]"), done.stderr


@pytest.mark.parametrize(
    ("spec", "n_samples", "message"),
    [
        (LayerSpec("fc", (4,), "float16", "Linear"), (1 << 20) + 1, "Put at least 2 samples into a file"),
        (LayerSpec("fc", (30_000_000,), "float16", "Linear"), 2, "Keep some of its channels"),
    ],
)
def test_what_no_reader_would_take_is_refused_before_anything_is_written(spec, n_samples, message, tmp_path):
    path = tmp_path / "run.zarr"
    with RunWriter(path) as writer, pytest.raises(ValueError, match=message):
        writer.create([spec], n_samples=n_samples, shard_samples=1, kind="live")
    assert not path.exists()


@pytest.mark.parametrize(
    ("spec", "n_samples"),
    [
        (LayerSpec("fc", (4,), "float16", "Linear"), 1 << 20),
        (LayerSpec("fc", (20_000_000,), "float16", "Linear"), 2),
        (LayerSpec("conv", (2, 9000, 9000), "float32", "Conv2d"), 2),
    ],
)
def test_what_is_laid_out_is_read(spec, n_samples, tmp_path):
    with RunWriter(tmp_path / "run.zarr") as writer:
        writer.create([spec], n_samples=n_samples, shard_samples=1, kind="live")
    assert open_run(tmp_path / "run.zarr").layers == [spec.name]


FOREIGN = {"zarr_format": 3, "node_type": "group", "attributes": {"fmcluster": {"unfinished": True}}}


@pytest.mark.parametrize("mode", ["x", "a", "w"])
def test_a_folder_is_not_removed_because_its_root_says_that_it_is_an_unfinished_run(mode, tmp_path):
    folder = tmp_path / "thesis"
    (folder / "chapters").mkdir(parents=True)
    (folder / "chapters/one.txt").write_text("precious")
    (folder / "zarr.json").write_text(json.dumps(FOREIGN))
    with pytest.raises(FileExistsError, match=r"none of a run's, chapters.one\.txt, which would be removed with it"):
        RunWriter(folder, mode=mode)
    assert (folder / "chapters/one.txt").read_text() == "precious"
    assert json.loads((folder / "zarr.json").read_text()) == FOREIGN
    (folder / "chapters/one.txt").rename(tmp_path / "one.txt")
    RunWriter(folder, mode=mode).close()
    assert not folder.exists()


@pytest.mark.parametrize("name", ["layers/notes.txt", "c.x", "zarr.json.bak", "layers/conv1/activation/c/0"])
def test_a_run_is_not_replaced_with_what_somebody_has_laid_into_it(name, stored):
    (stored / name).parent.mkdir(exist_ok=True)
    (stored / name).write_text("precious")
    with pytest.raises(FileExistsError, match=r"Move the file away, or pass another path"):
        RunWriter(stored, mode="w")
    assert (stored / name).read_text() == "precious"
    assert len(open_run(stored)) == 3


def test_a_run_behind_a_link_is_not_replaced(stored, tmp_path):
    (tmp_path / "behind.zarr").symlink_to(stored)
    with pytest.raises(FileExistsError, match=r"is a link, .* Pass the folder to which it leads"):
        RunWriter(tmp_path / "behind.zarr", mode="w")
    assert len(open_run(stored)) == 3


@pytest.mark.parametrize("name", ["zarr.0f3a5d1c2b4e4f6a8b9c0d1e2f3a4b5c.partial", "epoch/c.1.partial"])
def test_what_was_being_written_is_a_runs_own(name, stored):
    (stored / name).write_text("half")
    RunWriter(stored, mode="w").close()
    assert not stored.exists()
