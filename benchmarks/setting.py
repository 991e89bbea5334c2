"""What every contender of `capture.py` is shown: one model, one probe, in the same batches."""

import argparse
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn.functional import adaptive_avg_pool2d
from torch.utils.data import ConcatDataset, DataLoader, TensorDataset
from torchvision import transforms
from torchvision.datasets import ImageFolder
from torchvision.models import resnet18


def device_label() -> str:
    """Name the CUDA device, in a form fit for a file's name."""
    return torch.cuda.get_device_name().lower().replace(" ", "-")


@dataclass(frozen=True)
class Setting:
    model: nn.Module
    probe: TensorDataset
    device: torch.device
    batch_size: int
    max_size: int | None = None  # what is larger is averaged to this many pixels, on the device

    @property
    def layers(self) -> list[str]:
        return [name for name, _ in self.model.named_children()]

    @property
    def label(self) -> str:
        """Name the device and what is kept, as the file of the results does."""
        device = device_label() if self.device.type == "cuda" else "cpu"
        return device if self.max_size is None else f"{device}-{self.max_size}px"

    def kept(self, output: torch.Tensor) -> torch.Tensor:
        """Return what is to be kept of an output, before it is rounded."""
        output = output.detach()
        if self.max_size is None or output.ndim != 4:
            return output
        return adaptive_avg_pool2d(output, [min(self.max_size, pixels) for pixels in output.shape[2:]])

    def batches(self) -> Iterator[torch.Tensor]:
        for (images,) in DataLoader(self.probe, batch_size=self.batch_size):
            yield images.to(self.device)

    def show(self) -> None:
        """Show the probe to the model, and wait for the device."""
        with torch.no_grad():
            for images in self.batches():
                self.model(images)
        self.synchronize()

    def synchronize(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def show_with_hooks(self, keep: Callable[[str, torch.Tensor], None]) -> None:
        """The same, and hand each child's output to `keep`."""
        with hooks_on_children(self.model, keep):
            self.show()

    def reference(self) -> dict[str, np.ndarray]:
        """Return what the children return, in float16, taken by hooks that clone before anything overwrites it."""
        parts: dict[str, list[torch.Tensor]] = {}
        self.show_with_hooks(lambda name, output: parts.setdefault(name, []).append(self.kept(output).half().cpu()))
        return {name: torch.cat(values).numpy() for name, values in parts.items()}


@contextmanager
def hooks_on_children(model: nn.Module, keep: Callable[[str, torch.Tensor], None]) -> Iterator[None]:
    handles = [
        child.register_forward_hook(lambda _module, _inputs, output, name=name: keep(name, output))
        for name, child in model.named_children()
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--images", type=int, help="default: 96; 384 on CUDA")
    parser.add_argument("--batch-size", type=int, help="default: 32; 128 on CUDA")
    parser.add_argument("--max-size", type=int, help="average what is larger to this many pixels; default: keep all")
    parser.add_argument("--weights", help="state dict of a ResNet-18 with two classes")


def make_setting(arguments: argparse.Namespace) -> Setting:
    on_cuda = torch.cuda.is_available()
    device = torch.device("cuda" if on_cuda else "cpu")
    torch.manual_seed(0)
    model = resnet18(num_classes=2)
    if arguments.weights:
        model.load_state_dict(torch.load(arguments.weights, weights_only=True))
    probe = TensorDataset(photographs(arguments.images or (384 if on_cuda else 96)))
    batch_size = arguments.batch_size or (128 if on_cuda else 32)
    return Setting(model.to(device).eval(), probe, device, batch_size, arguments.max_size)


def photographs(count: int, *, size: int = 224) -> torch.Tensor:
    root = os.environ.get("FMCLUSTER_DATA")
    if root is None:
        return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(0))
    normalize = transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    stages = transforms.Compose(
        [transforms.Resize(size * 8 // 7), transforms.CenterCrop(size), transforms.ToTensor(), normalize],
    )
    folders = [ImageFolder(Path(root) / "hymenoptera_data" / part, stages) for part in ("val", "train")]
    images: ConcatDataset = ConcatDataset(folders)
    return torch.stack([images[i][0] for i in range(min(count, len(images)))])
