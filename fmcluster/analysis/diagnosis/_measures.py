"""Measures of a layer: what is measured of it by itself, before anything is judged."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from math import isqrt

import numpy as np
import numpy.typing as npt

from ...store import Layer
from ...vectors import Vectors
from .._cka import center_kernel, negligible
from .._results import Array, Labels
from ..components import BLOCK_BYTES, accumulate_gram
from ._channels import ChannelEvidence, examine_channels, examine_responses
from ._products import Mask
from ._rate_of_change import Change, Movement
from ._responses import Collector, Responses, positions_to_draw
from ._separation import half_grams, halves, nearest_images, neighbor_accuracy, right_by_vote
from ._thresholds import Thresholds

MOST_SAMPLES = 2000
_CACHED_BYTES = (1 << 20) - 1  # of a block that is gone over several times: a cache holds it, and malloc reuses it


@dataclass(frozen=True, eq=False)
class LayerEvidence:
    """What is measured of a layer.

    Attributes
    ----------
    name, module : str
        The layer, and the class of its module.
    numbers : ndarray of shape (n_channels,), int64
        The module's numbers of the channels.
    n_images, n_positions, of_positions : int
        Samples; positions of all of them, at which each channel was measured; and out of how many these were drawn.
    channels : ChannelEvidence
        Of each channel.
    accuracy, chance, spread : ndarray of shape (n_snapshots,)
        Of nearest neighbors, of the same with permuted labels, and the standard deviation of this; NaN where they are
        not available.
    right : ndarray of shape (n_snapshots, n_known), bool
        Of which images nearest neighbors are right, of those whose class is known; of none where fewer than two are.
    noise_floor : float
        Debiased CKA of two random halves of the channels at the last snapshot; NaN where fewer than two are alive.
    change : Change
        From each snapshot to the next.
    kernels : list of ndarray of float32
        Of each snapshot, what `flatten_kernel` makes of the images' inner products: their CKA are products of these.
    """

    name: str
    module: str
    numbers: Labels
    n_images: int
    n_positions: int
    of_positions: int
    channels: ChannelEvidence
    accuracy: Array
    chance: Array
    spread: Array
    right: Mask
    noise_floor: float
    change: Change
    kernels: list[npt.NDArray[np.float32]]

    def without_kernels(self) -> "LayerEvidence":
        """Return it without the kernels, which are most of it."""
        return replace(self, kernels=[])


def examine_layer(
    layer: Layer,
    *,
    snapshots: Sequence[int],
    samples: Labels,
    drawn: Labels,
    thresholds: Thresholds,
    with_errors: bool,
    max_bytes: int,
    random_state: int,
) -> LayerEvidence:
    """Read a layer once: its images are compared while its channels' responses are taken out.

    Where only some of the images are compared, or three snapshots' responses do not fit into half the budget, it is
    read once for each of the two.

    Parameters
    ----------
    layer : Layer
        The layer.
    snapshots : sequence of int
        Numbers of the snapshots.
    samples, drawn : ndarray of int64
        Dataset indices: those at whose positions channels are seen, and those that are compared with one another.
    thresholds : Thresholds
        What counts as dead, duplicate and permuted, and how many neighbors are asked.
    with_errors : bool
        Whether changes from snapshot to snapshot are to have standard errors.
    max_bytes : int
        Memory that may be taken.
    random_state : int
        Seed of what is drawn.
    """
    _, height, width = layer.feature_map_shape
    vectors = layer.vectors(
        "channel",
        snapshots=snapshots,
        samples=samples.tolist(),
        n_positions=positions_to_draw(n_channels=layer.n_channels, n_images=len(samples), n_positions=height * width),
        random_state=random_state,
    )
    images = layer.vectors("sample", snapshots=snapshots, samples=drawn.tolist())
    block_bytes = max_bytes // 8
    compare = _Compare(
        known_classes(layer, drawn),
        Movement(with_errors=with_errors, random_state=random_state),
        n_neighbors=thresholds.n_neighbors,
        random_state=random_state,
    )
    judge = {
        "dead": thresholds.dead,
        "duplicate": thresholds.duplicate,
        "permuted": thresholds.permuted,
        "energy": thresholds.energy,
    }
    held = 3 * 4 * layer.n_channels * vectors.n_features + 8 * 8 * layer.n_channels**2
    if np.array_equal(samples, drawn) and held <= max_bytes // 2:
        read = _responses(images, vectors, compare, tile_bytes=min(block_bytes, BLOCK_BYTES))
        channels = examine_responses(read, vectors, **judge, max_bytes=max_bytes // 8)
    else:
        channels = examine_channels(vectors, **judge, max_bytes=max_bytes)
        for snapshot in images.snapshots:
            compare.add(accumulate_gram(images.at([snapshot]), block_bytes=block_bytes))
    last = images.at(snapshots[-1:])
    grams = half_grams(last, alive=~channels.dead[-1], block_bytes=block_bytes, random_state=random_state)
    return LayerEvidence(
        name=layer.name,
        module=layer.module,
        numbers=layer.channels,
        n_images=len(vectors.samples),
        n_positions=vectors.n_features,
        of_positions=len(samples) * height * width,
        channels=channels,
        accuracy=compare.accuracy[0],
        chance=compare.accuracy[1],
        spread=compare.accuracy[2],
        right=compare.right,
        noise_floor=_noise_floor(grams),
        change=compare.movement.change,
        kernels=compare.kernels,
    )


def draw_samples(samples: Labels, *, n_items: int, max_bytes: int, random_state: int) -> Labels:
    """Return all samples, or some drawn at random: what compares samples with samples takes 2,000 at most.

    They are fewer where their products for `n_items` layers and snapshots would take more than half the budget.
    """
    of_a_pair = max(4 * n_items + 48, 128)  # bytes, in `similarity` and for the halves of a layer
    most = min(MOST_SAMPLES, isqrt(max_bytes // 2 // of_a_pair))
    if len(samples) <= most:
        return samples
    rng = np.random.default_rng(random_state)
    return samples[np.sort(rng.choice(len(samples), most, replace=False))]


def known_classes(layer: Layer, samples: Labels) -> Labels:
    """Return the samples' labels, ndarray of (n_samples,), int64; -1 where they are not known."""
    if "label" not in layer.samples:
        return np.full(len(samples), -1)
    labels: Labels = layer.samples["label"].reindex(samples, fill_value=-1).to_numpy(np.int64)
    return labels


class _Compare:
    """Compares images with one another, snapshot by snapshot, by the inner products of their vectors.

    `movement` is told how they move; `kernels` is what `flatten_kernel` makes of them.
    """

    def __init__(self, labels: Labels, movement: Movement, *, n_neighbors: int, random_state: int) -> None:
        self.movement, self.kernels = movement, list[npt.NDArray[np.float32]]()
        self._labels, self._known = labels, labels >= 0
        self._n_neighbors, self._random_state = n_neighbors, random_state
        self._separable = len(np.unique(labels[self._known])) > 1
        self._found: list[tuple[float, float, float]] = []
        self._right: list[Mask] = []

    def add(self, gram: Array) -> None:
        """Look at the next snapshot."""
        self.kernels.append(self.movement.add(gram).astype(np.float32))
        found = (np.nan,) * 3
        if self._separable:
            labels = self._labels[self._known]
            near = nearest_images(gram[np.ix_(self._known, self._known)], n_neighbors=self._n_neighbors)
            found = neighbor_accuracy(near, labels, random_state=self._random_state)
            self._right.append(right_by_vote(near, np.unique(labels, return_inverse=True)[1]))
        self._found.append(found)

    @property
    def accuracy(self) -> Array:
        """Accuracy, chance and its spread at each snapshot, (3, n); NaN where fewer than two classes are known."""
        return np.array(self._found).T

    @property
    def right(self) -> Mask:
        """Which images' neighbors are right at each snapshot, (n, n_known); of none where classes are not known."""
        return np.array(self._right, bool) if self._right else np.zeros((len(self._found), 0), bool)


def _responses(images: Vectors, channels: Vectors, compare: _Compare, *, tile_bytes: int) -> Iterator[Responses]:
    """Read the images of one snapshot after the other, each feature map once: compare them, and yield the responses."""
    collector = Collector(channels)
    for snapshot in images.snapshots:
        collector.start()
        gram = accumulate_gram(
            images.at([snapshot]), block_bytes=_CACHED_BYTES, tile_bytes=tile_bytes, watch=collector.take
        )
        compare.add(gram)
        yield collector.responses


def _noise_floor(grams: Array) -> float:
    """Return the mean debiased CKA between two halves of the groups, over all ways to halve them; `grams` are spent.

    The kernel of a half is the sum of its groups', and so is its center: the products of all pairs of groups are those
    of all halves.
    """
    least = [negligible(gram) for gram in grams]
    for gram in grams:
        gram[:] = center_kernel(gram, debiased=True)
    flat = grams.reshape(len(grams), grams.shape[1] ** 2)
    products = flat @ flat.T
    values = []
    for one, other in halves(len(grams)):
        norms = [np.sqrt(max(products[np.ix_(half, half)].sum(), 0)) for half in (one, other)]
        some = all(norm > sum(least[group] for group in half) for norm, half in zip(norms, (one, other), strict=True))
        values.append(products[np.ix_(one, other)].sum() / (norms[0] * norms[1]) if some else 0.0)
    return float(np.mean(values)) if values else np.nan
