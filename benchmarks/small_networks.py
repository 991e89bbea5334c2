"""Small networks that are trained here, to ask of other networks than the published one; images are halved first."""

from collections import OrderedDict

import torch
from resnet20 import Block
from torch import nn
from torch.nn import functional
from tuned import images, tune

N_CLASSES = 10


class Halved(nn.Module):
    """A classifier of images at half their size: a body, the mean over positions, and a linear head."""

    def __init__(self, body: nn.Sequential, width: int) -> None:
        super().__init__()
        self.body = body
        self.linear = nn.Linear(width, N_CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(self.body(functional.avg_pool2d(x, 2)).mean((2, 3)))


def residual(widths: tuple[int, int, int], blocks: int) -> Halved:
    """Return a convolution and three stages of residual blocks."""
    stages: list[nn.Module] = [nn.Conv2d(3, widths[0], 3, padding=1, bias=False), nn.BatchNorm2d(widths[0]), nn.ReLU()]
    n_in = widths[0]
    for stage, width in enumerate(widths):
        for number in range(blocks):
            stages.append(Block(n_in, width, 2 if stage and not number else 1))
            n_in = width
    return Halved(nn.Sequential(*stages), n_in)


def plain(widths: tuple[int, ...]) -> Halved:
    """Return convolutions one after the other, without shortcuts; where there are more channels, half the side."""
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    n_in = 3
    for number, width in enumerate(widths):
        stride = 2 if number and width > n_in else 1
        layers[f"conv{number}"] = nn.Conv2d(n_in, width, 3, stride=stride, padding=1, bias=False)
        layers[f"bn{number}"] = nn.BatchNorm2d(width)
        layers[f"relu{number}"] = nn.ReLU()
        n_in = width
    return Halved(nn.Sequential(layers), n_in)


def trained(name: str) -> nn.Module:
    """Train a network of `NETWORKS` from scratch, and return it in evaluation mode."""
    torch.manual_seed(list(NETWORKS).index(name))
    model = NETWORKS[name]()
    data = images(3000, part="train", seed=0)
    for rate, steps in ((0.05, 200), (0.01, 100)):
        tune(model, data, steps=steps, rate=rate, generator=torch.Generator().manual_seed(steps))
    return model


NETWORKS = {
    "residual, 13 convolutions": lambda: residual((12, 24, 48), 2),
    "residual, 19 convolutions": lambda: residual((8, 16, 32), 3),
    "plain, 10 convolutions": lambda: plain((12, 12, 12, 12, 24, 24, 24, 48, 48, 48)),
}
