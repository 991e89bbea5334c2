"""Embeddings of a run's snapshots: how faithful they are, in space and in motion, and how long they take.

    python benchmarks/embeddings.py                  a network is trained on images first (FMCLUSTER_DATA)
    python benchmarks/embeddings.py --run demo/run.zarr --views layer2:channel layer4:sample --name demo
    python benchmarks/embeddings.py --others         six runs of other kinds (--quick)
    python benchmarks/embeddings.py --scaling        how the processor's time of the default grows with rows instead

Every method maps the same 50 principal component scores of each layer and view, after one map to warm up, for several
seeds. Seconds are of the map alone. Prints medians and writes results/embeddings-<name>.json. Without a run of its
own it trains a ResNet-18 (first convolution 3 x 3 with stride 2, no max-pooling) for 10 epochs on a part of CIFAR-10,
with 200 images of the validation set as probe. M-PHATE is among the methods where it is installed. What `--others`
trains is in `embedding_runs.py`; its goals are 98 % of the neighbors that separate UMAPs keep, at motion no worse than
a joint UMAP's.
"""

import argparse
import os
import tempfile
import warnings
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from time import perf_counter, process_time
from typing import Any

import numpy as np
import torch
from embedding_runs import SETUPS
from embedding_runs import train as train_other
from results import FOLDER, machine, write
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE
from torch import nn
from torch.utils.data import DataLoader, Subset
from torchvision import transforms
from torchvision.datasets import ImageFolder
from torchvision.models import resnet18

from fmcluster import Recorder, embed, open_run, pca
from fmcluster.analysis._results import Embedding, Scores
from fmcluster.analysis.embedding._fused_embedding import FusedEmbedding
from fmcluster.analysis.embedding._landmarks import Landmarks, put_among
from fmcluster.analysis.embedding._preservation import measure_faithfulness

Method = Callable[[Scores, int], Embedding]


class MPhate:
    """M-PHATE of snapshots laid one below the other."""

    def __init__(self, n_snapshots: int, seed: int) -> None:
        self.n_snapshots = n_snapshots
        self.seed = seed

    def fit_transform(self, X: np.ndarray) -> np.ndarray:
        from m_phate import M_PHATE

        snapshots = X.reshape(self.n_snapshots, -1, X.shape[1])
        return M_PHATE(interslice_knn=5, random_state=self.seed, n_jobs=1, verbose=0).fit_transform(snapshots)


def umap(scores: Scores, seed: int, *, fit: str = "pooled") -> Embedding:
    from umap import UMAP

    return embed(scores, UMAP(random_state=seed, n_jobs=1), fit=fit)


def aligned_umap(scores: Scores, seed: int) -> Embedding:
    from umap import AlignedUMAP

    return embed(scores, AlignedUMAP(random_state=seed, transform_seed=seed))


def fused(**parameters: Any) -> Method:
    return lambda scores, seed: embed(scores, FusedEmbedding(random_state=seed, **parameters))


METHODS: dict[str, Method] = {
    "separate UMAPs": lambda scores, seed: umap(scores, seed, fit="each"),
    "AlignedUMAP": aligned_umap,
    "joint UMAP": umap,
    "joint t-SNE": lambda scores, seed: embed(scores, TSNE(random_state=seed, init="pca", perplexity=30)),
    "PCA": lambda scores, _seed: embed(scores, PCA(2)),
    "FusedEmbedding (default)": fused(),
    "FusedEmbedding umap": fused(loss="umap"),
    "FusedEmbedding motion 0": fused(motion=0),
    "FusedEmbedding motion 0.1": fused(motion=0.1),
    "FusedEmbedding motion 0.2": fused(motion=0.2),
    "FusedEmbedding motion 0.4": fused(motion=0.4),
}
if find_spec("m_phate"):
    METHODS["M-PHATE"] = lambda scores, seed: embed(scores, MPhate(scores.n_snapshots, seed))


def train(path: str, *, seed: int) -> None:
    root = Path(os.environ["FMCLUSTER_DATA"]) / "cifar10_4000"
    normalize = transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    stages = [transforms.ToTensor(), normalize]
    images = ImageFolder(root / "train", transforms.Compose([transforms.RandomHorizontalFlip(), *stages]))
    unseen = ImageFolder(root / "val", transforms.Compose(stages))
    torch.manual_seed(seed)
    model = resnet18(num_classes=10)
    model.conv1, model.maxpool = nn.Conv2d(3, 64, 3, 2, 1, bias=False), nn.Identity()
    probe = Subset(unseen, np.random.default_rng(seed).choice(len(unseen), 200, replace=False).tolist())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    loader = DataLoader(images, batch_size=64, shuffle=True)
    with Recorder(model, path, layers=["layer3", "layer4"], probe=probe) as recorder:
        recorder.snapshot(epoch=0)
        for epoch in range(1, 11):
            model.train()
            for batch, labels in loader:
                loss = nn.functional.cross_entropy(model(batch), labels)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            recorder.snapshot(epoch=epoch)
            print(f"epoch {epoch}: loss {loss.item():.2f}", flush=True)


def measure(name: str, scores: Scores, *, view: str, seeds: int) -> dict[str, Any]:
    told, seconds, processor = [], [], []
    vectors = scores.by_snapshot(scores.values)
    for seed in range(seeds):
        start = perf_counter(), process_time()
        embedding = METHODS[name](scores, seed)
        drawn = perf_counter(), process_time()
        measure_faithfulness(vectors, embedding.by_snapshot(embedding.values))
        ended = perf_counter(), process_time()  # embed has measured it, too
        for clock, taken in enumerate((seconds, processor)):
            taken.append(max(0.0, 2 * drawn[clock] - start[clock] - ended[clock]))
        told.append(embedding.faithfulness)
    print(
        f"{name:20s} {view:16s} neighbor recall {median(t.neighbor_recall for t in told):5.2f} (chance "
        f"{told[0].neighbor_recall_chance:.2f})  motion {median(t.motion for t in told):5.2f}  "
        f"{median(seconds):5.1f} s",
        flush=True,
    )
    return {
        "method": name,
        "view": view,
        "shape": [scores.n_snapshots, *vectors.shape[1:]],
        "kept": [t.neighbor_recall * t.n_neighbors for t in told],
        "chance": told[0].neighbor_recall_chance * told[0].n_neighbors,
        "trustworthiness": [t.trustworthiness for t in told],
        "motion": [t.motion for t in told],
        "motion_pooled": [t.motion_pooled for t in told],
        "seconds": seconds,
        "processor_seconds": processor,
    }


OTHERS = ("separate UMAPs", "joint UMAP", "FusedEmbedding (default)")


def others(*, quick: bool) -> list[dict[str, Any]]:
    """Measure the default beside UMAP of each snapshot and of all, on runs of other kinds; the first warms all up."""
    table = []
    for setup in [SETUPS[2]] if quick else SETUPS:
        if setup.needs_data and "FMCLUSTER_DATA" not in os.environ:
            print(f"{setup.name}: left out, FMCLUSTER_DATA is not set", flush=True)
            continue
        with tempfile.TemporaryDirectory() as folder:
            train_other(setup, f"{folder}/run.zarr", quick=quick)
            scores = pca(open_run(f"{folder}/run.zarr")[setup.layer].vectors(setup.view))
        for name in OTHERS[-1:] if quick else OTHERS:
            if not table and not quick:
                METHODS[name](scores, 0)
            measured = measure(name, scores, view=f"{setup.layer}:{setup.view}", seeds=1 if quick else 2)
            table.append({"run": setup.name, "chosen": setup.chosen, **measured})
    return table


def drifting(n_snapshots: int, n_rows: int) -> np.ndarray:
    """Return rows of groups that drift, (n_snapshots, n_rows, 50)."""
    rng = np.random.default_rng(0)
    rows = 4 * rng.standard_normal((30, 50))[rng.integers(30, size=n_rows)] + rng.standard_normal((n_rows, 50))
    return rows + np.cumsum(0.3 * rng.standard_normal((n_snapshots, n_rows, 50)), axis=0)


def processor_seconds(values: np.ndarray, *, loss: str = "tsne") -> float:
    """Return what the default takes of the processor."""
    n_snapshots, n_rows = values.shape[:2]
    start = process_time()
    FusedEmbedding(loss=loss).fit_transform(values.reshape(-1, 50), np.repeat(np.arange(n_snapshots), n_rows))
    return process_time() - start


def scale() -> list[dict[str, Any]]:
    """Take the processor's time of the default for 20 snapshots of more and more rows."""
    table = []
    for n_rows in (64, 256, 512, 1024, 2048, 4096):
        values = drifting(20, n_rows)
        entry: dict[str, Any] = {"rows": n_rows, "snapshots": 20}
        entry |= {loss: processor_seconds(values, loss=loss) for loss in ("tsne", "umap")}
        print(f"20 x {n_rows:4d} rows: t-SNE {entry['tsne']:5.1f} s, UMAP {entry['umap']:5.1f} s", flush=True)
        table.append(entry)
    return table[1:]  # the first compiles


def scale_one() -> list[dict[str, Any]]:
    """Take it for one snapshot of more and more rows."""
    table = [{"rows": n_rows, "seconds": processor_seconds(drifting(1, n_rows))} for n_rows in (2000, 10_000, 50_000)]
    print(f"one snapshot: {table}", flush=True)
    return table


def recall_of_landmarks() -> list[dict[str, Any]]:
    """Return the share of neighbors that is kept where some rows of a snapshot are fitted, and the others placed."""
    values, table = drifting(1, 12_000), []
    for fitted in (2000, 4000, 8000, 12_000):
        landmarks = Landmarks(np.arange(1), np.arange(fitted))
        positions = FusedEmbedding().fit_transform(values[0, :fitted])[None]
        if fitted < 12_000:
            positions = put_among(values, positions, landmarks=landmarks, random_state=0)
        table.append({"fitted": fitted, "recall": measure_faithfulness(values, positions).neighbor_recall})
    print(f"landmarks of 12,000 rows: {table}", flush=True)
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", help="a run; default: one that is trained for this, and thrown away")
    parser.add_argument("--views", nargs="+", default=["layer3:channel", "layer4:sample"], help="layer:view")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--train-seed", type=int, default=0, help="of the run that is trained")
    parser.add_argument("--name", default="cifar")
    parser.add_argument("--others", action="store_true", help="six runs of other kinds")
    parser.add_argument("--scaling", action="store_true")
    parser.add_argument("--quick", action="store_true", help="with --others: the default, on a run hardly trained")
    parser.add_argument("--output", type=Path, default=FOLDER)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")  # UMAP's, of rows that hardly move
    if arguments.scaling:
        found = {"rows": scale(), "one": scale_one(), "landmarks": recall_of_landmarks()}
        write("embeddings-scaling", {"machine": machine(), **found}, folder=arguments.output)
        return
    if arguments.others:
        write(
            "embeddings-others", {"machine": machine(), "rows": others(quick=arguments.quick)}, folder=arguments.output
        )
        return
    if arguments.run is None and "FMCLUSTER_DATA" not in os.environ:
        parser.error("without FMCLUSTER_DATA, the folder of the images to train on, pass a run with --run")
    with tempfile.TemporaryDirectory() as folder:
        path = arguments.run
        if path is None:
            path = f"{folder}/run.zarr"
            train(path, seed=arguments.train_seed)
        run = open_run(path)
        scores = {view: pca(run[view.split(":")[0]].vectors(view.split(":")[1])) for view in arguments.views}
        smallest = min(scores.values(), key=lambda one: len(one.rows))
        table = []
        for name in arguments.methods:
            METHODS[name](smallest, 0)
            table += [measure(name, scores[view], view=view, seeds=arguments.seeds) for view in arguments.views]
    write(f"embeddings-{arguments.name}", {"machine": machine(), "rows": table}, folder=arguments.output)


if __name__ == "__main__":
    main()
