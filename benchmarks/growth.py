"""Growth of costs: runs of several sizes, what the verbs take of them, and what two workers or ranks save."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from time import perf_counter, process_time
from typing import Any

import numpy as np

import fmcluster as fm
from fmcluster.store import LayerSpec, RunWriter, missing_files

SHARD = 32
BASE = {"snapshots": 6, "samples": 128, "channels": 64, "layers": 2}
AXES = {"snapshots": 12, "samples": 128, "channels": 64, "layers": 4}  # the smallest size of each
MOST = 1.1
REASONS = {  # why a cost grows faster than what it is of
    ("pca", "snapshots"): "rows are channels times snapshots; the products of all pairs of rows are exact",
    ("pca", "channels"): "rows are channels times snapshots; the products of all pairs of rows are exact",
    ("similarity", "snapshots"): "all pairs of layers and snapshots are compared",
    ("similarity", "layers"): "all pairs of layers and snapshots are compared",
    ("similarity", "samples"): "all pairs of samples, up to 2,000 that are drawn",
    ("diagnose", "layers"): "all pairs of layers and snapshots are compared",
    ("diagnose", "samples"): "all pairs of samples, up to 2,000 that are drawn",
    ("diagnose", "channels"): "all pairs of channels are compared",
}
EPOCHS, TRAINED = 3, 256


def grow(
    folder: Path,
    *,
    snapshots: int = BASE["snapshots"],
    samples: int = BASE["samples"],
    channels: int = BASE["channels"],
    layers: int = BASE["layers"],
) -> Path:
    """Write a run of so much, whose maps drift from snapshot to snapshot, and return its path."""
    path = folder / f"{snapshots}-{samples}-{channels}-{layers}.zarr"
    specs = [LayerSpec(f"layer{k}", (channels, 7, 7), "float16", "Conv2d") for k in range(layers)]
    first, last = np.random.default_rng(0).normal(size=(2, samples, channels, 7, 7)).astype(np.float16)
    with RunWriter(path) as writer:
        writer.create(specs, n_samples=samples, shard_samples=SHARD, kind="probe")
        writer.describe_session({})
        for snapshot in range(snapshots):
            share = np.float16(snapshot / snapshots)
            write(writer, specs, snapshot, (1 - share) * first + share * last)
    return path


def write(writer: RunWriter, specs: list[LayerSpec], snapshot: int, values: np.ndarray) -> None:
    """Write and commit a snapshot in which all layers have the same maps."""
    for spec in specs:
        for at in range(0, len(values), SHARD):
            writer.write(spec.name, offset=at, values=values[at : at + SHARD])
    statistics = {(spec.name, "activation"): np.zeros((6, spec.n_channels)) for spec in specs}
    index = np.arange(len(values))
    writer.commit(epoch=snapshot, step=snapshot, index=index, statistics=statistics, metrics={}, clipped={})


def commit(path: Path) -> None:
    """Add a snapshot."""
    with RunWriter(path, mode="a") as writer:
        writer.tidy()
        run = fm.open_run(path)
        specs = [LayerSpec(name, run[name].shape[2:], "float16", "Conv2d") for name in run.layers]
        write(writer, specs, len(run), np.zeros((run.n_samples, *specs[0].shape), np.float16))


VERBS: dict[str, Callable[[Path], object]] = {
    "open": fm.open_run,
    "info": lambda path: missing_files(fm.open_run(path)),
    "pca": lambda path: fm.pca(fm.open_run(path)["layer0"].vectors("channel"), n_components=4),
    "similarity": lambda path: fm.similarity(fm.open_run(path)),
    "diagnose": lambda path: fm.diagnose(fm.open_run(path)),
    "top_images": lambda path: fm.top_images(fm.open_run(path)["layer0"]),
    "commit": commit,  # last: the run grows
}


def exponent(sizes: list[int], costs: list[float]) -> float:
    return float(np.polyfit(np.log(sizes), np.log(costs), 1)[0])


def seconds(work: Callable[[], object], *, times: int = 3) -> float:
    """Return processor seconds, the median of some; of what takes over three, one: it varies little."""
    found: list[float] = []
    while len(found) < times and sum(found) < 3:
        start = process_time()
        work()
        found.append(process_time() - start)
    return median(found)


def measured(folder: Path, *, quick: bool) -> dict[str, dict[str, Any]]:
    """Return sizes, processor seconds and the exponent, of each verb along each axis."""
    found: dict[str, dict[str, Any]] = {}
    for axis, base in AXES.items():
        sizes = [base * step for step in ((1, 2) if quick else (1, 2, 4, 8))]
        costs: dict[str, list[float]] = {name: [] for name in VERBS}
        for size in sizes:
            with tempfile.TemporaryDirectory(dir=folder) as own:
                path = grow(Path(own), **{axis: size})
                for name, verb in VERBS.items():
                    if size == base:
                        verb(path)  # once before it counts: imports, compilation
                    costs[name].append(seconds(partial(verb, path)))
        for name, each in costs.items():
            power = exponent(sizes, each)
            why = REASONS.get((name, axis), "") if power > MOST else ""
            found[f"{name} by {axis}"] = {"sizes": sizes, "seconds": each, "exponent": power, "why": why}
    return found


def by_workers(folder: Path, *, quick: bool) -> dict[str, Any]:
    """Seconds of `pca` and `diagnose` by one and by two processes of a Dask cluster, how many cores they keep busy, and
    what they send."""
    from distributed import Client, LocalCluster

    path, small = (grow(folder, samples=samples, channels=128, layers=4) for samples in (256 if quick else 2048, 64))
    run = fm.open_run(path)
    stored = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    result = 8 * run["layer0"].vectors("channel").shape[0] ** 2
    found: dict[str, Any] = {"workers": [1, 2], "stored": stored, "result": result}
    verbs = {
        "pca": lambda of, executor: fm.pca(of["layer0"].vectors("channel"), n_components=4, executor=executor),
        "diagnose": lambda of, executor: fm.diagnose(of, executor=executor),
    }
    for name in verbs:
        found[name] = {"seconds": [], "moved": [], "cores": []}
    for count in found["workers"]:
        cluster = LocalCluster(n_workers=count, threads_per_worker=1, dashboard_address=":0", protocol="tcp")
        with cluster, Client(cluster) as client:
            executor = client.get_executor()
            for name, verb in verbs.items():
                verb(fm.open_run(small), executor)  # once before it counts: imports, compilation
                start, before, worked = perf_counter(), sent(), sum(client.run(process_time).values())
                verb(run, executor)
                took, worked = perf_counter() - start, sum(client.run(process_time).values()) - worked
                found[name]["seconds"].append(took)
                found[name]["cores"].append(worked / took)
                found[name]["moved"].append(sent() - before)
    for name in verbs:
        one, two = found[name]["seconds"]
        found[name]["efficiency"] = one / (2 * two)
    return found


def by_ranks(folder: Path, *, quick: bool) -> dict[str, Any]:
    """Wall-clock seconds of an epoch of which one rank records all images, or two record half of them each."""
    found: dict[str, Any] = {"ranks": [1, 2], "seconds": [], "moved": []}
    for count in found["ranks"]:
        environment = os.environ | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(29_400 + count)}
        environment |= {"OMP_NUM_THREADS": "1", "WORLD_SIZE": str(count)}
        command = [sys.executable, __file__, str(folder / f"{count}.zarr"), str(64 if quick else TRAINED)]
        ranks = [
            subprocess.Popen(command, env=environment | {"RANK": str(rank)}, stdout=subprocess.PIPE, text=True)
            for rank in range(count)
        ]
        said = [rank.communicate()[0] for rank in ranks]
        if any(rank.returncode for rank in ranks):
            raise SystemExit("a rank has failed")
        took, moved = said[0].split()
        found["seconds"].append(float(took))
        found["moved"].append(int(moved))
    one, two = found["seconds"]
    return {**found, "efficiency": one / (2 * two)}


def record_as_rank(path: Path, n_images: int) -> None:
    """Train a ResNet-18 on noise, a share of the images on each rank, and print what the last epoch took and sent.

    The ranks train alone: what they send is of the recording.
    """
    import torch
    import torch.distributed as dist
    from torchvision.models import resnet18

    dist.init_process_group("gloo")
    rank, count = dist.get_rank(), dist.get_world_size()
    torch.manual_seed(0)
    images, model = torch.rand(n_images, 3, 96, 96), resnet18(num_classes=10)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    options = {"layers": "children", "max_size": 7, "n_samples": n_images, "samples_per_shard": 16}
    with fm.BatchRecorder(model, path, **options) as recorder:
        for epoch in range(EPOCHS):
            dist.barrier()
            start, before = perf_counter(), sent()
            with recorder.epoch(epoch):
                for at in range(16 * rank, n_images, 16 * count):
                    indices = list(range(at, at + 16))
                    with recorder.batch(indices):
                        torch.nn.functional.cross_entropy(model(images[indices]), torch.tensor(indices) % 10).backward()
                    optimizer.step()
                    optimizer.zero_grad()
            took, moved = perf_counter() - start, sent() - before
    if rank == 0:
        print(took, moved)
    dist.destroy_process_group()


def sent() -> int:
    """Return the bytes that this machine has sent to itself, over its loopback interface; Linux only."""
    for line in Path("/proc/net/dev").read_text().splitlines():
        name, _, numbers = line.partition(":")
        if name.strip() == "lo":
            return int(numbers.split()[8])
    return 0


if __name__ == "__main__":
    record_as_rank(Path(sys.argv[1]), int(sys.argv[2]))
