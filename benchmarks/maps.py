"""How faithful are maps of a run's snapshots, in space and in motion, and how long do they take?

    python benchmarks/maps.py demo/run.zarr layer2:channel layer4:channel layer4:sample

Each reducer maps the same 50 principal component scores of each layer and view, after one run to warm up, for several
seeds in turn. Prints medians and writes results/maps-<name>.json.
"""

import argparse
import warnings
from collections.abc import Callable
from statistics import median
from time import perf_counter
from typing import Any

from results import machine, write
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE

from fmcluster import open_run, pca
from fmcluster.analysis import FusedMap, embed


def umap(seed: int) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from umap import UMAP
    return UMAP(random_state=seed, n_jobs=1)


REDUCERS: dict[str, Callable[[int], Any]] = {
    "PCA": lambda _seed: PCA(2),
    "joint UMAP": umap,
    "joint t-SNE": lambda seed: TSNE(random_state=seed, init="pca", perplexity=30),
    "FusedMap": lambda seed: FusedMap(random_state=seed),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run")
    parser.add_argument("views", nargs="+", help="layer:view")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--name", default="demo")
    arguments = parser.parse_args()
    run = open_run(arguments.run)
    scores = {key: pca(run[key.split(":")[0]].vectors(key.split(":")[1])) for key in arguments.views}
    smallest = min(scores.values(), key=lambda s: len(s.rows))
    table = []
    for name, make in REDUCERS.items():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # UMAP on rows that hardly move: "graph is not fully connected"
            embed(smallest, make(0))
            for key, rows in scores.items():
                told, seconds = [], []
                for seed in range(arguments.seeds):
                    start = perf_counter()
                    make(seed).fit_transform(rows.values, rows.rows["snapshot"] if name == "FusedMap" else None)
                    seconds.append(perf_counter() - start)
                    told.append(embed(rows, make(seed)).faithfulness)
                entry = {
                    "reducer": name,
                    "view": key,
                    "shape": list(rows.values.shape),
                    "snapshots": rows.n_snapshots,
                    "chance": told[0].neighbours_chance,
                    "kept": [t.neighbours_kept for t in told],
                    "motion": [t.motion for t in told],
                    "seconds": seconds,
                }
                table.append(entry)
                print(
                    f"{name:12s} {key:16s} kept {median(entry['kept']):5.2f} (chance {entry['chance']:.2f})  "
                    f"motion {median(entry['motion']):5.2f}  {median(seconds):5.1f} s",
                    flush=True,
                )
    write(f"maps-{arguments.name}", {"machine": machine(), "rows": table})


if __name__ == "__main__":
    main()
