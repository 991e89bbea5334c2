"""Separation of classes: how near images lie to their own class, and how similar two halves of a layer see them."""

from itertools import combinations

import numpy as np
import numpy.typing as npt
from sklearn.neighbors import NearestNeighbors

from ...vectors import Vectors
from .._results import Array
from ..components import beyond_float32, product_dtype, read_ahead

N_PERMUTATIONS = 20
N_GROUPS = 8
_COLUMNS = 8192  # of a block that are centered and multiplied at a time: a cache holds them


def leave_one_out_accuracy(
    gram: Array, labels: npt.NDArray[np.int64], *, n_neighbors: int, random_state: int = 0
) -> tuple[float, float, float]:
    """Return the accuracy of nearest neighbors that leave out the image itself, and what chance would give.

    Each image gets the class that most of its nearest images have; of classes with equally many, that of the nearest.

    Parameters
    ----------
    gram : ndarray of shape (n_samples, n_samples)
        Inner products of the images' vectors; centered or not.
    labels : ndarray of shape (n_samples,), int64
        Their classes.
    n_neighbors : int
        How many images are asked; fewer where there are fewer.
    random_state : int
        Seed of the permutations.

    Returns
    -------
    accuracy : float
        Share of images that got their own class.
    chance : float
        The same with the labels permuted at random, mean over 20 permutations.
    spread : float
        Standard deviation of the accuracy over these.
    """
    return neighbor_accuracy(nearest_images(gram, n_neighbors=n_neighbors), labels, random_state=random_state)


def nearest_images(gram: Array, *, n_neighbors: int) -> npt.NDArray[np.int64]:
    """Return each image's nearest others, the nearest first.

    Parameters
    ----------
    gram : ndarray of shape (n_samples, n_samples)
        Inner products of the images' vectors; centered or not.
    n_neighbors : int
        How many; fewer where there are fewer.

    Returns
    -------
    ndarray of shape (n_samples, n_neighbors), int64
    """
    squares = np.diag(gram)
    distances = np.sqrt(np.maximum(squares[:, None] + squares - 2 * gram, 0))
    finder = NearestNeighbors(n_neighbors=min(n_neighbors, len(gram) - 1), metric="precomputed").fit(distances)
    near: npt.NDArray[np.int64] = finder.kneighbors(return_distance=False)
    return near


def neighbor_accuracy(
    near: npt.NDArray[np.int64], labels: npt.NDArray[np.int64], *, random_state: int = 0
) -> tuple[float, float, float]:
    """Return the accuracy of a vote of neighbors, and what chance would give: as `leave_one_out_accuracy` does.

    Parameters
    ----------
    near : ndarray of shape (n_samples, n_neighbors), int64
        Each image's neighbors, the nearest first, by their positions.
    labels : ndarray of shape (n_samples,), int64
        The images' classes.
    random_state : int
        Seed of the permutations.
    """
    classes = np.unique(labels, return_inverse=True)[1]
    rng = np.random.default_rng(random_state)
    permuted = [right_by_vote(near, rng.permutation(classes)).mean() for _ in range(N_PERMUTATIONS)]
    return float(right_by_vote(near, classes).mean()), float(np.mean(permuted)), float(np.std(permuted))


def half_grams(vectors: Vectors, *, alive: npt.NDArray[np.bool_], block_bytes: int, random_state: int) -> Array:
    """Split a layer's channels into random groups, and return the images' inner products in each.

    The sums over half of the groups are what half of the layer's units see.

    Parameters
    ----------
    vectors : Vectors
        The `sample` view of one snapshot.
    alive : ndarray of shape (n_channels,), bool
        The channels that count.
    block_bytes : int
        About how large a block of vectors is.
    random_state : int
        Seed of the draw.

    Returns
    -------
    ndarray of shape (n_groups, n_samples, n_samples), float64
        Of 8 groups, or as many, an even number, as there are channels for; of none where there is one channel.
    """
    channels = np.random.default_rng(random_state).permutation(np.flatnonzero(alive))
    count = min(N_GROUPS, len(channels) // 2 * 2)
    group_of = np.full(len(alive), -1)
    for group, members in enumerate(np.array_split(channels, count) if count else ()):
        group_of[members] = group
    channel_of = np.repeat(group_of, vectors.n_features // len(alive))
    grams = np.zeros((count, len(vectors.samples), len(vectors.samples)))
    start = 0
    for block in read_ahead(vectors.feature_blocks(max_bytes=block_bytes)):
        here = channel_of[start : start + block.shape[1]]
        start += block.shape[1]
        dtype = np.float64 if beyond_float32(block.min(), block.max()) else product_dtype(vectors.n_features)
        for group in range(count):
            chosen = np.flatnonzero(here == group)
            for columns in np.split(chosen, range(_COLUMNS, len(chosen), _COLUMNS)):
                part: npt.NDArray[np.floating] = block.take(columns, axis=1).astype(dtype, copy=False)
                part -= part.mean(axis=0)
                grams[group] += part @ part.T
    return grams


def halves(count: int) -> list[tuple[list[int], list[int]]]:
    """Return every way to put an even number of groups into two halves.

    Examples
    --------
    >>> halves(4)
    [([0, 1], [2, 3]), ([0, 2], [1, 3]), ([0, 3], [1, 2])]
    """
    if not count:
        return []
    one = ([0, *rest] for rest in combinations(range(1, count), count // 2 - 1))
    return [(half, [group for group in range(count) if group not in half]) for half in one]


def right_by_vote(near: npt.NDArray[np.int64], classes: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """Return which images get their own class from a vote of their neighbors; of ties, the nearest's class counts.

    Parameters
    ----------
    near : ndarray of shape (n_samples, n_neighbors), int64
        Each image's neighbors, the nearest first.
    classes : ndarray of shape (n_samples,), int64
        The images' classes, numbered from 0.

    Returns
    -------
    ndarray of shape (n_samples,), bool

    Examples
    --------
    >>> right_by_vote(np.array([[1, 2], [0, 2], [1, 0]]), np.array([0, 0, 1])).tolist()
    [True, True, False]
    """
    weight = 1 + 1e-3 * 0.5 ** np.arange(near.shape[1])  # of equal counts, that with the nearest is larger
    votes = np.zeros((len(near), classes.max() + 1))
    for column, share in enumerate(weight):
        votes[np.arange(len(near)), classes[near[:, column]]] += share
    right: npt.NDArray[np.bool_] = votes.argmax(axis=1) == classes
    return right
