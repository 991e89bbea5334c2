"""The CIFAR ResNet of 20 layers, and its published weights (FMCLUSTER_DATA)."""

import os
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional

MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Block(nn.Module):
    """A residual block whose shortcut has no parameters."""

    def __init__(self, n_in: int, n_out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(n_in, n_out, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(n_out)
        self.conv2 = nn.Conv2d(n_out, n_out, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(n_out)
        self.stride, self.padded = stride, (n_out - n_in) // 2

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = self.bn2(self.conv2(functional.relu(self.bn1(self.conv1(x)))))
        short = functional.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.padded, self.padded))
        return functional.relu(out + short)


class ResNet20(nn.Module):
    """The CIFAR ResNet of 20 layers: three stages of three blocks with 16, 32 and 64 channels."""

    def __init__(self, n_classes: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = nn.Sequential(*(Block(16, 16, 1) for _ in range(3)))
        self.layer2 = nn.Sequential(Block(16, 32, 2), Block(32, 32, 1), Block(32, 32, 1))
        self.layer3 = nn.Sequential(Block(32, 64, 2), Block(64, 64, 1), Block(64, 64, 1))
        self.linear = nn.Linear(64, n_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(self.features(x))

    def features(self, x: torch.Tensor) -> torch.Tensor:
        return self.before_pool(x).mean((2, 3))

    def before_pool(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer3(self.layer2(self.layer1(functional.relu(self.bn1(self.conv1(x))))))


class PooledResNet20(ResNet20):
    """The same, with a module that averages, so that what the head is given can be recorded."""

    def __init__(self, n_classes: int) -> None:
        super().__init__(n_classes)
        self.pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())

    def features(self, x: torch.Tensor) -> torch.Tensor:
        return self.pool(self.before_pool(x))


def pretrained() -> PooledResNet20:
    """Return the network with the published weights, in evaluation mode."""
    model = PooledResNet20(10)
    path = Path(os.environ["FMCLUSTER_DATA"]) / "weights" / "resnet20-12fca82f.th"
    state = torch.load(path, weights_only=True, map_location="cpu")["state_dict"]
    model.load_state_dict({key.removeprefix("module."): value for key, value in state.items()})
    return model.eval()
