"""Channel axes: known from the modules that make the outputs, told by an option, or said to be a guess."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torchvision.models.convnext import CNBlockConfig, ConvNeXt
from torchvision.models.swin_transformer import SwinTransformer

import fmcluster as fm
from fmcluster.capture.layers._axis_tracker import Arrangement

IMAGES = torch.rand(6, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def swin() -> nn.Module:
    return SwinTransformer([4, 4], 12, [1, 1], [2, 2], [4, 4], num_classes=5)


def convnext() -> nn.Module:
    return ConvNeXt([CNBlockConfig(8, 12, 1), CNBlockConfig(12, None, 1)], num_classes=5)


def cloned(model: nn.Module, names: list[str], images: torch.Tensor) -> dict[str, torch.Tensor]:
    out: dict[str, torch.Tensor] = {}
    modules = dict(model.named_modules())
    handles = [
        modules[name].register_forward_hook(lambda _m, _i, output, name=name: out.__setitem__(name, output.clone()))
        for name in names
    ]
    with torch.no_grad():
        model.eval()(images)
    for handle in handles:
        handle.remove()
    return out


def record(model: nn.Module, path: Path, *, images: torch.Tensor = IMAGES, **options: Any) -> fm.store.Run:
    with fm.Recorder(model, path, probe=[(image, 0) for image in images], dtype="float32", **options) as recorder:
        recorder.snapshot(epoch=0)
    return fm.open_run(path)


def n_channels_of(module: nn.Module) -> int | None:
    for name in ("out_channels", "out_features", "num_features", "num_channels"):
        if hasattr(module, name):
            return int(getattr(module, name))
    return int(module.normalized_shape[-1]) if isinstance(module, nn.LayerNorm) else None


def is_wanted(name: str, module: nn.Module) -> bool:
    """Whether a module has channels of a known number, and is called: attention takes the weights of its own."""
    return n_channels_of(module) is not None and not name.endswith((".qkv", ".proj"))


@pytest.mark.slow
@pytest.mark.parametrize("make", [swin, convnext])
def test_every_layer_has_as_many_channels_as_its_module_and_the_values_of_its_clone(make: Any, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = make()
    run = record(model, tmp_path / "run.zarr", layers=is_wanted)
    assert len(run.layers) > 10
    expected = cloned(model, [name.split(".call")[0] for name in run.layers], IMAGES)
    for name in run.layers:
        layer, module = run[name], model.get_submodule(name)
        count = n_channels_of(module)
        assert layer.n_channels == count, name
        assert layer.channel_axis_source == "module", name
        out = expected[name]
        last = out.ndim == 4 and isinstance(module, nn.Linear | nn.LayerNorm) and "2d" not in type(module).__name__
        truth = out.permute(0, 3, 1, 2) if last else out
        np.testing.assert_array_equal(layer.read(epoch=0), truth.numpy(), err_msg=name)
        means = truth.double().mean([axis for axis in range(truth.ndim) if axis != (1 if truth.ndim != 3 else 2)])
        np.testing.assert_allclose(layer.statistics["mean"], means, rtol=1e-5, atol=1e-6, err_msg=name)


def test_blocks_have_their_channels_where_what_they_return_last_has_them(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = swin()
    run = record(model, tmp_path / "run.zarr")
    assert run.layers == ["features", "norm", "permute", "avgpool", "flatten", "head"]
    shapes = cloned(model, run.layers, IMAGES)
    assert [run[name].n_channels for name in run.layers] == [24, 24, 24, 24, 24, 5]
    assert shapes["features"].shape[-1] == shapes["permute"].shape[1] == 24
    np.testing.assert_array_equal(run["features"].read(epoch=0), shapes["features"].permute(0, 3, 1, 2).numpy())
    np.testing.assert_array_equal(run["permute"].read(epoch=0), shapes["permute"].numpy())


def test_signals_keep_their_channels_live_and_with_gradients(tmp_path: Path) -> None:
    class Wave(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm, self.fc = nn.Conv1d(2, 5, 3), nn.BatchNorm1d(5), nn.Linear(5, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.fc(torch.relu(self.norm(self.conv(x))).mean(2))

    model, waves = Wave(), torch.randn(6, 2, 40)
    run = record(model, tmp_path / "probe.zarr", images=waves)
    expected = cloned(model, ["conv", "norm"], waves)
    for name in ("conv", "norm"):
        assert run[name].n_channels == 5
        np.testing.assert_array_equal(run[name].read(epoch=0), expected[name].numpy())
        assert run[name].dimensions == ("snapshot", "sample", "channel", "time")
        assert run[name].feature_map_shape == (5, 38, 1)
    both = ("activation", "gradient")
    path, kept = tmp_path / "live.zarr", {}
    with (
        fm.BatchRecorder(model.train(), path, n_samples=6, record=both, dtype="float32") as recorder,
        recorder.epoch(0),
        recorder.batch(range(6)),
    ):
        model.conv.register_forward_hook(lambda _m, _i, out: kept.setdefault("conv", out).retain_grad())
        model(waves).square().sum().backward()
    layer = fm.open_run(path)["conv"]
    np.testing.assert_array_equal(layer.read(epoch=0), kept["conv"].detach().numpy())
    np.testing.assert_array_equal(layer.gradient.read(epoch=0), kept["conv"].grad.numpy())


class Strange(nn.Module):
    """Returns (n, height, width, channel), and no module tells so."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.stack([x.mean(1), x.amax(1), x.amin(1), x.sum(1), x.std(1)], dim=-1)


def test_an_option_says_what_no_module_does(tmp_path: Path) -> None:
    model = nn.Sequential(Strange())
    guessed, said = (
        record(model, tmp_path / f"{number}.zarr", **options)["0"]
        for number, options in enumerate([{}, {"channel_axis": {"0": -1}}])
    )
    assert (guessed.n_channels, guessed.channel_axis_source) == (32, "shape")
    assert (said.n_channels, said.channel_axis_source) == (5, "option")
    np.testing.assert_array_equal(said.read(epoch=0), model(IMAGES).permute(0, 3, 1, 2).numpy())


def test_pooling_and_channels_are_of_the_channels(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.LayerNorm(32), Strange())
    run = record(model, tmp_path / "run.zarr", layers=["1"], channel_axis=-1, max_size=4, channels=[4, 0])
    expected = nn.functional.adaptive_avg_pool2d(cloned(model, ["1"], IMAGES)["1"].permute(0, 3, 1, 2), 4)[:, [4, 0]]
    np.testing.assert_allclose(run["1"].read(epoch=0), expected.numpy(), rtol=1e-6)


@pytest.mark.parametrize("axis", [0, 5, -5, 1.0, True, "last"])
def test_an_axis_that_cannot_be_meant_is_refused(axis: Any, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"channel_axis is {axis!r}; expected an axis of a batch of outputs"):
        fm.Recorder(nn.Sequential(Strange()), tmp_path / "run.zarr", probe=[(IMAGES[0], 0)], channel_axis=axis)


def test_an_axis_that_the_outputs_do_not_have_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"channel_axis of layer '0' is 3; its outputs have 2 axes"):
        record(nn.Sequential(nn.Flatten()), tmp_path / "run.zarr", channel_axis=3)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("shape", "axis", "expected"),
    [
        ((5, 7, 3), 3, (3, 5, 7)),
        ((5, 7, 3), 2, (7, 5, 3)),
        ((5, 7), 1, (5, 1, 7)),
        ((5, 7), 2, (5, 7)),
        ((9,), 1, (9,)),
        ((4, 5, 6, 3), 4, (3, 4, 5, 6)),
        ((3, 4, 5, 6), 1, (3, 4, 5, 6)),
    ],
)
def test_shapes_in_order(shape: tuple[int, ...], axis: int, expected: tuple[int, ...]) -> None:
    assert Arrangement(axis).shape(shape) == expected
    assert Arrangement(axis).of(torch.empty(2, *shape)).shape == (2, *expected)


class ChannelsSecond(nn.Linear):
    """As what replaces a convolution of kernel size 1."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x.movedim(1, -1)).movedim(-1, 1)


class ChannelsLast(nn.Conv2d):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x).permute(0, 2, 3, 1)


class Patches(nn.Conv2d):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x).flatten(2).transpose(1, 2)


@pytest.mark.parametrize("live", [False, True])
@pytest.mark.parametrize(
    ("module", "order"),
    [
        (ChannelsSecond(3, 9), (0, 1, 2, 3)),
        (ChannelsSecond(3, 32), (0, 1, 2, 3)),  # as many as columns
        (ChannelsLast(3, 9, 3), (0, 3, 1, 2)),
        (ChannelsLast(3, 30, 3), (0, 3, 1, 2)),
        (Patches(3, 9, 8, 8), (0, 1, 2)),
    ],
    ids=str,
)
def test_classes_of_ones_own_may_turn_what_torchs_return(
    module: nn.Module, order: tuple[int, ...], live: bool, tmp_path: Path
) -> None:
    model = nn.Sequential(module, nn.ReLU())
    if live:
        path = tmp_path / "run.zarr"
        recorder = fm.BatchRecorder(model, path, n_samples=6, dtype="float32")
        with recorder, recorder.epoch(0), recorder.batch(range(6)):
            model(IMAGES)
        run = fm.open_run(path)
    else:
        run = record(model, tmp_path / "run.zarr", images=IMAGES)
    wanted = module(IMAGES).permute(order).detach().numpy()
    np.testing.assert_allclose(run["0"].read(epoch=0), wanted, atol=1e-6)
    np.testing.assert_allclose(run["1"].read(epoch=0), wanted.clip(0), atol=1e-6)
    assert run["0"].n_channels == n_channels_of(module)


def test_what_only_its_size_tells_of_a_class_of_ones_own(tmp_path: Path) -> None:
    class Untraced(nn.Conv2d):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            with torch._C._DisableTorchDispatch():  # as an extension in C++ computes
                return super().forward(x).permute(0, 2, 3, 1).contiguous()

    layer = record(nn.Sequential(Untraced(3, 9, 3)), tmp_path / "run.zarr")["0"]
    assert layer.shape[2:] == (9, 30, 30)


SIGNALS = torch.rand(5, 4, 40, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    "module",
    [nn.LPPool1d(2, 2), nn.Dropout1d(), nn.Upsample(scale_factor=2), nn.ZeroPad1d(1), nn.PReLU(4), nn.AvgPool1d(2)],
    ids=str,
)
def test_modules_that_take_channels_second_say_so(module: nn.Module, tmp_path: Path) -> None:
    layer = record(nn.Sequential(module), tmp_path / "run.zarr", images=SIGNALS)["0"]
    assert layer.dimensions[2:] == ("channel", "time")
    assert layer.n_channels == 4


@pytest.mark.parametrize(
    ("change", "n_channels"),
    [
        (nn.GLU(1), 4),
        (nn.GLU(2), 8),
        (lambda x: x.repeat(1, 1, 3), 8),
        (lambda x: x.topk(5, dim=2).values, 8),
        (lambda x: torch.fft.rfft(x).abs(), 8),
    ],
)
def test_channels_are_followed_where_an_axis_changes_its_length(change: Any, n_channels: int, tmp_path: Path) -> None:
    class Changed(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return change(x)

    layer = record(nn.Sequential(nn.Conv1d(4, 8, 3), Changed()), tmp_path / "run.zarr", images=SIGNALS)["1"]
    assert layer.dimensions[2:] == ("channel", "time")
    assert layer.n_channels == n_channels
