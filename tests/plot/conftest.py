"""What the pictures are drawn from: a layer and results that look like those of a real run."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

import matplotlib as mpl

mpl.use("agg")

import numpy as np
import pandas as pd
import pytest
import torch
import torchvision
from sklearn.datasets import load_digits

from fmcluster.analysis._results import Clusters, Embedding, Faithfulness, History, Scores

EPOCHS = [0, 1, 1, 1, 2, 3, 4, 5, 6]
STEPS = [0, 2, 4, 8, 16, 24, 32, 40, 48]


def snapshot_frame(count: int = 9) -> pd.DataFrame:
    return pd.DataFrame({"snapshot": range(count), "epoch": EPOCHS[:count], "step": STEPS[:count]})


@dataclass(frozen=True)
class FakeLayer:
    """A layer with its activations in memory: ndarray of shape (n_snapshots, n_samples, n_channels, ...)."""

    name: str
    activation: np.ndarray
    pictures: np.ndarray | None
    snapshots: pd.DataFrame
    samples: pd.DataFrame

    quantity: str = "activation"
    numbers: tuple[int, ...] | None = None

    @property
    def label(self) -> str:
        return self.name if self.quantity == "activation" else f"{self.name} {self.quantity}"

    @property
    def dimensions(self) -> tuple[str, ...]:
        axes = {3: ("channel",), 4: ("token", "channel"), 5: ("channel", "height", "width")}[self.activation.ndim]
        return ("snapshot", "sample", *axes)

    @property
    def channels(self) -> np.ndarray:
        return np.arange(self.n_channels) if self.numbers is None else np.array(self.numbers)

    @property
    def n_channels(self) -> int:
        return self.activation.shape[-1 if self.activation.ndim == 4 else 2]

    @cached_property
    def statistics(self) -> pd.DataFrame:
        channel_axis = self.activation.ndim - 1 if self.activation.ndim == 4 else 2
        values = np.moveaxis(self.activation, channel_axis, 1).astype(np.float64)
        values = values.reshape(*values.shape[:2], -1)
        values[~np.isfinite(values)] = np.nan
        table = self.snapshots.merge(pd.DataFrame({"channel": self.channels}), how="cross")
        for name in ("mean", "std", "min", "max"):
            table[name] = getattr(np, f"nan{name}")(values, axis=2).ravel()
        return table

    def read(self, *, snapshot: int, samples: int, channels: list[int]) -> np.ndarray:
        one = self.activation[snapshot, [list(self.samples.index).index(samples)]]
        places = [self.channels.tolist().index(channel) for channel in channels]
        return one[:, :, places] if self.activation.ndim == 4 else one[:, places]

    def display(self, sample: int) -> np.ndarray | None:
        return None if self.pictures is None else self.pictures[list(self.samples.index).index(sample)]


@cache
def resnet_layers() -> dict[str, FakeLayer]:
    """Return the layers of a ResNet-18 whose random weights drift over nine snapshots, on six digits."""
    digits = load_digits()
    images = torch.tensor(digits.images[:6], dtype=torch.float32)[:, None] / 16
    images = torch.nn.functional.interpolate(images, size=64, mode="bilinear").repeat(1, 3, 1, 1)
    pictures = (images.permute(0, 2, 3, 1).numpy() * 255).astype(np.uint8)
    samples = pd.DataFrame({"label": digits.target[:6], "class_name": [f"digit {t}" for t in digits.target[:6]]})
    samples.index.name = "sample"

    generator = torch.Generator().manual_seed(0)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = torchvision.models.resnet18(num_classes=10).eval()
    names = ["conv1", "bn1", "relu", "layer1", "layer4", "avgpool", "fc"]
    caught: dict[str, Any] = {name: [] for name in names}
    for name in names:
        model.get_submodule(name).register_forward_hook(
            lambda _module, _args, output, name=name: caught[name].append(output.clone())
        )
    with torch.no_grad():
        model.bn1.weight[[7, 20, 41]] = 0
        model.relu.inplace = False
        parameters = list(model.parameters())
        drift = [0.3 * p.std() * torch.randn(p.shape, generator=generator) for p in parameters]
        for _ in range(9):
            model((images - 0.45) / 0.225)
            torch._foreach_add_(parameters, drift, alpha=0.3)
    layers = {}
    for name, outputs in caught.items():
        activation = torch.stack(outputs).numpy().astype(np.float16)
        layers[name] = FakeLayer(name, activation, pictures, snapshot_frame(), samples)
    return layers


@pytest.fixture(scope="session")
def layers() -> dict[str, FakeLayer]:
    return resnet_layers()


def result_rows(per_snapshot: int, count: int = 9) -> pd.DataFrame:
    return snapshot_frame(count).merge(pd.DataFrame({"channel": range(per_snapshot)}), how="cross")


def make_drifting(per_snapshot: int, *, n_clusters: int = 8, count: int = 9, noise: bool = False) -> tuple[Any, ...]:
    """Return an embedding, clusters and their history: rows that drift, some of them to another cluster."""
    rng = np.random.default_rng(0)
    angles = 2 * np.pi * np.arange(n_clusters) / n_clusters
    centers = np.stack([9 * np.cos(angles), 5 * np.sin(angles)], axis=1)
    home = rng.integers(0, n_clusters, per_snapshot)
    labels, values = [], []
    places = centers[home] * 0.5 + rng.normal(0, 1.6, (per_snapshot, 2))
    for snapshot in range(count):
        moving = rng.random(per_snapshot) < 0.25 * np.exp(-snapshot / 2)
        home = np.where(moving, rng.integers(0, n_clusters, per_snapshot), home)
        places = places + 0.35 * (centers[home] - places) + rng.normal(0, 0.25, (per_snapshot, 2))
        values.append(places)
        labels.append(np.where(noise & (rng.random(per_snapshot) < 0.06), -1, home))
    rows = result_rows(per_snapshot, count)
    about = {"rows": rows, "layer": "layer4", "view": "channel", "fit": "pooled"}
    faithfulness = Faithfulness(0.56, 0.03, 15, 64, 0.93, 0.71 if count > 1 else float("nan"), 0.69)
    embedding = Embedding(**about, values=np.concatenate(values), method="UMAP", faithfulness=faithfulness)
    clusters = Clusters(**about, labels=np.concatenate(labels).astype(np.int64), method="KMeans")
    return embedding, clusters, history_of(clusters)


def history_of(clusters: Clusters) -> History:
    labels = clusters.by_snapshot(clusters.labels)
    moves = pd.DataFrame(
        {
            "from_snapshot": np.repeat(np.arange(len(labels) - 1), labels.shape[1]),
            "to_snapshot": np.repeat(np.arange(1, len(labels)), labels.shape[1]),
            "from_cluster": labels[:-1].ravel(),
            "to_cluster": labels[1:].ravel(),
        }
    )
    flow = moves.groupby(list(moves.columns)).size().rename("count").reset_index()
    both = moves[(moves["from_cluster"] >= 0) & (moves["to_cluster"] >= 0)]
    both = both.assign(stayed=both["from_cluster"] == both["to_cluster"])
    steps = both.groupby(["from_snapshot", "to_snapshot"])["stayed"].agg(n_rows="size", stayed="sum").reset_index()
    steps["churn"] = 1 - steps["stayed"] / steps["n_rows"]
    sizes = clusters.frame.groupby(["snapshot", "cluster"]).size().unstack(fill_value=0)
    return History(clusters=clusters, frame=moves, flow=flow, steps=steps, sizes=sizes, lives=pd.DataFrame())


@pytest.fixture(scope="session")
def drifting() -> Callable[..., tuple[Embedding, Clusters, History]]:
    return make_drifting


@pytest.fixture(scope="session")
def scores() -> Scores:
    per_snapshot = 64
    rng = np.random.default_rng(1)
    singular = 100 * 0.9 ** np.arange(50)
    return Scores(
        rows=result_rows(per_snapshot),
        layer="layer4",
        view="channel",
        fit="pooled",
        values=rng.normal(size=(per_snapshot * 9, 50)),
        singular_values=singular,
        total_variance=float((singular**2).sum() / (per_snapshot * 9 - 1) * 1.07),
        n_features=4900,
        method="gram",
    )


@pytest.fixture
def run_metrics() -> pd.DataFrame:
    accuracy = [0.458, np.nan, 0.61, 0.72, 0.84, 0.91, 0.935, 0.941, 0.948]
    return snapshot_frame().assign(val_accuracy=accuracy, loss=np.linspace(1.2, 0.1, 9))
