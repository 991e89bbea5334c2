"""A small run to explore: two convolutions, three snapshots, twelve images, one class with the name of an attack."""

from pathlib import Path

import torch
from torch import nn

import fmcluster as fm
from fmcluster.store import Mode, Run

HOSTILE = "<script>alert(1)</script>"


class Images(torch.utils.data.Dataset):
    classes = ("bees", HOSTILE)

    def __init__(self) -> None:
        self.images = torch.rand(12, 3, 16, 16, generator=torch.Generator().manual_seed(0))

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return self.images[index], (index + 1) % 2


def record(path: Path, *, snapshots: int = 3, mode: Mode = "x", start: int = 0) -> Run:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Conv2d(3, 10, 3, padding=1), nn.ReLU(), nn.Conv2d(10, 12, 3, stride=2))
    generator = torch.Generator().manual_seed(1)
    with fm.Recorder(model, path, layers=["0", "2"], probe=Images(), mode=mode) as recorder:
        for epoch in range(start, start + snapshots):
            recorder.snapshot(epoch=epoch, metrics={"val_accuracy": 0.2 * (epoch + 1)})
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter += 0.2 * torch.randn(parameter.shape, generator=generator)
    return fm.open_run(path)
