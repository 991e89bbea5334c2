"""Layer patterns: which modules are captured, where wildcards stop, and what regular expressions match."""

import re

import pytest
import torch
from torch import nn
from torchvision.models import resnet18

from fmcluster.capture.options._patterns import is_optional, select_modules


@pytest.fixture(scope="module")
def resnet() -> nn.Module:
    return resnet18()


@pytest.mark.parametrize("layers", ["*", "?"])
def test_wildcards_stop_at_dots(layers: str, resnet: nn.Module) -> None:
    if layers == "*":
        assert list(select_modules(resnet, layers)) == [name for name, _ in resnet.named_children()]
    else:
        with pytest.raises(ValueError, match=re.escape("no layer '?'")):
            select_modules(resnet, layers)


def test_regular_expressions_match_whole_names(resnet: nn.Module) -> None:
    found = select_modules(resnet, re.compile(r"layer[12]\.0\.conv\d"))
    assert list(found) == ["layer1.0.conv1", "layer1.0.conv2", "layer2.0.conv1", "layer2.0.conv2"]
    with pytest.raises(ValueError, match="no layer that matches 'conv' as a whole"):
        select_modules(resnet, re.compile("conv"))


@pytest.mark.parametrize(
    ("layers", "expected"),
    [
        ("conv1", ["conv1"]),
        (["fc", "conv1"], ["conv1", "fc"]),
        ("layer?", ["layer1", "layer2", "layer3", "layer4"]),
        ("*1", ["conv1", "bn1", "layer1"]),
        ("layer1.*", ["layer1.0", "layer1.1"]),
        ("layer1.*.conv?", ["layer1.0.conv1", "layer1.0.conv2", "layer1.1.conv1", "layer1.1.conv2"]),
        ("layer2.0.downsample.0", ["layer2.0.downsample.0"]),
        ("*.*.bn1", [f"layer{i}.{k}.bn1" for i in (1, 2, 3, 4) for k in (0, 1)]),
        (["layer4", "layer?"], ["layer1", "layer2", "layer3", "layer4"]),
        (lambda name, module: isinstance(module, nn.Linear), ["fc"]),
        (lambda name, module: name.endswith("downsample"), [f"layer{i}.0.downsample" for i in (2, 3, 4)]),
        (("bn1",), ["bn1"]),
        ((name for name in ["bn1", "relu"]), ["bn1", "relu"]),
    ],
)
def test_selection(layers: object, expected: list[str], resnet: nn.Module) -> None:
    chosen = select_modules(resnet, layers)
    assert list(chosen) == expected
    assert all(resnet.get_submodule(name) is module for name, module in chosen.items())


def test_children_and_leaves(resnet: nn.Module) -> None:
    assert list(select_modules(resnet, "children")) == [name for name, _ in resnet.named_children()]
    leaves = select_modules(resnet, "leaves")
    assert all(not list(module.children()) for module in leaves.values())
    assert len(leaves) == sum(not list(module.children()) for module in resnet.modules())


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ("conv2", "the model has no layer 'conv2'; did you mean conv1"),
        (["conv1", "layer1.0.conv9"], r"no layer 'layer1\.0\.conv9'; did you mean .*layer1\.0\.conv"),
        ("layer5", "no layer 'layer5'; did you mean layer"),
        ("xyz", "no layer 'xyz'; it has: conv1, bn1, .* and .* more"),
        ("layer1.?.conv1.*", "no layer"),
        ("conv[1]", "no layer"),
        ("", "no layer ''"),
        ([], "chooses no module of ResNet"),
        (lambda name, module: False, "chooses no module of ResNet"),
    ],
)
def test_what_matches_nothing(layers: object, message: str, resnet: nn.Module) -> None:
    with pytest.raises(ValueError, match=message):
        select_modules(resnet, layers)


def test_names_that_are_no_strings(resnet: nn.Module) -> None:
    with pytest.raises(TypeError, match="layers holds 3; expected names"):
        select_modules(resnet, [3])
    with pytest.raises(TypeError, match="layers is 3; expected 'children', 'leaves', a name or pattern"):
        select_modules(resnet, 3)


def test_a_model_without_submodules() -> None:
    for layers in ("children", "leaves", "conv1"):
        with pytest.raises(ValueError, match="no submodules"):
            select_modules(nn.ReLU(), layers)


def test_a_module_held_twice_is_chosen_once() -> None:
    shared = nn.ReLU()
    model = nn.Sequential(nn.Linear(2, 2), shared, nn.Linear(2, 2), shared)
    assert list(select_modules(model, "leaves")) == ["0", "1", "2"]
    assert torch.is_tensor(model(torch.rand(1, 2)))


def test_classes_and_mixtures(resnet: nn.Module) -> None:
    linear = select_modules(resnet, nn.Linear)
    assert list(linear) == ["fc"]
    mixed = select_modules(resnet, [nn.Linear, re.compile("conv1"), "layer?"])
    assert list(mixed) == ["conv1", "layer1", "layer2", "layer3", "layer4", "fc"]
    with pytest.raises(ValueError, match="no module of class LSTM"):
        select_modules(resnet, nn.LSTM)


@pytest.mark.filterwarnings("ignore:torch")  # of its own deprecations of quantized tensors
def test_quantized_modules_are_leaves_and_what_holds_their_weights_is_none() -> None:
    quantized = pytest.importorskip("torch.ao.nn.quantized")
    model = nn.Sequential(nn.Flatten(), quantized.dynamic.Linear(8, 4), nn.ReLU(), quantized.Linear(4, 2))
    assert list(select_modules(model, "leaves")) == ["0", "1", "2", "3"]


def test_children_and_leaves_within_a_list(resnet: nn.Module) -> None:
    leaves = select_modules(resnet, "leaves")
    without = [name for name in leaves if not (name.startswith("layer4") and name.count(".") == 2)]
    assert list(select_modules(resnet, ["leaves", "!layer4.*.*"])) == without
    assert list(select_modules(resnet, ["children", "layer1.0.conv1", "!fc"]))[-1] == "avgpool"
    assert is_optional(resnet, ["children", "!fc"])
    assert not is_optional(resnet, ["children", "layer1.0.conv1"])
    assert is_optional(resnet, ["!fc"])
    assert not is_optional(nn.ModuleDict({"leaves": nn.ReLU()}), ["leaves"]), "a module's own name"


def test_only_a_name_has_to_fire(resnet: nn.Module) -> None:
    for layers in ("layer?", ["*", "!fc"], [re.compile(".*")], nn.Linear, [nn.Conv2d, "children"]):
        assert is_optional(resnet, layers)
    for layers in ("conv1", ["layer?", "conv1"], lambda name, module: True):
        assert not is_optional(resnet, layers)
    assert not is_optional(nn.ModuleDict({"a*": nn.ReLU()}), ["a*"]), "a module's own name"
