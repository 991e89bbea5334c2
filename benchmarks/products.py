"""In which precision should a Gram matrix be accumulated? Error of a singular value that is zero, and seconds.

    python benchmarks/products.py

Rows are multiples of one another, so that everything beyond the first singular value is rounding. Prints a table and
writes results/products.json.
"""

from time import perf_counter

import numpy as np
from results import machine, write
from scipy.linalg.blas import dsyrk, ssyrk

DEPTH = 512


def gram(rows: np.ndarray, dtype: type) -> np.ndarray:
    """As the analysis does it: the lower triangle of products over few features, summed in float64."""
    product = ssyrk if dtype is np.float32 else dsyrk
    total = np.zeros((len(rows), len(rows)))
    for start in range(0, rows.shape[1], DEPTH):
        total += product(1.0, np.asfortranarray(rows[:, start : start + DEPTH].T, dtype=dtype), trans=1).T
    return total + np.tril(total, -1).T


def main() -> None:
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
    write("products", {"machine": machine(), "depth": DEPTH, "rows": table})


if __name__ == "__main__":
    main()
