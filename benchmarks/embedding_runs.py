"""Runs of other kinds for the embedding: three on which its default was chosen, and three tried after that.

Each is trained from random weights within seconds, on images that come with scikit-learn or lie in FMCLUSTER_DATA.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn.functional import cross_entropy, interpolate
from torch.utils.data import TensorDataset
from torchvision import transforms
from torchvision.datasets import ImageFolder
from torchvision.models import resnet18, shufflenet_v2_x0_5

from fmcluster import Recorder


@dataclass(frozen=True)
class Setup:
    """What is trained, on what, for how long, and which rows of it are embedded."""

    name: str
    model: Callable[[], nn.Module]
    data: Callable[[], TensorDataset]
    layer: str
    view: str
    n_train: int
    n_probe: int
    epochs: int
    rate: float
    chosen: bool  # whether the default was chosen on it

    @property
    def needs_data(self) -> bool:
        return self.data is cifar


def digits(size: int) -> TensorDataset:
    """The handwritten digits of scikit-learn, in three equal colors, enlarged."""
    images, labels = load_digits(return_X_y=True)
    small = torch.from_numpy(images.astype(np.float32)).reshape(-1, 1, 8, 8) / 8 - 1
    large = interpolate(small, size=(size, size), mode="bilinear", align_corners=False)
    return TensorDataset(large.expand(-1, 3, -1, -1), torch.from_numpy(labels))


def cifar() -> TensorDataset:
    """The validation images of the part of CIFAR-10 in FMCLUSTER_DATA."""
    normalize = transforms.Normalize((0.5,) * 3, (0.25,) * 3)
    stages = transforms.Compose([transforms.ToTensor(), normalize])
    folder = ImageFolder(Path(os.environ["FMCLUSTER_DATA"]) / "cifar10_4000" / "train", stages)
    chosen = np.random.default_rng(1).choice(len(folder), 1700, replace=False)
    images, labels = zip(*(folder[int(index)] for index in chosen), strict=True)
    return TensorDataset(torch.stack(images), torch.tensor(labels))


def vgg() -> nn.Module:
    """A VGG without batch normalization: three stages of two convolutions."""
    stages = []
    for before, after in ((3, 32), (32, 64), (64, 128)):
        pair = nn.Conv2d(before, after, 3, padding=1), nn.Conv2d(after, after, 3, padding=1)
        for each in pair:
            nn.init.kaiming_normal_(each.weight)
        stages.append(nn.Sequential(pair[0], nn.ReLU(), pair[1], nn.ReLU(), nn.MaxPool2d(2)))
    return nn.Sequential(*stages, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(128, 10))


def plain() -> nn.Module:
    """Four convolutions with batch normalization, each with a stride of 2 but the first."""
    widths = (3, 16, 32, 64, 64)
    layers = [
        nn.Sequential(nn.Conv2d(a, b, 3, 1 if a == 3 else 2, 1), nn.BatchNorm2d(b), nn.ReLU())
        for a, b in pairwise(widths)
    ]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))


SETUPS = (
    Setup("ResNet-18, digits, channels", lambda: resnet18(num_classes=10), lambda: digits(64), "layer3", "channel",
          n_train=320, n_probe=100, epochs=8, rate=0.02, chosen=True),
    Setup("VGG, CIFAR-10, channels", vgg, cifar, "2", "channel",
          n_train=960, n_probe=200, epochs=11, rate=0.02, chosen=True),
    Setup("plain CNN, digits, samples", plain, lambda: digits(16), "3", "sample",
          n_train=1200, n_probe=400, epochs=5, rate=0.05, chosen=True),
    Setup("ShuffleNet V2, digits, channels", lambda: shufflenet_v2_x0_5(num_classes=10), lambda: digits(64), "stage3",
          "channel", n_train=640, n_probe=100, epochs=8, rate=0.05, chosen=False),
    Setup("plain CNN, CIFAR-10, channels", plain, cifar, "2", "channel",
          n_train=960, n_probe=200, epochs=10, rate=0.05, chosen=False),
    Setup("ResNet-18, digits, samples", lambda: resnet18(num_classes=10), lambda: digits(32), "layer2", "sample",
          n_train=640, n_probe=300, epochs=6, rate=0.02, chosen=False),
)  # fmt: skip


def train(setup: Setup, path: str, *, quick: bool) -> None:
    """Record a probe before the first epoch and after each."""
    torch.manual_seed(0)
    images, labels = setup.data().tensors
    n_train, n_probe, epochs = (64, 64, 2) if quick else (setup.n_train, setup.n_probe, setup.epochs)
    order = torch.randperm(len(images))
    seen, unseen = order[:n_train], order[n_train : n_train + n_probe]
    model = setup.model()
    optimizer = torch.optim.SGD(model.parameters(), lr=setup.rate, momentum=0.9)
    with Recorder(model, path, layers=[setup.layer], probe=TensorDataset(images[unseen], labels[unseen])) as recorder:
        recorder.snapshot(epoch=0)
        for epoch in range(1, epochs + 1):
            model.train()
            for batch in seen[torch.randperm(n_train)].split(32):
                loss = cross_entropy(model(images[batch]), labels[batch])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            model.eval()
            with torch.no_grad():
                right = float((model(images[unseen]).argmax(1) == labels[unseen]).float().mean())
            recorder.snapshot(epoch=epoch, metrics={"val_accuracy": right})
    print(f"{setup.name}: {right:.0%} of {n_probe} unseen images right after {epochs} epochs", flush=True)
