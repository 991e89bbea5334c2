"""Small networks that are trained here on scikit-learn's digits, to ask of others than the published one."""

from collections import OrderedDict

import numpy as np
import torch
from resnet20 import Block
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import TensorDataset
from tuned import tune

N_CLASSES = 10
N_TRAINING = 1000  # of 1,797; the others are for probes, and to measure on


class Small(nn.Module):
    """A classifier: a body, the mean over positions, and a linear head."""

    def __init__(self, body: nn.Sequential, width: int) -> None:
        super().__init__()
        self.body = body
        self.linear = nn.Linear(width, N_CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(self.body(x).mean((2, 3)))


def digits(count: int, *, part: str, seed: int = 0) -> TensorDataset:
    """Return so many digits of ``train`` or ``val``, drawn by the seed, of 8 x 8 pixels and unit variance."""
    found = load_digits()
    order = np.random.default_rng(0).permutation(len(found.target))
    rows = order[:N_TRAINING] if part == "train" else order[N_TRAINING:]
    chosen = rows[np.random.default_rng(seed).permutation(len(rows))[:count]]
    pictures = torch.tensor((found.images[chosen] - found.images.mean()) / found.images.std(), dtype=torch.float32)
    return TensorDataset(pictures[:, None], torch.tensor(found.target[chosen]))


def residual(widths: tuple[int, int, int], blocks: int) -> Small:
    """Return a convolution and three stages of residual blocks."""
    stages: list[nn.Module] = [nn.Conv2d(1, widths[0], 3, padding=1, bias=False), nn.BatchNorm2d(widths[0]), nn.ReLU()]
    n_in = widths[0]
    for stage, width in enumerate(widths):
        for number in range(blocks):
            stages.append(Block(n_in, width, 2 if stage and not number else 1))
            n_in = width
    return Small(nn.Sequential(*stages), n_in)


def plain(widths: tuple[int, ...]) -> Small:
    """Return convolutions one after the other, without shortcuts; where there are more channels, half the side."""
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    n_in = 1
    for number, width in enumerate(widths):
        stride = 2 if number and width > n_in else 1
        layers[f"conv{number}"] = nn.Conv2d(n_in, width, 3, stride=stride, padding=1, bias=False)
        layers[f"bn{number}"] = nn.BatchNorm2d(width)
        layers[f"relu{number}"] = nn.ReLU()
        n_in = width
    return Small(nn.Sequential(layers), n_in)


def trained(name: str) -> nn.Module:
    """Train a network of `NETWORKS` or `OTHERS` from scratch, and return it in evaluation mode."""
    networks = NETWORKS | OTHERS
    torch.manual_seed(list(networks).index(name))
    model = networks[name]()
    tune(model, digits(N_TRAINING, part="train"), steps=200, rate=0.05, generator=torch.Generator().manual_seed(0))
    return model


NETWORKS = {
    "residual, 13 convolutions": lambda: residual((8, 16, 32), 2),
    "residual, 19 convolutions": lambda: residual((8, 16, 32), 3),
    "plain, 10 convolutions": lambda: plain((8, 8, 8, 8, 16, 16, 16, 32, 32, 32)),
}

# not looked at when it was chosen what predicted damage is
OTHERS = {
    "wider residual, 13 convolutions": lambda: residual((12, 24, 48), 2),
    "residual, 25 convolutions": lambda: residual((8, 16, 32), 4),
    "narrower residual, 19 convolutions": lambda: residual((6, 12, 24), 3),
    "plain, 12 convolutions": lambda: plain((8, 8, 8, 16, 16, 16, 16, 16, 32, 32, 32, 32)),
}
