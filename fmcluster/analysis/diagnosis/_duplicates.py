"""Duplicates: pairs of channels that correlate over a threshold, on these images and beyond their sampling error."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import numpy.typing as npt
from scipy.sparse.csgraph import connected_components
from scipy.stats import t

from ...vectors import Box, Vectors
from .._results import Array, Labels
from ..components import BLOCK_BYTES, beyond_float32, product_dtype, slices

NONE = -1
_CONFIDENCE = 0.975  # of each end of a 95 % interval


@dataclass(frozen=True, eq=False)
class PairCorrelations:
    """Correlations of channels with one another at one snapshot, and how well so many images tell them.

    Attributes
    ----------
    value : ndarray of shape (n_channels, n_channels)
        Correlations over all positions of all images.
    low : ndarray of shape (n_channels, n_channels)
        Lower ends of their 95 % intervals; NaN where there are fewer than two images.
    """

    value: Array
    low: Array


def find_duplicates(
    vectors: Vectors,
    correlation: Array,
    *,
    means: Array,
    norms: Array,
    threshold: float,
    max_bytes: int,
) -> tuple[Labels, Array]:
    """Group the channels that correlate with one another over a threshold, and would with other images.

    Feature maps are read again only where channels correlate so, and only what these say is looked at.

    Parameters
    ----------
    vectors : Vectors
        The `channel` view of one snapshot.
    correlation : ndarray of shape (n_channels, n_channels)
        Of the responses; NaN of constant channels.
    means, norms : ndarray of shape (n_channels,)
        Of the responses: the means, and the Euclidean norms of what is left.
    threshold : float
        What the lower end of the 95 % interval of a correlation has to be over.
    max_bytes : int
        Memory that may be taken.

    Returns
    -------
    group : ndarray of shape (n_channels,), int64
        Position of the first channel of each channel's group; -1 for those by themselves.
    least : ndarray of shape (2,)
        The smallest correlation of a pair that was found, and the smallest lower end; NaN where there are none.
    """
    near = correlation > threshold
    np.fill_diagonal(near, False)
    chosen = np.flatnonzero(near.any(axis=1))
    group, least = np.full(len(norms), NONE), np.full(2, np.nan)
    if len(chosen):
        found = correlate_pairs(vectors, chosen, means=means[chosen], norms=norms[chosen], max_bytes=max_bytes)
        sure = near[np.ix_(chosen, chosen)] & (found.low > threshold)
        near[np.ix_(chosen, chosen)] = sure
        group = _groups(near)
        if sure.any():
            least = np.array([found.value[sure].min(), found.low[sure].min()])
    return group, least


def correlate_pairs(
    vectors: Vectors, channels: Labels, *, means: Array, norms: Array, max_bytes: int
) -> PairCorrelations:
    """Correlate some channels with one another, and find how the correlations would vary with other images.

    The positions of an image are not independent of one another, so that an image is what is drawn: the standard error
    is that of the sum of the images' influences on the correlation (the infinitesimal jackknife), with Student's t.

    Parameters
    ----------
    vectors : Vectors
        The `channel` view of one snapshot.
    channels : ndarray of shape (n_channels,), int64
        Which of its rows.
    means, norms : ndarray of shape (n_channels,)
        Of their responses: the means over all positions of all images, and the Euclidean norms of what is left.
    max_bytes : int
        For the blocks; a few matrices of n_channels x n_channels come on top.

    References
    ----------
    B. Efron, Nonparametric estimates of standard error: the jackknife, the bootstrap and other methods, Biometrika 68,
    1981.
    """
    size, n_images = len(channels), len(vectors.samples)
    if vectors.n_features == n_images:  # one position each: all of it is products of matrices
        rows = (vectors.to_numpy()[channels].astype(np.float64) - means[:, None]) / norms[:, None]
        value, energies = rows @ rows.T, rows**2 @ (rows**2).T
        squared, with_energy = energies, rows**3 @ rows.T
    else:
        value, squared, with_energy, energies = np.zeros((4, size, size))
        for products in _products_of_images(vectors, channels, means=means, norms=norms, max_bytes=max_bytes):
            energy = np.diag(products)
            value += products
            squared += products**2
            with_energy += products * energy[:, None]
            energies += np.outer(energy, energy)
    own = np.diag(energies)
    # the influence of an image is its product, less half the correlation times the energies of both
    variance = squared + value**2 / 4 * (own[:, None] + 2 * energies + own) - value * (with_energy + with_energy.T)
    if n_images < 2:
        return PairCorrelations(value, np.full_like(value, np.nan))
    error = np.sqrt(np.maximum(variance, 0) * n_images / (n_images - 1))
    return PairCorrelations(value, value - t.ppf(_CONFIDENCE, n_images - 1) * error)


def _products_of_images(
    vectors: Vectors, channels: Labels, *, means: Array, norms: Array, max_bytes: int
) -> Iterator[Array]:
    """Yield each image's share of the correlations: ndarray of shape (n_channels, n_channels)."""
    everything = slice(0, len(vectors.samples))
    size, shift = len(channels), means.astype(np.float32)
    missed, both_norms = means - shift, np.outer(norms, norms)
    parts = vectors.feature_parts(max_bytes=min(BLOCK_BYTES, max_bytes // 6))
    for images, group in groupby(parts, key=lambda part: part.get("n", everything)):
        lines, n_images = list(group), images.stop - images.start
        if len(lines) == 1:
            for rows in _by_image(vectors, lines[0], channels, shift, n_images):
                yield _product(rows, missed) / both_norms
            continue
        products = np.zeros((n_images, size, size))  # of a few, whose lines do not fit into a block
        for part in lines:
            for number, rows in enumerate(_by_image(vectors, part, channels, shift, n_images)):
                products[number] += _product(rows, missed)
        yield from products / both_norms


def _by_image(
    vectors: Vectors, part: Box, channels: Labels, shift: npt.NDArray[np.float32], n_images: int
) -> Iterator[npt.NDArray[np.floating]]:
    """Yield each image's responses, less their means in float32: ndarray (n_channels, n_positions)."""
    rows: npt.NDArray[np.floating] = vectors.read_features(part)[channels]
    if beyond_float32(rows.min(), rows.max()) or product_dtype(vectors.n_features) is np.float64:
        rows = rows.astype(np.float64)
    rows -= shift[:, None]
    yield from rows.reshape(len(channels), n_images, -1).transpose(1, 0, 2)


def _product(rows: npt.NDArray[np.floating], missed: Array) -> Array:
    """Return the responses' inner products, less what their centering has missed, summed up in float64."""
    sums = rows.sum(axis=1, dtype=np.float64)
    total = rows.shape[1] * np.outer(missed, missed) - np.outer(sums, missed) - np.outer(missed, sums)
    for here in slices(rows.shape[1], width=len(rows)):
        total += rows[:, here] @ rows[:, here].T  # of a matrix and itself, NumPy takes half
    return np.asarray(total)


def _groups(similar: npt.NDArray[np.bool_]) -> Labels:
    """Return the first channel of each channel's connected component; -1 for those by themselves."""
    _, component = connected_components(similar, directed=False)
    _, first, inverse, sizes = np.unique(component, return_index=True, return_inverse=True, return_counts=True)
    return np.asarray(np.where(sizes[inverse] > 1, first[inverse], NONE))
