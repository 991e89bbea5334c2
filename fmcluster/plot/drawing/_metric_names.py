"""Metric names: which metrics a table has, and how they are written in a picture."""

import numpy as np
import numpy.typing as npt
import pandas as pd

from ._class_names import class_title

IDENTITY = ("run", "snapshot", "epoch", "step")


def recorded_metrics(frame: pd.DataFrame) -> list[str]:
    """Return the columns of a table of metrics that hold a finite value."""
    names = [str(name) for name in frame.columns if name not in IDENTITY]
    return [name for name in names if np.isfinite(frame[name].to_numpy(dtype=np.float64)).any()]


def metrics_to_draw(frame: pd.DataFrame, *, at_most: int) -> list[str]:
    """Return the metrics that a page draws: those that change and shares; shares first."""
    names = [name for name in recorded_metrics(frame) if frame[name].nunique() > 1 or metric_title(name)[1]]
    return sorted(names, key=lambda name: not metric_title(name)[1])[:at_most]


def metric_title(name: str) -> tuple[str, bool]:
    """Return how a metric is written, and whether it is a share, drawn in percent.

    Examples
    --------
    >>> metric_title("val_accuracy"), metric_title("loss")
    (('validation accuracy', True), ('loss', False))
    """
    return class_title(name.replace("val_", "validation ").replace("_", " ")), "accuracy" in name


def finite_stretches(values: npt.ArrayLike) -> list[npt.NDArray[np.int64]]:
    """Return the positions of finite values, apart where an infinite one lies between: no line leads past it.

    NaN stands where nothing was recorded, and parts nothing.

    Examples
    --------
    >>> [each.tolist() for each in finite_stretches([3.0, np.nan, 2.0, np.inf, 1.0])]
    [[0, 2], [4]]
    """
    numbers = np.asarray(values, np.float64)
    positions = np.flatnonzero(np.isfinite(numbers))
    return np.split(positions, np.flatnonzero(np.diff(np.cumsum(np.isinf(numbers))[positions])) + 1)
