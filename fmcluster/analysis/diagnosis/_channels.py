"""Channels of a layer: which are dead, duplicate, drifting, converged, permuted or noise, from reading it once."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy.optimize import linear_sum_assignment

from ...vectors import Vectors
from .._results import Array, Labels
from ..components import BLOCK_BYTES, beyond_float32, effective_rank, energy_width, product_dtype, read_ahead, slices
from ._duplicates import NONE, find_duplicates

Mask = npt.NDArray[np.bool_]

_DISTINCTIVE = 0.5  # of the distance to the nearest rival


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


@dataclass(frozen=True, eq=False)
class ChannelEvidence:
    """What the responses of a layer's channels say, per snapshot.

    Attributes
    ----------
    dead : ndarray of shape (n_snapshots, n_channels), bool
        Constant over the probe.
    group : ndarray of shape (n_snapshots, n_channels), int64
        Position of the first channel of the group of duplicates that a channel belongs to; -1 where it is in none.
    least : ndarray of shape (n_snapshots, 2)
        Of the pairs that make up these groups the smallest correlation, and the smallest lower end of its 95 % interval
        over images; NaN where there are none.
    effective_rank : ndarray of shape (n_snapshots,)
        Of the covariance of the channels over all positions of all samples.
    energy_width : ndarray of shape (n_snapshots,), int64
        How many eigenvalues of their correlations hold most of the energy.
    drift, step : ndarray of shape (n_snapshots, n_channels)
        Distance to itself at the first snapshot, and at the one before, over the larger of the two norms: from 0 to 2.
        At the first snapshot, 0 and NaN.
    own : ndarray of shape (n_snapshots, n_channels)
        Correlation of a response with the channel's own at the snapshot before; NaN at the first, and for dead ones.
    moved_from : ndarray of shape (n_snapshots, n_channels), int64
        Position of the channel that gave this response at the snapshot before, where that is another than the channel
        itself and no third channel is nearly the same; -1 elsewhere.
    """

    dead: Mask
    group: Labels
    least: Array
    effective_rank: Array
    energy_width: Labels
    drift: Array
    step: Array
    own: Array
    moved_from: Labels


def examine_channels(
    vectors: Vectors, *, dead: float, duplicate: float, permuted: float, energy: float = 0.9, max_bytes: int
) -> ChannelEvidence:
    """Read a layer once, and judge its channels; snapshots with channels that are nearly the same are read once more.

    Where the products of all snapshots do not fit into half the budget, a few snapshots are read at a time, and the
    first and the overlapping ones again.

    Parameters
    ----------
    vectors : Vectors
        The `channel` view of a layer.
    dead, duplicate, permuted, energy : float
        Thresholds: see `Thresholds`.
    max_bytes : int
        Memory that may be taken.

    Raises
    ------
    MemoryError
        Where not even the products of three snapshots fit.
    """
    count, size = len(vectors.snapshots), vectors.rows_per_snapshot
    evidence = ChannelEvidence(
        dead=np.zeros((count, size), bool),
        group=np.full((count, size), NONE),
        least=np.full((count, 2), np.nan),
        effective_rank=np.zeros(count),
        energy_width=np.zeros(count, np.int64),
        drift=np.zeros((count, size)),
        step=np.full((count, size), np.nan),
        own=np.full((count, size), np.nan),
        moved_from=np.full((count, size), NONE),
    )
    seen = -1
    for window in windows(count, size, max_bytes=max_bytes // 2):
        part = replace(vectors, snapshots=tuple(vectors.snapshots[k] for k in window))
        products = sum_products(part, max_bytes=max_bytes // 2)
        constant = is_constant(products, dead=dead)
        squares = np.where(constant, 0, np.einsum("kcc->kc", products.within))
        for number, k in enumerate(window):
            if k > seen:
                evidence.dead[k] = constant[number]
                evidence.group[k], evidence.least[k] = find_duplicates(
                    part.at(part.snapshots[number : number + 1]),
                    correlate(products.within[number], squares[number], other_squares=squares[number]),
                    means=products.means[number],
                    norms=np.sqrt(squares[number]),
                    threshold=duplicate,
                    max_bytes=max_bytes // 2,
                )
        _judge(evidence, products, squares, window, permuted, energy)
        seen = window[-1]
    return evidence


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
    dtype = product_dtype(vectors.n_features)
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


def is_constant(products: Products, *, dead: float) -> Mask:
    """Say which channels are constant: their range is at most `dead` of their largest magnitude."""
    spread = products.high - products.low
    return np.asarray(spread <= dead * np.maximum(np.abs(products.high), np.abs(products.low)))


def correlate_channels(vectors: Vectors, *, dead: float, max_bytes: int) -> Array:
    """Correlate every channel at one snapshot with every channel at another.

    Parameters
    ----------
    vectors : Vectors
        The `channel` view of two snapshots.
    dead : float
        Channels whose range is at most this share of their largest magnitude correlate with none.
    max_bytes : int
        Memory that may be taken.

    Returns
    -------
    ndarray of shape (n_channels, n_channels)
        Those of the first snapshot are rows; NaN for dead ones.
    """
    windows(2, vectors.rows_per_snapshot, max_bytes=max_bytes // 2)  # they have to fit
    products = sum_products(vectors, max_bytes=max_bytes // 2)
    squares = np.where(is_constant(products, dead=dead), 0, np.einsum("kcc->kc", products.within))
    return correlate(products.between[0], squares[0], other_squares=squares[1])


def match_channels(correlation: Array) -> Labels:
    """Match rows to columns one to one, so that the sum of their correlations is largest.

    Parameters
    ----------
    correlation : ndarray of shape (n_channels, n_channels)
        NaN in the rows and columns of dead channels, which are matched to none.

    Returns
    -------
    ndarray of shape (n_channels,), int64
        The column of each row; -1 for none. Of equally good matches, the one that leaves more channels as they are.

    References
    ----------
    Y. Li, J. Yosinski, J. Clune, H. Lipson, J. Hopcroft, Convergent learning: do different neural networks learn the
    same representations?, ICLR 2016 (bipartite matching by correlation); H. W. Kuhn, The Hungarian method for the
    assignment problem, Naval Research Logistics Quarterly 2, 1955.
    """
    out = np.full(len(correlation), NONE)
    rows = np.flatnonzero(~np.isnan(correlation).all(axis=1))
    columns = np.flatnonzero(~np.isnan(correlation).all(axis=0))
    stay = 1e-9 * (rows[:, None] == columns[None, :])
    found, to = linear_sum_assignment(correlation[np.ix_(rows, columns)] + stay, maximize=True)
    out[rows[found]] = columns[to]
    return out


def converged_at(step: Array, *, drift: float) -> list[int | None]:
    """Return for each channel the position of the snapshot after which no step is as long as `drift`; None for none."""
    short = np.vstack([step[1:] < drift, np.ones(step.shape[1], bool)])
    return [first_to_stay(column) for column in short.T]


def is_noise(evidence: ChannelEvidence, *, noise: float) -> Mask:
    """Say which channels are, at every step of two at least, unlike themselves and no other channel's image."""
    steps = evidence.own[1:]
    unlike = np.abs(steps) < noise  # not where one is dead, for which there is no correlation
    if len(steps) < 2:
        return np.zeros(steps.shape[1], bool)
    return np.asarray((unlike & (evidence.moved_from[1:] == NONE)).all(axis=0))


def first_to_stay(good: Mask) -> int | None:
    """Return the first position from which on everything is good; None where there is none, or the last one alone is.

    Examples
    --------
    >>> first_to_stay(np.array([True, False, True, True])), first_to_stay(np.array([True, False, True]))
    (2, None)
    """
    bad = np.flatnonzero(~good)
    first = int(bad[-1]) + 1 if len(bad) else 0
    return first if first < len(good) - 1 else None


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
    fits = (max_bytes // (8 * size * size) - 3) // 2  # products of each and with the next, and three for the judgement
    if count <= fits:
        return [list(range(count))]
    if fits < 3:
        raise MemoryError(
            f"the products of {size} channels take {8 * size * size / 2**20:,.0f} MiB a snapshot; a budget of "
            f"{2 * max_bytes / 2**20:,.0f} MiB holds too few of them. Raise max_bytes, or leave the layer out."
        )
    starts = range(fits - 1, count - 1, fits - 2)
    return [list(range(fits)), *([0, *range(start, min(start + fits - 1, count))] for start in starts)]


def _judge(
    evidence: ChannelEvidence,
    products: Products,
    squares: Array,
    window: Sequence[int],
    permuted: float,
    energy: float,
) -> None:
    """Fill in what the products of a window say, where it is known which channels are dead and which duplicates."""
    for number, k in enumerate(window):
        alive = np.flatnonzero(~evidence.dead[k])
        covariance = products.within[number][np.ix_(alive, alive)]
        evidence.effective_rank[k] = effective_rank(covariance) if len(alive) else 0
        evidence.energy_width[k] = energy_width(covariance, energy=energy)
        largest = np.maximum(products.norms[number], products.norms[0])
        evidence.drift[k] = _ratio(products.from_first[number], largest)
        if number == 0 or window[number - 1] != k - 1:
            continue
        largest = np.maximum(products.norms[number], products.norms[number - 1])
        evidence.step[k] = _ratio(products.from_previous[number], largest)
        before = correlate(products.between[number - 1], squares[number - 1], other_squares=squares[number])
        own = np.diag(before)
        evidence.own[k] = own
        if (own[~np.isnan(own)] < permuted).any():
            twins = (evidence.group[k - 1] != NONE, evidence.group[k] != NONE)
            evidence.moved_from[k] = _moved(before, own, permuted, twins=twins)


def _moved(correlation: Array, own: Array, permuted: float, *, twins: tuple[Mask, Mask]) -> Labels:
    """Return whose position before a channel's response had, where it is another's, and unlike its own.

    Two channels are matched only where nothing else would do nearly as well: each is the other's best match,
    neither has a duplicate at its own snapshot, and the distance between them, 1 - correlation, is less than
    `_DISTINCTIVE` of that to any rival: any other channel at the other snapshot, or the channel's own response there.

    Parameters
    ----------
    correlation : ndarray of shape (n_channels, n_channels)
        Of each channel before (rows) with each channel after (columns); NaN of dead ones.
    own : ndarray of shape (n_channels,)
        Its diagonal.
    permuted : float
        The least correlation of a match.
    twins : (ndarray, ndarray) of shape (n_channels,), bool
        Which channels have a duplicate, at the snapshot before and at the one after.

    References
    ----------
    D. G. Lowe, "Distinctive Image Features from Scale-Invariant Keypoints", International Journal of Computer Vision
    60, 2004 (a match is one whose nearest rival is clearly farther away).
    """
    to = match_channels(correlation)
    rivals = np.nan_to_num(correlation, nan=-1.0)
    out = np.full(len(to), NONE)
    for source, target in enumerate(to):
        if target in (NONE, source) or not correlation[source, target] >= permuted or own[target] >= permuted:
            continue
        if twins[0][source] or twins[1][target]:
            continue
        others = np.concatenate([np.delete(rivals[source], target), np.delete(rivals[:, target], source)])
        if 1 - correlation[source, target] < _DISTINCTIVE * (1 - others.max(initial=-1.0)):
            out[target] = source
    return out


def _squares(block: npt.NDArray[np.floating]) -> Array:
    return np.asarray(np.vecdot(block, block), dtype=np.float64)


def _ratio(distance: Array, norm: Array) -> Array:
    out: Array = np.divide(distance, norm, out=np.zeros_like(distance), where=norm > 0)
    return out
