"""What a model takes, read from its forward, under its wrappers."""

from typing import List  # noqa: UP035  as older code has it

import pytest
import torch
from torch import Tensor, nn
from torchvision.models import detection

from fmcluster.capture import forward_arguments
from fmcluster.capture.inputs._forward_arguments import ForwardArguments


class Plain(nn.Module):
    def forward(self, x: Tensor, mask: Tensor | None = None) -> None: ...


class Two(nn.Module):
    def forward(self, left: Tensor, right: Tensor, *more: Tensor, scale: float) -> None: ...


class ByName(nn.Module):
    def forward(self, *, image: Tensor, depth: Tensor, size: int = 3) -> None: ...


class Anything(nn.Module):
    def forward(self, *args: Tensor, **kwargs: Tensor) -> None: ...


class Lists(nn.Module):
    def forward(self, images: list[torch.Tensor], targets: object = None) -> None: ...


class OldLists(nn.Module):
    def forward(self, images: List[Tensor]) -> None: ...  # noqa: UP006


class WrittenLists(nn.Module):
    def forward(self, images: "list[torch.Tensor]") -> None: ...


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        (Plain(), ForwardArguments(("x", "mask"), 1)),
        (Two(), ForwardArguments(("left", "right", "more", "scale"), 2)),
        (ByName(), ForwardArguments(("image", "depth", "size"), 0, ("image", "depth"))),
        (Anything(), ForwardArguments(("args", "kwargs"), 0)),
        (Lists(), ForwardArguments(("images", "targets"), 1, takes_list=True)),
        (OldLists(), ForwardArguments(("images",), 1, takes_list=True)),
        (WrittenLists(), ForwardArguments(("images",), 1, takes_list=True)),
        (torch.compile(Two()), ForwardArguments(("left", "right", "more", "scale"), 2)),
    ],
    ids=lambda value: type(value).__name__,
)
def test_it_is_read_from_the_signature(model: nn.Module, expected: ForwardArguments) -> None:
    assert forward_arguments(model) == expected


@pytest.mark.slow
def test_detectors_of_torchvision_take_lists() -> None:
    with torch.device("meta"):
        model = detection.ssdlite320_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=2)
    assert ForwardArguments.takes_list is False
    model.to_empty(device="cpu")
    assert forward_arguments(model).takes_list
