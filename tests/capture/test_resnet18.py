"""All sixty leaf calls of a ResNet-18, against cloning hooks, however the model is wrapped or set."""

from collections.abc import Callable
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from torch import nn
from torchvision.models import resnet18

import fmcluster as fm
from fmcluster.store import Run

CHILDREN = ["conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3", "layer4", "avgpool", "fc"]


@pytest.fixture(scope="module")
def resnet() -> nn.Module:
    torch.manual_seed(0)
    model = resnet18(num_classes=5)
    with torch.no_grad():
        model(torch.rand(8, 3, 64, 64))
    return model


@pytest.fixture(scope="module")
def images() -> list[tuple[torch.Tensor, int]]:
    generator = torch.Generator().manual_seed(1)
    return [(torch.rand(3, 64, 64, generator=generator), i) for i in range(5)]


def check(run: Run, expected: dict[str, np.ndarray], snapshot: int = 0) -> None:
    for name in run.layers:
        with np.errstate(over="ignore"):
            half = expected[name].astype(np.float16)
        stored = run[name].read(snapshot=snapshot)
        assert stored.dtype == np.float16
        np.testing.assert_array_equal(stored.view(np.uint16), half.view(np.uint16), err_msg=name)


@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
def test_all_leaf_calls(training: bool, resnet: nn.Module, images: list, cloned: Callable, take: Callable) -> None:
    resnet.train(training)
    run = take(resnet, images, layers="leaves")
    assert len(run.layers) == 60
    assert sum(".call" in name for name in run.layers) == 16
    check(run, cloned(resnet, images))
    assert all(module.training == training for module in resnet.modules())


def test_children_in_forward_order_and_not_overwritten_in_place(
    resnet: nn.Module, images: list, cloned: Callable, take: Callable
) -> None:
    run = take(resnet, images)
    assert run.layers == CHILDREN
    check(run, cloned(resnet, images))
    assert run["bn1"].read(snapshot=0).min() < 0
    assert run["relu"].read(snapshot=0).min() == 0
    assert (run["bn1"].statistics["min"] < 0).all()
    assert run["conv1"].shape == (1, 5, 64, 32, 32)
    assert run["layer4"].shape == (1, 5, 512, 2, 2)
    assert run["fc"].shape == (1, 5, 5)


@pytest.mark.parametrize("wrap", ["compile", "model.compile", "channels_last", "autocast", "grad", "inference"])
def test_wrappers_and_surroundings_change_nothing(
    wrap: str, images: list, cloned: Callable, take: Callable, resnet: nn.Module
) -> None:
    torch.manual_seed(0)
    model = resnet18(num_classes=5)
    model.load_state_dict(resnet.state_dict())
    expected = cloned(model, images)
    around = nullcontext()
    shown: nn.Module = model
    if wrap == "compile":
        shown = torch.compile(model, backend="eager")
        shown(torch.rand(2, 3, 64, 64))  # is compiled before any hook exists
        expected = cloned(model, images)
    elif wrap == "model.compile":
        model.compile(backend="eager")
        model(torch.rand(2, 3, 64, 64))
        plain = resnet18(num_classes=5)
        plain.load_state_dict(model.state_dict())
        expected = cloned(plain, images)
    elif wrap == "channels_last":
        model.to(memory_format=torch.channels_last)
        expected = cloned(model, images)
    elif wrap == "autocast":
        around = torch.autocast("cpu", dtype=torch.bfloat16)
    elif wrap == "grad":
        around = torch.enable_grad()
    elif wrap == "inference":
        around = torch.inference_mode()
    with around:
        run = take(shown, images)
    assert run.layers == CHILDREN
    check(run, expected)


def test_no_snapshot_shows_what_another_epoch_saw(resnet: nn.Module, images: list, cloned: Callable, tmp_path) -> None:
    torch.manual_seed(0)
    model = resnet18(num_classes=5)
    expected = []
    with fm.Recorder(model, tmp_path / "run.zarr", layers=["conv1", "layer1.*.bn2", "fc"], probe=images) as recorder:
        for epoch in (1, 10, 100):
            with torch.no_grad():
                model.conv1.weight.mul_(1.5)
            expected.append(cloned(model, images, batch_size=32))
            recorder.snapshot(epoch=epoch)
    run = fm.open_run(tmp_path / "run.zarr")
    assert run.layers == ["conv1", "layer1.0.bn2", "layer1.1.bn2", "fc"]
    for snapshot in range(3):
        check(run, expected[snapshot], snapshot)
