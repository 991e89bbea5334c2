"""What `analysis.py` measures: one thing in a process of its own, its seconds and its peak memory above the imports."""

import argparse
import json
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from math import prod
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

LARGEST = "conv1"


def kmeans() -> Any:
    from sklearn.cluster import KMeans

    return KMeans(8, random_state=0, n_init=4)


def task_pca(run: Any, layer: str, view: str, max_bytes: int) -> Callable[[], Any]:
    from fmcluster.analysis import cluster, pca

    def work() -> dict[str, Any]:
        vectors = run[layer].vectors(view)
        scores = pca(vectors, n_components=50, max_bytes=max_bytes)
        alone = memory("VmHWM")
        cluster(scores, kmeans())
        return {"method": scores.method, "shape": list(vectors.shape), "peak_of_pca": alone}

    return work


def task_read(run: Any, layer: str, view: str, max_bytes: int) -> Callable[[], Any]:
    """Every block that `pca` reads, by as many threads, and nothing done with it."""
    from fmcluster.analysis._parallel import own_threads, run_each
    from fmcluster.analysis.components._plan_reading import plan_reading

    def work() -> dict[str, Any]:
        vectors = run[layer].vectors(view)
        plan = plan_reading(vectors, n_components=50, max_bytes=max_bytes)
        parts = vectors.feature_parts(max_bytes=plan.block_bytes)
        with own_threads(None, most=plan.workers) as threads:
            return {"values": sum(run_each(partial(_size, vectors), parts, executor=threads))}

    return work


def _size(vectors: Any, part: Any) -> int:
    return int(vectors.read_features(part).size)


def task_maps(run: Any, layer: str, view: str, max_bytes: int) -> Callable[[], Any]:
    """The same chunks, decoded as fast as can be: a snapshot at a time, in the stored dtype."""
    maps = run[layer]
    samples, every = run.samples.index.to_numpy(), slice(None)

    def work() -> dict[str, Any]:
        numbers = run.snapshots["snapshot"]
        read = (maps.read_feature_maps(snapshot=k, samples=samples, channels=every, rows=every).size for k in numbers)
        return {"values": sum(read)}

    return work


def task_products(run: Any, layer: str, view: str, max_bytes: int) -> Callable[[], Any]:
    """The matrix products of that pass alone, of values that a cache holds: nothing read, nothing centered."""
    from fmcluster.analysis.components._gram import product_dtype, slices
    from fmcluster.analysis.components._plan_reading import plan_reading

    vectors = run[layer].vectors(view)
    plan = plan_reading(vectors, n_components=50, max_bytes=max_bytes)
    if plan.method != "gram":
        raise ValueError(f"{view} of {layer} is reduced by {plan.method}; only the products of rows are measured alone")
    rows, features = vectors.shape
    cuts = list(slices(features, width=rows))
    part = np.random.default_rng(0).standard_normal((rows, cuts[0].stop), np.float32).astype(product_dtype(features))

    def work() -> dict[str, Any]:
        total = np.zeros((rows, rows))
        for here in cuts:
            some = part[:, : min(here.stop, features) - here.start]
            total += some @ some.T
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

    # looked up here, which imports them: the work itself is without that
    verb, of = {
        "similarity": (fm.similarity, run),
        "diagnose": (fm.diagnose, run),
        "top_images": (fm.top_images, run[layer]),
    }[view]
    return partial(verb, of, max_bytes=max_bytes)


TASKS = {
    "pca": task_pca,
    "read": task_read,
    "maps": task_maps,
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

    import fmcluster as fm
    from fmcluster import analysis
    from fmcluster.vectors._blocks import copy_block

    _ = sklearn.cluster, sklearn.decomposition, analysis.pca, analysis.cluster
    kmeans().fit(np.random.default_rng(0).random((100, 2)))  # thread pools exist
    run = fm.open_run(arguments.run)
    values = prod(run[arguments.layer].vectors("channel").shape)
    copy_block(np.zeros(1, np.float16), np.zeros(1, np.float32), of=values)  # torch is imported as it will be
    work = TASKS[arguments.task](run, arguments.layer, arguments.view, arguments.max_bytes)
    Path("/proc/self/clear_refs").write_text("5")  # the peak from here on
    before, start = memory("VmRSS"), perf_counter()
    told = work()
    seconds = perf_counter() - start
    told = told if isinstance(told, dict) else {}
    if "peak_of_pca" in told:
        told["peak_of_pca"] -= before
    print(json.dumps({"seconds": seconds, "peak": memory("VmHWM") - before, **told}))


def measure(
    task: str, path: Path, *, layer: str = LARGEST, view: str = "channel", max_bytes: int = 1 << 30
) -> dict[str, Any]:
    """Return what a task took in a process of its own, or how it failed."""
    options = ["--run", path, "--layer", layer, "--view", view, "--max-bytes", max_bytes]
    command = [sys.executable, __file__, task, *map(str, options)]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    if found.returncode:  # below zero: killed, as for memory
        return {"failed": (found.stderr.strip().splitlines() or [f"exit code {found.returncode}"])[-1]}
    return dict(json.loads(found.stdout.splitlines()[-1]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("task", choices=TASKS)
    parser.add_argument("--run", required=True)
    parser.add_argument("--layer", default=LARGEST)
    parser.add_argument("--view", default="channel", help="or which verb")
    parser.add_argument("--max-bytes", type=int, default=1 << 30)
    one(parser.parse_args())


if __name__ == "__main__":
    main()
