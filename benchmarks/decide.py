"""Is it worth following the advice of `fm.diagnose`, compared with doing the same to layers chosen at random?

    python benchmarks/decide.py --task digits      a ResNet-18 that knows the digits 0 to 4 learns 5 to 9, offline
    python benchmarks/decide.py --task photographs a ResNet-20 of CIFAR-10 learns ants and bees (FMCLUSTER_DATA)

One fine-tuning is looked at: of the network at its end, `fm.ablate` measures what it costs to put the stem or a block
back to an earlier epoch, and to remove half of a block's inner channels. What `fm.diagnose` advises from that is then
done, and the network trained again from that start:

freeze   the stem or a block, from the epoch on to which it could be put back;
narrow   the inner convolution of a residual block to half of its channels, those whose response varied most.

At random is the same number of layers, with the same epochs, drawn anew for each seed. Costs are counted: multiply-adds
of forward and backward pass over the whole training, bytes that autograd keeps between the two, parameters trained.

Prints a table and writes results/decide.json.
"""

import argparse
import copy
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import process_time
from typing import Any

import numpy as np
import pandas as pd
import torch
from results import FOLDER, machine, write
from torch import nn
from torch.autograd.graph import saved_tensors_hooks
from torch.nn import functional
from torch.optim import SGD
from torch.utils.data import DataLoader, Dataset, Subset, TensorDataset
from torch.utils.flop_counter import FlopCounterMode
from torchvision import transforms
from torchvision.datasets import ImageFolder

import fmcluster as fm
from fmcluster.decide import Rewind, Width
from fmcluster.recipes import DigitImages, evaluate, load_digit_splits, pretrain, replace_head, train_one_epoch

CPU = torch.device("cpu")
INNER = ".conv1"
BATCH_SIZE = 32


@dataclass(frozen=True)
class Task:
    """A network before fine-tuning, and images: to train on, to look at, and to measure accuracy on."""

    start: nn.Module
    training: Dataset[Any]
    probe: Dataset[Any]
    held_out: Dataset[Any]
    rate: float
    epochs: int

    def loader(self, seed: int) -> DataLoader[Any]:
        order = torch.Generator().manual_seed(seed)
        return DataLoader(self.training, batch_size=BATCH_SIZE, shuffle=True, generator=order)

    def accuracy(self, model: nn.Module) -> float:
        return evaluate(model, DataLoader(self.held_out, batch_size=100), device=CPU).accuracy


@dataclass(frozen=True)
class Plan:
    """What is done to the network: from which epoch on each layer is frozen, which channels each block keeps inside."""

    frozen: Mapping[str, int]
    kept: Mapping[str, np.ndarray]


class Block(nn.Module):
    """A residual block whose shortcut has no parameters."""

    def __init__(self, n_in: int, n_out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(n_in, n_out, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(n_out)
        self.conv2 = nn.Conv2d(n_out, n_out, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(n_out)
        self.stride, self.padded = stride, (n_out - n_in) // 2

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = self.bn2(self.conv2(functional.relu(self.bn1(self.conv1(x)))))
        short = functional.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.padded, self.padded))
        return functional.relu(out + short)


class ResNet20(nn.Module):
    """The CIFAR ResNet of 20 layers: three stages of three blocks with 16, 32 and 64 channels."""

    def __init__(self, n_classes: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = nn.Sequential(*(Block(16, 16, 1) for _ in range(3)))
        self.layer2 = nn.Sequential(Block(16, 32, 2), Block(32, 32, 1), Block(32, 32, 1))
        self.layer3 = nn.Sequential(Block(32, 64, 2), Block(64, 64, 1), Block(64, 64, 1))
        self.linear = nn.Linear(64, n_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.layer3(self.layer2(self.layer1(functional.relu(self.bn1(self.conv1(x))))))
        return self.linear(x.mean((2, 3)))


class Augmented(Dataset[Any]):
    """The same items, cropped and flipped at random, as in the tutorial."""

    def __init__(self, dataset: TensorDataset, size: int) -> None:
        self.dataset = dataset
        crop = transforms.RandomResizedCrop(size, scale=(0.4, 1.0))
        self.transform = transforms.Compose([crop, transforms.RandomHorizontalFlip()])

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        image, label = self.dataset[index]
        return self.transform(image), int(label)


def digits(epochs: int) -> Task:
    splits = load_digit_splits()
    start = pretrain(splits.pretraining, epochs=2, random_state=0, device=CPU)
    replace_head(start, n_classes=5, random_state=0, device=CPU)
    unseen = DigitImages(range(5, 10), np.setdiff1d(splits.validation.indices, splits.probe.indices))
    return Task(start, splits.training, splits.probe, unseen, rate=0.01, epochs=epochs)


def photographs(epochs: int, *, size: int = 64) -> Task:
    """Ants and bees, at 64 pixels a side; every fourth training image is in the probe, with evaluation transforms."""
    folder = os.environ.get("FMCLUSTER_DATA")
    if folder is None:
        raise SystemExit("set FMCLUSTER_DATA to the folder of images and weights, or use --task digits")
    start = ResNet20(10)
    path = Path(folder) / "weights" / "resnet20-12fca82f.th"
    state = torch.load(path, weights_only=True, map_location="cpu")["state_dict"]
    start.load_state_dict({key.removeprefix("module."): value for key, value in state.items()})
    torch.manual_seed(0)
    start.linear = nn.Linear(64, 2)
    shown = transforms.Compose(
        [
            transforms.Resize(size * 8 // 7),
            transforms.CenterCrop(size),
            transforms.ToTensor(),
            transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ]
    )
    parts = {part: ImageFolder(Path(folder) / "hymenoptera_data" / part, shown) for part in ("train", "val")}
    seen = {
        part: TensorDataset(torch.stack([image for image, _ in images]), torch.tensor(images.targets))
        for part, images in parts.items()
    }
    probe = Subset(seen["train"], range(0, len(seen["train"]), 4))
    return Task(start, Augmented(seen["train"], size), probe, seen["val"], rate=0.01, epochs=epochs)


def look(task: Task, path: Path) -> tuple[fm.store.Run, Any]:
    """Record one fine-tuning, measure what could be done without, and diagnose it."""
    model, loader = copy.deepcopy(task.start), task.loader(0)
    optimizer = SGD(model.parameters(), lr=task.rate, momentum=0.9)
    states = {0: copy.deepcopy(model.state_dict())}  # and half-way
    torch.manual_seed(0)
    with fm.Recorder(model, path, layers=["conv1", "layer?.?", "layer?.?.conv1"], probe=task.probe) as recorder:
        recorder.snapshot(epoch=0)
        for epoch in range(1, task.epochs + 1):
            train_one_epoch(model, loader, optimizer=optimizer, criterion=nn.CrossEntropyLoss(), device=CPU)
            recorder.snapshot(epoch=epoch)
            if epoch == task.epochs // 2:
                states[epoch] = copy.deepcopy(model.state_dict())
    run = fm.open_run(path)
    blocks = [name for name in run.layers if name.startswith("layer") and not name.endswith(INNER)]
    rewound = fm.ablate(model, task.probe, interventions=[Rewind(states)], layers=["conv1", *blocks], n_null=0)
    inner = [block + INNER for block in blocks]
    narrowed = fm.ablate(model, task.probe, interventions=[Width(shares=(0.5,))], layers=inner)
    return run, (*fm.diagnose(run, damage=rewound).advice, *fm.diagnose(run, damage=narrowed).advice)


def strongest(run: Any, block: str) -> np.ndarray:
    """Return the half of a block's inner channels whose mean response to the probe varied most at the last snapshot."""
    told = run[block + INNER].statistics
    last = told[told["snapshot"] == told["snapshot"].max()].sort_values("std", ascending=False)
    return np.sort(last["channel"].to_numpy()[: len(last) // 2])


def plans(run: Any, advice: Sequence[Any], seeds: range) -> dict[tuple[str, str, int], Plan]:
    """Return what is done in each arm with each seed."""
    blocks = [name for name in run.layers if name.startswith("layer") and not name.endswith(INNER)]
    units = ["conv1", *blocks]
    calendar = {each.layer: each.epoch for each in advice if each.action == "freeze"}
    named = {each.layer for each in advice if each.action == "narrow"}
    narrow = [block for block in blocks if block + INNER in named]
    out = {}
    for seed in seeds:
        draw = np.random.default_rng(seed)
        dealt = dict(zip(draw.permutation(units).tolist(), calendar.values(), strict=False))
        drawn = draw.permutation(blocks)[: len(narrow)].tolist()
        out["nothing", "none", seed] = Plan({}, {})
        for by, frozen, chosen in (("evidence", calendar, narrow), ("random", dealt, drawn)):
            if calendar:
                out["freeze", by, seed] = Plan(frozen, {})
            if narrow:
                out["narrow", by, seed] = Plan({}, {block: strongest(run, block) for block in chosen})
    return out


def narrowed(start: nn.Module, kept: Mapping[str, np.ndarray]) -> nn.Module:
    """Return a copy whose blocks have only these inner channels."""
    model = copy.deepcopy(start)
    for name, channels in kept.items():
        block, index = model.get_submodule(name), torch.from_numpy(channels)
        for module in (block.conv1, block.bn1):
            for key, value in [*module.named_parameters(), *module.named_buffers()]:
                if value.ndim:
                    getattr(module, key).data = value.data[index]
        block.conv2.weight.data = block.conv2.weight.data[:, index]
        block.conv1.out_channels = block.bn1.num_features = block.conv2.in_channels = len(index)
    return model


def freeze(model: nn.Module, plan: Plan, epoch: int) -> None:
    for layer, since in plan.frozen.items():
        if epoch >= since:
            for module in (model.conv1, model.bn1) if layer == "conv1" else (model.get_submodule(layer),):
                module.eval().requires_grad_(False)


def retrain(task: Task, plan: Plan, seed: int) -> dict[str, float]:
    model, loader = narrowed(task.start, plan.kept), task.loader(seed)
    optimizer = SGD(model.parameters(), lr=task.rate, momentum=0.9)
    torch.manual_seed(seed)
    begin = process_time()
    for epoch in range(task.epochs):
        model.train()
        freeze(model, plan, epoch)
        for images, labels in loader:
            optimizer.zero_grad()
            functional.cross_entropy(model(images), labels).backward()
            optimizer.step()
    return {"cpu_seconds_per_epoch": (process_time() - begin) / task.epochs, "accuracy": task.accuracy(model)}


def cost(task: Task, plan: Plan) -> dict[str, float]:
    """Count one step of each epoch on a full batch."""
    images, labels = next(iter(task.loader(0)))
    n_images = len(task.training)  # type: ignore[arg-type]
    operations, kept, trained = [], [], []
    for epoch in range(task.epochs):
        model = narrowed(task.start, plan.kept).train()
        freeze(model, plan, epoch)
        own = {value.untyped_storage().data_ptr() for value in model.state_dict().values()}
        saved: dict[int, int] = {}

        def pack(tensor: torch.Tensor, own: set[int] = own, saved: dict[int, int] = saved) -> torch.Tensor:
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in own:
                saved[storage.data_ptr()] = storage.nbytes()
            return tensor

        with FlopCounterMode(display=False) as counter, saved_tensors_hooks(pack, lambda tensor: tensor):
            functional.cross_entropy(model(images), labels).backward()
        operations.append(counter.get_total_flops() / 2 * n_images / len(images))
        kept.append(sum(saved.values()))
        trained.append(sum(value.numel() for value in model.parameters() if value.requires_grad))
    return {
        "multiply_adds": float(np.sum(operations)),
        "kept_bytes": float(np.mean(kept)),
        "trained_parameters": float(np.mean(trained)),
    }


def compared(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the mean of each arm, and its accuracy against that of other arms with the same seed, in points."""
    arms = frame["action"].where(frame["action"] == "nothing", frame["action"] + " by " + frame["by"])
    summary = frame.drop(columns=["action", "by", "seed"]).groupby(arms.rename("arm"), sort=False).mean()
    summary["multiply_adds"] /= summary.loc["nothing", "multiply_adds"]
    points = (100 * frame["accuracy"]).groupby([frame["seed"], arms]).first().unstack()
    for arm in summary.index:
        summary.loc[arm, "points over nothing"] = (points[arm] - points["nothing"]).mean()
        if arm.endswith("evidence"):
            difference = points[arm] - points[arm.replace("evidence", "random")]
            summary.loc[arm, "points over random"] = difference.mean()
            summary.loc[arm, "standard error"] = difference.std() / len(difference) ** 0.5
    return summary


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", choices=["digits", "photographs"], nargs="+", help="default: all that can be done")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--seeds", type=int, default=6)
    parser.add_argument("--output", type=Path, default=FOLDER)
    arguments = parser.parse_args()
    possible = ["digits", "photographs"] if "FMCLUSTER_DATA" in os.environ else ["digits"]
    measured: dict[str, Any] = {"machine": machine(), "epochs": arguments.epochs, "tasks": {}}
    for name in arguments.task or possible:
        task = {"digits": digits, "photographs": photographs}[name](arguments.epochs)
        with tempfile.TemporaryDirectory() as folder:
            run, found = look(task, Path(folder) / "run.zarr")
            planned = plans(run, found, range(1, arguments.seeds + 1))
        rows = []
        for (action, by, seed), plan in planned.items():
            rows.append({"action": action, "by": by, "seed": seed, **cost(task, plan), **retrain(task, plan, seed)})
            print(name, action, by, seed, f"{rows[-1]['accuracy']:.3f}", flush=True)
        frame = pd.DataFrame(rows)
        advice = [str(each) for each in found if each.action in ("freeze", "narrow")]
        print("", *advice, compared(frame).round(3).to_string(), "", sep="\n")
        measured["tasks"][name] = {"held_out": len(task.held_out), "advice": advice, "rows": rows}  # type: ignore[arg-type]
        write("decide", measured, folder=arguments.output)


if __name__ == "__main__":
    main()
