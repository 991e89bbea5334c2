"""A small network with all that makes hooks go wrong; in a module of its own, so that it can be pickled."""

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint


class Residual(nn.Module):
    """An in-place ReLU that fires twice, and ``out += identity``."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = self.relu(self.bn(self.conv(x)))
        out = self.bn(self.conv(out))
        out += x
        return self.relu(out)


class SmallNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 6, 3, stride=2, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(6)
        self.relu = nn.ReLU(inplace=True)
        self.layer1 = nn.Sequential(Residual(6), Residual(6))
        self.dropout = nn.Dropout(0.5)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(6, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.layer1(self.relu(self.bn1(self.conv1(x))))
        return self.fc(self.pool(self.dropout(x)).flatten(1))


class Checkpointed(nn.Module):
    def __init__(self, net: nn.Module, *, reentrant: bool) -> None:
        super().__init__()
        self.net, self.reentrant = net, reentrant

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.net.relu(self.net.bn1(self.net.conv1(x)))
        for block in self.net.layer1:
            x = checkpoint(block, x, use_reentrant=self.reentrant)
        return self.net.fc(self.net.pool(x).flatten(1))
