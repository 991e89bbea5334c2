"""Channels of a layer: which are dead, duplicate, drifting, converged, permuted or noise, from reading it once."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from scipy.optimize import linear_sum_assignment

from ...vectors import DrawnPositions, Vectors
from .._results import Array, Labels
from ..components import BLOCK_BYTES, effective_rank, energy_width
from ._duplicates import NONE, find_duplicates
from ._products import Mask, Products, ProductSums, correlate, is_constant, sum_products, windows
from ._responses import Responses

_DISTINCTIVE = 0.5  # of the distance to the nearest rival


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
    look = _Look(vectors, dead, duplicate, permuted, energy, max_bytes // 2)
    for window in windows(*look.evidence.dead.shape, max_bytes=max_bytes // 2):
        part = replace(vectors, snapshots=tuple(vectors.snapshots[k] for k in window))
        products = sum_products(part, max_bytes=max_bytes // 2)
        if isinstance(vectors.source, DrawnPositions):
            products = _with_all_positions(products, part, dead=dead, max_bytes=max_bytes // 2)
        look.at(window, products=products, views=[part.at([snapshot]) for snapshot in part.snapshots])
    return look.evidence


def examine_responses(
    responses: Iterable[Responses],
    vectors: Vectors,
    *,
    dead: float,
    duplicate: float,
    permuted: float,
    energy: float = 0.9,
    max_bytes: int,
) -> ChannelEvidence:
    """Judge a layer's channels by their responses at one snapshot after the other: what `examine_channels` finds.

    Parameters
    ----------
    responses : iterable of Responses
        Of each snapshot of the vectors; three are held at a time.
    vectors : Vectors
        The `channel` view that they are of.
    dead, duplicate, permuted, energy : float
        Thresholds: see `Thresholds`.
    max_bytes : int
        Memory that may be taken beside the responses.
    """
    look = _Look(vectors, dead, duplicate, permuted, energy, max_bytes)
    sums = ProductSums()
    for k, each in enumerate(responses):
        window = sorted({0, max(k - 1, 0), k})
        of = each.vectors(vectors, vectors.snapshots[k])
        look.at(window, products=sums.add(each), views=[of] * len(window))
    return look.evidence


@dataclass(frozen=True, eq=False)
class _Look:
    """Looks at snapshots, each once, and notes the evidence."""

    vectors: Vectors
    dead: float
    duplicate: float
    permuted: float
    energy: float
    max_bytes: int

    @cached_property
    def evidence(self) -> ChannelEvidence:
        count, size = len(self.vectors.snapshots), self.vectors.rows_per_snapshot
        return ChannelEvidence(
            dead=np.zeros((count, size), bool),
            group=np.full((count, size), NONE),
            least=np.full((count, 2), np.nan),
            effective_rank=np.full(count, np.nan),
            energy_width=np.zeros(count, np.int64),
            drift=np.zeros((count, size)),
            step=np.full((count, size), np.nan),
            own=np.full((count, size), np.nan),
            moved_from=np.full((count, size), NONE),
        )

    def at(self, window: Sequence[int], *, products: Products, views: Sequence[Vectors]) -> None:
        """Look at those snapshots of a window that are new; `views` holds the `channel` view of each of it."""
        evidence = self.evidence
        constant = is_constant(products, dead=self.dead)
        squares = np.where(constant, 0, np.einsum("kcc->kc", products.within))
        new = [number for number, k in enumerate(window) if np.isnan(evidence.effective_rank[k])]
        for number in new:
            k = window[number]
            evidence.dead[k] = constant[number]
            evidence.group[k], evidence.least[k] = find_duplicates(
                views[number],
                correlate(products.within[number], squares[number], other_squares=squares[number]),
                means=products.means[number],
                norms=np.sqrt(squares[number]),
                threshold=self.duplicate,
                max_bytes=self.max_bytes,
            )
            alive = np.flatnonzero(squares[number] > 0)  # one may be constant at the positions drawn alone
            covariance, rows = products.within[number][np.ix_(alive, alive)], None
            if views[number].n_features < len(alive):
                rows = views[number].to_numpy()[alive].astype(np.float64)
                rows -= rows.mean(axis=1, keepdims=True)
            evidence.effective_rank[k] = effective_rank(covariance, rows=rows) if len(alive) else 0
            evidence.energy_width[k] = energy_width(covariance, energy=self.energy, rows=rows)
        _judge(evidence, products, squares, window, new, self.permuted)


def _with_all_positions(products: Products, vectors: Vectors, *, dead: float, max_bytes: int) -> Products:
    """Put in the extremes over all positions where those drawn are constant: a channel may be so at these alone."""
    low, high = products.low.copy(), products.high.copy()
    whole = replace(vectors, source=vectors.source.source)  # type: ignore[attr-defined]
    for number in np.flatnonzero(is_constant(products, dead=dead).any(axis=1)).tolist():
        for block in whole.at([vectors.snapshots[number]]).feature_blocks(max_bytes=min(BLOCK_BYTES, max_bytes // 6)):
            np.minimum(low[number], block.min(axis=1), out=low[number])
            np.maximum(high[number], block.max(axis=1), out=high[number])
    return replace(products, low=low, high=high)


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


def _judge(
    evidence: ChannelEvidence,
    products: Products,
    squares: Array,
    window: Sequence[int],
    new: Sequence[int],
    permuted: float,
) -> None:
    """Fill in what the products say of `new` ones of a window, where dead channels and duplicates are known."""
    for number in new:
        k = window[number]
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
    out = np.full(len(correlation), NONE)
    rivals = np.nan_to_num(correlation, nan=-1.0)
    wanted = (correlation >= permuted) & ~(own >= permuted) & ~twins[0][:, None] & ~twins[1]
    np.fill_diagonal(wanted, False)
    sources, targets = np.nonzero(wanted)
    nearest = np.maximum(_without(rivals, sources, targets), _without(rivals.T, targets, sources))
    distinctive = 1 - correlation[sources, targets] < _DISTINCTIVE * (1 - nearest)
    wanted[sources, targets] = distinctive
    if distinctive.any():  # to match all takes long where a layer is wide
        for source, target in enumerate(match_channels(correlation)):
            if target != NONE and wanted[source, target]:
                out[target] = source
    return out


def _ratio(distance: Array, norm: Array) -> Array:
    out: Array = np.divide(distance, norm, out=np.zeros_like(distance), where=norm > 0)
    return out


def _without(values: Array, rows: Labels, columns: Labels) -> Array:
    """Return the largest value in each of some rows, one column of each left out; -1 where there is none."""
    if values.shape[1] < 2:
        return np.full(len(rows), -1.0)
    second, first = np.partition(values, -2, axis=1)[:, -2:].T
    return np.asarray(np.where(values[rows, columns] == first[rows], second[rows], first[rows]))
