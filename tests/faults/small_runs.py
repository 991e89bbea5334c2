"""Two small runs of a real network, one of a probe and one live, and all that can be read from a run."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

import fmcluster as fm
from fmcluster.store import Run, open_run

N_SAMPLES, EPOCHS, LAYERS = 6, 3, ["conv", "fc"]


class Net(nn.Module):
    """One convolution and one linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.relu, self.fc = nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the classes' scores."""
        return self.fc(self.relu(self.conv(x)).mean((2, 3)))


class Pictures(Dataset[tuple[torch.Tensor, int]]):
    """Random pictures with labels, class names and paths."""

    classes = ("one", "two", "three")

    def __init__(self, seed: int) -> None:
        self.images = torch.rand(N_SAMPLES, 3, 6, 6, generator=torch.Generator().manual_seed(seed))
        self.targets = [number % 3 for number in range(N_SAMPLES)]
        self.samples = [(f"images/{seed}/{number}.png", label) for number, label in enumerate(self.targets)]

    def __len__(self) -> int:
        """Return how many there are."""
        return N_SAMPLES

    def __getitem__(self, number: int) -> tuple[torch.Tensor, int]:
        """Return a picture and its label."""
        return self.images[number], self.targets[number]


def trained(seed: int, epoch: int) -> Net:
    """Return the network as it is at an epoch: the same whenever it is asked for."""
    torch.manual_seed(100 * seed + epoch)
    return Net()


def record_probe(path: Path, *, seed: int, mode: str = "x", epochs: range = range(EPOCHS)) -> None:
    """Record a probe, or go on with it."""
    model = Net()
    with fm.Recorder(model, path, layers=LAYERS, probe=Pictures(seed), mode=mode, batch_size=4) as recorder:
        for epoch in epochs:
            model.load_state_dict(trained(seed, epoch).state_dict())
            recorder.snapshot(epoch=epoch, step=epoch * 5, metrics={"loss": 1 / (1 + epoch + seed)})


def record_live(path: Path, *, seed: int, mode: str = "x", epochs: range = range(EPOCHS)) -> None:
    """Record training batches with gradients and weights, or go on with it."""
    data, model = Pictures(seed), Net()
    with fm.BatchRecorder(
        model, path, layers=LAYERS, dataset=data, record=("activation", "gradient", "weight"), mode=mode
    ) as recorder:
        for epoch in epochs:
            model.load_state_dict(trained(seed, epoch).state_dict())
            order = torch.Generator().manual_seed(100 * seed + epoch)
            loader = DataLoader(fm.with_index(data), batch_size=3, shuffle=True, generator=order)
            with recorder.epoch(epoch, step=epoch * 2):
                for indices, images, labels in loader:
                    with recorder.batch(indices):
                        nn.functional.cross_entropy(model(images), labels).backward()
                    model.zero_grad()


RECORD = {"probe": record_probe, "live": record_live}


def parts_of(path: Path | str) -> Iterator[tuple[str, bytes]]:
    """Read all that a run holds, part by part: what it is, and its bytes."""
    run: Run = open_run(path)
    for name in run.layers:
        for layer in filter(None, (run[name], run[name].gradient if run.kind == "live" else None)):
            for snapshot in range(len(run)):
                yield f"{layer.label} {snapshot}", layer.read(snapshot=snapshot).tobytes()
                yield (
                    f"{layer.label} {snapshot}, part",
                    layer.read(snapshot=snapshot, samples=[2], channels=1).tobytes(),
                )
            yield f"{layer.label} statistics", layer.statistics.to_csv().encode()
        yield f"{name} channels", np.asarray(run[name].channels).tobytes()
    for snapshot in range(len(run)) if run.weight_names else ():
        for name, values in run.read_weights(snapshot=snapshot).items():
            yield f"weight {name} {snapshot}", values.tobytes()
    if run.weight_names:
        yield "norms", run.weights.to_csv().encode()
    for what in ("samples", "metrics", "snapshots"):
        yield what, getattr(run, what).to_csv().encode()
    yield "classes", repr(run.classes).encode()
    for sample in run.samples.index:
        picture = run.display(sample)
        yield f"picture {sample}", b"" if picture is None else picture.tobytes()
