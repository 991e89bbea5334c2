"""How do costs grow? Exponents in snapshots, samples, channels, layers, workers and ranks; and ImageNet on paper.

    python benchmarks/scale.py [--quick] [--paper]

Each measured cost is taken at several sizes, and a line fitted through the logarithms: 1 is proportional, 2 quadratic.
`--paper` prints what recording ResNet-50 on ImageNet would take, from shapes and the rates that are measured here, and
simulates commits and file counts at 10,000 snapshots and 1,000 ranks. Prints tables and writes results/scale.json.
"""

import argparse
import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from statistics import median
from time import perf_counter, process_time
from types import SimpleNamespace
from unittest.mock import Mock

import numpy as np
from results import FOLDER, machine, write

import fmcluster as fm
from fmcluster.capture.ranks._rank_parts import put_together
from fmcluster.capture.ranks._ranks import Message
from fmcluster.store import LayerSpec, RunWriter
from fmcluster.store.format._metadata import root_metadata

SHARD = 32
RESNET50 = {  # what the children return for an image of 224 x 224 pixels
    "conv1": (64, 112, 112),
    "bn1": (64, 112, 112),
    "relu": (64, 112, 112),
    "maxpool": (64, 56, 56),
    "layer1": (256, 56, 56),
    "layer2": (512, 28, 28),
    "layer3": (1024, 14, 14),
    "layer4": (2048, 7, 7),
    "avgpool": (2048, 1, 1),
    "fc": (1000,),
}
COMPRESSED = 0.79  # of float16 maps, and processor seconds a GB to encode: benchmarks/codecs.py
ENCODE = 0.87


def exponent(sizes: list[int], costs: list[float]) -> float:
    return float(np.polyfit(np.log(sizes), np.log(costs), 1)[0])


def grow(folder: Path, *, snapshots: int = 4, samples: int = 64, channels: int = 64, layers: int = 2) -> Path:
    """Write a run of so much, and return its path."""
    path = folder / f"{snapshots}-{samples}-{channels}-{layers}.zarr"
    specs = [LayerSpec(f"layer{k}", (channels, 7, 7), "float16", "Conv2d") for k in range(layers)]
    values = np.random.default_rng(0).normal(size=(samples, channels, 7, 7)).astype(np.float16)
    with RunWriter(path) as writer:
        writer.create(specs, n_samples=samples, shard_samples=SHARD, kind="probe")
        writer.describe_session({})
        for snapshot in range(snapshots):
            for spec in specs:
                for at in range(0, samples, SHARD):
                    writer.write(spec.name, offset=at, values=values[at : at + SHARD])
            commit(writer, specs, snapshot, samples)
    return path


def commit(writer: RunWriter, specs: list[LayerSpec], snapshot: int, samples: int) -> None:
    statistics = {(spec.name, "activation"): np.zeros((6, spec.n_channels)) for spec in specs}
    writer.commit(
        epoch=snapshot, step=snapshot, index=np.arange(samples), statistics=statistics, metrics={}, clipped={}
    )


def seconds(work: Callable[[], object], *, times: int = 3) -> float:
    """Return processor seconds, the median of some; others may use the machine meanwhile."""
    found = []
    for _ in range(times):
        start = process_time()
        work()
        found.append(process_time() - start)
    return median(found)


def pca(path: Path) -> None:
    fm.pca(fm.open_run(path)["layer0"].vectors("channel"), n_components=4)


def commit_once(path: Path) -> None:
    with RunWriter(path, mode="a") as writer:
        writer.tidy()
        layers = writer.attributes["layers"]
        run = fm.open_run(path)
        specs = [LayerSpec(name, run[name].shape[2:], "float16", "Conv2d") for name in layers]
        for spec in specs:
            for at in range(0, run.n_samples, SHARD):
                values = np.zeros((min(SHARD, run.n_samples - at), *spec.shape), np.float16)
                writer.write(spec.name, offset=at, values=values)
        commit(writer, specs, len(run), run.n_samples)


def measured(folder: Path, *, quick: bool) -> dict[str, dict]:
    steps = (1, 2, 4) if quick else (1, 2, 4, 8)
    verbs = {"open": fm.open_run, "pca": pca, "commit": commit_once}
    found = {}
    for axis, base in {"snapshots": 8, "samples": 64, "channels": 32, "layers": 4}.items():
        sizes = [base * step for step in steps]
        for name, verb in verbs.items():
            costs = []
            for size in sizes:
                with tempfile.TemporaryDirectory(dir=folder) as own:
                    path = grow(Path(own), **{axis: size})
                    verb(path)  # once before it counts
                    costs.append(seconds(lambda verb=verb, path=path: verb(path)))
            found[f"{name} by {axis}"] = {"sizes": sizes, "seconds": costs, "exponent": exponent(sizes, costs)}
    found["ranks"] = by_ranks(n_layers=10, steps=steps)
    found["workers"] = by_workers(folder)
    return found


def by_workers(folder: Path) -> dict:
    """Wall-clock seconds of one pass by one and two processes."""
    from concurrent.futures import ProcessPoolExecutor
    from multiprocessing import get_context

    path, sizes, costs = grow(folder, samples=512, channels=128), [1, 2], []
    vectors = fm.open_run(path)["layer0"].vectors("channel")
    for count in sizes:
        with ProcessPoolExecutor(count, mp_context=get_context("spawn")) as pool:
            fm.pca(vectors, n_components=4, executor=pool)
            start = perf_counter()
            fm.pca(vectors, n_components=4, executor=pool)
            costs.append(perf_counter() - start)
    return {"sizes": sizes, "seconds": costs, "efficiency": costs[0] / (2 * costs[1])}


def parts(n_ranks: int, *, n_layers: int, shards: int, channels: int = 512) -> list[Message]:
    """What so many ranks say at the end of an epoch, each of `shards` shards a layer of 32 chunks."""
    said = []
    for rank in range(n_ranks):
        written = {
            f"layers/layer{k}/activation/c.0.{rank * shards + n}.0.0.0": "0123abcd" * 32
            for k in range(n_layers)
            for n in range(shards)
        }
        about = {"epoch": 0, "n_batches": shards, "written": written, "normalized": []}
        about["moments"] = [(f"layer{k}", "activation", 0.0, 0) for k in range(n_layers)]
        arrays = {"index": np.arange(shards * SHARD), "scale": np.ones(shards * SHARD)}
        arrays |= {f"moments {k}": np.ones((7, channels)) for k in range(n_layers)}
        said.append(Message(about, arrays))
    return said


def by_ranks(*, n_layers: int, steps: tuple[int, ...], base: int = 16, shards: int = 8) -> dict:
    """What rank 0 does at the end of an epoch: it decodes what the ranks say, and puts it together."""
    sizes = [base * step for step in steps]
    costs, nbytes = [], []
    for n_ranks in sizes:
        said = [message.encode() for message in parts(n_ranks, n_layers=n_layers, shards=shards)]
        nbytes.append(sum(map(len, said)))

        def gather(said: list[bytes] = said, n_ranks: int = n_ranks) -> None:
            epoch = SimpleNamespace(snapshot=Mock(epoch=0), normalized=Mock())
            found = [Message.decode(content) for content in said]
            slots = shards * SHARD
            put_together(found, epoch=epoch, writer=Mock(), n_slots=slots, n_slots_in_all=n_ranks * slots)

        costs.append(seconds(gather))
    return {"sizes": sizes, "seconds": costs, "bytes": nbytes, "exponent": exponent(sizes, costs)}


def paper(*, encode: float = ENCODE) -> dict[str, dict]:
    """ResNet-50 on ImageNet, 90 epochs: bytes, files and processor seconds."""
    full = sum(2 * int(np.prod(shape)) for shape in RESNET50.values())
    small = sum(2 * int(np.prod((shape[0], *(min(side, 7) for side in shape[1:])))) for shape in RESNET50.values())
    plans = {
        "probe of 10,000, whole maps": (full, 10_000, 91, 256),
        "probe of 10,000, at 7 x 7": (small, 10_000, 91, 256),
        "all training, at 7 x 7": (small, 1_281_167, 90, 256),
    }
    found = {}
    for name, (sample, samples, snapshots, shard) in plans.items():
        raw = sample * samples
        files = len(RESNET50) * -(-samples // shard)
        found[name] = {
            "GB a snapshot": raw * COMPRESSED / 1e9,
            "TB": raw * COMPRESSED * snapshots / 1e12,
            "files": files * snapshots,
            "processor hours": raw * encode * snapshots / 1e9 / 3600,
            "USD a month": raw * COMPRESSED * snapshots / 1e9 * 0.023,
        }
    return found


def simulated() -> dict[str, dict]:
    """The root, and what rank 0 reads, at 10,000 snapshots and 1,000 ranks."""
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        path = grow(Path(folder), snapshots=1, layers=10)
        root = json.loads((path / "zarr.json").read_bytes())
    attributes, nodes = root["attributes"]["fmcluster"], root["consolidated_metadata"]["metadata"]
    for snapshots in (10, 100, 1_000, 10_000):
        attributes["commits"] = [{"epoch": k, "step": 5_005 * k, "checksums": "0" * 64} for k in range(snapshots)]
        start = process_time()
        content = root_metadata(attributes, nodes)
        found[f"{snapshots} snapshots"] = {"root MB": len(content) / 1e6, "seconds to make it": process_time() - start}
    for n_ranks in (10, 100, 1_000):
        shards = -(-1_281_167 // (n_ranks * 256))
        said = parts(1, n_layers=10, shards=shards, channels=2048)[0]
        nbytes = len(said.encode())
        found[f"{n_ranks} ranks"] = {"MB of a rank": nbytes / 1e6, "MB that rank 0 reads": nbytes * n_ranks / 1e6}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="three sizes instead of four")
    parser.add_argument("--output", type=Path, default=FOLDER)
    parser.add_argument("--paper", action="store_true", help="what is computed and simulated alone")
    arguments = parser.parse_args()
    found: dict[str, dict] = {"paper": paper(), "simulated": simulated()}
    if not arguments.paper:
        with tempfile.TemporaryDirectory() as folder:
            found["measured"] = measured(Path(folder), quick=arguments.quick)
    for part, rows in found.items():
        print(f"\n{part}")
        for name, row in rows.items():
            cells = (f"{key} {value:.3g}" for key, value in row.items() if isinstance(value, int | float))
            print(f"  {name:32}", ", ".join(cells))
    found["load"] = {"of one minute": os.getloadavg()[0]}
    write("scale", {"machine": machine(), **found}, folder=arguments.output)


if __name__ == "__main__":
    main()
