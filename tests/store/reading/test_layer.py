"""Gradients beside activations, and layers of which only a part is kept."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from fmcluster.store import Layer, LayerSpec, Run, RunWriter, missing_files, open_run, verify

OUTPUT, CHANNELS, CROP = (9, 12, 10), (7, 0, 4), ((2, 10), (0, 6))
SPEC = LayerSpec("conv1", (3, 4, 3), "float16", "Conv2d", output=OUTPUT, channels=CHANNELS, crop=CROP, gradient=True)
PLAIN = LayerSpec("fc", (5,), "float16", "Linear")


def maps_of(spec: LayerSpec, quantity: str) -> np.ndarray:
    rng = np.random.default_rng(len(quantity))
    return rng.normal(size=(2, 4, *spec.shape)).astype(spec.dtype_of(quantity))


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two snapshots of a layer that is cropped and averaged down, with some of its channels, and of a plain one."""
    path = tmp_path_factory.mktemp("kinds") / "run.zarr"
    with RunWriter(path) as writer:
        writer.create([SPEC, PLAIN], n_samples=4, shard_samples=3, kind="probe")
        for snapshot in range(2):
            statistics = {}
            for spec in (SPEC, PLAIN):
                for quantity in spec.quantities:
                    for offset in (0, 3):
                        rows = maps_of(spec, quantity)[snapshot, offset : offset + 3]
                        writer.write(spec.name, offset=offset, values=rows, quantity=quantity)
                    numbers = 10 * np.arange(spec.n_channels) + 100 * (quantity == "gradient") + snapshot
                    statistics[spec.name, quantity] = np.tile(numbers, (6, 1)).astype(float)
            writer.commit(
                epoch=snapshot, step=snapshot, index=np.arange(4), statistics=statistics, metrics={}, clipped={}
            )
    return path


@pytest.fixture
def run(path: Path) -> Run:
    return open_run(path)


def test_gradients_are_a_layer_of_their_own(run: Run) -> None:
    layer = run["conv1"]
    gradient = layer.gradient
    assert isinstance(gradient, Layer)
    assert (layer.quantity, gradient.quantity) == ("activation", "gradient")
    assert layer.quantities == gradient.quantities == ("activation", "gradient")
    assert (layer.name, gradient.name) == ("conv1", "conv1")
    assert (layer.label, gradient.label) == ("conv1", "conv1 gradient")
    assert (layer.dtype, gradient.dtype) == (np.float16, np.float32)
    assert gradient.nbytes == 2 * layer.nbytes
    assert repr(gradient).startswith("<Layer conv1 gradient (Conv2d): snapshot: 2, sample: 4, channel: 3")
    for snapshot in range(2):
        np.testing.assert_array_equal(layer.read(epoch=snapshot), maps_of(SPEC, "activation")[snapshot])
        np.testing.assert_array_equal(gradient.read(epoch=snapshot), maps_of(SPEC, "gradient")[snapshot])
    assert layer.statistics["mean"].tolist() == [0, 10, 20, 1, 11, 21]
    assert gradient.statistics["mean"].tolist() == [100, 110, 120, 101, 111, 121]
    vectors = gradient.vectors("channel")
    assert vectors.layer == "conv1 gradient"
    expected = maps_of(SPEC, "gradient").transpose(0, 2, 1, 3, 4).reshape(6, -1)
    np.testing.assert_array_equal(vectors.to_numpy(), expected)
    assert run.nbytes == 2 * 4 * (SPEC.sample_bytes + PLAIN.sample_bytes)
    assert SPEC.sample_bytes == 3 * 4 * 3 * (2 + 4)


def test_a_layer_without_gradients_says_so(run: Run) -> None:
    assert run["fc"].quantities == ("activation",)
    with pytest.raises(ValueError, match=r"holds no gradients of layer 'fc'; record them with Recorder\("):
        _ = run["fc"].gradient


def test_channels_go_by_the_modules_numbers(run: Run) -> None:
    for layer, quantity in ((run["conv1"], "activation"), (run["conv1"].gradient, "gradient")):
        maps = maps_of(SPEC, quantity)[1]
        assert layer.n_channels == 3
        assert layer.channels.dtype == np.int64
        assert layer.channels.tolist() == [7, 0, 4]
        np.testing.assert_array_equal(layer.read(epoch=1, channels=0), maps[:, [1]])
        np.testing.assert_array_equal(layer.read(epoch=1, channels=[4, 7, 4]), maps[:, [2, 0, 2]])
        np.testing.assert_array_equal(layer.read(epoch=1, channels=slice(0, 2)), maps[:, :2])
        assert layer.statistics["channel"].tolist() == [7, 0, 4, 7, 0, 4]
        assert layer.vectors("channel").rows["channel"].tolist() == [7, 0, 4, 7, 0, 4]
        drawn = layer.vectors("feature_map", n_rows=5, random_state=1)
        where = {7: 0, 0: 1, 4: 2}
        for row, vector in zip(drawn.rows.itertuples(), drawn.to_numpy(), strict=True):
            expected = maps_of(SPEC, quantity)[row.snapshot, row.sample, where[row.channel]].ravel()
            np.testing.assert_array_equal(vector, expected.astype(np.float32))
    assert run["fc"].channels.tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("channels", [1, [7, 8], -1, [0, 3]])
def test_a_channel_that_was_not_kept_is_said_with_those_that_were(channels: object, run: Run) -> None:
    with pytest.raises(ValueError, match=r"there is no channel -?\d of conv1; 3 were recorded: 0, 4, 7"):
        run["conv1"].read(epoch=0, channels=channels)
    with pytest.raises(ValueError, match="of conv1 gradient; 3 were recorded"):
        run["conv1"].gradient.read(epoch=0, channels=channels)


def test_what_was_done_to_a_layer_is_told(run: Run, path: Path) -> None:
    layer = run["conv1"]
    assert (layer.output_shape, layer.crop, layer.average_pooled) == (OUTPUT, CROP, True)
    assert (run["fc"].output_shape, run["fc"].crop, run["fc"].average_pooled) == ((5,), None, False)
    nodes = json.loads((path / "zarr.json").read_bytes())["consolidated_metadata"]["metadata"]
    assert nodes["layers/conv1"]["attributes"] == {
        "name": "conv1",
        "module": "Conv2d",
        "output": [9, 12, 10],
        "crop": [[2, 10], [0, 6]],
        "average_pooled": True,
    }
    assert nodes["layers/fc"]["attributes"] == {"name": "fc", "module": "Linear", "output": [5]}
    assert "layers/fc/channel" not in nodes
    assert nodes["layers/conv1/channel"]["dimension_names"] == ["channel"]


def test_xarray_alone_reads_gradients_and_channels_by_number(path: Path) -> None:
    with xr.open_datatree(path, engine="zarr") as tree:
        node = tree["layers/conv1"]
        assert node["channel"].values.tolist() == [7, 0, 4]
        for quantity in SPEC.quantities:
            assert node[quantity].dims == ("snapshot", "sample", "channel", "height", "width")
            chosen = node[quantity].isel(snapshot=1).sel(channel=4)
            np.testing.assert_array_equal(chosen.values, maps_of(SPEC, quantity)[1, :, 2])
        found = node["gradient_statistics"].sel(statistic="max", channel=0)
        assert found.values.tolist() == [110, 111]
        assert "channel" not in tree["layers/fc"].coords
    with open_run(path).to_xarray() as ours, xr.open_datatree(path, engine="zarr") as alone:
        xr.testing.assert_identical(ours.load(), alone.load())


@pytest.mark.parametrize(
    "name",
    ["gradient/c.1.1.0.0.0", "gradient/c.0.0.0.0.0", "gradient_statistics/c.1.0.0", "channel/c.0"],
)
def test_what_is_lost_beside_the_activations_is_told(name: str, path: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(path, tmp_path / "run.zarr"))
    (copy / "layers/conv1" / name).unlink()
    run = open_run(copy)
    assert missing_files(run) == [f"layers/conv1/{name}"]
    damage = verify(run)
    assert len(damage) == 1
    assert f"layers/conv1/{name} is missing" in damage[0]


def test_gradients_are_read_without_the_scale_of_their_loss(path: Path, tmp_path: Path) -> None:
    """Also of several snapshots at once, of samples in any order; and not where the scale is not known."""
    scales = np.array([[1.0, 8.0, 3.0, 0.25], [2.0, np.nan, 1e4, 1.0]])
    with RunWriter(tmp_path / "run.zarr") as writer:
        writer.create([SPEC, PLAIN], n_samples=4, shard_samples=4, kind="probe")
        for snapshot in range(2):
            statistics = {(s.name, q): np.zeros((6, s.n_channels)) for s in (SPEC, PLAIN) for q in s.quantities}
            for spec in (SPEC, PLAIN):
                for quantity in spec.quantities:
                    rows = maps_of(spec, quantity)[snapshot]
                    writer.write(spec.name, offset=0, values=rows, quantity=quantity)
            writer.commit(
                epoch=snapshot,
                step=snapshot,
                index=np.arange(4),
                statistics=statistics,
                metrics={},
                clipped={},
                loss_scale=scales[snapshot],
            )
    run = open_run(tmp_path / "run.zarr")
    assert verify(run) == []
    np.testing.assert_array_equal([run.loss_scale(k) for k in range(2)], scales)
    stored, gradient = maps_of(SPEC, "gradient"), run["conv1"].gradient
    np.testing.assert_array_equal(gradient.read(epoch=0), stored[0])
    found = gradient.read(epoch=0, samples=[3, 1], unscaled=True)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, stored[0, [3, 1]] / np.float32([0.25, 8])[:, None, None, None])
    np.testing.assert_array_equal(
        gradient.read(samples=[2, 0], channels=[4], unscaled=True),
        (stored[:, [2, 0]][:, :, [2]] / scales[:, [2, 0], None, None, None]).astype(np.float32),
    )
    with pytest.raises(
        ValueError, match=r"holds no loss scale for 1 of the 4 samples asked for of snapshot 1.*batch\("
    ):
        gradient.read(epoch=1, unscaled=True)
    with pytest.raises(ValueError, match="for the activation of layer 'conv1'; only gradients have a loss scale"):
        run["conv1"].read(epoch=0, unscaled=True)
    with pytest.raises(ValueError, match="holds no loss scale for 4 of the 4 samples"):
        open_run(path)["conv1"].gradient.read(epoch=0, unscaled=True)
