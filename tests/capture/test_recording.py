"""All sixty leaf calls of a ResNet-18, against cloning hooks, however the model is wrapped or set."""

import copy
from collections.abc import Callable
from contextlib import ExitStack, nullcontext
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional
from torchvision.models import resnet18
from torchvision.models.resnet import BasicBlock

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


@pytest.mark.slow
@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
def test_all_leaf_calls(training: bool, resnet: nn.Module, images: list, cloned: Callable, take: Callable) -> None:
    resnet.train(training)
    run = take(resnet, images, layers="leaves")
    assert len(run.layers) == 60
    assert sum(".call" in name for name in run.layers) == 16
    check(run, cloned(resnet, images))
    assert all(module.training == training for module in resnet.modules())


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.slow
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


def out_of_place(block: BasicBlock, x: torch.Tensor) -> torch.Tensor:
    out = block.relu(block.bn1(block.conv1(x)))
    out = block.bn2(block.conv2(out))
    out = out + (x if block.downsample is None else block.downsample(x))
    return block.relu(out)


def retained(model: nn.Module, shown: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
    """What each module's calls return and their gradients, in a copy that changes nothing in place."""
    plain, seen = copy.deepcopy(model), {}
    for name, module in plain.named_modules():
        if isinstance(module, nn.ReLU):
            module.inplace = False
        if isinstance(module, BasicBlock):
            module.forward = partial(out_of_place, module)

        def keep(_module: nn.Module, _inputs: tuple, out: torch.Tensor, name: str = name) -> None:
            out.retain_grad()
            seen.setdefault(name, []).append(out)

        module.register_forward_hook(keep)
    functional.cross_entropy(plain(shown), labels).backward()
    seen.pop("")
    return {
        name if len(calls) == 1 else f"{name}.call{call}": out
        for name, calls in seen.items()
        for call, out in enumerate(calls)
    }


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["live", "probe"])
def test_every_gradient_is_that_of_a_network_that_changes_nothing_in_place(mode: str, images: list, tmp_path) -> None:
    torch.manual_seed(0)
    model = resnet18(num_classes=5)
    model.train(mode == "live")
    shown, labels = torch.stack([image for image, _ in images]), torch.tensor([label for _, label in images])
    expected = retained(model, shown, labels)
    options = {"n_samples": 5} if mode == "live" else {"probe": images}
    both = ("activation", "gradient")
    make = fm.BatchRecorder if mode == "live" else fm.Recorder
    with make(model, tmp_path / "run.zarr", layers=lambda *_: True, record=both, **options) as recorder:
        if mode == "probe":
            recorder.snapshot(epoch=0, loss=functional.cross_entropy)
        else:
            with recorder.epoch(0), recorder.batch(range(5)):
                functional.cross_entropy(model(shown), labels).backward()
    run = fm.open_run(tmp_path / "run.zarr")
    assert len(run.layers) == 75
    assert set(run.layers) == set(expected)
    for name in run.layers:
        # each of ResNet's sums has two terms, whose order makes no difference
        np.testing.assert_array_equal(run[name].gradient.read(epoch=0), expected[name].grad.numpy(), err_msg=name)
        np.testing.assert_array_equal(run[name].read(epoch=0), expected[name].detach().half().numpy(), err_msg=name)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("mode", ["live", "probe"])
def test_three_steps_are_bit_for_bit_the_same_when_recorded(mode: str, seed: int, images: list, tmp_path) -> None:
    """Loss, outputs, gradients, BatchNorm's buffers, random generators, weights and momentum."""
    both = ("activation", "gradient")

    def train(path: str | None) -> list[torch.Tensor]:
        torch.manual_seed(seed)
        model = nn.Sequential(resnet18(num_classes=9), nn.Dropout(0.5), nn.Linear(9, 5))
        model[0].conv1.requires_grad_(seed != 1)
        optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.01, momentum=0.9)
        told = []
        with ExitStack() as stack:
            if path:
                options = {"n_samples": 5} if mode == "live" else {"probe": images[:3]}
                make = fm.BatchRecorder if mode == "live" else fm.Recorder
                recorder = stack.enter_context(make(model, tmp_path / path, layers="leaves", record=both, **options))
            for step in range(3):
                shown, labels = torch.rand(5, 3, 32, 32), torch.randint(5, (5,))
                with ExitStack() as around:
                    if path and mode == "live":
                        around.enter_context(recorder.epoch(step))
                        around.enter_context(recorder.batch(range(5)))
                    output = model(shown)
                    loss = functional.cross_entropy(output, labels)
                    if path and mode == "probe":  # while a backward pass is due
                        recorder.snapshot(epoch=2 * step, loss=functional.cross_entropy)
                    loss.backward()
                if path and mode == "probe":  # while .grad is set
                    recorder.snapshot(epoch=2 * step + 1, loss=functional.cross_entropy)
                told += [output.detach().clone(), loss.detach()]
                told += [p.grad.clone() for p in model.parameters() if p.grad is not None]
                optimizer.step()
                optimizer.zero_grad(set_to_none=step == 1)
        momentum = [state["momentum_buffer"] for state in optimizer.state.values()]
        return [*told, *model.state_dict().values(), *momentum, torch.get_rng_state()]

    plain, recorded = train(None), train("run.zarr")
    assert len(plain) == len(recorded) > 300
    assert all(torch.equal(one, other) for one, other in zip(plain, recorded, strict=True))
    assert len(fm.open_run(tmp_path / "run.zarr")) == (3 if mode == "live" else 6)
