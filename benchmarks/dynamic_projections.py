"""Embeddings of others' data, scored as their authors scored them: neighbors kept in space, movements in time.

    python benchmarks/dynamic_projections.py            needs FMCLUSTER_DATA, its folder dynamic_projections
    python benchmarks/dynamic_projections.py --table    prints the table of docs/analysis.md from what was measured

Two data sets of E. F. Vernier et al., "Quantitative Evaluation of Time-Dependent Multidimensional Projection
Techniques", Computer Graphics Forum 39 (EuroVis 2020), beside the scores that they published for 13 methods:
`cifar10cnn` (the outputs of a CNN for 1,000 images over 30 epochs) and `cartolastd` (17 measures of 696 classes of a
program in 19 versions). Definitions are theirs:

- `neighbors`: the share of a row's k nearest neighbors that are among its k nearest in the plane, mean over rows, time
  steps and k = 1, 2, ... 20 % of the rows;
- `movement`: Spearman's correlation of the lengths of all steps of all rows, in the plane and in the data, pooled;
  `pearson`, `kendall`, `kl` and `stress` (squared error over squares, each length over the longest; and standardized)
  are of the same lengths;
- `trust` and `continuity` at 10 % of the rows (Venna and Kaski; the published columns have the two names exchanged).

PCA of all time steps is scored here, too: on `cifar10cnn` it has the published scores to the last digit; on
`cartolastd`, where rows are equal to one another, which of them count as neighbors is a matter of their order.
Writes results/dynamic_projections.json.
"""

import argparse
import csv
import io
import json
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from statistics import median
from time import process_time
from typing import Any

import numpy as np
import numpy.typing as npt
from results import FOLDER, machine, spread, write
from scipy.stats import entropy, kendalltau, pearsonr, spearmanr
from sklearn.decomposition import PCA
from sklearn.manifold import trustworthiness
from sklearn.neighbors import NearestNeighbors

from fmcluster.analysis.embedding._fused_embedding import FusedEmbedding

SETS = ("cifar10cnn", "cartolastd")
SHARES = np.arange(1, 21) / 100
Array = npt.NDArray[np.float64]
Method = Callable[[Array, int], Array]


def read(name: str) -> Array:
    """Return a data set, ndarray of shape (n_steps, n_rows, n_features)."""
    with zipfile.ZipFile(_folder() / f"{name}.zip") as archive:
        files = [file for file in archive.namelist() if file.endswith(".csv")]
        steps, names = [], []
        for file in sorted(files, key=lambda file: int(file.rpartition("-")[2].removesuffix(".csv"))):
            rows = list(csv.reader(io.TextIOWrapper(archive.open(file))))[1:]
            names.append([row[0] for row in rows])
            steps.append([[float(value) for value in row[1:]] for row in rows])
    if any(each != names[0] for each in names):
        raise ValueError(f"{name}: rows differ from one time step to another")
    return np.array(steps)


def published(name: str) -> dict[str, dict[str, float]]:
    """Return the published scores of each method, under the names used here."""
    out = {}
    with (_folder() / f"published-{name}.csv").open() as file:
        for row in csv.DictReader(file):
            method = row[""].removeprefix(f"{name}-").removesuffix(".csv")
            out[method] = {
                "neighbors": float(np.mean([float(row[f"spat_np_{share:g}"]) for share in SHARES])),
                "movement": float(row["stab_spearman"]),
                "pearson": float(row["stab_pearson"]),
                "kendall": float(row["stab_kendall"]),
                "kl": float(row["stab_kl"]),
                "stress": float(row["stab_stress_n"]),
                "stress_standardized": float(row["stab_stress_s"]),
                "trust": float(row["spat_cont_0.1"]),
                "continuity": float(row["spat_trust_0.1"]),
            }
    return out


def _folder() -> Path:
    return Path(os.environ["FMCLUSTER_DATA"]) / "dynamic_projections"


def score(values: Array, positions: Array) -> dict[str, float]:
    """Score positions in the plane, ndarray of shape (n_steps, n_rows, 2)."""
    true, drawn = (np.linalg.norm(np.diff(each, axis=0), axis=2).ravel() for each in (values, positions))
    return {
        "neighbors": float(np.mean([_kept(a, b) for a, b in zip(values, positions, strict=True)])),
        "movement": float(spearmanr(true, drawn).statistic),
        "pearson": float(pearsonr(true, drawn).statistic),
        "kendall": float(kendalltau(true, drawn).statistic),
        "kl": float(entropy(true, drawn)),
        "stress": _stress(true / true.max(), drawn / drawn.max()),
        "stress_standardized": _stress(_standardized(true), _standardized(drawn)),
        "trust": _trust(values, positions),
        "continuity": _trust(positions, values),
    }


def _kept(values: Array, positions: Array) -> float:
    counts = np.array([max(1, int(share * len(values))) for share in SHARES])
    finders = (NearestNeighbors(n_neighbors=counts[-1]).fit(each) for each in (values, positions))
    near, drawn = (finder.kneighbors(return_distance=False) for finder in finders)
    order = np.arange(counts[-1])
    rank = np.full((len(values), len(values)), len(values))  # of each row among those near in the plane
    np.put_along_axis(rank, drawn, np.broadcast_to(order, drawn.shape), axis=1)
    worse = np.maximum(np.take_along_axis(rank, near, axis=1), order).ravel()  # of the two ranks of a neighbor
    within = np.cumsum(np.bincount(worse, minlength=counts[-1]))
    return float(np.mean(within[counts - 1] / (len(values) * counts)))


def _trust(values: Array, positions: Array) -> float:
    k = int(0.1 * values.shape[1])
    return float(np.mean([trustworthiness(a, b, n_neighbors=k) for a, b in zip(values, positions, strict=True)]))


def _stress(true: Array, drawn: Array) -> float:
    return float(((true - drawn) ** 2).sum() / (true**2).sum())


def _standardized(lengths: Array) -> Array:
    standardized: Array = (lengths - lengths.mean()) / lengths.std()
    return standardized


def pca(values: Array, _seed: int) -> Array:
    return PCA(2).fit_transform(values.reshape(-1, values.shape[2])).reshape(*values.shape[:2], 2)


def fused(share: float | None = None, **parameters: Any) -> Method:
    """Return the embedding with these parameters; its neighbors may be told as a share of the rows."""

    def draw(values: Array, seed: int) -> Array:
        flat = PCA().fit_transform(values.reshape(-1, values.shape[2]))  # the same distances, the widest first
        steps = np.repeat(np.arange(len(values)), values.shape[1])
        count = {} if share is None else {"n_neighbors": round(share * values.shape[1])}
        fitted = FusedEmbedding(random_state=seed, **count, **parameters)
        return fitted.fit_transform(flat, steps).reshape(*values.shape[:2], 2)

    return draw


METHODS: dict[str, Method] = {
    "PCA of all": pca,
    "FusedEmbedding": fused(),
    "FusedEmbedding, motion=0.2": fused(motion=0.2),
    'FusedEmbedding, motion=0.2, lengths="run"': fused(motion=0.2, lengths="run"),
    "FusedEmbedding, motion=0.2, n_neighbors=15 %": fused(0.15, motion=0.2),
}


def measure(name: str, values: Array, *, seeds: int) -> dict[str, Any]:
    rows = []
    for seed in range(seeds if METHODS[name] is not pca else 1):
        begin = process_time()
        positions = METHODS[name](values, seed)
        rows.append({**score(values, positions), "processor_seconds": process_time() - begin})
    print(f"{name:45s} neighbors {told(rows, 'neighbors')}, movement {told(rows, 'movement')}", flush=True)
    return {"method": name, "seeds": rows}


def told(rows: list[dict[str, float]], column: str) -> str:
    return spread((row[column] for row in rows), 3)


def ahead(row: dict[str, float], others: dict[str, dict[str, float]]) -> list[str]:
    """Return the others that are better in both: neighbors and movement."""
    return [
        name
        for name, other in others.items()
        if all(other[column] > row[column] for column in ("neighbors", "movement"))
    ]


def rendered(measured: dict[str, Any]) -> str:
    """Return the table of what was measured, as Markdown."""
    lines = [
        "| data | method | neighbors kept | movement | stress of lengths | published methods ahead on the first two |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for data, found in measured["sets"].items():
        for row in found["rows"]:
            middle = {column: median(each[column] for each in row["seeds"]) for column in ("neighbors", "movement")}
            better = ", ".join(ahead(middle, found["published"])) or "none"
            columns = " | ".join(told(row["seeds"], column) for column in (*middle, "stress"))
            lines.append(f"| {data} | {row['method']} | {columns} | {better} |")
        for method, scores in found["published"].items():
            if not ahead(scores, found["published"]):
                columns = " | ".join(f"{scores[column]:.3f}" for column in ("neighbors", "movement", "stress"))
                lines.append(f"| {data} | published: {method} | {columns} | none |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", nargs="+", choices=SETS, default=SETS)
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--output", type=Path, default=FOLDER)
    parser.add_argument("--table", action="store_true", help="print the table, measure nothing")
    arguments = parser.parse_args()
    if arguments.table:
        print(rendered(json.loads((arguments.output / "dynamic_projections.json").read_text())))
        return
    if "FMCLUSTER_DATA" not in os.environ:
        parser.error("FMCLUSTER_DATA is not set: name the folder in which dynamic_projections lies")
    sets = {}
    for name in arguments.sets:
        values = read(name)
        print(f"{name}: {values.shape[0]} time steps of {values.shape[1]} rows, {values.shape[2]} features")
        rows = [measure(method, values, seeds=arguments.seeds) for method in arguments.methods]
        sets[name] = {"shape": list(values.shape), "published": published(name), "rows": rows}
    write("dynamic_projections", {"machine": machine(), "sets": sets}, folder=arguments.output)


if __name__ == "__main__":
    main()
