"""Weights of a run: every dtype, by this package and by others; whole snapshots only; damage found."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
import zarr

from fmcluster import StoreError
from fmcluster.store import LayerSpec, RunWriter, WeightSpec, normalization_path, norms_path, open_run, verify
from fmcluster.store.format import _weight_spec as weight_spec
from fmcluster.store.format._metadata import root_metadata

DTYPES = [dtype for dtype in weight_spec.WEIGHT_DTYPES if dtype != "bfloat16"]
SPECS = [
    *(WeightSpec(f"Of.{dtype}", (3, 5), dtype, "buffer", ("out_channel", "in_channel")) for dtype in DTYPES),
    WeightSpec("large", (70, 3, 2), "float32", "parameter", ("out_channel", "in_channel", "time")),
    WeightSpec("bf16", (4,), "bfloat16", "parameter", ("channel",)),
    WeightSpec("bn.num_batches_tracked", (), "int64", "buffer", ()),
    WeightSpec("nothing", (0, 3), "float32", "buffer", ("axis_0", "axis_1")),
]
LAYER = LayerSpec("fc", (4,), "float16", "Linear")


def values_of(spec: WeightSpec, snapshot: int) -> np.ndarray:
    """Any bits that the dtype has; at the second snapshot, fill values alone."""
    dtype = np.dtype(spec.stored_dtype)
    if snapshot == 1:
        return np.full(spec.shape, {"f": np.nan, "c": complex("nan+nanj"), "i": -1}.get(dtype.kind, 0), dtype)
    rng = np.random.default_rng([snapshot, len(spec.name)])
    count = int(np.prod(spec.shape))
    if dtype.kind == "b":
        return rng.integers(0, 2, spec.shape).astype(bool)
    bits = np.frombuffer(rng.bytes(count * dtype.itemsize), dtype).reshape(spec.shape)
    return bits.copy() if spec.dtype != "bfloat16" else (bits.view(np.uint32) & 0xFFFF0000).view(np.float32)


def write(writer: RunWriter, snapshot: int, *, without: tuple[str, tuple[int, ...]] | None = None) -> None:
    writer.write("fc", offset=0, values=np.ones((2, 4), np.float16))
    for spec in SPECS:
        for part, box in writer.weights.parts(spec.name):
            if (spec.name, part) != without:
                writer.weights.write(spec.name, values_of(spec, snapshot)[box], part=part)
    norms = np.arange(len(SPECS), dtype=float) + snapshot
    beside = {norms_path(name): norms * k for k, name in enumerate(("norm", "gradient_norm", "update_norm"), start=1)}
    beside |= {f"{normalization_path('bn')}/{name}": np.arange(3.0) + snapshot for name in ("mean", "variance")}
    common: dict[str, Any] = {"index": np.arange(2), "statistics": {}, "metrics": {}, "clipped": {}}
    writer.commit(epoch=snapshot, step=snapshot, beside=beside, **common)


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "run.zarr"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(weight_spec, "PART_BYTES", 1 << 10)
        with RunWriter(path) as writer:
            writer.create([LAYER], n_samples=2, shard_samples=2, kind="probe", weights=SPECS, normalizations={"bn": 3})
            for snapshot in range(3):
                write(writer, snapshot)
    return path


@pytest.fixture
def path(recorded: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(recorded, tmp_path / "run.zarr"))


def same_bits(one: np.ndarray, other: np.ndarray) -> bool:
    return (one.shape, one.dtype, one.tobytes()) == (other.shape, other.dtype, other.tobytes())


@pytest.mark.slow
def test_every_bit_comes_back(recorded: Path) -> None:
    run = open_run(recorded)
    assert verify(run) == []
    assert run.weight_names == [spec.name for spec in SPECS]
    assert [spec.attributes() for spec in run.weight_specs] == [spec.attributes() for spec in SPECS]
    for snapshot in range(3):
        found = run.read_weights(snapshot=snapshot)
        assert list(found) == run.weight_names
        for spec in SPECS:
            assert same_bits(found[spec.name], values_of(spec, snapshot)), (spec.name, snapshot)
    assert len(list((recorded / "weights/large/value").glob("c.2.*"))) == 2
    assert run.nbytes_weights == 3 * sum(spec.nbytes for spec in SPECS)


def test_some_are_read_by_name(recorded: Path) -> None:
    run = open_run(recorded)
    assert list(run.read_weights(epoch=2, names=["large"])) == ["large"]
    with pytest.raises(KeyError, match=r"holds no weight 'smll'; it holds 18: Of\.bool, .* and so on"):
        run.read_weights(epoch=2, names=["smll"])
    with pytest.raises(ValueError, match="no snapshot was taken in epoch 7"):
        run.read_weights(epoch=7)


def test_others_read_the_same(recorded: Path) -> None:
    group = zarr.open_group(recorded, mode="r")
    with xr.open_datatree(recorded, engine="zarr") as tree:
        for spec in SPECS:
            folder = f"weights/{spec.name.replace('Of', '~4ff')}"
            array = tree[f"{folder}/value"]
            assert array.dims == ("snapshot", *spec.dimensions)
            assert tree[folder].attrs["dtype"] == spec.dtype
            for snapshot in range(3):
                for found in (array.values[snapshot], np.asarray(group[f"{folder}/value"][snapshot])):
                    np.testing.assert_array_equal(np.asarray(found), values_of(spec, snapshot))
        assert float(tree["weight_norms/norm"].sel(weight="bf16")[1]) == SPECS.index(SPECS[-3]) + 1
        np.testing.assert_array_equal(tree["normalizations/bn/variance"][2], [2, 3, 4])


def test_the_table_of_norms(recorded: Path) -> None:
    table = open_run(recorded).weights
    columns = ["snapshot", "epoch", "step", "name", "shape", "dtype", "norm", "gradient_norm", "update_norm"]
    assert table.columns.tolist() == columns
    assert len(table) == 3 * len(SPECS)
    row = table[(table["snapshot"] == 2) & (table["name"] == "large")].iloc[0]
    at = [spec.name for spec in SPECS].index("large")
    assert (row["epoch"], row["shape"], row["dtype"]) == (2, (70, 3, 2), "float32")
    assert (row["norm"], row["gradient_norm"], row["update_norm"]) == (at + 2, 2 * (at + 2), 3 * (at + 2))


def test_inputs_of_normalizations(recorded: Path) -> None:
    run = open_run(recorded)
    table = run.normalization_inputs("bn")
    assert table.columns.tolist() == ["snapshot", "epoch", "step", "channel", "mean", "variance"]
    assert table[table["snapshot"] == 1]["mean"].tolist() == [1, 2, 3]
    assert table["channel"].tolist() == [0, 1, 2] * 3
    with pytest.raises(KeyError, match="no inputs of a normalization 'bm'; it holds 1: bn"):
        run.normalization_inputs("bm")


def test_a_run_without_weights_says_so(stored: Path) -> None:
    run = open_run(stored)
    assert run.weight_names == run.normalization_names == run.weight_specs == []
    assert run.nbytes_weights == 0
    for read in (lambda: run.weights, lambda: run.read_weights(snapshot=0), lambda: run.load_weights(None, epoch=0)):
        with pytest.raises(ValueError, match=r'holds no weights; record them with .*"weight"'):
            read()


def test_a_snapshot_that_lacks_a_part_is_not_committed(path: Path) -> None:
    with RunWriter(path, mode="a") as writer:
        writer.tidy()
        for without in (("large", (1, 0, 0)), ("bn.num_batches_tracked", ())):
            with pytest.raises(StoreError, match="was not written, or is gone; the snapshot is not whole"):
                write(writer, 3, without=without)
            writer.discard()
        assert not list((path / "weights").rglob("c.3*"))
        write(writer, 3)
    assert len(open_run(path)) == 4
    assert verify(open_run(path)) == []


def test_values_that_do_not_fit_are_refused(path: Path) -> None:
    with RunWriter(path, mode="a") as writer:
        for values in (np.zeros(5, np.float32), np.zeros(4, np.float64)):
            with pytest.raises(ValueError, match=r"expected float32 of shape \(4,\)"):
                writer.weights.write("bf16", values, part=(0,))
        with pytest.raises(ValueError, match="has no array for the weight 'unknown'"):
            writer.weights.write("unknown", np.zeros(4), part=(0,))


def test_the_snapshot_before_is_read_back(path: Path) -> None:
    large = next(spec for spec in SPECS if spec.name == "large")
    with RunWriter(path, mode="a") as writer:
        for part, box in writer.weights.parts("large"):
            assert same_bits(np.array(writer.weights.before("large", part=part)), values_of(large, 2)[box])
        (path / "weights/large/value/c.2.0.0.0").write_bytes(b"damaged")
        assert writer.weights.before("large", part=(0, 0, 0)) is None


def flipped(content: bytes) -> bytes:
    return content[:-9] + bytes([content[-9] ^ 4]) + content[-8:]


HARM = {
    "gone": lambda file: file.unlink(),
    "empty": lambda file: file.write_bytes(b""),
    "cut": lambda file: file.write_bytes(file.read_bytes()[:-7]),
    "a bit": lambda file: file.write_bytes(flipped(file.read_bytes())),
    "of another snapshot": lambda file: shutil.copy(file.with_name(file.name.replace("c.2", "c.0")), file),
}


@pytest.mark.parametrize("harm", HARM)
@pytest.mark.parametrize("name", ["large", "~4ff.bool", "~4ff.complex64", "bn.num_batches_tracked"])
def test_damage_is_found(harm: str, name: str, path: Path) -> None:
    file = sorted((path / "weights" / name / "value").glob("c.2*"))[-1]
    HARM[harm](file)
    run = open_run(path)
    found = verify(run)
    assert len(found) == 1
    assert f"weights/{name}/value/{file.name}" in found[0]
    with pytest.raises(StoreError, match="is damaged"):
        run.read_weights(snapshot=2)
    assert run.read_weights(snapshot=0)["large"].shape == (70, 3, 2)


def test_of_no_values_no_file_is_read(path: Path) -> None:
    shutil.copy(path / "weights/bf16/value/c.0.0", path / "weights/nothing/value/c.0.0.0")
    assert open_run(path).read_weights(snapshot=0)["nothing"].shape == (0, 3)


def change(name: str, **values: Any) -> Any:
    return lambda root: root["consolidated_metadata"]["metadata"][name].update(values)


WRONG = {
    "another fill value": change("weights/bf16/value", fill_value=0.0),
    "a number for a truth": change("weights/~4ff.bool/value", fill_value=0),
    "axes of samples": change("weights/bf16/value", dimension_names=["snapshot", "sample"]),
    "axes without snapshots": change("weights/bf16/value", dimension_names=["channel", "snapshot"]),
    "an axis twice": change("weights/large/value", dimension_names=["snapshot", "time", "time", "channel"]),
    "another dtype": change("weights/bf16/value", data_type="bfloat16"),
    "norms of fewer": change("weight_norms/norm", shape=[3, 4]),
    "norms of int32": change("weight_norms/norm", data_type="int32", fill_value=-1),
    "no array": lambda root: root["consolidated_metadata"]["metadata"].pop("weights/large/value"),
    "names that are numbers": lambda root: root["attributes"]["fmcluster"].update(weights=[1]),
    "no name": change("weights/bf16", attributes={}),
}


@pytest.mark.parametrize("what", WRONG)
def test_a_root_of_another_format_is_refused(what: str, path: Path) -> None:
    root = json.loads((path / "zarr.json").read_bytes())
    WRONG[what](root)
    attributes = {name: value for name, value in root["attributes"]["fmcluster"].items() if name != "digest"}
    (path / "zarr.json").write_bytes(root_metadata(attributes, root["consolidated_metadata"]["metadata"]))
    with pytest.raises(StoreError, match="is not of format v1"):
        open_run(path)


@pytest.mark.parametrize("about", [{"dtype": "float64"}, {"dtype": "float8"}, {"kind": None}, {}])
def test_a_group_that_does_not_say_what_it_is_of_is_refused(about: dict[str, Any], path: Path) -> None:
    root = json.loads((path / "zarr.json").read_bytes())
    nodes = root["consolidated_metadata"]["metadata"]
    own = nodes["weights/bf16"]["attributes"]
    nodes["weights/bf16"]["attributes"] = {"name": own["name"], **({**own, **about} if about else {})}
    if about == {"kind": None}:
        del nodes["weights/bf16"]["attributes"]["kind"]
    attributes = {name: value for name, value in root["attributes"]["fmcluster"].items() if name != "digest"}
    (path / "zarr.json").write_bytes(root_metadata(attributes, nodes))
    with pytest.raises(StoreError, match="is damaged"):
        _ = open_run(path).weights
