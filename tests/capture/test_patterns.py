"""Layer patterns: where wildcards stop, and what regular expressions match."""

import re

import pytest
from torch import nn
from torchvision.models import resnet18

from fmcluster.capture._layers import select_modules


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
