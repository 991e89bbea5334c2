"""Comparison with chance: whether what an intervention chooses to change does less than random changes, over layers."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd

from ..analysis import Damage


def compare_with_chance(frame: pd.DataFrame, below: Sequence[npt.NDArray[np.float64] | None]) -> pd.DataFrame:
    """Return for each intervention and way of choosing by how much less than random changes its changes do.

    Parameters
    ----------
    frame : DataFrame
        As `Damage.frame`; of modules that are changed together nothing is taken, nor of changes that do nothing, as
        random ones of their size do.
    below : sequence of ndarray of shape (n_samples,), or None
        For each row, by how much less than random changes it does to each sample; None where there are none.

    Returns
    -------
    DataFrame
        As `Damage.choices`.
    """
    both = (frame["null_kl"] + frame["kl"]).to_numpy(float)
    single = ~frame["layer"].str.contains(", ").to_numpy(bool)
    rows = []
    for (intervention, how), part in frame.groupby(["intervention", "how"], sort=False):
        layers: dict[str, list[npt.NDArray[np.float64]]] = {}
        for number in part.index:
            values = below[number]
            if values is not None and single[number] and both[number] > 0:
                layers.setdefault(frame["layer"][number], []).append(values / both[number])
        if layers:
            each = np.stack([np.mean(shares, axis=0) for shares in layers.values()])  # (n_layers, n_samples)
            error = np.hypot(_error(each.mean(axis=0)), _error(each.mean(axis=1)))
            rows.append((intervention, how, len(layers), each.mean(), error))
    return pd.DataFrame(rows, columns=Damage.CHOICES)


def _error(values: npt.NDArray[np.float64]) -> float:
    """Return the standard error of a mean."""
    return float(np.std(values, ddof=1) / np.sqrt(len(values))) if len(values) > 1 else float("nan")
