"""The images that drive each channel most, against a search of the whole array, image by image."""

import multiprocessing
import tempfile
import tracemalloc
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from importlib import import_module
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils.data import TensorDataset

from fmcluster import Recorder, StoreError, open_run, pca
from fmcluster.analysis._top_images import TopImages, top_images
from fmcluster.store import Layer, LayerSpec, RunWriter

MODULE = import_module("fmcluster.analysis._top_images")  # whose name is also its function's
SHAPES = [(3, 4, 5), (1, 2, 3), (5, 1, 1), (4, 3), (1, 1), (3,), (6,)]  # as a module returns them
FIELDS = ("samples", "values", "positions", "fractions")


def store(
    path: Path,
    values: np.ndarray,
    *,
    index: list[list[int]] | None = None,
    quantity: str = "activation",
    **spec: object,
) -> Layer:
    """A run of one layer that holds `values`, of shape (snapshot, slot, ...); epochs in pairs."""
    written = LayerSpec("layer", values.shape[2:], "float16", "Module", gradient=quantity == "gradient", **spec)
    slots = values.shape[1]
    numbers = np.tile(np.arange(slots), (len(values), 1)) if index is None else np.array(index)
    with RunWriter(path) as writer:
        writer.create([written], n_samples=slots, shard_samples=4, kind="probe" if index is None else "live")
        for snapshot, maps in enumerate(values):
            for at in range(0, slots, 4):
                for name in written.quantities:
                    part = maps[at : at + 4].astype(written.dtype_of(name))
                    writer.write("layer", offset=at, values=part if name == quantity else 0 * part, quantity=name)
            writer.commit(
                epoch=snapshot // 2,
                step=10 * snapshot,
                index=numbers[snapshot],
                statistics={("layer", name): np.zeros((6, written.n_channels)) for name in written.quantities},
                metrics={},
                clipped={},
            )
    layer = open_run(path)["layer"]
    return layer if quantity == "activation" else layer.gradient


def stored_with_gradients(path: Path, maps: np.ndarray, slopes: np.ndarray) -> Layer:
    """A run of one layer, of one snapshot, with gradients."""
    spec = LayerSpec("layer", maps.shape[2:], "float16", "Module", gradient=True)
    with RunWriter(path) as writer:
        writer.create([spec], n_samples=maps.shape[1], shard_samples=maps.shape[1], kind="probe")
        for name, values in (("activation", maps), ("gradient", slopes)):
            writer.write("layer", offset=0, values=values[0].astype(spec.dtype_of(name)), quantity=name)
        statistics = {("layer", name): np.zeros((6, spec.n_channels)) for name in spec.quantities}
        writer.commit(epoch=0, step=0, index=np.arange(maps.shape[1]), statistics=statistics, metrics={}, clipped={})
    return open_run(path)["layer"]


def as_maps(values: np.ndarray) -> np.ndarray:
    """The same as (snapshot, sample, channel, height, width), float64."""
    wide = values.astype(np.float64)
    if wide.ndim == 4:
        return wide.transpose(0, 1, 3, 2)[..., None]
    return wide if wide.ndim == 5 else wide[..., None, None]


def searched(maps: np.ndarray, *, k: int, by: str) -> tuple[np.ndarray, np.ndarray, np.ndarray, pd.DataFrame]:
    """Positions of the best images, values, places, and what is said of each channel; one channel after the other."""
    count, n_samples, n_channels = maps.shape[:3]
    k = min(k, n_samples)
    found = np.full((count, n_channels, k), -1), np.full((count, n_channels, k), np.nan)
    places = np.full((count, n_channels, k, 2), -1)
    told = []
    for s, c in np.ndindex(count, n_channels):
        whole = {n: maps[s, n, c] for n in range(n_samples) if np.isfinite(maps[s, n, c]).all()}
        lowest = min((one.min() for one in whole.values()), default=np.nan)
        value = {n: one.max() if by == "max" else one.mean() for n, one in whole.items() if one.max() > lowest}
        best = sorted(value, key=lambda n: (-value[n], n))
        for rank, n in enumerate(best[:k]):
            found[0][s, c, rank], found[1][s, c, rank] = n, value[n]
            places[s, c, rank] = np.unravel_index(np.argmax(whole[n]), whole[n].shape)
        told.append(
            {
                "snapshot": s,
                "channel": c,
                "n_top_images": min(k, len(best)),
                "nonfinite": n_samples - len(whole),
                "constant": bool(whole) and not best,
                "tied": len(best) > k and value[best[k]] == value[best[k - 1]],
            }
        )
    return *found, places, pd.DataFrame(told)


def same(one: TopImages, other: TopImages) -> None:
    for name in FIELDS:
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name), err_msg=name)
    pd.testing.assert_frame_equal(one.channels, other.channels)
    pd.testing.assert_frame_equal(one.frame, other.frame)


@st.composite
def stored_values(draw: st.DrawFn) -> np.ndarray:
    """Maps of a few levels, so that there are ties and sums are exact; some constant, some values not finite."""
    shape = (draw(st.integers(1, 3)), draw(st.integers(1, 11)), *draw(st.sampled_from(SHAPES)))
    rng = np.random.default_rng(draw(st.integers(0, 999)))
    values = rng.integers(-2, draw(st.integers(-1, 30)), shape) / 4
    if draw(st.booleans()):
        values = np.maximum(values, 0)
    if draw(st.booleans()):
        values[rng.random(shape) < 0.02] = rng.choice([np.nan, np.inf, -np.inf])
    return values.astype(np.float16)


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(
    values=stored_values(),
    data=st.data(),
    k=st.integers(1, 13),
    by=st.sampled_from(["max", "mean"]),
    block=st.sampled_from([1, 200, 1000, 1 << 20]),
)
def test_any_part_in_any_blocks_is_what_a_search_of_the_whole_array_finds(values, data, k, by, block):
    maps = as_maps(values)
    samples = data.draw(st.none() | st.lists(st.integers(0, maps.shape[1] - 1), min_size=1, unique=True))
    channels = data.draw(st.none() | st.lists(st.integers(0, maps.shape[2] - 1), min_size=1, unique=True))
    snapshots = data.draw(st.none() | st.sets(st.integers(0, len(maps) - 1), min_size=1).map(sorted))
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(MODULE, "_BLOCK_BYTES", block)
        layer = store(Path(folder) / "run.zarr", values)
        maps = maps[slice(None) if snapshots is None else snapshots]
        maps = maps[:, slice(None) if samples is None else samples]
        maps = maps[:, :, slice(None) if channels is None else channels]
        found = top_images(
            layer,
            k=k,
            by=by,
            snapshots=snapshots,
            samples=samples,
            channels=channels,
        )
    positions, best, places, told = searched(maps, k=k, by=by)
    ids = np.arange(values.shape[1]) if samples is None else np.array(samples)
    numbers = np.arange(as_maps(values).shape[2]) if channels is None else np.array(channels)
    times = np.arange(len(values)) if snapshots is None else np.array(snapshots)
    assert found.k == min(k, maps.shape[1])
    assert found.n_samples == maps.shape[1]
    np.testing.assert_array_equal(found.samples, np.where(positions < 0, -1, ids[positions]))
    np.testing.assert_array_equal(found.values, best)
    np.testing.assert_array_equal(found.positions, places)
    told = told.assign(snapshot=times[told["snapshot"]], channel=numbers[told["channel"]])
    pd.testing.assert_frame_equal(found.channels[list(told)], told, check_dtype=False)
    held = positions >= 0
    time, channel, rank = np.nonzero(held)
    frame = found.frame
    assert frame["snapshot"].tolist() == times[time].tolist()
    assert frame["epoch"].tolist() == (times[time] // 2).tolist()
    assert frame["step"].tolist() == (10 * times[time]).tolist()
    assert frame["channel"].tolist() == numbers[channel].tolist()
    assert frame["rank"].tolist() == rank.tolist()
    assert frame["sample"].tolist() == ids[positions[held]].tolist()
    assert frame[["y", "x"]].to_numpy().tolist() == places[held].tolist()
    assert frame["value"].tolist() == best[held].tolist()


@pytest.fixture(scope="module")
def stored(tmp_path_factory) -> Callable[[str], Layer]:
    """Layers of many values, whose sums depend on the order of their terms."""
    rng = np.random.default_rng(0)
    folder = tmp_path_factory.mktemp("stored")
    shapes = {"maps": (6, 9, 7), "tokens": (65, 6), "flat": (6,)}
    layers = {}
    for name, shape in shapes.items():
        values = rng.normal(size=(3, 30, *shape)) * 10 ** rng.uniform(-12, 3, (3, 30, *shape))
        layers[name] = store(folder / name, values, quantity="gradient")
    return layers.__getitem__


@pytest.mark.slow
@pytest.mark.parametrize("by", ["max", "mean"])
@pytest.mark.parametrize("name", ["maps", "tokens", "flat"])
def test_blocks_change_not_a_bit(name: str, by: str, stored, monkeypatch):
    layer = stored(name)
    assert layer.dtype == np.float32
    whole = top_images(layer, k=5, by=by)
    assert not whole.channels["tied"].any()
    for block in (1, 1_000, 7_000):
        monkeypatch.setattr(MODULE, "_BLOCK_BYTES", block)
        same(top_images(layer, k=5, by=by), whole)
        for channels in ([3], [4, 2], [5, 1, 3]):
            part = top_images(layer, k=5, by=by, channels=channels)
            for field in FIELDS:
                np.testing.assert_array_equal(getattr(part, field), getattr(whole, field)[:, channels])


@pytest.fixture(params=["threads", "processes"])
def executor(request) -> Iterator[Executor]:
    if request.param == "threads":
        with ThreadPoolExecutor(3) as threads:
            yield threads
    else:
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as processes:
            yield processes


@pytest.mark.slow
def test_executors_change_not_a_bit(executor, stored, monkeypatch):
    monkeypatch.setattr(MODULE, "_BLOCK_BYTES", 4_000)
    for by in ("max", "mean"):
        here = top_images(stored("maps"), by=by)
        same(top_images(stored("maps"), by=by, executor=executor), here)


def test_ties_go_to_the_first_in_the_order_of_the_samples(tmp_path):
    values = np.zeros((1, 8, 2, 2, 2))
    values[0, [1, 3, 4, 6], 0, 1, 0] = 1
    values[0, [2, 7], 1] = [[[1, 5], [5, 0]]]
    layer = store(tmp_path / "run.zarr", values)
    found = top_images(layer, k=3)
    assert found.samples.tolist() == [[[1, 3, 4], [2, 7, -1]]]
    assert found.positions.tolist() == [[[[1, 0]] * 3, [[0, 1], [0, 1], [-1, -1]]]]
    assert found.channels["tied"].tolist() == [True, False]
    assert top_images(layer, k=4).channels["tied"].tolist() == [False, False]
    assert top_images(layer, k=3, samples=[6, 5, 4, 3, 2, 1, 0]).samples.tolist() == [[[6, 4, 3], [2, -1, -1]]]


def test_what_drives_no_channel_is_no_top_image(tmp_path):
    """A dead channel has none, and one that is silent but for two images two; a bias at the border is no drive."""
    values = np.zeros((1, 6, 4, 2, 2))
    values[0, :, 0] = -0.75  # dead
    values[0, [5, 2], 1, 0, 0] = [2, 1]  # silent elsewhere
    values[0, :, 2] = [[3, 4], [3, 3]]  # the same in every image: driven, though by none more than by another
    values[0, :, 3] = np.arange(6)[:, None, None]  # constant in each image
    layer = store(tmp_path / "run.zarr", values)
    for by in ("max", "mean"):
        found = top_images(layer, k=4, by=by)
        assert found.channels["constant"].tolist() == [True, False, False, False]
        assert found.channels["n_top_images"].tolist() == [0, 2, 4, 4]
        assert found.channels["tied"].tolist() == [False, False, True, False]
        assert found.samples[0].tolist() == [[-1] * 4, [5, 2, -1, -1], [0, 1, 2, 3], [5, 4, 3, 2]]
        assert np.isnan(found.values[0, 0]).all()
        assert 0 not in found.frame["channel"].to_numpy()


def test_images_whose_map_is_not_finite_are_no_top_images(tmp_path):
    values = np.ones((1, 5, 3, 2, 2))
    values[0, :, :, 0, 1] = np.arange(5)[:, None] + 2
    values[0, 4, 0, 1, 1] = np.nan
    values[0, 3, 0, 0, 0] = np.inf
    values[0, 2, 0, 0, 0] = -np.inf
    values[0, :, 2] = np.nan
    layer = store(tmp_path / "run.zarr", values)
    for by in ("max", "mean"):
        found = top_images(layer, k=5, by=by)
        assert found.samples[0].tolist() == [[1, 0, -1, -1, -1], [4, 3, 2, 1, 0], [-1] * 5]
        assert found.channels["nonfinite"].tolist() == [3, 0, 5]
        assert not found.channels["constant"].any()


def test_more_top_images_than_images_are_as_many_as_there_are(tmp_path):
    layer = store(tmp_path / "run.zarr", np.random.default_rng(0).normal(size=(2, 3, 2, 2, 2)))
    found = top_images(layer, k=50)
    assert found.k == 3
    assert found.values.shape == (2, 2, 3)
    assert len(top_images(layer, samples=[2]).frame) == 4


def test_places_are_fractions_of_the_whole_output(tmp_path):
    """Where a pixel alone makes a place answer, the place's center is the mean of these pixels' centers."""
    crop, kept = ((1, 6), (2, 9)), (2, 3)
    pixels = torch.eye(7 * 10).reshape(-1, 1, 7, 10)
    pooled = nn.functional.adaptive_avg_pool2d(pixels[:, :, 1:6, 2:9], kept)
    layer = store(tmp_path / "run.zarr", 100 * pooled.numpy()[None], output=(4, 7, 10), channels=(3,), crop=crop)
    found = top_images(layer, k=70)
    assert found.frame["channel"].eq(3).all()
    y, x = np.divmod(found.frame["sample"].to_numpy(), 10)
    seen = set()
    for place in np.ndindex(*kept):
        answer = pooled[:, 0, *place].numpy() > 0
        rows, columns = np.divmod(np.flatnonzero(answer), 10)
        center = (rows.mean() + 0.5) / 7, (columns.mean() + 0.5) / 10
        here = (found.frame["y"] == place[0]) & (found.frame["x"] == place[1])
        assert here.any()
        assert set(zip(y[here], x[here], strict=True)) <= set(zip(rows, columns, strict=True))
        fractions = found.frame.loc[here, ["fraction_y", "fraction_x"]].to_numpy()
        np.testing.assert_allclose(fractions, np.tile(center, (len(fractions), 1)))
        seen.add(center)
    assert len(seen) == 6


def test_places_of_uncropped_maps_are_centers_of_pixels(tmp_path):
    values = np.zeros((1, 2, 1, 4, 5))
    values[0, 0, 0, 3, 0] = values[0, 1, 0, 0, 4] = 1
    found = top_images(store(tmp_path / "run.zarr", values)).frame
    assert found[["y", "x"]].to_numpy().tolist() == [[3, 0], [0, 4]]
    np.testing.assert_allclose(found[["fraction_y", "fraction_x"]], [[7 / 8, 1 / 10], [1 / 8, 9 / 10]])


@pytest.mark.parametrize("shape", [(5, 2), (2,)])
def test_layers_without_maps_have_no_place_in_the_image(shape, tmp_path):
    found = top_images(store(tmp_path / "run.zarr", np.random.default_rng(0).normal(size=(1, 4, *shape))), k=2).frame
    assert len(found) == 4
    assert found[["fraction_y", "fraction_x"]].isna().all(axis=None)
    assert (found["x"] == 0).all()
    assert (found["y"] > 0).any() == (len(shape) == 2)


def test_turnover_of_a_case_by_hand(tmp_path):
    values = np.zeros((3, 6, 3))
    values[:, :, 0] = [[6, 5, 4, 3, 2, 1], [6, 5, 3, 4, 2, 1], [1, 2, 3, 4, 5, 6]]  # 012, 013, 543
    values[:, :, 1] = [[9, 8, 0, 0, 0, 0], [9, 8, 7, 0, 0, 0], [0, 0, 0, 0, 0, 7]]  # 01, 012, 5
    values[:, :, 2] = [[1, 1, 1, 1, 1, 1], [6, 5, 4, 3, 2, 1], [6, 5, 4, 3, 2, 1]]  # dead, 012, 012
    found = top_images(store(tmp_path / "run.zarr", values, channels=(4, 0, 7), output=(9,)), k=3)
    steps = found.turnover
    assert steps[["from_snapshot", "to_snapshot"]].to_numpy().tolist() == [[0, 1]] * 3 + [[1, 2]] * 3
    assert steps[["from_epoch", "to_epoch"]].to_numpy().tolist() == [[0, 0]] * 3 + [[0, 1]] * 3
    assert steps["channel"].tolist() == [4, 0, 7] * 2
    nan = np.nan
    np.testing.assert_allclose(steps["kept"], [2 / 3, 1, nan, 1 / 3, 0, 1])
    np.testing.assert_allclose(steps["jaccard"], [2 / 4, 2 / 3, 0, 1 / 5, 0, 1])
    np.testing.assert_allclose(steps["kept_at_last"], [0, 0, nan, 1 / 3, 0, 1])
    np.testing.assert_allclose(steps["jaccard_at_last"], [0, 0, 0, 1 / 5, 0, 1])
    np.testing.assert_allclose(steps["chance"], [3 / 6, 3 / 6, nan, 3 / 6, 1 / 6, 3 / 6])
    alone = top_images(store(tmp_path / "one.zarr", values[:1])).turnover
    assert alone.empty
    assert list(alone) == list(steps)


def test_turnover_at_random_is_the_chance_level(tmp_path):
    values = np.random.default_rng(0).normal(size=(4, 40, 60))
    steps = top_images(store(tmp_path / "run.zarr", values), k=10).turnover
    assert (steps["chance"] == 0.25).all()
    for name in ("kept", "kept_at_last"):
        chosen = steps[(steps["to_snapshot"] < 3) | (name == "kept")]
        chosen = chosen if name == "kept" else chosen[chosen["from_snapshot"] < 3]
        assert chosen[name].mean() == pytest.approx(0.25, abs=0.02)


def test_live_runs_are_aligned_by_index(tmp_path):
    """Sample 7 comes twice in the second epoch, and counts as it was last; 3 and 5 are in one epoch only."""
    index = [[4, 7, 3, 1], [7, 1, 5, 7], [1, 4, 7, -1]]
    values = np.zeros((3, 4, 1, 1, 2))
    values[0, :, 0, 0, 0] = [1, 2, 9, 3]
    values[1, :, 0, 0, 1] = [8, 2, 9, 1]
    values[2, :, 0, 0, 1] = [5, 6, 7, np.nan]
    layer = store(tmp_path / "run.zarr", values, index=index)
    found = top_images(layer, k=4)
    assert found.samples[:, 0].tolist() == [[1, 7], [1, 7], [7, 1]]
    assert found.values[:, 0].tolist() == [[3, 2], [2, 1], [7, 5]]
    assert found.left_out.tolist() == [3, 4, 5]
    assert top_images(layer, snapshots=[0, 2], k=4).samples[:, 0].tolist() == [[1, 7, 4], [7, 4, 1]]


class Detector(nn.Module):
    """Channel 0 is the image, channel 1 what is dark in it; channel 2 is dead, and both drift with `shift`."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 3, 1)
        self.fc = nn.Linear(3, 2)
        nn.init.zeros_(self.conv.bias)
        self.conv.weight.data = torch.tensor([1.0, -1.0, 0.0]).reshape(3, 1, 1, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.conv(x).mean((2, 3)))


def test_a_recorded_run_shows_what_its_channels_detect(tmp_path):
    images = torch.rand(12, 1, 6, 8, generator=torch.Generator().manual_seed(0))
    images[9, 0, 4, 1], images[3, 0, 0, 7], images[5, 0, 5, 6] = 3, 2, -3
    model = Detector()
    probe = TensorDataset(images, torch.arange(12) % 2)
    with Recorder(model, tmp_path / "run.zarr", layers=["conv"], probe=probe) as recorder:
        recorder.snapshot(epoch=0)
        with torch.no_grad():
            model.conv.weight *= torch.tensor([2.0, 1.0, 1.0]).reshape(3, 1, 1, 1)
            model.conv.weight[1] *= -1
        recorder.snapshot(epoch=1)
    layer = open_run(tmp_path / "run.zarr")["conv"]
    found = top_images(layer, k=2)
    assert found.layer == "conv"
    assert found.samples[0].tolist() == [[9, 3], [5, found.samples[0, 1, 1]], [-1, -1]]
    assert found.samples[1].tolist() == [[9, 3], [9, 3], [-1, -1]]
    np.testing.assert_allclose(found.values[:, :, 0], [[3, 3, np.nan], [6, 3, np.nan]])
    assert found.positions[0, 0].tolist() == [[4, 1], [0, 7]]
    assert found.positions[0, 1, 0].tolist() == [5, 6]
    np.testing.assert_allclose(found.fractions[0, 0], [[4.5 / 6, 1.5 / 8], [0.5 / 6, 7.5 / 8]])
    assert found.channels.set_index(["snapshot", "channel"])["constant"].tolist() == [False, False, True] * 2
    assert found.turnover["kept"].tolist()[0] == 1
    assert found.turnover["kept"].tolist()[1] < 1


@pytest.mark.slow
def test_memory_stays_under_the_budget(tmp_path):
    """Of 40 MB of maps, 60 MB in float32."""
    values = np.random.default_rng(0).normal(size=(1, 160, 128, 32, 32)).astype(np.float16)
    path = tmp_path / "run.zarr"
    store(path, values)
    layer = open_run(path)["layer"]
    top_images(layer, samples=[0])
    expected = {by: searched(values[:, :, :2].astype(np.float64), k=9, by=by)[0] for by in ("max", "mean")}
    max_bytes = 8 << 20
    for by in ("max", "mean"):
        tracemalloc.start()
        found = top_images(layer, by=by, max_bytes=max_bytes)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < max_bytes
        np.testing.assert_array_equal(found.samples[:, :2], expected[by])


def test_memory_of_many_top_images_stays_under_the_budget(tmp_path):
    layer = store(tmp_path / "run.zarr", np.random.default_rng(0).normal(size=(1, 200, 900)))
    top_images(layer, samples=[0])
    least = 200 * 900 * 151 + (4 << 20)
    tracemalloc.start()
    top_images(layer, k=150, max_bytes=least)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < least
    with pytest.raises(MemoryError, match=r"the top images take 25\.9 MiB and a block 4 MiB, the budget is 29\.9 MiB"):
        top_images(layer, k=150, max_bytes=least - 1)


def test_a_damaged_chunk_is_an_error(tmp_path):
    path = tmp_path / "run.zarr"
    layer = store(path, np.random.default_rng(0).normal(size=(2, 4, 3, 2, 2)))
    for file in path.glob("layers/*/activation/c.1*"):
        file.write_bytes(file.read_bytes()[:-8])
    with pytest.raises(StoreError):
        top_images(layer)
    assert top_images(layer, snapshots=[0]).samples.shape == (1, 3, 4)


def test_what_cannot_be_is_refused(tmp_path):
    layer = store(
        tmp_path / "run.zarr", np.random.default_rng(0).normal(size=(2, 4, 3)), channels=(5, 1, 8), output=(9,)
    )
    with pytest.raises(TypeError, match="top_images received a Scores; expected Layer, made by open_run"):
        top_images(pca(layer.vectors("sample")))
    with pytest.raises(ValueError, match="by is 'median'; expected 'max', 'mean' or 'relevance'"):
        top_images(layer, by="median")
    with pytest.raises(ValueError, match="k is 0; expected at least 1"):
        top_images(layer, k=0)
    for k in (2.0, True):
        with pytest.raises(TypeError, match=r"k is .*; expected an integer"):
            top_images(layer, k=k)
    with pytest.raises(ValueError, match="there is no channel 2 of layer"):
        top_images(layer, channels=[8, 2])
    with pytest.raises(ValueError, match=r"channels is \[\]; expected the numbers of one or more channels"):
        top_images(layer, channels=[])
    for channels in ([True, False, True], [1.0]):
        with pytest.raises(TypeError, match=r"channels is of dtype .*; expected integers"):
            top_images(layer, channels=channels)
    with pytest.raises(ValueError, match="channels holds 8 more than once"):
        top_images(layer, channels=[8, 1, 8])
    with pytest.raises(ValueError, match="samples holds 2 more than once"):
        top_images(layer, samples=[2, 0, 2])
    with pytest.raises(ValueError, match="samples is empty"):
        top_images(layer, samples=[])
    with pytest.raises(ValueError, match="snapshot 2 is not in the run"):
        top_images(layer, snapshots=[2])
    with pytest.raises(ValueError, match="has no sample 9"):
        top_images(layer, samples=[9])


def test_relevance_is_the_loss_that_a_map_of_zeros_would_add_to_first_order(tmp_path):
    maps = np.zeros((1, 3, 2, 2, 2))
    maps[0, :, 0] = [[[1, 2], [0, 0]], [[3, 0], [0, 1]], [[0, 0], [0, 0]]]
    slopes = np.zeros_like(maps)
    slopes[0, :, 0] = [[[1, -2], [9, 9]], [[-1, 0], [0, -4]], [[5, 5], [5, 5]]]
    layer = stored_with_gradients(tmp_path / "run.zarr", maps, slopes)
    found = top_images(layer, by="relevance")
    # minus the sums of gradient times activation: 3, 7, 0; the largest part is 4 at (0, 1), and 4 at (1, 1)
    np.testing.assert_array_equal(found.samples[0, 0], [1, 0, 2])
    np.testing.assert_array_equal(found.values[0, 0], [7, 3, 0])
    np.testing.assert_array_equal(found.positions[0, 0, :2], [[1, 1], [0, 1]])
    assert found.channels["constant"].tolist() == [False, True]  # nothing of the second channel matters
    assert found.by == "relevance"


def test_relevance_needs_gradients(tmp_path):
    plain = store(tmp_path / "plain.zarr", np.ones((1, 2, 1, 2, 2)))
    with pytest.raises(ValueError, match="holds no gradients of layer 'layer'"):
        top_images(plain, by="relevance")
    both = stored_with_gradients(tmp_path / "both.zarr", np.ones((1, 2, 1, 2, 2)), np.ones((1, 2, 1, 2, 2)))
    with pytest.raises(ValueError, match=r"relevance of the gradients of layer was asked for; pass run\['layer'\]"):
        top_images(both.gradient, by="relevance")
