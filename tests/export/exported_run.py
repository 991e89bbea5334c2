"""A small run to export: two convolutions and a head, three snapshots, twelve images, names of attackers."""

from pathlib import Path

import torch
from torch import nn

import fmcluster as fm
from fmcluster.store import Run

HOSTILE = "<script>alert(1)</script> $\\frac$"
HOSTILE_LAYER = "</script><b>mix * of"


class Images(torch.utils.data.Dataset):
    """Twelve random images of two classes, one of which has the name of an attack."""

    def __init__(self, classes: tuple[str, str]) -> None:
        self.classes = classes
        self.images = torch.rand(12, 3, 16, 16, generator=torch.Generator().manual_seed(0))

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return self.images[index], (index + 1) % 2


def record(
    folder: Path,
    *,
    steps: tuple[int, ...] = (0, 4, 10),
    classes: tuple[str, str] = ("ants & <i>wasps</i>", HOSTILE),
) -> Run:
    """Record a run; channel 3 of the second convolution is dead from the second snapshot on."""
    model = nn.Sequential()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model.add_module("conv1", nn.Conv2d(3, 10, 3, padding=1))
        model.add_module("relu", nn.ReLU())
        model.add_module(HOSTILE_LAYER, nn.Conv2d(10, 12, 3, stride=2))
        model.add_module("pool", nn.AdaptiveAvgPool2d(1))
        model.add_module("flat", nn.Flatten())
        model.add_module("fc", nn.Linear(12, 2))
    generator = torch.Generator().manual_seed(1)
    path = folder / "run.zarr"
    with fm.Recorder(model, path, layers="children", probe=Images(classes)) as recorder:
        for snapshot, step in enumerate(steps):
            metrics = {"val_accuracy": 0.25 * (snapshot + 1)} | ({"loss": 1 / snapshot} if snapshot else {})
            recorder.snapshot(epoch=(snapshot + 1) // 2, step=step, metrics=metrics)
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter += 0.2 * torch.randn(parameter.shape, generator=generator)
                dict(model.named_children())[HOSTILE_LAYER].weight[3] = 0
    return fm.open_run(path)
