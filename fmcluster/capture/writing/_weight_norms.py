"""Weight norms of one snapshot: of parameters and buffers, their gradients and their updates, summed in float64."""

from collections.abc import Sequence
from math import nan, sqrt
from threading import Lock
from typing import Any

import numpy as np
import numpy.typing as npt

from ...store import Part, WeightSpec, norms_path

_BLOCK = 1 << 18  # values that are float64 at a time


class WeightNorms:
    """Euclidean norms of the parameters and buffers of one snapshot, which come in parts.

    Parameters
    ----------
    specs : sequence of WeightSpec
        The parameters and buffers.
    """

    def __init__(self, specs: Sequence[WeightSpec]) -> None:
        self._names = [spec.name for spec in specs]
        self._gradients = dict.fromkeys(self._names, nan)
        self._squares: dict[str, dict[Part, tuple[float, float]]] = {name: {} for name in self._names}
        self._lock = Lock()

    def add_gradient(self, name: str, norm: float) -> None:
        """Note the norm of a parameter's gradient."""
        self._gradients[name] = norm

    def add(self, name: str, *, part: Part, values: npt.NDArray[Any], before: npt.NDArray[Any] | None) -> None:
        """Add a part of a parameter or buffer; `before`: what it was at the snapshot before, None where there is none.

        Several threads may do so at once, each another part; sums do not depend on their order.
        """
        update = nan if before is None else sum_of_squares(values, before)
        with self._lock:
            self._squares[name][part] = sum_of_squares(values), update

    def arrays(self, *, is_first: bool) -> dict[str, npt.NDArray[np.float64]]:
        """Return the norms by the paths of their arrays; at the first snapshot nothing has been updated."""
        norms, updates = [], []
        for name in self._names:
            pairs = [squares for _, squares in sorted(self._squares[name].items())]
            norms.append(sqrt(sum(square for square, _ in pairs)))
            updates.append(nan if is_first else sqrt(sum(update for _, update in pairs)))
        gradients = [self._gradients[name] for name in self._names]
        found = {"norm": norms, "gradient_norm": gradients, "update_norm": updates}
        return {norms_path(norm): np.array(values, np.float64) for norm, values in found.items()}


def sum_of_squares(values: npt.NDArray[Any], before: npt.NDArray[Any] | None = None) -> float:
    """Return the sum of the squares of values, or of what they differ by from others, in float64.

    Parameters
    ----------
    values : ndarray
        Of any number of axes; complex numbers count by their absolute values.
    before : ndarray, optional
        What is subtracted from them, of the same shape and dtype.
    """
    flat, other = _flat(values), None if before is None else _flat(before)
    total = 0.0
    with np.errstate(all="ignore"):  # of infinite weights, the norm is infinite
        for start in range(0, len(flat), _BLOCK):
            block = flat[start : start + _BLOCK].astype(np.float64)
            if other is not None:
                block -= other[start : start + _BLOCK]
            total += float(np.square(block, out=block).sum())
    return total


def _flat(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return values one after the other, complex ones as two numbers each."""
    flat = np.ascontiguousarray(values).reshape(-1)
    return flat.view(flat.real.dtype) if flat.dtype.kind == "c" else flat
