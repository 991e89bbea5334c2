"""A small run and what its report says: two convolutions and a head, three snapshots, twelve images."""

import json
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import torch
from torch import nn

import fmcluster as fm
from fmcluster.store import Run

HOSTILE = "<script>alert(1)</script> $\\frac$"
HOSTILE_LAYER = "</script><b>mix"


class Images(torch.utils.data.Dataset):
    """Twelve random images of two classes, one of which has the name of an attack."""

    classes = ("bees & <i>wasps</i>", HOSTILE)

    def __init__(self) -> None:
        self.images = torch.rand(12, 3, 16, 16, generator=torch.Generator().manual_seed(0))

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return self.images[index], (index + 1) % 2


def record(folder: Path, *, snapshots: int = 3, metrics: bool = True) -> Run:
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
    with fm.Recorder(model, path, layers="children", probe=Images()) as recorder:
        for snapshot in range(snapshots):
            numbers = {"val_accuracy": 0.25 * (snapshot + 1), "loss": 1 / (snapshot + 1)} if metrics else None
            recorder.snapshot(epoch=(snapshot + 1) // 2, step=4 * snapshot, metrics=numbers)
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter += 0.2 * torch.randn(parameter.shape, generator=generator)
    return fm.open_run(path)


class Parsed(HTMLParser):
    """The tags of a page with their attributes, the texts outside scripts and styles, and the data."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.data: dict[str, Any] = {}
        self._inside: tuple[str, dict[str, str | None]] = ("", {})
        self._term = self._goes_on = False
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if dict(attrs).get("class") == "term":  # a word of the text that it stands in
            self._term = True
            return
        self._inside, self._goes_on = (tag, dict(attrs)), False

    def handle_endtag(self, tag: str) -> None:
        if tag == "button" and self._term:
            self._term = False
            return
        self._inside, self._goes_on = ("", {}), False

    def handle_data(self, data: str) -> None:
        tag, attributes = self._inside
        if attributes.get("id") == "data":
            self.data = json.loads(data)
        elif tag not in ("script", "style"):
            if self._goes_on:
                self.texts[-1] += data
            else:
                self.texts.append(data)
            self._goes_on = True

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())


@dataclass(frozen=True)
class Written:
    run: Run
    path: Path
    parsed: Parsed
    stages: list[tuple[str, int, int]]
