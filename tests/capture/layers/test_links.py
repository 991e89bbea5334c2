"""What each recorded module was given: of modules, functions, residual sums, and kernels' geometries."""

import re
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional

import fmcluster as fm
from fmcluster.capture.layers._links import kernel_geometry
from fmcluster.store import KernelGeometry, LayerInput
from tests.capture.small_net import SmallNet


class Functional(nn.Module):
    """Activations that are functions: plain, in place, and another that is not followed."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c, self.d = (nn.Conv2d(3, 3, 1) for _ in range(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.b(functional.relu(self.a(x)))
        x = self.c(functional.relu(x, inplace=True))
        return self.d(torch.tanh(x)).mean((2, 3))


def inputs_of(model: nn.Module, path: Path, **options: object) -> dict[str, LayerInput | None]:
    probe = list(torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0)))
    with fm.Recorder(model, path, probe=probe, **options) as recorder:
        recorder.snapshot(epoch=0)
    run = fm.open_run(path)
    return {name: run[name].input for name in run.layers}


@pytest.mark.slow
def test_a_tensor_is_known_again_also_where_it_is_changed_in_place(tmp_path: Path) -> None:
    found = inputs_of(SmallNet().eval(), tmp_path / "run.zarr", layers=re.compile(".*"))
    block = "layer1.1"
    assert found["conv1"] is None
    assert found["bn1"] == LayerInput("conv1")
    assert found["relu"] == LayerInput("bn1")
    assert found[f"{block}.conv.call0"] == LayerInput("layer1.0")
    assert found[f"{block}.bn.call0"] == LayerInput(f"{block}.conv.call0")
    assert found[f"{block}.relu.call0"] == LayerInput(f"{block}.bn.call0")
    assert found[f"{block}.conv.call1"] == LayerInput(f"{block}.relu.call0")
    assert found[f"{block}.relu.call1"] is None  # the sum of branch and shortcut
    assert found[block] == LayerInput("layer1.0")
    assert found["fc"] is None  # flattened between


def test_only_recorded_outputs_are_named(tmp_path: Path) -> None:
    found = inputs_of(SmallNet().eval(), tmp_path / "run.zarr", layers=["conv1", "relu", "layer1.0", "layer1.1.conv"])
    assert found == {
        "conv1": None,
        "relu": None,
        "layer1.0": LayerInput("relu"),
        "layer1.1.conv.call0": LayerInput("layer1.0"),
        "layer1.1.conv.call1": None,
    }


def test_a_rectifier_that_is_a_function_is_followed(tmp_path: Path) -> None:
    found = inputs_of(Functional().eval(), tmp_path / "run.zarr", layers="leaves")
    assert found == {"a": None, "b": LayerInput("a", relu=True), "c": LayerInput("b", relu=True), "d": None}


def test_in_inference_mode_nothing_is_known_and_nothing_breaks(tmp_path: Path) -> None:
    with torch.inference_mode():
        found = inputs_of(SmallNet().eval(), tmp_path / "run.zarr", layers=["conv1", "bn1"])
    assert found == {"conv1": None, "bn1": None}


@pytest.mark.parametrize(
    ("module", "padding"),
    [
        (nn.Conv2d(4, 4, (3, 5), padding=(1, 2)), ((1, 1), (2, 2))),
        (nn.Conv2d(4, 4, (3, 5), padding="valid"), ((0, 0), (0, 0))),
        (nn.Conv2d(4, 4, (5, 3), padding="same", dilation=(1, 2)), ((2, 2), (2, 2))),
    ],
)
def test_the_geometry_of_a_kernel_says_where_it_looks(module: nn.Conv2d, padding: object) -> None:
    geometry = kernel_geometry(module)
    assert geometry == KernelGeometry(module.kernel_size, module.stride, padding, module.dilation, 1)
    x = torch.randn(2, 4, 9, 11, generator=torch.Generator().manual_seed(0))
    (top, bottom), (left, right) = geometry.padding
    seen = functional.unfold(
        functional.pad(x, [left, right, top, bottom]), geometry.size, dilation=geometry.dilation, stride=geometry.stride
    )
    expected = module(x)
    found = module.weight.flatten(1) @ seen + module.bias[:, None]
    torch.testing.assert_close(found.reshape(expected.shape), expected, atol=1e-5, rtol=1e-5)


def test_other_modules_have_no_such_geometry() -> None:
    for module in (nn.Linear(3, 3), nn.Conv1d(3, 3, 3), nn.Conv2d(3, 3, 3, padding=1, padding_mode="reflect")):
        assert kernel_geometry(module) is None
