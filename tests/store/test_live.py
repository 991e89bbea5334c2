"""Runs whose samples arrive in any order: shuffled, several times, or not at all."""

import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fmcluster import StoreError
from fmcluster.store import LayerSpec, Run, RunWriter, open_run, verify
from fmcluster.store.format import _arrays as arrays
from fmcluster.store.writing import _create as create

SHAPES = {"conv": ((5, 2, 3), (2, 2, 3)), "tokens": ((3, 7), (3, 4)), "fc": ((6,), (6,))}
KEPT = {"conv": (4, 1), "tokens": (0, 6, 2, 3), "fc": None}
AXIS = {"conv": 1, "tokens": 2, "fc": 1}


@dataclass
class Told:
    """What is written: the samples of each snapshot's slots, the maps of each quantity, and which shards are blank."""

    shard: int
    index: list[list[int]]
    maps: dict[str, np.ndarray]
    spec: LayerSpec

    def last(self, snapshot: int) -> dict[int, int]:
        return {sample: slot for slot, sample in enumerate(self.index[snapshot]) if sample >= 0}

    def filled(self, snapshot: int) -> list[int]:
        return [slot for slot, sample in enumerate(self.index[snapshot]) if sample >= 0]

    @property
    def common(self) -> list[int]:
        return sorted(set.intersection(*(set(self.last(k)) for k in range(len(self.index)))))


@st.composite
def tellings(draw: st.DrawFn) -> Told:
    name = draw(st.sampled_from(sorted(SHAPES)))
    output, shape = SHAPES[name]
    n_slots, n_snapshots = draw(st.integers(1, 11)), draw(st.integers(1, 3))
    arrivals = st.lists(st.integers(-1, 7), min_size=n_slots, max_size=n_slots)
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    gradient = draw(st.booleans())
    spec = LayerSpec(name, shape, "float16", "M", output=output, channels=KEPT[name], gradient=gradient)
    maps = {
        quantity: rng.normal(size=(n_snapshots, n_slots, *shape)).astype(spec.dtype_of(quantity))
        for quantity in spec.quantities
    }
    return Told(draw(st.integers(1, 5)), [draw(arrivals) for _ in range(n_snapshots)], maps, spec)


def write(path: Path, told: Told, *, leave_out: bool) -> None:
    """Write shard by shard; those without a sample are left out, or blank, as are the last of a shard's empty slots."""
    n_slots = len(told.index[0])
    with RunWriter(path) as writer:
        writer.create([told.spec], n_samples=n_slots, shard_samples=told.shard, kind="live")
        for snapshot, index in enumerate(told.index):
            numbers = np.array(index)
            for quantity, values in told.maps.items():
                for start in range(0, n_slots, min(told.shard, n_slots)):
                    rows = np.array(values[snapshot, start : start + told.shard])
                    filled = np.flatnonzero(numbers[start : start + told.shard] >= 0)
                    rows[numbers[start : start + told.shard] < 0] = np.nan
                    rows = rows[: filled[-1] + 1] if len(filled) else None
                    if rows is not None or not leave_out:
                        writer.write(told.spec.name, offset=start, values=rows, quantity=quantity)
            statistics = {
                (told.spec.name, kind): np.full((6, told.spec.n_channels), snapshot + 10.0 * (kind == "gradient"))
                for kind in told.spec.quantities
            }
            writer.commit(epoch=snapshot, step=snapshot, index=numbers, statistics=statistics, metrics={}, clipped={})


@pytest.mark.slow
@settings(max_examples=80, deadline=None)
@given(told=tellings(), data=st.data(), chunk_bytes=st.sampled_from([1, 40, 100, 1 << 20]), leave_out=st.booleans())
def test_what_is_read_by_index_is_what_was_written(
    told: Told, data: st.DataObject, chunk_bytes: int, leave_out: bool
) -> None:
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(create, "CHUNK_BYTES", chunk_bytes)
        write(Path(folder) / "run.zarr", told, leave_out=leave_out)
        run = open_run(Path(folder) / "run.zarr")
        assert run.kind == "live"
        assert verify(run) == []
        seen = sorted({sample for index in told.index for sample in index if sample >= 0})
        assert run.samples.index.tolist() == seen
        assert run.samples["label"].tolist() == [-1] * len(seen)
        assert run.samples.columns.tolist() == ["label"]
        for kind in told.spec.quantities:
            check_layer(run, told, kind, data)


def check_layer(run: Run, told: Told, kind: str, data: st.DataObject) -> None:
    layer = run[told.spec.name] if kind == "activation" else run[told.spec.name].gradient
    maps, axis = told.maps[kind], AXIS[told.spec.name]
    numbers = list(range(told.spec.n_channels)) if told.spec.channels is None else list(told.spec.channels)
    assert layer.channels.tolist() == numbers
    assert (layer.statistics["mean"] - layer.statistics["snapshot"] == 10 * (kind == "gradient")).all()
    for snapshot in range(len(told.index)):
        filled, last = told.filled(snapshot), told.last(snapshot)
        np.testing.assert_array_equal(layer.read(snapshot=snapshot), maps[snapshot, filled])
        part = data.draw(st.slices(len(filled)))
        np.testing.assert_array_equal(layer.read(snapshot=snapshot, samples=part), maps[snapshot, filled][part])
        samples = data.draw(st.lists(st.sampled_from(sorted(last)), max_size=9)) if last else []
        channels = data.draw(st.lists(st.sampled_from(numbers), min_size=1, max_size=4))
        expected = maps[snapshot, [last[sample] for sample in samples]]
        expected = expected.take([numbers.index(channel) for channel in channels], axis)
        found = layer.read(snapshot=snapshot, samples=samples, channels=channels)
        assert found.dtype == maps.dtype
        np.testing.assert_array_equal(found, expected)
    if not told.common:
        for attempt in (layer.read, lambda: layer.vectors("sample")):
            with pytest.raises(ValueError, match="have no sample in common: snapshot 0 holds"):
                attempt()
        return
    expected = np.stack([maps[k, [told.last(k)[sample] for sample in told.common]] for k in range(len(told.index))])
    np.testing.assert_array_equal(layer.read(), expected)
    vectors = layer.vectors("sample")
    assert vectors.samples.tolist() == told.common
    anywhere = {sample for snapshot in range(len(told.index)) for sample in told.last(snapshot)}
    assert vectors.left_out.tolist() == sorted(anywhere - set(told.common))
    of_maps = np.moveaxis(expected, axis + 1, 2)
    np.testing.assert_array_equal(vectors.to_numpy(), of_maps.reshape(len(vectors.rows), -1).astype(np.float32))
    assert list(dict.fromkeys(layer.vectors("channel").rows["channel"])) == numbers


SPEC = LayerSpec("fc", (2,), "float32", "Linear", gradient=True)


def commit(writer: RunWriter, index: list[int], epoch: int = 0) -> None:
    writer.commit(epoch=epoch, step=0, index=np.array(index), statistics={}, metrics={}, clipped={})


def test_a_commit_without_a_shard_that_holds_samples_is_refused(tmp_path: Path) -> None:
    """Of any kind; a shard in whose slots nothing arrived may be left out."""
    rows = np.ones((2, 2), np.float32)
    with RunWriter(tmp_path / "run.zarr") as writer:
        writer.create([SPEC], n_samples=6, shard_samples=2, kind="live")
        for offset in (0, 2):
            writer.write("fc", offset=offset, values=rows)
        writer.write("fc", offset=0, values=rows, quantity="gradient")
        with pytest.raises(StoreError, match=r"layers/fc/gradient/c\.0\.1\.0 was not written"):
            commit(writer, [3, 4, 5, -1, -1, -1])
        with pytest.raises(StoreError, match=r"layers/fc/activation/c\.0\.2\.0 was not written"):
            commit(writer, [3, 4, -1, -1, -1, 7])
        writer.write("fc", offset=2, values=None, quantity="gradient")
        commit(writer, [3, 4, 5, -1, -1, -1])
    run = open_run(tmp_path / "run.zarr")
    assert verify(run) == []
    assert run["fc"].read(epoch=0).tolist() == [[1, 1]] * 3
    assert np.isnan(run["fc"].gradient.read(epoch=0, samples=5)).all()


def test_an_epoch_without_any_sample_is_kept_and_said(tmp_path: Path) -> None:
    with RunWriter(tmp_path / "run.zarr") as writer:
        writer.create([SPEC], n_samples=2, shard_samples=2, kind="live")
        commit(writer, [-1, -1])
    layer = open_run(tmp_path / "run.zarr")["fc"]
    assert layer.read(epoch=0).shape == (0, 2)
    with pytest.raises(ValueError, match=r"no sample in common: snapshot 0 holds 0 samples\. Choose"):
        layer.read()
    with pytest.raises(ValueError, match="snapshot 0 has no sample 3; it holds 0 samples"):
        layer.read(epoch=0, samples=3)


@pytest.mark.parametrize("index", [np.arange(3), np.zeros(4), np.arange(4)[None]])
def test_an_index_that_does_not_fit_is_refused(index: np.ndarray, tmp_path: Path) -> None:
    with RunWriter(tmp_path / "run.zarr") as writer:
        writer.create([SPEC], n_samples=4, shard_samples=2, kind="live")
        for quantity in SPEC.quantities:
            for offset in (0, 2):
                writer.write("fc", offset=offset, values=None, quantity=quantity)
        with pytest.raises(ValueError, match=r"expected integers of \(4,\)"):
            writer.commit(epoch=0, step=0, index=index, statistics={}, metrics={}, clipped={})


def test_a_live_run_with_its_data_sets_tables_has_no_digests(tmp_path: Path) -> None:
    with RunWriter(tmp_path / "run.zarr") as writer:
        writer.create([SPEC], n_samples=2, shard_samples=2, kind="live")
        writer.attributes["classes"] = ["ants", "bees"]
        for name, values in {"sample": np.arange(3), "label": np.array([1, 0, -1])}.items():
            writer.add_static(f"samples/{name}", values, dimensions=("item",))
        commit(writer, [-1, -1])
    samples = open_run(tmp_path / "run.zarr").samples
    assert samples.columns.tolist() == ["label", "class_name"]
    assert samples["class_name"].tolist() == ["bees", "ants", ""]


def shuffled_run(path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[np.ndarray, list[list[int]]]:
    """Two snapshots of 64 samples in shards of 16, each of 8 chunks."""
    monkeypatch.setattr(create, "CHUNK_BYTES", 2 * 6 * 4)
    rng = np.random.default_rng(0)
    orders = [rng.permutation(64) for _ in range(2)]
    values = rng.normal(size=(2, 64, 6)).astype(np.float32)
    with RunWriter(path) as writer:
        writer.create([LayerSpec("fc", (6,), "float32", "Linear")], n_samples=64, shard_samples=16, kind="live")
        for snapshot in range(2):
            for offset in range(0, 64, 16):
                writer.write("fc", offset=offset, values=values[snapshot, orders[snapshot]][offset : offset + 16])
            commit(writer, orders[snapshot].tolist(), epoch=snapshot)
    return values, orders


def test_scattered_samples_are_read_shard_by_shard_and_one_alone_by_its_chunk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values, _ = shuffled_run(tmp_path / "run.zarr", monkeypatch)
    layer = open_run(tmp_path / "run.zarr")["fc"]
    read, taken = arrays.StoredArray.read, []

    def watched(self: arrays.StoredArray, *box: object) -> np.ndarray:
        out = read(self, *box)
        if self.array.path.endswith("activation"):
            taken.append(out.nbytes // 24)
        return out

    monkeypatch.setattr(arrays.StoredArray, "read", watched)
    np.testing.assert_array_equal(layer.read(epoch=1, samples=range(0, 64, 2)), values[1, ::2])
    assert len(taken) == 4, "a shard is read once, however many of its samples are wanted"
    taken.clear()
    np.testing.assert_array_equal(layer.read(epoch=1, samples=7), values[1, [7]])
    assert taken == [1], "one sample is read alone"
    taken.clear()
    np.testing.assert_array_equal(layer.read(), values)
    assert taken == [16] * 8, "of a whole snapshot that is put in order, no more than a shard is held beside it"
    taken.clear()
    vectors = layer.vectors("channel")
    np.testing.assert_array_equal(vectors.to_numpy(), values.transpose(0, 2, 1).reshape(12, 64))
