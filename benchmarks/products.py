"""In which precision should a Gram matrix be accumulated? Error of a singular value that is zero, and seconds.

    python benchmarks/products.py

Rows are multiples of one another, so that everything beyond the first singular value is rounding. Prints a table and
writes results/products.json.
"""

import argparse
from pathlib import Path
from time import perf_counter

import numpy as np
from results import FOLDER, machine, write

from fmcluster.analysis.components._gram import slices


def gram(rows: np.ndarray, dtype: type) -> np.ndarray:
    """As the analysis does it: products over some features, summed in float64."""
    total = np.zeros((len(rows), len(rows)))
    for here in slices(rows.shape[1], width=len(rows)):
        part = rows[:, here].astype(dtype)
        total += part @ part.T
    return total


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=FOLDER)
    arguments = parser.parse_args()
    rng = np.random.default_rng(0)
    table = []
    for n_rows in (10, 64, 512):
        for n_features in (1_000, 16_000, 65_536, 200_000):
            pattern = np.abs(rng.standard_normal(n_features)).astype(np.float32) + 0.5
            rows = (rng.random(n_rows)[:, None] * pattern).astype(np.float32)
            entry: dict[str, object] = {"rows": n_rows, "features": n_features}
            for dtype in (np.float32, np.float64):
                start = perf_counter()
                eigenvalues = np.linalg.eigvalsh(gram(rows, dtype))
                seconds = perf_counter() - start
                singular = np.sqrt(np.maximum(eigenvalues, 0))
                name = dtype.__name__
                entry[name] = {"second_over_first": singular[-2] / singular[-1], "seconds": seconds}
            table.append(entry)
            print(
                f"{n_rows:4d} rows of {n_features:7d}:"
                + "".join(
                    f"  {name} {entry[name]['second_over_first']:.1e} in {entry[name]['seconds']:.3f} s"  # type: ignore[index]
                    for name in ("float32", "float64")
                )
            )
    write("products", {"machine": machine(), "rows": table}, folder=arguments.output)


if __name__ == "__main__":
    main()
