"""Limits of the axes of an embedding: of all snapshots, or closer where a few of them reach far beyond the others."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Span = tuple[float, float]

_CLOSER = 0.5  # of the side of all snapshots: with more, nothing is gained by axes of their own


@dataclass(frozen=True, eq=False)
class Limits:
    """Where the axes of an embedding end.

    Attributes
    ----------
    whole, close : (Span, Span)
        (low, high) for x and for y, with a margin: of all snapshots, and of those that lie close to one another. The
        same where no snapshot lies apart.
    apart : tuple of int
        Positions among the snapshots of those that do not fit into the close ones.
    times : float
        How many times as far the whole reaches.
    n_snapshots : int
        How many there are.
    """

    whole: tuple[Span, Span]
    close: tuple[Span, Span]
    apart: tuple[int, ...]
    times: float
    n_snapshots: int

    def at(self, position: int | None) -> tuple[Span, Span]:
        """Return the limits for the picture of one snapshot, or of all together."""
        if position is None:
            return self.together
        return self.whole if position in self.apart else self.close

    @property
    def together(self) -> tuple[Span, Span]:
        """The limits for a picture of all: the close ones where most snapshots fit into them."""
        return self.close if self._most_are_close else self.whole

    def note_at(self, position: int | None, *, titles: Sequence[str]) -> str:
        """Say in the picture of one snapshot that others have other axes, or in that of all what is cut off, if any."""
        if position is None:
            return self.note_together(titles=titles)
        if position in self.apart:
            return f"axes {self.times:.2g} times as wide as those of other snapshots"
        return self.note_each(titles=titles)

    def note_each(self, *, titles: Sequence[str]) -> str:
        """Say beside pictures of one snapshot after the other which have other axes; empty where none has."""
        if not self.apart:
            return ""
        own = "its" if len(self.apart) == 1 else "their"
        return f"{self._name_apart(titles)} {self.times:.2g} times as far, on axes of {own} own"

    def note_together(self, *, titles: Sequence[str]) -> str:
        """Say in a picture of all snapshots what is cut off; empty where nothing is."""
        if not self.apart or not self._most_are_close:
            return ""
        return f"{self._name_apart(titles)} {self.times:.2g} times as far: cut off here"

    @property
    def _most_are_close(self) -> bool:
        return 2 * len(self.apart) < self.n_snapshots

    def _name_apart(self, titles: Sequence[str]) -> str:
        names = [titles[position] for position in self.apart]
        return f"{names[0]} reaches" if len(names) == 1 else f"{len(names)} snapshots, from {names[0]} on, reach up to"


def limits_of(positions: npt.NDArray[np.float64]) -> Limits:
    """Find the limits for pictures of an embedding.

    Snapshots lie close to one another where their rows are within the square around those of the snapshot of median
    size, a side of it away at most. These have axes of their own where that shows them twice as large at least.

    Parameters
    ----------
    positions : ndarray of shape (n_snapshots, n_rows, 2)
        Positions of the rows.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> found = limits_of(rng.normal(size=(4, 50, 2)) * np.array([10, 1, 1, 1])[:, None, None])
    >>> found.apart, found.note_at(3, titles=["epoch 0", "epoch 1", "epoch 2", "epoch 3"])
    ((0,), 'epoch 0 reaches 6.2 times as far, on axes of its own')
    """
    low, high = positions.min(axis=1), positions.max(axis=1)
    sides = (high - low).max(axis=1)
    middle = int(np.argsort(sides, kind="stable")[(len(sides) - 1) // 2])
    reach = max(float(sides[middle]), 1e-9)
    is_close = ((low >= low[middle] - reach) & (high <= high[middle] + reach)).all(axis=1)
    whole, close = _with_margin(low, high), _with_margin(low[is_close], high[is_close])
    times = _side(whole) / _side(close)
    if times * _CLOSER < 1:
        return Limits(whole, whole, (), 1.0, len(positions))
    return Limits(whole, close, tuple(np.flatnonzero(~is_close).tolist()), times, len(positions))


def _with_margin(low: npt.NDArray[np.float64], high: npt.NDArray[np.float64]) -> tuple[Span, Span]:
    start, end = low.min(axis=0), high.max(axis=0)
    margin = max(0.06 * float((end - start).max()), 1e-9)
    (left, bottom), (right, top) = (start - margin).tolist(), (end + margin).tolist()
    return (left, right), (bottom, top)


def _side(limits: tuple[Span, Span]) -> float:
    return max(high - low for low, high in limits)
