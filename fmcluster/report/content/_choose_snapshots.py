"""Chosen snapshots: those of a long run that a page shows."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from ...store import Layer, Run


def choose_snapshots(run: Run, *, layers: Sequence[str], snapshots: Sequence[int], at_most: int) -> tuple[int, ...]:
    """Choose snapshots so that as much changes between any two neighbors: close together where change is large.

    Change is that of the layers' statistics (mean and standard deviation of each channel, which are stored beside the
    feature maps), relative to their spread over time; no feature map is read. The first and the last are always chosen.

    Parameters
    ----------
    run : Run
        The run.
    layers : sequence of str
        Whose statistics count, each as much as the others.
    snapshots : sequence of int
        Numbers to choose from, in order.
    at_most : int
        How many, at least 2.

    Returns
    -------
    tuple of int
        Numbers, in order; all of them where there are no more than `at_most`.
    """
    if len(snapshots) <= at_most:
        return tuple(snapshots)
    steps = np.mean([_steps(run[name], snapshots) for name in layers], axis=0)
    along = np.concatenate([[0.0], np.cumsum(steps + 1e-3 * max(float(steps.mean()), 1e-12))])
    aims = np.linspace(0, along[-1], at_most)
    chosen = {int(np.abs(along - aim).argmin()) for aim in aims} | {0, len(snapshots) - 1}
    while len(chosen) < at_most:  # one large step takes several aims: what is left halves the largest changes
        inner = sorted(chosen)
        gaps = [(along[b] - along[a], a, b) for a, b in pairwise(inner) if b - a > 1]
        _, a, b = max(gaps)
        middle = int(np.abs(along[a + 1 : b] - (along[a] + along[b]) / 2).argmin()) + a + 1
        chosen.add(middle)
    return tuple(int(snapshots[ordinal]) for ordinal in sorted(chosen))


def _steps(layer: Layer, snapshots: Sequence[int]) -> npt.NDArray[np.float64]:
    """Return how much changes from each snapshot to the next, relative to the layer's largest, ndarray of (n - 1,)."""
    frame = layer.statistics
    values = [
        frame.pivot_table(index="snapshot", columns="channel", values=name)
        .reindex(list(snapshots))
        .to_numpy(np.float64)
        for name in ("mean", "std")
    ]
    table = np.nan_to_num(np.concatenate(values, axis=1), posinf=0, neginf=0)
    spread = table.std(axis=0)
    table = table[:, spread > 0] / spread[spread > 0]
    steps: npt.NDArray[np.float64] = np.sqrt((np.diff(table, axis=0) ** 2).sum(axis=1))
    return steps / max(float(steps.max(initial=0)), 1e-12)
