"""How do costs grow? Exponents in snapshots, samples, channels and layers; two workers and ranks; ImageNet on paper.

    python benchmarks/scale.py [--quick] [--paper]

Each measured cost is taken at several sizes, and a line fitted through the logarithms: 1 is proportional, 2 quadratic.
With `--paper` nothing is measured: it prints what recording ResNet-50 on ImageNet would take, from shapes and measured
rates, and simulates commits and file counts at 10,000 snapshots and 1,000 ranks. Prints tables and writes
results/scale.json.
"""

import argparse
import json
import os
import tempfile
from pathlib import Path
from time import process_time
from types import SimpleNamespace
from unittest.mock import Mock

import numpy as np
from growth import SHARD, by_ranks, by_workers, exponent, grow, measured, seconds
from results import FOLDER, machine, write

from fmcluster.capture.ranks._rank_parts import put_together
from fmcluster.capture.ranks._ranks import Message
from fmcluster.store.format._metadata import root_metadata

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
ENCODE = 1.1


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


def gathered(*, n_layers: int = 10, base: int = 16, shards: int = 8, quick: bool) -> dict:
    """What rank 0 does at the end of an epoch: it decodes what the ranks say, and puts it together."""
    sizes = [base * step for step in ((1, 2) if quick else (1, 2, 4, 8))]
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
    parser.add_argument("--quick", action="store_true", help="two sizes instead of four, and small ones")
    parser.add_argument("--output", type=Path, default=FOLDER)
    parser.add_argument("--paper", action="store_true", help="what is computed and simulated, nothing measured")
    arguments = parser.parse_args()
    found: dict[str, dict] = {"paper": paper(), "simulated": simulated()}
    if not arguments.paper:
        with tempfile.TemporaryDirectory() as folder:
            found["measured"] = measured(Path(folder), quick=arguments.quick)
            found["measured"]["end of an epoch by ranks"] = gathered(quick=arguments.quick)
            found["workers"] = by_workers(Path(folder), quick=arguments.quick)
            found["ranks"] = by_ranks(Path(folder), quick=arguments.quick)
    for part in ("paper", "simulated", "measured"):
        print(f"\n{part}")
        for name, row in found.get(part, {}).items():
            cells = (f"{key} {value:.3g}" for key, value in row.items() if isinstance(value, int | float))
            print(f"  {name:32}", ", ".join(cells), row.get("why", ""))
    for part in ("workers", "ranks"):
        print(f"\n{part}", json.dumps(found.get(part)))
    found["load"] = {"of one minute": os.getloadavg()[0]}
    write("scale", {"machine": machine(), **found}, folder=arguments.output)


if __name__ == "__main__":
    main()
