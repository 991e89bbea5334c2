"""What does analysis cost, beside reading, beside the products alone, and beside a script that loads everything?

    python benchmarks/analysis.py --folder /a/folder/with/8/GB

Makes runs of 0.5, 2 and 4 GB first (a ResNet-18 at 224 px, ten children, ten snapshots a training step apart), and
keeps them in the folder. The probe is photographs: those of FMCLUSTER_DATA, else crops of the two that scikit-learn
brings. Every measurement is a process of its own (tasks.py); seconds and peak memory are above its imports, files are
in the page cache, and what is compared takes turns in shuffled order. Linux only, and best with nothing else running.

Beside the pass over the largest layer (`pca`: 50 components of the channel view, then KMeans) stand

- `read`: the blocks of that pass, decoded, in float32; `maps`: the same chunks, decoded a snapshot at a time, no more;
- `products`: its matrix products alone, of values in memory: half of a symmetric matrix, summed in float64;
- `script`: load all of the layer, reshape, scikit-learn's PCA (whose "auto" is randomized here, and approximate; ours
  is exact) and the same KMeans; with `--full` also `full`: the same with svd_solver="full", once, in minutes.

Prints tables and writes results/analysis.json. `--small` does it at a hundredth of the size, one budget, two views.
"""

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np
from results import FOLDER, machine, write
from scipy import stats
from tasks import LARGEST, measure

SAMPLES = {"0.5 GB": 9, "2 GB": 34, "4 GB": 68}
SMALL = {"tiny": 4, "small": 6}
BUDGETS = (1 << 30, 1 << 28)
CASES = [
    ("conv1", "channel"),
    ("conv1", "sample"),
    ("layer1", "feature_map"),
    ("layer3", "feature_map"),
    ("layer4", "position"),
]
N_SNAPSHOTS = 10


def pictures(count: int, *, size: int) -> Any:
    """Return normalized photographs: tensor of shape (count, 3, size, size), float32."""
    import torch
    from setting import photographs
    from sklearn.datasets import load_sample_images

    if "FMCLUSTER_DATA" in os.environ:
        return photographs(count, size=size)
    rng = np.random.default_rng(0)
    crops = np.empty((count, size, size, 3), np.uint8)
    for order, crop in enumerate(crops):
        whole = load_sample_images().images[order % 2]
        top, left = (rng.integers(length - size + 1) for length in whole.shape[:2])
        crop[:] = whole[top : top + size, left : left + size]
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    return torch.from_numpy(((crops / 255 - mean) / std).astype(np.float32)).permute(0, 3, 1, 2).contiguous()


def make_run(path: Path, *, n_samples: int, size: int, n_snapshots: int) -> None:
    import torch
    from torchvision.models import resnet18

    import fmcluster as fm

    torch.manual_seed(0)
    model = resnet18()
    images = pictures(n_samples, size=size)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    with fm.Recorder(model, path, probe=[(image, k) for k, image in enumerate(images)], mode="w") as recorder:
        for epoch in range(n_snapshots):
            recorder.snapshot(epoch=epoch)
            batch = images[torch.arange(8 * epoch, 8 * epoch + 8) % len(images)]
            loss = torch.nn.functional.cross_entropy(model(batch), torch.arange(8))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()


def must(found: dict[str, Any]) -> dict[str, Any]:
    if "failed" in found:
        raise RuntimeError(found["failed"])
    return found


def into_page_cache(path: Path) -> None:
    """Read the files of the largest layer once."""
    import fmcluster as fm

    for file in (path / fm.open_run(path).layer_path(LARGEST)).rglob("c.*"):
        file.read_bytes()


def spread(values: list[float]) -> str:
    return f"{median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def mib(nbytes: int) -> str:
    return f"{nbytes / 2**20:7,.0f} MiB"


def beside(path: Path, rounds: int, *, full: bool) -> dict[str, Any]:
    """The largest layer of the largest run: the pass, reading alone, products alone, and the script, in turn."""
    rng = np.random.default_rng(0)
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in ("pca", "read", "maps", "products", "script")}
    into_page_cache(path)
    for _ in range(rounds):
        for name in rng.permutation(list(found)):
            found[name].append(must(measure(name, path)))
    if full:
        found["full"] = [measure("full", path)]
    done = {name: [each for each in values if "failed" not in each] for name, values in found.items()}
    seconds = {name: [each["seconds"] for each in values] for name, values in done.items()}
    peak = {name: max(each["peak"] for each in values) for name, values in done.items() if values}
    over, over_maps = (
        [p / max(r, m) for p, r, m in zip(seconds["pca"], seconds[reading], seconds["products"], strict=True)]
        for reading in ("read", "maps")
    )
    faster = [s / p for s, p in zip(seconds["script"], seconds["pca"], strict=True)]
    shape, smaller = found["pca"][0]["shape"], peak["script"] / peak["pca"]
    print(f"\n{LARGEST}, channel view, {shape} ({2 * found['maps'][0]['values'] / 1e9:.2f} GB of float16)")
    for name, values in seconds.items():
        told = f"{spread(values):>24s} s   peak {mib(peak[name])}" if values else found[name][0]["failed"]
        print(f"  {name:9s} {told}")
    print(
        f"  over the larger of read and products: {spread(over)}; goal 1.5 (of maps and products: {spread(over_maps)})"
    )
    print(f"  the script takes {spread(faster)} times the seconds (goal 5), {smaller:.1f} times the memory (goal 8)")
    return {
        "shape": shape,
        "seconds": seconds,
        "peak": peak,
        "over": over,
        "over_maps": over_maps,
        "script_over_pca": faster,
        "script_over_pca_memory": smaller,
        "failed": {name: values[0]["failed"] for name, values in found.items() if "failed" in values[0]},
    }


def flat(paths: list[Path], rounds: int) -> dict[str, Any]:
    """Seconds per GB of runs of several sizes, in shuffled order; the slope over size, with its 95 % interval."""
    import fmcluster as fm

    rng = np.random.default_rng(0)
    sizes: list[float] = []
    rates: list[float] = []
    gigabytes = {path: fm.open_run(path)[LARGEST].nbytes / 1e9 for path in paths}
    for path in paths:
        into_page_cache(path)
    for _ in range(rounds):
        for order in rng.permutation(len(paths)):
            sizes.append(gigabytes[paths[order]])
            rates.append(must(measure("pca", paths[order]))["seconds"] / sizes[-1])
    fit = stats.linregress(sizes, rates)
    half = float(stats.t.ppf(0.975, len(sizes) - 2) * fit.stderr)
    growth, mean = float(fit.slope * (max(sizes) - min(sizes))), float(np.mean(rates))
    verdict = "falls" if fit.slope + half < 0 else "GROWS" if fit.slope - half > 0 else "flat"
    print(f"\nseconds per GB over GB of {LARGEST}: slope {fit.slope:.2f} ± {half:.2f} (95 %): {verdict}")
    print(f"  over the range {growth / mean:+.0%} of the mean, {mean:.2f} s per GB")
    for size in sorted(set(sizes)):
        print(f"  {size:.2f} GB: {spread([r for s, r in zip(sizes, rates, strict=True) if s == size])} s per GB")
    return {
        "gigabytes": sizes,
        "seconds_per_gigabyte": rates,
        "slope": float(fit.slope),
        "slope_half_width_95": half,
        "growth_over_mean": growth / mean,
        "verdict": verdict,
    }


def within(row: dict[str, Any]) -> str:
    """Say what a task took, and whether it kept to its budget; note the latter in the row."""
    if "failed" in row:
        return f"failed: {row['failed']}"
    peak = row.get("peak_of_pca", row["peak"])  # the clusterer's own copies are not in the budget
    row["within"] = peak <= row["max_bytes"]
    verdict = "within" if row["within"] else "BEYOND"
    after = f"; with KMeans {mib(row['peak'])}" if "peak_of_pca" in row else ""
    return f"{row['seconds']:7.1f} s  peak {mib(peak)}, {verdict} {row['max_bytes'] >> 20} MiB{after}"


def budgets(path: Path, *, cases: Sequence[tuple[str, str]], limits: tuple[int, ...]) -> list[dict[str, Any]]:
    """Peak memory under budgets, of several views."""
    table = []
    print("\npca and KMeans")
    for layer, view in cases:
        for max_bytes in limits:
            found = measure("pca", path, layer=layer, view=view, max_bytes=max_bytes)
            table.append({"layer": layer, "view": view, "max_bytes": max_bytes, **found})
            print(f"  {layer:7s} {view:9s} {found.get('method', ''):11s}{within(table[-1])}", flush=True)
    return table


def verbs(path: Path, *, limits: tuple[int, ...]) -> list[dict[str, Any]]:
    """What works on whole runs, or keeps more than scores."""
    table = []
    print("\nother verbs")
    for verb in ("similarity", "diagnose", "top_images"):
        for max_bytes in limits:
            table.append(
                {"verb": verb, "max_bytes": max_bytes, **measure("verb", path, view=verb, max_bytes=max_bytes)}
            )
            print(f"  {verb:17s} {within(table[-1])}", flush=True)
    return table


def moved(path: Path) -> float:
    """Return how far the largest layer's maps of a sample went from the first snapshot to the last, over their norm."""
    import fmcluster as fm

    maps = fm.open_run(path)[LARGEST].read(samples=[0]).astype(np.float64)
    return float(np.linalg.norm(maps[-1] - maps[0]) / np.linalg.norm(maps[0]))


def described(paths: list[Path]) -> dict[str, Any]:
    import sklearn
    import torch

    stored = {path.stem: sum(file.stat().st_size for file in path.rglob("*") if file.is_file()) for path in paths}
    away = moved(paths[-1])
    on_disk = ", ".join(f"{name} {nbytes / 1e9:.2f} GB" for name, nbytes in stored.items())
    print(f"on the disk: {on_disk}; {LARGEST} moved by {away:.0%} from the first snapshot to the last", flush=True)
    return {
        "machine": machine(),
        "torch": torch.__version__,
        "scikit-learn": sklearn.__version__,
        "threads": torch.get_num_threads(),
        "photographs": "FMCLUSTER_DATA" if "FMCLUSTER_DATA" in os.environ else "scikit-learn",
        "stored_bytes": stored,
        "moved": away,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, help="where the runs are made, and found again")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--full", action="store_true", help="beside an exact PCA by scikit-learn, too: minutes")
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--output", type=Path, default=FOLDER)
    arguments = parser.parse_args()
    if arguments.folder is None:
        parser.error("--folder is missing: say where the runs may be made")
    arguments.folder.mkdir(parents=True, exist_ok=True)
    sizes = SMALL if arguments.small else SAMPLES
    limits = BUDGETS[-1:] if arguments.small else BUDGETS
    cases = CASES[1:3] if arguments.small else CASES
    paths = []
    for name, n_samples in sizes.items():
        path = arguments.folder / f"{name.replace(' ', '')}.zarr"
        if not path.exists():
            start = perf_counter()
            size, n_snapshots = (64, 3) if arguments.small else (224, N_SNAPSHOTS)
            unfinished = path.with_name(f"unfinished-{path.name}")
            make_run(unfinished, n_samples=n_samples, size=size, n_snapshots=n_snapshots)
            unfinished.rename(path)
            print(f"{path} made in {perf_counter() - start:.0f} s", flush=True)
        paths.append(path)
    measured = {
        **described(paths),
        "samples": sizes,
        "beside": beside(paths[-1], arguments.rounds, full=arguments.full),
        "flat": flat(paths, arguments.rounds),
        "budgets": budgets(paths[-1], cases=cases, limits=limits),
        "verbs": verbs(paths[-1], limits=limits),
    }
    write("analysis", measured, folder=arguments.output)


if __name__ == "__main__":
    main()
