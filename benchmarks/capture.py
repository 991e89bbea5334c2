"""What does it cost to record a probe pass? Side by side, in one run, in turn.

    FMCLUSTER_DATA=... python benchmarks/capture.py

ResNet-18 at 224 pixels, its ten children at full resolution, evaluation mode. A pass shows the probe to the model in
batches; each contender does with the outputs what its name says, until everything it writes is on the disk. Photographs
where FMCLUSTER_DATA names them (ants and bees), else noise; weights from --weights (a state dict of a ResNet-18), else
random. Prints medians and ratios to the bare pass of the same round, and writes results/capture-<device>.json.
"""

import argparse
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from statistics import median
from time import perf_counter

import numpy as np
import torch
from results import machine, write
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from torchvision import transforms
from torchvision.datasets import ImageFolder
from torchvision.models import resnet18

from fmcluster import Recorder


def photographs(count: int) -> torch.Tensor:
    root = os.environ.get("FMCLUSTER_DATA")
    if root is None:
        return torch.randn(count, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    normalize = transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    stages = [transforms.Resize(256), transforms.CenterCrop(224), transforms.ToTensor(), normalize]
    folder = ImageFolder(Path(root) / "hymenoptera_data" / "val", transforms.Compose(stages))
    return torch.stack([folder[i][0] for i in range(min(count, len(folder)))])


def hooks_into(model: nn.Module, keep: Callable[[str, torch.Tensor], None]) -> list:
    return [
        child.register_forward_hook(lambda _module, _inputs, output, name=name: keep(name, output))
        for name, child in model.named_children()
    ]


class Contenders:
    """Each method is one pass; it returns the bytes that it left on the disk."""

    def __init__(self, model: nn.Module, probe: TensorDataset, device: torch.device, batch_size: int) -> None:
        self.model, self.probe, self.device, self.batch_size = model, probe, device, batch_size

    def show(self) -> None:
        with torch.no_grad():
            for (images,) in DataLoader(self.probe, batch_size=self.batch_size):
                self.model(images.to(self.device))
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def bare(self, _folder: Path) -> None:
        self.show()

    def fmcluster(self, folder: Path) -> None:
        self.recorder.snapshot(epoch=self.epoch)
        self.recorder.flush()
        self.epoch += 1

    def dict_of_clones(self, _folder: Path) -> None:
        kept: dict[str, list[torch.Tensor]] = {}
        handles = hooks_into(self.model, lambda name, out: kept.setdefault(name, []).append(out.detach().cpu().clone()))
        self.show()
        for handle in handles:
            handle.remove()

    def clones_and_np_save(self, folder: Path) -> None:
        number = iter(range(10**6))
        handles = hooks_into(
            self.model,
            lambda name, out: np.save(folder / f"{name}-{next(number)}.npy", out.detach().half().cpu().numpy()),
        )
        self.show()
        for handle in handles:
            handle.remove()
        flush(folder)

    def torch_save(self, folder: Path) -> None:
        kept: dict[str, list[torch.Tensor]] = {}
        handles = hooks_into(self.model, lambda name, out: kept.setdefault(name, []).append(out.detach().half().cpu()))
        self.show()
        for handle in handles:
            handle.remove()
        torch.save({name: torch.cat(parts) for name, parts in kept.items()}, folder / "activations.pt")
        flush(folder)


def flush(folder: Path) -> None:
    for file in folder.iterdir():
        handle = os.open(file, os.O_RDONLY)
        os.fsync(handle)
        os.close(handle)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=96)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--weights")
    arguments = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(0)
    model = resnet18(num_classes=2)
    if arguments.weights:
        model.load_state_dict(torch.load(arguments.weights, weights_only=True))
    model = model.to(device).eval()
    probe = TensorDataset(photographs(arguments.images))
    contenders = Contenders(model, probe, device, arguments.batch_size)
    names = ["bare", "fmcluster", "dict_of_clones", "clones_and_np_save", "torch_save"]
    seconds: dict[str, list[float]] = {name: [] for name in names}
    sizes: dict[str, int] = {}
    with tempfile.TemporaryDirectory() as root:
        run = Path(root) / "run.zarr"
        contenders.epoch = 0
        with Recorder(model, run, probe=probe, batch_size=arguments.batch_size) as contenders.recorder:
            for turn in range(arguments.rounds + 1):
                for name in names:
                    folder = Path(root) / name
                    folder.mkdir()
                    start = perf_counter()
                    getattr(contenders, name)(folder)
                    if turn:  # the first round warms up
                        seconds[name].append(perf_counter() - start)
                    sizes[name] = sum(file.stat().st_size for file in folder.iterdir())
                    shutil.rmtree(folder)
            peak = contenders.recorder.peak_pending_bytes
        sizes["fmcluster"] = sum(f.stat().st_size for f in run.rglob("c.*")) // contenders.epoch
    rows = []
    for name in names:
        ratios = [a / b for a, b in zip(seconds[name], seconds["bare"], strict=True)]
        rows.append({"contender": name, "seconds": seconds[name], "ratio": ratios, "bytes": sizes[name]})
        print(
            f"{name:20s} {median(seconds[name]):6.2f} s  ratio {median(ratios):.3f} "
            f"({min(ratios):.3f} to {max(ratios):.3f})  {sizes[name] / 1e6:7.1f} MB"
        )
    label = torch.cuda.get_device_name().lower().replace(" ", "-") if device.type == "cuda" else "cpu"
    told = {
        "machine": machine(),
        "device": label,
        "images": len(probe),
        "batch_size": arguments.batch_size,
        "photographs": "FMCLUSTER_DATA" in os.environ,
        "trained_weights": bool(arguments.weights),
        "peak_pending_bytes": peak,
        "rows": rows,
    }
    write(f"capture-{label}", told)


if __name__ == "__main__":
    main()
