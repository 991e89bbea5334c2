"""The tasks of `decide.py`: a ResNet-20 that knows CIFAR-10 by heart, and five ways in which what it is to do is new.

noise      input-level: pixels with noise.
kind       feature-level: the images of one class are of another kind, ants and bees.
permuted   output-level: the classes' numbers are permuted.
insects    ants and bees, at 32 pixels; a new head.
regrouped  five new classes, each of two of the old ones; a new head.
blur       input-level: blurred, for looking at while choices were made; not among the five.
plain      nothing is new: what smaller networks are retrained on.

Of each there are as many as there are seeds: another draw of images, noise, class, numbers, groups and head.
"""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
from resnet20 import DEVIATION, MEAN, ResNet20, pretrained
from torch import nn
from torch.utils.data import TensorDataset
from torchvision import transforms
from torchvision.datasets import ImageFolder

SIZES = {"training": 512, "probe": 200, "held_out": 400}
INSECTS = {"training": 157, "probe": 80, "held_out": 160}
NOISE, BLUR = 0.12, 1.3  # standard deviation of pixels from 0 to 1; of the Gaussian, in pixels

Images = tuple[torch.Tensor, torch.Tensor]  # from 0 to 1, and labels


@dataclass(frozen=True, eq=False)
class Task:
    """A network before fine-tuning, and images: to train on, to look at, to measure accuracy on, and as it knows them.

    The probe is neither trained on nor measured on.
    """

    start: ResNet20
    training: TensorDataset
    probe: TensorDataset
    held_out: TensorDataset
    known: TensorDataset
    new_head: bool


def make_task(name: str, seed: int, *, divide: int = 1) -> Task:
    """Return a task as it is with a seed; with as many images divided by a number."""
    draw = np.random.default_rng([seed, *name.encode()])
    whole = _hymenoptera_parts(draw) if name == "insects" else _cifar_parts(draw)
    parts = {part: (images[::divide], labels[::divide]) for part, (images, labels) in whole.items()}
    start, new_head = pretrained(), name in ("insects", "regrouped")
    if new_head:
        torch.manual_seed(seed)
        start.linear = nn.Linear(64, 2 if name == "insects" else 5)
    changed = (CHANGES["plain" if name == "insects" else name])(parts, draw)
    known = tuple(each[::divide] for each in _cifar_parts(np.random.default_rng(0))["probe"])
    shown = {part: TensorDataset(_normalized(images), labels) for part, (images, labels) in changed.items()}
    start = start.to(memory_format=torch.channels_last)  # a third faster on this processor
    return Task(start, **shown, known=TensorDataset(_normalized(known[0]), known[1]), new_head=new_head)


def noise(parts: Mapping[str, Images], draw: np.random.Generator) -> dict[str, Images]:
    generator = torch.Generator().manual_seed(int(draw.integers(1 << 31)))
    return {
        part: ((images + NOISE * torch.randn(images.shape, generator=generator)).clamp(0, 1), labels)
        for part, (images, labels) in parts.items()
    }


def blur(parts: Mapping[str, Images], draw: np.random.Generator) -> dict[str, Images]:
    softly = transforms.GaussianBlur(9, BLUR)
    return {part: (softly(images), labels) for part, (images, labels) in parts.items()}


def kind(parts: Mapping[str, Images], draw: np.random.Generator) -> dict[str, Images]:
    chosen = int(draw.integers(10))
    others = _hymenoptera_parts(draw)
    changed = {}
    for part, (images, labels) in parts.items():
        here = torch.nonzero(labels == chosen).flatten()
        pool = others[part][0]
        images = images.clone()
        images[here] = pool[torch.arange(len(here)) % len(pool)]
        changed[part] = (images, labels)
    return changed


def permuted(parts: Mapping[str, Images], draw: np.random.Generator) -> dict[str, Images]:
    numbers = torch.from_numpy(draw.permutation(10))
    return {part: (images, numbers[labels]) for part, (images, labels) in parts.items()}


def regrouped(parts: Mapping[str, Images], draw: np.random.Generator) -> dict[str, Images]:
    groups = torch.from_numpy(draw.permutation(np.arange(10) // 2))
    return {part: (images, groups[labels]) for part, (images, labels) in parts.items()}


CHANGES: dict[str, Callable[[Mapping[str, Images], np.random.Generator], dict[str, Images]]] = {
    "noise": noise,
    "kind": kind,
    "permuted": permuted,
    "regrouped": regrouped,
    "blur": blur,
    "plain": lambda parts, _: dict(parts),
}


def _cifar_parts(draw: np.random.Generator) -> dict[str, Images]:
    images, labels = _cifar("train")
    chosen = torch.from_numpy(draw.permutation(len(labels))[: SIZES["training"]])
    others = _cifar("val")
    left = {part: SIZES[part] for part in ("probe", "held_out")}
    return {"training": (images[chosen], labels[chosen]), **_split(others, draw, left)}


def _hymenoptera_parts(draw: np.random.Generator) -> dict[str, Images]:
    return _split(_hymenoptera(), draw, {part: INSECTS[part] for part in ("probe", "held_out", "training")})


def _split(images: Images, draw: np.random.Generator, sizes: Mapping[str, int]) -> dict[str, Images]:
    order = torch.from_numpy(draw.permutation(len(images[1])))
    parts = dict(zip(sizes, order[: sum(sizes.values())].split([*sizes.values()]), strict=True))
    return {part: (images[0][chosen], images[1][chosen]) for part, chosen in parts.items()}


@cache
def _cifar(part: str) -> Images:
    return _read(Path("cifar10_4000") / part, [])


@cache
def _hymenoptera() -> Images:
    """Return the photographs of both parts, in a square of the middle."""
    square = [transforms.Resize(32, antialias=True), transforms.CenterCrop(32)]
    both = [_read(Path("hymenoptera_data") / part, square) for part in ("train", "val")]
    return torch.cat([images for images, _ in both]), torch.cat([labels for _, labels in both])


def _read(folder: Path, stages: list[nn.Module]) -> Images:
    shown = transforms.Compose([*stages, transforms.ToTensor()])
    items = ImageFolder(Path(os.environ["FMCLUSTER_DATA"]) / folder, shown)
    return torch.stack([image for image, _ in items]), torch.tensor(items.targets)


def _normalized(images: torch.Tensor) -> torch.Tensor:
    return transforms.functional.normalize(images, MEAN, DEVIATION).contiguous(memory_format=torch.channels_last)
