"""A network whose features are chance until it is trained, and images of which one channel may be shifted."""

import copy
from pathlib import Path
from typing import Any

import torch
from torch import nn

import fmcluster as fm
from fmcluster.store import Run

N_IMAGES, SHIFTED, NOISY, CLASS = 60, 0, 1, 2  # the channels of an image


class Net(nn.Module):
    """Two normalizations, what a head is given, and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.bn1, self.conv, self.bn2 = nn.BatchNorm2d(3), nn.Conv2d(3, 4, 1, bias=False), nn.BatchNorm2d(4)
        self.pool, self.fc = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()), nn.Linear(4, 2)
        with torch.no_grad():
            self.conv.weight.zero_()
            self.conv.weight[:, NOISY] = torch.tensor([1.0, -1, 2, 0.5])[:, None, None]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.pool(self.bn2(self.conv(self.bn1(x)))))

    def read_classes(self) -> None:
        with torch.no_grad():
            self.conv.weight[:, CLASS] = torch.tensor([2.0, 1, 3, -2])[:, None, None]


def images(*, seed: int, shift: float = 0.0) -> list[tuple[torch.Tensor, int]]:
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(N_IMAGES, 3, 4, 4, generator=generator)
    values[:, NOISY] += torch.randn(N_IMAGES, 1, 1, generator=generator)
    labels = torch.arange(N_IMAGES) % 2
    values[:, CLASS] += 2.0 * labels[:, None, None] - 1
    values[:, SHIFTED] += shift
    return list(zip(values, labels.tolist(), strict=True))


def make_network() -> Net:
    """Return it with statistics of such images, in evaluation mode."""
    torch.manual_seed(0)
    model = Net().train()
    for seed in range(60):
        model(torch.stack([image for image, _ in images(seed=100 + seed)]))
    return model.eval()


def record(path: Path, probe: list[tuple[torch.Tensor, int]], *states: nn.Module, **options: Any) -> Run:
    shown = copy.deepcopy(states[0])
    how = {"layers": ["pool"], "record": ("activation", "weight"), "dtype": "float32", **options}
    with fm.Recorder(shown, path, probe=probe, **how) as recorder:
        for epoch, state in enumerate(states):
            shown.load_state_dict(state.state_dict())
            recorder.snapshot(epoch=epoch)
    return fm.open_run(path)


def trained(network: Net) -> Net:
    found = copy.deepcopy(network)
    found.read_classes()
    return found
