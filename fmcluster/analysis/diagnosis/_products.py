"""Products of channels: what tells their responses apart, at a few snapshots of a layer."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ...vectors import Vectors
from .._results import Array
from ..components import BLOCK_BYTES, beyond_float32, read_ahead, slices
from ._responses import Responses

Mask = npt.NDArray[np.bool_]

_DEPTH_FOR_FLOAT32 = 1 << 10


@dataclass(frozen=True, eq=False)
class Products:
    """Sums over the whole probe, of the channels of a few snapshots of a layer.

    Attributes
    ----------
    within : ndarray of shape (n_snapshots, n_channels, n_channels), float64
        Inner products of the centered responses within each snapshot.
    between : ndarray of shape (n_snapshots - 1, n_channels, n_channels), float64
        Those of each snapshot (rows) with the next (columns).
    means, norms : ndarray of shape (n_snapshots, n_channels)
        Means and Euclidean norms of the responses as they are.
    low, high : ndarray of shape (n_snapshots, n_channels)
        Their smallest and largest values.
    from_first, from_previous : ndarray of shape (n_snapshots, n_channels)
        Euclidean distances of each channel's response to its own at the first snapshot, and at the one before.
    """

    within: Array
    between: Array
    means: Array
    norms: Array
    low: Array
    high: Array
    from_first: Array
    from_previous: Array


def sum_products(vectors: Vectors, *, max_bytes: int) -> Products:
    """Read the channels of a few snapshots once, and sum up what tells them apart.

    Responses are centered on the mean of the first block, and what this misses is corrected at the end; distances are
    taken of the responses themselves, so that what did not change is at distance 0.

    Parameters
    ----------
    vectors : Vectors
        The `channel` view.
    max_bytes : int
        For the blocks; the products come on top.
    """
    count, size = len(vectors.snapshots), vectors.rows_per_snapshot
    within, between = np.zeros((count, size, size)), np.zeros((max(count - 1, 0), size, size))
    sums, squares, from_first, from_previous = np.zeros((4, count, size))
    low, high = np.full((count, size), np.inf), np.full((count, size), -np.inf)
    dtype = channel_dtype(vectors.n_features)
    shift = None
    for rows in read_ahead(vectors.feature_blocks(max_bytes=min(BLOCK_BYTES, max_bytes // 6))):
        block: npt.NDArray[np.floating] = rows.reshape(count, size, -1)
        least, most = block.min(axis=2), block.max(axis=2)
        np.minimum(low, least, out=low)
        np.maximum(high, most, out=high)
        if beyond_float32(least, most):  # of any channel: a faint one beside others is not to be lost
            block = block.astype(np.float64)
        for k in range(count):
            squares[k] += _squares(block[k])
            from_first[k] += _squares(block[k] - block[0])
            from_previous[k] += _squares(block[k] - block[max(k - 1, 0)])
        if shift is None:
            shift = block.mean(axis=2, keepdims=True, dtype=np.float64).astype(np.float32)
        block -= shift
        sums += block.sum(axis=2, dtype=np.float64)
        for here in slices(block.shape[2], width=count * size):
            part = block[:, :, here].astype(np.result_type(block, dtype))
            turned = part.transpose(0, 2, 1)
            for k in range(count):  # one by one: of a matrix and itself, half is taken
                within[k] += part[k] @ turned[k]
                if k:
                    between[k - 1] += part[k - 1] @ turned[k]
    away = sums / vectors.n_features
    for k in range(count):
        within[k] -= np.outer(sums[k], away[k])
        if k:
            between[k - 1] -= np.outer(sums[k - 1], away[k])
    return Products(
        within,
        between,
        means=away if shift is None else away + shift[:, :, 0],
        norms=np.sqrt(squares),
        low=low,
        high=high,
        from_first=np.sqrt(from_first),
        from_previous=np.sqrt(from_previous),
    )


def channel_dtype(depth: int) -> type[np.float32] | type[np.float64]:
    """Return in what products of channels are taken whose sums are over so many positions.

    Up to 4,096 terms are summed up in it, and these sums in float64: a correlation is off by about 1e-7, where that is
    float32.
    """
    return np.float32 if depth > _DEPTH_FOR_FLOAT32 else np.float64


def is_constant(products: Products, *, dead: float) -> Mask:
    """Say which channels are constant: their range is at most `dead` of their largest magnitude."""
    spread = products.high - products.low
    return np.asarray(spread <= dead * np.maximum(np.abs(products.high), np.abs(products.low)))


class ProductSums:
    """Multiplies the responses of a layer's channels, one snapshot after the other, with those before.

    What `sum_products` sums up of blocks of several snapshots, of responses that are held: the first, the one before
    and the one at hand.
    """

    def __init__(self) -> None:
        self._seen: list[_Snapshot] = []  # the first, and the one before

    def add(self, responses: Responses) -> Products:
        """Return the products of the first snapshot, of the one before and of this one; each of them once."""
        values = responses.values.reshape(len(responses.values), -1)
        now = _Snapshot(values, low=responses.low, high=responses.high)
        seen = [*self._seen, now]
        between = np.zeros((len(seen) - 1, len(values), len(values)))
        now.multiply(seen, between)
        self._seen = [seen[0], now] if len(seen) > 1 else [now]
        return Products(
            within=np.stack([each.within for each in seen]),
            between=between,
            means=np.stack([each.means for each in seen]),
            norms=np.stack([each.norms for each in seen]),
            low=np.stack([each.low for each in seen]),
            high=np.stack([each.high for each in seen]),
            from_first=np.stack([each.from_first for each in seen]),
            from_previous=np.stack([each.from_previous for each in seen]),
        )


class _Snapshot:
    """Responses at a snapshot, and their products."""

    def __init__(self, values: npt.NDArray[np.float32], *, low: Array, high: Array) -> None:
        self.values, self.low, self.high = values, low, high
        self.wide = beyond_float32(low, high)
        self.shift = values.mean(axis=1, keepdims=True, dtype=np.float64).astype(np.float32)
        self.within = np.zeros((len(values), len(values)))
        self.sums, self._squares, self._first, self._previous = np.zeros((4, len(values)))

    def multiply(self, seen: "list[_Snapshot]", between: Array) -> None:
        """Sum up the products with itself and with the one before, the last of `between`; they are zero before."""
        first, before, length = seen[0], seen[max(len(seen) - 2, 0)], self.values.shape[1]
        wide = self.wide or first.wide or before.wide
        dtype = np.float64 if wide else channel_dtype(length)
        for here in slices(length, width=3 * len(self.values)):
            rows, *others = (
                each.values[:, here].astype(np.float64) if wide else each.values[:, here]
                for each in (self, first, before)
            )
            self._squares += _squares(rows)
            self._first += _squares(rows - others[0])
            self._previous += _squares(rows - others[1])
            part = rows - self.shift
            self.sums += part.sum(axis=1, dtype=np.float64)
            part = part.astype(dtype, copy=False)
            self.within += part @ part.T  # of a matrix and itself, half is taken
            if before is not self:
                between[-1] += (others[1] - before.shift).astype(dtype, copy=False) @ part.T
        self.within -= np.outer(self.sums, self.sums / length)
        if before is not self:
            between[-1] -= np.outer(before.sums, self.sums / length)
        self.means = self.sums / length + self.shift[:, 0]
        self.norms, self.from_first, self.from_previous = map(np.sqrt, (self._squares, self._first, self._previous))


def correlate(products: Array, squares: Array, *, other_squares: Array) -> Array:
    """Divide inner products of centered responses by the norms; NaN where one is 0.

    `squares` holds the responses' products with themselves, 0 for those taken for dead.
    """
    norms = np.sqrt(np.maximum(np.outer(squares, other_squares), 0))
    out: Array = np.divide(products, norms, out=np.full(products.shape, np.nan), where=norms > 0)
    return out


def windows(count: int, size: int, *, max_bytes: int) -> list[list[int]]:
    """Cut the snapshots so that the products of each part fit: parts overlap by one, and all have the first.

    Raises
    ------
    MemoryError
        Where the products of three snapshots do not fit.
    """
    fits = (max_bytes // (8 * size * size) - 3) // 2  # products of each and with the next, and three to judge by
    if count <= fits:
        return [list(range(count))]
    if fits < 3:
        raise MemoryError(
            f"the products of {size} channels take {8 * size * size / 2**20:,.0f} MiB a snapshot; a budget of "
            f"{2 * max_bytes / 2**20:,.0f} MiB holds too few of them. Raise max_bytes, or leave the layer out."
        )
    starts = range(fits - 1, count - 1, fits - 2)
    return [list(range(fits)), *([0, *range(start, min(start + fits - 1, count))] for start in starts)]


def _squares(block: npt.NDArray[np.floating]) -> Array:
    return np.asarray(np.vecdot(block, block), dtype=np.float64)
