"""Finite gradients: at which snapshot, and of which layers and samples, gradients can be used."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..store import NotFinite, Run
from .interventions import Skipped

Labels = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class FiniteGradients:
    """What of a run's gradients is finite.

    Attributes
    ----------
    snapshot : int
        The last at which some are.
    layers : tuple of str
        Those whose gradients are finite of half of the samples or more.
    samples, without : ndarray of int64
        Dataset indices: of which the gradients of all these layers are finite, and of which they are not.
    skipped : tuple of Skipped
        The other layers.
    passed_over : tuple of int
        Snapshots after it, at which no layer's are.
    """

    snapshot: int
    layers: tuple[str, ...]
    samples: Labels
    without: Labels
    skipped: tuple[Skipped, ...]
    passed_over: tuple[int, ...]


def find_finite_gradients(
    run: Run, layers: Sequence[str], *, snapshots: Sequence[int], samples: Labels
) -> FiniteGradients:
    """Look for gradients that are finite, at the last snapshot first.

    Parameters
    ----------
    run : Run
        The run.
    layers : sequence of str
        Names of layers with gradients.
    snapshots : sequence of int
        Numbers of the snapshots that may be used, in order.
    samples : ndarray of int64
        Dataset indices.

    Raises
    ------
    ValueError
        Where there are none.
    """
    for number in reversed(snapshots):
        broken = {name: _broken(run, name, number, samples) for name in layers}
        kept = [name for name, each in broken.items() if each.mean() <= NotFinite.most_samples]
        without = np.logical_or.reduce([broken[name] for name in kept]) if kept else np.ones(len(samples), bool)
        if not without.all():
            why = f"its gradients are NaN or infinite of most samples at snapshot {number}"
            return FiniteGradients(
                snapshot=number,
                layers=tuple(kept),
                samples=samples[~without],
                without=samples[without],
                skipped=tuple(Skipped("all", name, why) for name in layers if name not in kept),
                passed_over=tuple(each for each in snapshots if each > number),
            )
    several = len(snapshots) > 1
    raise ValueError(
        f"the gradients of every image hold NaN or infinite values at snapshot{'s' * several} "
        f"{', '.join(map(str, snapshots[-5:]))}{'' if several else '; pass another snapshot'}. Look at the training: a "
        f"lower learning rate, another loss scale, or gradient clipping"
    )


def _broken(run: Run, layer: str, snapshot: int, samples: Labels) -> npt.NDArray[np.bool_]:
    """Say of which samples a layer's gradients are not finite; they are read only where its statistics tell of some."""
    gradient = run[layer].gradient
    known = gradient.statistics
    if not known.loc[known["snapshot"] == snapshot, "nonfinite"].any():
        return np.zeros(len(samples), bool)
    found: npt.NDArray[np.bool_] = gradient.vectors("sample", snapshots=[snapshot], samples=samples).nonfinite_rows()[0]
    return found
