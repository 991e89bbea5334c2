"""Matched halves: both halves of a probe assigned to the same centroids."""

from collections.abc import Iterator, Sequence
from concurrent.futures import Executor
from functools import partial
from itertools import combinations
from math import prod

import numpy as np
import numpy.typing as npt

from ...vectors import Scale, Vectors
from .._parallel import own_threads, run_each
from .._results import Array, Labels
from ..components import beyond_float32, measure_rows

_BLOCK_BYTES = 32 << 20
_FEW = 64  # features side by side: a product of them takes less time than what comes with it


def halve_groups(count: int) -> list[list[int]]:
    """Return every half of an even number of groups that holds the first.

    Examples
    --------
    >>> halve_groups(4)
    [[0, 1], [0, 2], [0, 3]]
    """
    return [[0, *rest] for rest in combinations(range(1, count), count // 2 - 1)]


def assign_groups(
    vectors: Vectors,
    labels: Labels,
    *,
    centered: npt.NDArray[np.bool_],
    axis: str,
    group_of: Labels,
    max_bytes: int,
    executor: Executor | None,
) -> Array:
    """Return how far each row is from each centroid, in each group of features.

    Centroids are the means of the rows that have a label, of those that were fitted. Distances over some features
    add up: over half of the groups, they say to which centroid a row is nearest as that half sees both.

    Parameters
    ----------
    vectors : Vectors
        The rows.
    labels : ndarray of shape (n_rows,), int64
        Their clusters.
    centered : ndarray of shape (n_rows,), bool
        The rows whose means are the centroids: those that the clusterer was fitted on.
    axis : {"n", "c"}
        Of what the groups are: samples or channels.
    group_of : ndarray of int64
        The group of each of them.
    max_bytes : int
        Memory that may be taken.
    executor : Executor or None
        Where blocks are read; None: in threads.

    Returns
    -------
    ndarray of shape (n_groups, n_rows, n_clusters), float64
        Squared Euclidean distances, less the row's own squared norm, which is the same for every centroid.
    """
    names, members = np.unique(labels, return_inverse=True)
    belongs = np.zeros((len(names), len(labels)), np.float32)
    belongs[members[centered], np.flatnonzero(centered)] = 1
    share = belongs / belongs.sum(axis=1, keepdims=True)
    tiles = vectors.feature_tiles(block_bytes=min(_BLOCK_BYTES, max_bytes // 8))
    out = np.zeros((int(group_of.max()) + 1, len(labels), len(names)))
    with own_threads(executor, most=len(tiles)) as workers:
        scale = measure_rows(vectors, tiles, executor=workers)
        measure = partial(_measure, vectors, scale=scale, share=share, axis=axis, group_of=group_of)
        for found in run_each(measure, [tile.box for tile in tiles], executor=workers):
            for group, distances in found:
                out[group] += distances
    return out


def nearest(distances: Array, half: Sequence[int]) -> Labels:
    """Return the position of the centroid that is nearest to each row over some groups of features."""
    return np.asarray(distances[list(half)].sum(axis=0).argmin(axis=1), dtype=np.int64)


def _measure(
    vectors: Vectors,
    part: dict[str, slice],
    *,
    scale: Scale,
    share: npt.NDArray[np.float32],
    axis: str,
    group_of: Labels,
) -> list[tuple[int, Array]]:
    rows = vectors.read_features(part, scale)
    features = _groups_of_features(vectors, part, axis=axis, group_of=group_of)
    found = []
    for group, at in _where(features):
        here = rows[:, at]
        if beyond_float32(here.min(initial=0), here.max(initial=0)):
            here = here.astype(np.float64)
        centroids = share @ here
        squares = np.vecdot(centroids, centroids).astype(np.float64)
        found.append((group, squares - 2 * (here @ centroids.T).astype(np.float64)))
    return found


def _where(groups: Labels) -> Iterator[tuple[int, slice | npt.NDArray[np.bool_]]]:
    """Yield where each group is: its features that lie side by side, which are not copied, unless these are few."""
    ends = [*(np.flatnonzero(np.diff(groups)) + 1).tolist(), len(groups)]
    if len(groups) >= _FEW * len(ends):
        starts = [0, *ends[:-1]]
        yield from ((int(groups[start]), slice(start, end)) for start, end in zip(starts, ends, strict=True))
    else:
        yield from ((group, groups == group) for group in np.unique(groups).tolist())


def _groups_of_features(vectors: Vectors, part: dict[str, slice], *, axis: str, group_of: Labels) -> Labels:
    """Return the group of each feature of a part, in their order."""
    axes = vectors.feature_axes
    lengths = [
        len(range(*part.get(each, slice(None)).indices(size)))
        for each, size in zip(axes, vectors.feature_shape, strict=True)
    ]
    ordinal = axes.index(axis)
    own = group_of[part.get(axis, slice(None))]
    return np.asarray(np.tile(np.repeat(own, prod(lengths[ordinal + 1 :])), prod(lengths[:ordinal])))


def draw_groups(count: int, *, n_groups: int, random_state: int) -> Labels:
    """Return a group for each of so many things, drawn at random: an even number of groups, of about equal size."""
    groups = max(2, min(n_groups, count // 2 * 2))
    out = np.empty(count, np.int64)
    out[np.random.default_rng(random_state).permutation(count)] = np.arange(count) % groups
    return out


def draw_halves(n_groups: int, *, n_splits: int, random_state: int) -> Iterator[tuple[list[int], list[int]]]:
    """Yield so many ways to put groups into two halves, or as many as there are, drawn at random."""
    every = halve_groups(n_groups)
    rng = np.random.default_rng(random_state)
    for number in np.sort(rng.permutation(len(every))[:n_splits]).tolist():
        half = every[number]
        yield half, [group for group in range(n_groups) if group not in half]
