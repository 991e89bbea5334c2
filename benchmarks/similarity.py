"""How fast are all similarities of layers and snapshots, beside loops over pairs that compute the same?

    python benchmarks/similarity.py [--quick]

A ResNet-18's children at several snapshots of a training from scratch, on photographs (those of FMCLUSTER_DATA, else
crops of the two that scikit-learn brings). All pairs by debiased linear CKA (Kornblith et al., 2019):

- `fm.similarity`: reads the run, each layer and snapshot once, in bounded memory;
- `loop`: all feature maps in memory, and `analysis.metrics.linear_cka` for each pair;
- `loop, NumPy`: the same by hand in one line a matrix, as loops over `torch_cka`-like functions do: two Gram matrices
  for each pair;
- `loop, Gram matrices once`: what somebody writes who knows that they suffice.

Loops are timed without the reading that `fm.similarity` does. They take turns; the largest difference of a similarity
from those of the loop by hand, in float64, is in the table. Writes results/similarity.json.
"""

import argparse
import tempfile
from collections.abc import Callable
from itertools import combinations_with_replacement
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import numpy.typing as npt
from analysis import make_run
from results import FOLDER, machine, write

import fmcluster as fm
from fmcluster.analysis import metrics

Array = npt.NDArray[np.float64]
GOAL = 5.0


def gram(values: npt.NDArray[Any]) -> Array:
    """Inner products of samples, with nothing on the diagonal, as the unbiased estimate has them."""
    flat = values.reshape(len(values), -1).astype(np.float64)
    products: Array = flat @ flat.T
    np.fill_diagonal(products, 0)
    return products


def hsic(k: Array, m: Array) -> float:
    """Unbiased estimate of the Hilbert-Schmidt independence criterion (Song et al., 2012), but for its constant."""
    n = len(k)
    apart = k.sum() * m.sum() / ((n - 1) * (n - 2)) - 2 * k.sum(0) @ m.sum(0) / (n - 2)
    return float((k * m).sum() + apart)


def by_hand(k: Array, m: Array) -> float:
    return hsic(k, m) / np.sqrt(hsic(k, k) * hsic(m, m))


def pairs(each: Callable[[int, int], float], count: int) -> Array:
    out = np.empty((count, count))
    for a, b in combinations_with_replacement(range(count), 2):
        out[a, b] = out[b, a] = each(a, b)
    return out


def contenders(path: Path, maps: list[npt.NDArray[Any]]) -> dict[str, Callable[[], Array]]:
    flat = [values.reshape(len(values), -1) for values in maps]

    def grams_once() -> Array:
        grams = [gram(values) for values in maps]
        return pairs(lambda a, b: by_hand(grams[a], grams[b]), len(maps))

    return {
        "fm.similarity": lambda: fm.similarity(fm.open_run(path)).values,
        "loop": lambda: pairs(lambda a, b: metrics.linear_cka(flat[a], flat[b]), len(maps)),
        "loop, NumPy": lambda: pairs(lambda a, b: by_hand(gram(maps[a]), gram(maps[b])), len(maps)),
        "loop, Gram matrices once": grams_once,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=60)
    parser.add_argument("--snapshots", type=int, default=4)
    parser.add_argument("--size", type=int, default=64, help="height and width of a photograph")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--quick", action="store_true", help="12 samples, 2 snapshots, 1 round: to try it out")
    parser.add_argument("--output", type=Path, default=FOLDER)
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.samples, arguments.snapshots, arguments.size, arguments.rounds = 12, 2, 32, 1
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "run.zarr"
        make_run(path, n_samples=arguments.samples, size=arguments.size, n_snapshots=arguments.snapshots)
        run = fm.open_run(path)
        order = fm.similarity(run).rows[["layer", "snapshot"]].itertuples(index=False)
        maps = [run[layer].read(snapshot=snapshot) for layer, snapshot in order]
        ways = contenders(path, maps)
        reference = ways["loop, Gram matrices once"]()
        seconds: dict[str, list[float]] = {name: [] for name in ways}
        difference: dict[str, float] = {}
        rng = np.random.default_rng(0)
        for _ in range(arguments.rounds):
            for name in rng.permutation(list(ways)):
                start = perf_counter()
                found = ways[name]()
                seconds[name].append(perf_counter() - start)
                difference[name] = float(np.abs(found - reference).max())
    ours = seconds["fm.similarity"]
    rows = [
        {
            "way": name,
            "seconds": taken,
            "times": [a / b for a, b in zip(taken, ours, strict=True)],
            "difference": difference[name],
        }
        for name, taken in seconds.items()
    ]
    for row in rows:
        middle = np.median(row["seconds"]), np.median(row["times"])
        print(f"{row['way']:26s} {middle[0]:7.2f} s, {middle[1]:5.1f} times, off by {row['difference']:.0e}")
    about = {"samples": arguments.samples, "representations": len(maps), "pairs": len(maps) * (len(maps) + 1) // 2}
    write("similarity", {"machine": machine(), **about, "goal": GOAL, "rows": rows}, folder=arguments.output)


if __name__ == "__main__":
    main()
