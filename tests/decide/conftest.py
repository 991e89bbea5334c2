"""Small networks, and probes of random images with labels."""

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import TensorDataset


class Block(nn.Module):
    """A residual block, with functional activations; its shortcut has a convolution where the shape changes."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        stride = 1 if inputs == outputs else 2
        self.conv1, self.bn1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs)
        self.conv2, self.bn2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False), nn.BatchNorm2d(outputs)
        self.shortcut = nn.Identity() if inputs == outputs else nn.Conv2d(inputs, outputs, 1, stride, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the rectified sum of branch and shortcut."""
        branch = self.bn2(self.conv2(functional.relu(self.bn1(self.conv1(x)))))
        return functional.relu(branch + self.shortcut(x))


class Residual(nn.Module):
    """A stem, two residual blocks, a head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.bn = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.block1, self.block2 = Block(8, 8), Block(8, 16)
        self.head = nn.Linear(16, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the scores of five classes."""
        x = self.block2(self.block1(functional.relu(self.bn(self.stem(x)))))
        return self.head(x.mean((2, 3)))


class Plain(nn.Module):
    """Convolutions, one after the other, with in-place activations."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1, self.relu1 = nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(inplace=True)
        self.conv2, self.relu2 = nn.Conv2d(6, 8, 5, padding=2), nn.ReLU(inplace=True)
        self.pool, self.flatten = nn.AdaptiveAvgPool2d(1), nn.Flatten()
        self.fc = nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the scores of four classes."""
        x = self.relu1(self.bn1(self.conv1(x)))
        return self.fc(self.flatten(self.pool(self.relu2(self.conv2(x)))))


def with_statistics(model: nn.Module) -> nn.Module:
    """Give normalizations statistics and weights of their own, and the head weights that make answers differ."""
    generator = torch.Generator().manual_seed(3)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.weight.data, module.running_var):
                tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.5)
            for tensor in (module.bias.data, module.running_mean):
                tensor.copy_(torch.randn(tensor.shape, generator=generator) / 4)
        if isinstance(module, nn.Linear):
            module.weight.data *= 20
    return model


@pytest.fixture
def residual() -> nn.Module:
    torch.manual_seed(0)
    return with_statistics(Residual())


@pytest.fixture
def plain() -> nn.Module:
    torch.manual_seed(1)
    return with_statistics(Plain())


@pytest.fixture
def probe() -> TensorDataset:
    generator = torch.Generator().manual_seed(2)
    return TensorDataset(torch.randn(24, 3, 8, 8, generator=generator), torch.arange(24) % 4)
