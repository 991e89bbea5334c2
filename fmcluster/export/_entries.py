"""Entries: named values, each of a snapshot, whatever they are logged to."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd


@dataclass(frozen=True)
class SnapshotStep:
    """When something was so.

    Attributes
    ----------
    snapshot, epoch : int
        The snapshot's number, and its epoch.
    at : int
        The position on the time axis: optimizer steps so far, or the snapshot's number where steps do not tell the
        snapshots of the run apart.
    """

    snapshot: int
    epoch: int
    at: int


@dataclass(frozen=True, eq=False)
class Entry:
    """Something to log.

    Attributes
    ----------
    name : str
        What it is, such as ``"layer4/zeros"``; what stands before the first slash is a group on the page.
    step : SnapshotStep
        When.
    """

    name: str
    step: SnapshotStep


@dataclass(frozen=True, eq=False)
class Scalar(Entry):
    """A number."""

    value: float


@dataclass(frozen=True, eq=False)
class Distribution(Entry):
    """Many numbers of which the histogram is of interest: `values`, ndarray of shape (n,), finite, at least one."""

    values: npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Picture(Entry):
    """A picture: `pixels`, ndarray of shape (height, width, 3), uint8; `caption` says in words what it shows."""

    pixels: npt.NDArray[np.uint8]
    caption: str


@dataclass(frozen=True, eq=False)
class Table(Entry):
    """A tidy table: `frame`. TensorBoard has no form for tables."""

    frame: pd.DataFrame


@dataclass(frozen=True, eq=False)
class Text(Entry):
    """Prose: `lines`, each a sentence or more; plain text, not escaped."""

    lines: tuple[str, ...]


def snapshot_steps(snapshots: pd.DataFrame) -> list[SnapshotStep]:
    """Return for each snapshot when it was taken.

    Parameters
    ----------
    snapshots : DataFrame
        One row per snapshot, in their order: ``snapshot, epoch, step``.

    Returns
    -------
    list of SnapshotStep
        Their position on the time axis is the optimizer step where steps rise from each snapshot to the next; in a run
        where two share a step (of checkpoints whose steps are not known, all do), the snapshot's number for all: a page
        would draw what is at the same point on top of each other.
    """
    steps = snapshots["step"].to_numpy()
    at = steps if steps_are_known(steps) else snapshots["snapshot"].to_numpy()
    return [
        SnapshotStep(int(snapshot), int(epoch), int(index))
        for snapshot, epoch, index in zip(snapshots["snapshot"], snapshots["epoch"], at, strict=True)
    ]


def steps_are_known(steps: Sequence[int] | npt.NDArray[np.integer]) -> bool:
    """Whether steps rise from each snapshot to the next, so that they tell the snapshots apart."""
    return bool((np.diff(np.asarray(steps)) > 0).all())
