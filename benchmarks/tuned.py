"""Fine-tunings that the evidence is measured on: images of CIFAR-10, and random batches of them."""

import os
from pathlib import Path

import numpy as np
import torch
from resnet20 import DEVIATION, MEAN
from torch import nn
from torch.nn import functional
from torch.utils.data import TensorDataset
from torchvision import transforms
from torchvision.datasets import ImageFolder


def images(count: int, *, part: str, seed: int = 0) -> TensorDataset:
    """Return so many images of ``train`` or ``val``, drawn by the seed; the first are those of a smaller count."""
    shown = transforms.Compose([transforms.ToTensor(), transforms.Normalize(MEAN, DEVIATION)])
    folder = ImageFolder(Path(os.environ["FMCLUSTER_DATA"]) / "cifar10_4000" / part, shown)
    chosen = np.random.default_rng(seed).permutation(len(folder))[:count]
    items = [folder[int(number)] for number in chosen]
    return TensorDataset(torch.stack([image for image, _ in items]), torch.tensor([label for _, label in items]))


def noisy(data: TensorDataset, scale: float, *, seed: int = 0) -> TensorDataset:
    """Return images with normal noise, in units of the images' own standard deviation; another seed, other noise."""
    noise = torch.randn(data.tensors[0].shape, generator=torch.Generator().manual_seed(seed))
    return TensorDataset(data.tensors[0] + scale * noise, data.tensors[1])


def tune(model: nn.Module, data: TensorDataset, *, steps: int, rate: float, generator: torch.Generator) -> None:
    """Train in place on random batches of 64; at rate 0 only the normalizations' statistics move."""
    model.train()
    optimizer = torch.optim.SGD(model.parameters(), lr=rate, momentum=0.9)
    for _ in range(steps):
        chosen = torch.randint(len(data), (64,), generator=generator)
        optimizer.zero_grad()
        functional.cross_entropy(model(data.tensors[0][chosen]), data.tensors[1][chosen]).backward()
        if rate:
            optimizer.step()
    model.eval()


@torch.no_grad()
def loss_of(model: nn.Module, data: TensorDataset) -> float:
    """Return the mean cross-entropy in evaluation mode."""
    model.eval()
    return float(functional.cross_entropy(model(data.tensors[0]), data.tensors[1]))
