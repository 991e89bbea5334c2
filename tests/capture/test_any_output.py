"""Outputs of every kind: videos, signals, quantized numbers, several rows for each sample, dataclasses."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

import fmcluster as fm
from fmcluster.store import Run

GENERATOR = torch.Generator().manual_seed(5)
IMAGES = torch.rand(6, 3, 8, 8, generator=GENERATOR)
VIDEOS = torch.rand(6, 3, 4, 8, 8, generator=GENERATOR)


class Around(nn.Module):
    """A convolution, and a module that makes something of what it returns."""

    def __init__(self, inner: nn.Module, conv: nn.Module | None = None) -> None:
        super().__init__()
        self.conv = conv or nn.Conv2d(3, 5, 3)
        self.inner = inner

    def forward(self, x: torch.Tensor) -> Any:
        return self.inner(self.conv(x))


class Makes(nn.Module):
    def __init__(self, make: Callable[[torch.Tensor], Any]) -> None:
        super().__init__()
        self.make = make

    def forward(self, x: torch.Tensor) -> Any:
        return self.make(x)


def record(model: nn.Module, path: Path, *, inputs: torch.Tensor = IMAGES, **options: Any) -> Run:
    probe = [(each, 0) for each in inputs]
    with fm.Recorder(model, path, probe=probe, dtype="float32", **{"batch_size": 3, **options}) as recorder:
        recorder.snapshot(epoch=0)
    return fm.open_run(path)


def batches(model: nn.Module, inputs: torch.Tensor) -> list[torch.Tensor]:
    with torch.no_grad():
        return [model(inputs[:3]), model(inputs[3:])]


class TestVideos:
    def test_frames_are_an_axis_with_a_name(self, tmp_path: Path) -> None:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Conv3d(3, 5, 3, padding=1), nn.ReLU())
        run = record(model, tmp_path / "run.zarr", inputs=VIDEOS)
        expected = torch.cat(batches(model, VIDEOS)).numpy()
        layer = run["1"]
        assert layer.dimensions == ("snapshot", "sample", "channel", "frame", "height", "width")
        assert set(run.to_xarray()["layers/1/activation"].dims) == set(layer.dimensions)
        np.testing.assert_array_equal(layer.read(epoch=0), expected)
        np.testing.assert_array_equal(layer.read(epoch=0, samples=[4], channels=[3, 1]), expected[[4]][:, [3, 1]])
        mean = layer.statistics["mean"].to_numpy()
        np.testing.assert_allclose(mean, expected.mean((0, 2, 3, 4), dtype=np.float64), rtol=1e-12)

    @pytest.mark.parametrize("rows", [slice(None), slice(3, 19), slice(8, 16), slice(31, 32)])
    def test_frames_lie_under_one_another_in_feature_maps(self, rows: slice, tmp_path: Path) -> None:
        model = nn.Sequential(nn.Conv3d(3, 5, 3, padding=1))
        layer = record(model, tmp_path / "run.zarr", inputs=VIDEOS)["0"]
        expected = torch.cat(batches(model, VIDEOS)).numpy().reshape(6, 5, 32, 8)
        found = layer.read_feature_maps(snapshot=0, samples=np.array([5, 2]), channels=slice(1, 4), rows=rows)
        np.testing.assert_array_equal(found, expected[[5, 2], 1:4, rows])
        assert layer.feature_map_shape == (5, 32, 8)

    def test_vectors_components_and_pictures_are_made_of_them(self, tmp_path: Path) -> None:
        model = nn.Sequential(nn.Conv3d(3, 5, 3, padding=1))
        layer = record(model, tmp_path / "run.zarr", inputs=VIDEOS)["0"]
        expected = torch.cat(batches(model, VIDEOS)).numpy()
        np.testing.assert_array_equal(
            layer.vectors("channel").to_numpy(), expected.transpose(1, 0, 2, 3, 4).reshape(5, -1)
        )
        assert fm.pca(layer.vectors("position"), n_components=3).values.shape == (6 * 32 * 8, 3)
        assert fm.plot.channel_grid(layer, epoch=0, sample=0).axes

    def test_they_are_cropped_and_averaged_frame_by_frame(self, tmp_path: Path) -> None:
        model = nn.Sequential(nn.Conv3d(3, 5, 3, padding=1))
        crop = (slice(0, 6), slice(2, 8))
        layer = record(model, tmp_path / "run.zarr", inputs=VIDEOS, crop=crop, max_size=3, channels=[4, 0])["0"]
        expected = torch.cat(batches(model, VIDEOS))[:, [4, 0], :, :6, 2:]
        np.testing.assert_allclose(
            layer.read(epoch=0), functional.avg_pool3d(expected, (1, 2, 2)).numpy(), rtol=1e-5, atol=1e-7
        )

    def test_channels_last_are_stored_first(self, tmp_path: Path) -> None:
        model = nn.Sequential(nn.Conv3d(3, 5, 3), Makes(lambda x: x.permute(0, 2, 3, 4, 1)), nn.LayerNorm(5))
        layer = record(model, tmp_path / "run.zarr", inputs=VIDEOS)["2"]
        expected = torch.cat(batches(model, VIDEOS)).permute(0, 4, 1, 2, 3).numpy()
        np.testing.assert_array_equal(layer.read(epoch=0), expected)


def test_signals_have_an_axis_of_time(tmp_path: Path) -> None:
    signals = torch.rand(6, 2, 40, generator=GENERATOR)
    model = nn.Sequential(nn.Conv1d(2, 5, 3), nn.ReLU())
    run = record(model, tmp_path / "run.zarr", inputs=signals, channels=[3, 0], max_size=4)
    expected = torch.cat(batches(model, signals)).numpy()[:, [3, 0]]
    layer = run["1"]
    assert layer.dimensions == ("snapshot", "sample", "channel", "time")
    np.testing.assert_array_equal(layer.read(epoch=0), expected)
    np.testing.assert_array_equal(layer.vectors("feature_map").to_numpy(), expected.reshape(12, 38))
    assert fm.plot.channel_grid(layer, epoch=0, sample=0).axes


class TestSeveralRowsForEachSample:
    @pytest.mark.parametrize("by_sample", [True, False])
    def test_feature_maps_become_frames(self, by_sample: bool, tmp_path: Path) -> None:
        def make(x: torch.Tensor) -> torch.Tensor:
            both = torch.stack([x, 2 * x], dim=1 if by_sample else 0)
            return both.flatten(0, 1)

        model = Around(Makes(make))
        run = record(model, tmp_path / "run.zarr")
        maps = torch.cat(batches(model.conv, IMAGES))
        assert run["inner"].dimensions[2:] == ("channel", "frame", "height", "width")
        np.testing.assert_array_equal(run["inner"].read(epoch=0), torch.stack([maps, 2 * maps], dim=2).numpy())
        np.testing.assert_allclose(
            run["inner"].statistics["max"].to_numpy(), (2 * maps).amax((0, 2, 3)).numpy(), rtol=1e-6
        )

    @pytest.mark.parametrize("by_sample", [True, False])
    def test_vectors_and_tokens_become_tokens(self, by_sample: bool, tmp_path: Path) -> None:
        model = Around(Makes(lambda x: torch.stack([x, -x], dim=1 if by_sample else 0).flatten(0, 1)), nn.Flatten())
        model.conv = nn.Sequential(nn.Flatten(2), nn.Linear(64, 7))
        run = record(model, tmp_path / "run.zarr")
        tokens = torch.cat(batches(model.conv, IMAGES))
        assert run["inner"].dimensions[2:] == ("token", "channel")
        np.testing.assert_array_equal(run["inner"].read(epoch=0), torch.cat([tokens, -tokens], dim=1).numpy())

    def test_gradients_are_folded_alike(self, tmp_path: Path) -> None:
        model = Around(Makes(lambda x: torch.cat([x, 2 * x])))
        path, probe = tmp_path / "run.zarr", [(image, 0) for image in IMAGES]
        both = ("activation", "gradient")
        with fm.Recorder(model, path, probe=probe, batch_size=6, record=both, dtype="float32") as recorder:
            recorder.snapshot(epoch=0, loss=lambda out, _: out[:6].sum() + 3 * out[6:].sum())
        found = fm.open_run(path)["inner"].gradient.read(epoch=0)
        assert (found[:, :, 0] == 1).all()
        assert (found[:, :, 1] == 3).all()

    def test_of_default_layers_what_cannot_be_told_is_left_out_with_a_note(self, tmp_path: Path) -> None:
        run = record(Around(Makes(lambda x: torch.ones(2 * len(x), 4))), tmp_path / "run.zarr")
        assert run.layers == ["conv"]
        assert "which of them belong to which sample cannot be told" in run.provenance[-1]["left_out"]["inner"]


@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor")
def test_quantized_numbers_are_stored_as_what_they_stand_for_with_their_scale(tmp_path: Path) -> None:
    model = Around(Makes(lambda x: torch.quantize_per_tensor(x, 0.02, 3, torch.qint8)))
    run = record(model, tmp_path / "run.zarr")
    expected = torch.quantize_per_tensor(torch.cat(batches(model.conv, IMAGES)), 0.02, 3, torch.qint8).dequantize()
    np.testing.assert_array_equal(run["inner"].read(epoch=0), expected.numpy())
    assert run["inner"].quantization == (0.02, 3)
    assert run["conv"].quantization is None


@pytest.mark.filterwarnings("ignore:torch.quantize_per_")
def test_scales_of_each_channel_are_kept_too(tmp_path: Path) -> None:
    def quantized(x: torch.Tensor) -> torch.Tensor:
        scales, points = torch.linspace(0.25, 1.0, x.shape[1]), torch.arange(x.shape[1])
        return torch.quantize_per_channel(x, scales, points, 1, torch.qint8)

    model = Around(Makes(quantized))
    run = record(model, tmp_path / "run.zarr")
    expected = quantized(torch.cat(batches(model.conv, IMAGES))).dequantize()
    np.testing.assert_array_equal(run["inner"].read(epoch=0), expected.numpy())
    scales, points = run["inner"].quantization
    assert scales == pytest.approx(np.linspace(0.25, 1.0, run["inner"].n_channels).tolist())
    assert points == tuple(range(run["inner"].n_channels))


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_nested_tensors_are_left_out_and_what_follows_is_recorded(tmp_path: Path) -> None:
    model = Around(nn.Sequential(Makes(lambda x: torch.nested.nested_tensor(list(x))), nn.ReLU()))
    model.inner.append(Makes(lambda x: x.to_padded_tensor(0.0)))
    run = record(model, tmp_path / "run.zarr", layers="leaves")
    assert {"inner.0", "inner.1"} <= set(run.provenance[-1]["left_out"])
    expected = torch.cat(batches(model.conv, IMAGES)).relu()
    np.testing.assert_array_equal(run["inner.2"].read(epoch=0), expected.numpy())


def test_dataclasses_are_layers_by_field(tmp_path: Path) -> None:
    @dataclass
    class Out:
        maps: torch.Tensor
        count: int

    model = Around(Makes(lambda x: Out(2 * x, len(x))))
    run = record(model, tmp_path / "run.zarr")
    assert run.layers == ["conv", "inner[maps]"]
    np.testing.assert_array_equal(run["inner[maps]"].read(epoch=0), 2 * torch.cat(batches(model.conv, IMAGES)).numpy())


def test_what_never_fires_is_noted(tmp_path: Path) -> None:
    model = Around(nn.ReLU())
    model.aside = nn.Linear(2, 2)
    run = record(model, tmp_path / "run.zarr")
    assert run.provenance[-1]["left_out"] == {"aside": "it was not called, or returned no tensor"}
    live = fm.BatchRecorder(model, tmp_path / "live.zarr", n_samples=6)
    with live as recorder, recorder.epoch(0), recorder.batch(range(6)):
        model(IMAGES)
    assert "aside" in fm.open_run(tmp_path / "live.zarr").provenance[-1]["left_out"]


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (torch.fft.fft2, "complex64 of shape (6, 5, 6, 6)"),
        (lambda x: x.flatten(1).to_sparse(), "sparse_coo float32 of shape (6, 180)"),
        (lambda x: x > 0, "bool of shape (6, 5, 6, 6)"),
        (lambda x: x.to(torch.float8_e4m3fn), "float8_e4m3fn of shape (6, 5, 6, 6)"),
        (lambda x: torch.zeros(0, 4), "float32 of shape (0, 4)"),
        (lambda x: x[:, :0], "float32 of shape (6, 0, 6, 6)"),
        (lambda x: x.mean(), "float32 of shape ()"),
        (lambda x: x[..., None, None], "float32 of shape (6, 5, 6, 6, 1, 1)"),
    ],
    ids=["complex", "sparse", "bool", "float8", "no rows", "no channels", "scalar", "six axes"],
)
def test_what_is_no_batch_of_numbers_is_left_out_or_refused_by_what_it_is(make: Any, told: str, tmp_path: Path) -> None:
    model = Side(Makes(make))
    assert (
        record(model, tmp_path / "run.zarr", batch_size=6)
        .provenance[-1]["left_out"]["inner"]
        .startswith(f"it returned {told} for a batch of 6")
    )
    with pytest.raises(fm.CaptureError, match=re.escape(f"layer 'inner' (Makes) returned {told} for a batch of 6")):
        record(model, tmp_path / "named.zarr", batch_size=6, layers="inner")
    assert not (tmp_path / "named.zarr").exists()


class Side(Around):
    """The same, which goes on with what the convolution returned."""

    def forward(self, x: torch.Tensor) -> Any:
        self.inner(x := self.conv(x))
        return x


@pytest.mark.parametrize("live", [False, True])
def test_tensors_of_other_classes_are_recorded_as_their_values(live: bool, tmp_path: Path) -> None:
    def subclass(x: torch.Tensor) -> torch.Tensor:
        return x.as_subclass(type("Named", (torch.Tensor,), {}))

    for name, make in {"subclass": subclass, "parameter": nn.Parameter}.items():
        model, path = Side(Makes(make)), tmp_path / f"{name}.zarr"
        expected = model.conv(IMAGES).detach().numpy()
        if live:
            recorder = fm.BatchRecorder(model, path, n_samples=6, dtype="float32")
            with recorder, recorder.epoch(0), recorder.batch(range(6)):
                model(IMAGES)
            run = fm.open_run(path)
        else:
            run = record(model, path, batch_size=6)
        np.testing.assert_array_equal(run["inner"].read(epoch=0), expected)


class WithAuxiliaryHeads(Around):
    def __init__(self) -> None:
        super().__init__(nn.ReLU())
        self.aux1, self.aux2 = nn.Linear(5, 2), nn.Linear(5, 2)


@pytest.mark.parametrize("layers", [["*", "!inner"], ["aux?", "c*"], [re.compile("conv|aux.")], "*"])
def test_of_patterns_what_never_fires_is_left_out_and_named(layers: Any, tmp_path: Path) -> None:
    run = record(WithAuxiliaryHeads(), tmp_path / "run.zarr", layers=layers)
    assert "conv" in run.layers
    assert {"aux1", "aux2"} <= run.provenance[-1]["left_out"].keys()


@pytest.mark.parametrize("layers", ["aux?", ["aux1"], ["*", "aux1"]])
def test_what_never_fires_is_refused_where_it_is_all_there_is_or_was_named(layers: Any, tmp_path: Path) -> None:
    with pytest.raises(fm.CaptureError, match="layer 'aux1' did not fire .*" + ("aux2" if layers == "aux?" else "")):
        record(WithAuxiliaryHeads(), tmp_path / "run.zarr", layers=layers)
    assert not (tmp_path / "run.zarr").exists()
