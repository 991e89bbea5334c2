"""What does analysis cost, beside reading, beside the products alone, and beside a script that loads everything?

    python benchmarks/analysis.py --folder /a/folder/with/8/GB

Makes runs of 0.5, 1, 2 and 4 GB first (a ResNet-18 at 224 px, ten children, ten snapshots a training step apart),
and keeps them in the folder. Every measurement is a process of its own: seconds and peak memory are above its imports.
Prints tables and writes results/analysis.json. `--small` does it all at a hundredth of the size.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np
from results import FOLDER, machine, write
from scipy import stats

SAMPLES = {"0.5 GB": 9, "1 GB": 17, "2 GB": 34, "4 GB": 68}
SMALL = {"tiny": 4, "small": 6}
N_SNAPSHOTS = 10
LARGEST = "conv1"


def make_run(path: Path, *, n_samples: int, size: int, n_snapshots: int) -> None:
    import torch
    from setting import photographs
    from torchvision.models import resnet18

    import fmcluster as fm

    torch.manual_seed(0)
    model = resnet18()
    images = photographs(n_samples, size=size)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    with fm.Recorder(model, path, probe=[(image, k) for k, image in enumerate(images)], mode="w") as recorder:
        for epoch in range(n_snapshots):
            recorder.snapshot(epoch=epoch)
            batch = images[torch.arange(8 * epoch, 8 * epoch + 8) % len(images)]
            loss = torch.nn.functional.cross_entropy(model(batch), torch.arange(8))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()


def kmeans() -> Any:
    from sklearn.cluster import KMeans

    return KMeans(8, random_state=0, n_init=4)


def task_pca(run: Any, layer: str, view: str, max_bytes: int) -> Callable[[], Any]:
    from fmcluster.analysis import cluster, pca

    def work() -> dict[str, Any]:
        vectors = run[layer].vectors(view)
        scores = pca(vectors, n_components=50, max_bytes=max_bytes)
        cluster(scores, kmeans())
        return {"method": scores.method, "shape": list(vectors.shape)}

    return work


def task_read(run: Any, layer: str, view: str, max_bytes: int) -> Callable[[], Any]:
    """Every block that `pca` reads, and nothing done with it."""
    from fmcluster.analysis.algebra import plan_pass

    def work() -> dict[str, Any]:
        vectors = run[layer].vectors(view)
        plan = plan_pass(vectors, n_components=50, max_bytes=max_bytes)
        size = sum(block.nbytes for block in vectors.feature_blocks(max_bytes=plan.block_bytes))
        return {"bytes": size // 2}

    return work


def task_products(run: Any, layer: str, view: str, max_bytes: int) -> Callable[[], Any]:
    """The matrix products of that pass alone, of a block in memory: half of a symmetric matrix, summed in float64."""
    import torch
    from scipy.linalg.blas import ssyrk

    from fmcluster.analysis.algebra import plan_pass

    vectors = run[layer].vectors(view)
    plan = plan_pass(vectors, n_components=50, max_bytes=max_bytes)
    rows, features = vectors.shape
    width = plan.block_bytes // 4 // rows
    block = np.random.default_rng(0).standard_normal((rows, width), np.float32)

    def work() -> dict[str, Any]:
        total = torch.zeros((rows, rows), dtype=torch.float64)
        for done in range(0, features, width):
            for start in range(0, min(width, features - done), 512):
                part = np.asfortranarray(block[:, start : start + 512].T)
                total += torch.from_numpy(ssyrk(1.0, part, trans=1).T)
        return {}

    return work


def task_script(run: Any, layer: str, view: str, max_bytes: int, solver: str = "auto") -> Callable[[], Any]:
    """What one would write by hand: load all of the layer, reshape, scikit-learn."""
    from sklearn.decomposition import PCA

    def work() -> dict[str, Any]:
        maps = run[layer].read()
        rows = maps.transpose(0, 2, 1, 3, 4).reshape(maps.shape[0] * maps.shape[2], -1).astype(np.float32)
        del maps
        scores = PCA(50, svd_solver=solver, random_state=0).fit_transform(rows)
        kmeans().fit_predict(scores)
        return {}

    return work


def task_full(run: Any, layer: str, view: str, max_bytes: int) -> Callable[[], Any]:
    return task_script(run, layer, view, max_bytes, "full")


def task_verb(run: Any, layer: str, view: str, max_bytes: int) -> Callable[[], Any]:
    """A verb of the whole run, or of one layer."""
    import fmcluster as fm

    return {
        "similarity": lambda: fm.similarity(run, max_bytes=max_bytes),
        "diagnose": lambda: fm.diagnose(run, max_bytes=max_bytes),
        "exemplars": lambda: fm.exemplars(run[layer], max_bytes=max_bytes),
    }[view]


TASKS = {
    "pca": task_pca,
    "read": task_read,
    "products": task_products,
    "script": task_script,
    "full": task_full,
    "verb": task_verb,
}


def memory(field: str) -> int:
    """Return resident (VmRSS) or peak (VmHWM) bytes of this process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))


def one(arguments: argparse.Namespace) -> None:
    """Do one task in this process, and print what it took above the imports."""
    import sklearn.cluster
    import sklearn.decomposition
    import torch

    import fmcluster as fm
    from fmcluster import analysis

    _ = sklearn.cluster, sklearn.decomposition, torch, analysis.pca, analysis.cluster
    kmeans().fit(np.random.default_rng(0).random((100, 2)))  # thread pools exist
    torch.ones((64, 64)) @ torch.ones((64, 64))
    run = fm.open_run(arguments.run)
    work = TASKS[arguments.task](run, arguments.layer, arguments.view, arguments.max_bytes)
    Path("/proc/self/clear_refs").write_text("5")  # the peak from here on
    before, start = memory("VmRSS"), perf_counter()
    told = work()
    seconds = perf_counter() - start
    told = told if isinstance(told, dict) else {}
    print(json.dumps({"seconds": seconds, "peak": memory("VmHWM") - before, **told}))


def measure(
    task: str, path: Path, *, layer: str = LARGEST, view: str = "channel", max_bytes: int = 1 << 30
) -> dict[str, Any]:
    options = ["--run", path, "--layer", layer, "--view", view, "--max-bytes", max_bytes]
    command = [sys.executable, __file__, "--task", task, *map(str, options)]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    if found.returncode:
        raise RuntimeError(f"{task} of {path} failed: {found.stderr}")
    return dict(json.loads(found.stdout.splitlines()[-1]))


def spread(values: list[float]) -> str:
    return f"{median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def beside(paths: dict[str, Path], rounds: int) -> dict[str, Any]:
    """The largest layer of the largest run: the pass, reading alone, products alone, and the script, in turn."""
    path = list(paths.values())[-1]
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in ("pca", "read", "products", "script")}
    for _ in range(rounds):
        for name, values in found.items():
            values.append(measure(name, path))
    found["full"] = [measure("full", path)]
    seconds = {name: [each["seconds"] for each in values] for name, values in found.items()}
    peak = {name: max(each["peak"] for each in values) for name, values in found.items()}
    over = [p / max(r, m) for p, r, m in zip(seconds["pca"], seconds["read"], seconds["products"], strict=True)]
    faster = [s / p for s, p in zip(seconds["script"], seconds["pca"], strict=True)]
    print(
        f"\n{LARGEST}, channel view, {found['pca'][0]['shape']} ({found['read'][0]['bytes'] / 1e9:.2f} GB of float16)"
    )
    for name, values in seconds.items():
        print(f"  {name:9s} {spread(values):>24s} s   peak {peak[name] / 2**20:7,.0f} MiB")
    print(f"  over the larger of reading and products: {spread(over)}; goal 1.5")
    print(
        f"  the script takes {spread(faster)} times the seconds (goal 5), "
        f"{peak['script'] / peak['pca']:.1f} times the memory (goal 8)"
    )
    return {
        "seconds": seconds,
        "peak": peak,
        "over": over,
        "script_over_pca": faster,
        "shape": found["pca"][0]["shape"],
    }


def flat(paths: dict[str, Path], rounds: int) -> dict[str, Any]:
    """Seconds per GB of runs of several sizes, in shuffled order; the slope over size, with its 95 % interval."""
    import fmcluster as fm

    rng = np.random.default_rng(0)
    sizes: list[float] = []
    rates: list[float] = []
    for _ in range(rounds):
        for name in rng.permutation(list(paths)):
            gigabytes = fm.open_run(paths[name])[LARGEST].nbytes / 1e9
            sizes.append(gigabytes)
            rates.append(measure("pca", paths[name])["seconds"] / gigabytes)
    fit = stats.linregress(sizes, rates)
    half = float(stats.t.ppf(0.975, len(sizes) - 2) * fit.stderr)
    print(f"\nseconds per GB over GB: slope {fit.slope:.2f} ± {half:.2f} (95 %), mean {np.mean(rates):.2f}")
    for size in sorted(set(sizes)):
        print(f"  {size:.2f} GB: {spread([r for s, r in zip(sizes, rates, strict=True) if s == size])} s per GB")
    return {"gigabytes": sizes, "seconds_per_gigabyte": rates, "slope": fit.slope, "slope_half_width_95": half}


def budgets(path: Path, cases: list[tuple[str, str]]) -> list[dict[str, Any]]:
    """Peak memory under two budgets, of several views."""
    table = []
    print("\nview                    budget       peak      seconds  method")
    for layer, view in cases:
        for max_bytes in (1 << 30, 1 << 28):
            found = measure("pca", path, layer=layer, view=view, max_bytes=max_bytes)
            table.append({"layer": layer, "view": view, "max_bytes": max_bytes, **found})
            told = f"{max_bytes >> 20:5d} MiB  {found['peak'] / 2**20:6,.0f} MiB  {found['seconds']:7.1f} s"
            print(f"{layer:9s} {view:10s}   {told}  {found['method']}", flush=True)
    return table


def verbs(path: Path) -> list[dict[str, Any]]:
    table = []
    print()
    for verb in ("similarity", "diagnose", "exemplars"):
        found = measure("verb", path, view=verb)
        table.append({"verb": verb, **found})
        print(f"{verb:11s} {found['seconds']:7.1f} s   peak {found['peak'] / 2**20:6,.0f} MiB", flush=True)
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, help="where the runs are made, and found again")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--output", type=Path, default=FOLDER)
    parser.add_argument("--task", choices=TASKS, help=argparse.SUPPRESS)
    parser.add_argument("--run", help=argparse.SUPPRESS)
    parser.add_argument("--layer", help=argparse.SUPPRESS)
    parser.add_argument("--view", help=argparse.SUPPRESS)
    parser.add_argument("--max-bytes", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.task:
        return one(arguments)
    if arguments.folder is None:
        parser.error("--folder is missing: say where the runs may be made")
    arguments.folder.mkdir(parents=True, exist_ok=True)
    paths = {}
    for name, n_samples in (SMALL if arguments.small else SAMPLES).items():
        paths[name] = arguments.folder / f"{name.replace(' ', '')}.zarr"
        if not paths[name].exists():
            start = perf_counter()
            size, n_snapshots = (64, 3) if arguments.small else (224, N_SNAPSHOTS)
            make_run(paths[name], n_samples=n_samples, size=size, n_snapshots=n_snapshots)
            print(f"{paths[name]} made in {perf_counter() - start:.0f} s", flush=True)
    largest = list(paths.values())[-1]
    cases = [(LARGEST, "channel"), (LARGEST, "sample"), ("layer3", "map"), ("layer4", "position"), ("layer1", "map")]
    measured = {
        "machine": machine(),
        "samples": SMALL if arguments.small else SAMPLES,
        "beside": beside(paths, arguments.rounds),
        "flat": flat(paths, arguments.rounds),
        "budgets": budgets(largest, cases),
        "verbs": verbs(largest),
    }
    write("analysis", measured, folder=arguments.output)
    return None


if __name__ == "__main__":
    main()
