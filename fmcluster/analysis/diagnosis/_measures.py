"""Measures of a layer: what is measured of it by itself, before anything is judged."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isqrt

import numpy as np
import numpy.typing as npt

from ...store import Layer
from ...vectors import Vectors
from .._cka import flatten_kernel
from .._results import Array, Labels
from ..components import accumulate_gram
from ._channels import ChannelEvidence, examine_channels
from ._rate_of_change import Change, Movement
from ._separation import half_grams, halves, leave_one_out_accuracy
from ._thresholds import Thresholds

MOST_SAMPLES = 2000


@dataclass(frozen=True, eq=False)
class LayerEvidence:
    """What is measured of a layer.

    Attributes
    ----------
    name, module : str
        The layer, and the class of its module.
    numbers : ndarray of shape (n_channels,), int64
        The module's numbers of the channels.
    n_images, n_positions : int
        Samples, and positions of all of them: at how many each channel was measured.
    channels : ChannelEvidence
        Of each channel.
    accuracy, chance, spread : ndarray of shape (n_snapshots,)
        Of nearest neighbors, of the same with permuted labels, and the standard deviation of this; NaN where they are
        not available.
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
    channels: ChannelEvidence
    accuracy: Array
    chance: Array
    spread: Array
    noise_floor: float
    change: Change
    kernels: list[npt.NDArray[np.float32]]


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
    """Read a layer's channels, and its samples once.

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
    vectors = layer.vectors("channel", snapshots=snapshots, samples=samples.tolist())
    channels = examine_channels(
        vectors,
        dead=thresholds.dead,
        duplicate=thresholds.duplicate,
        permuted=thresholds.permuted,
        energy=thresholds.energy,
        max_bytes=max_bytes,
    )
    images = layer.vectors("sample", snapshots=snapshots, samples=drawn.tolist())
    block_bytes = max_bytes // 8
    movement = Movement(with_errors=with_errors, random_state=random_state)
    (accuracy, chance, spread), kernels = _compare_images(
        images, known_classes(layer, drawn), thresholds.n_neighbors, block_bytes, random_state, movement
    )
    last = images.at(snapshots[-1:])
    grams = half_grams(last, alive=~channels.dead[-1], block_bytes=block_bytes, random_state=random_state)
    return LayerEvidence(
        name=layer.name,
        module=layer.module,
        numbers=layer.channels,
        n_images=len(vectors.samples),
        n_positions=vectors.n_features,
        channels=channels,
        accuracy=accuracy,
        chance=chance,
        spread=spread,
        noise_floor=_noise_floor(grams),
        change=movement.change,
        kernels=kernels,
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


def _compare_images(
    images: Vectors, labels: Labels, n_neighbors: int, block_bytes: int, random_state: int, movement: Movement
) -> tuple[Array, list[npt.NDArray[np.float32]]]:
    """Return accuracy, chance and its spread at each snapshot, NaN where fewer than two classes are known; kernels.

    How the images move is added to `movement`.
    """
    out, kernels = np.full((3, len(images.snapshots)), np.nan), []
    known = labels >= 0
    separable = len(np.unique(labels[known])) > 1
    for index, snapshot in enumerate(images.snapshots):
        gram = accumulate_gram(images.at([snapshot]), block_bytes=block_bytes)
        kernels.append(movement.add(gram).astype(np.float32))
        if separable:
            out[:, index] = leave_one_out_accuracy(
                gram[np.ix_(known, known)], labels[known], n_neighbors=n_neighbors, random_state=random_state
            )
    return out, kernels


def _noise_floor(grams: npt.NDArray[np.float64]) -> float:
    """Return the mean debiased CKA between two halves of the groups, over all ways to halve them."""
    values = []
    for pair in halves(len(grams)):
        one, other = (flatten_kernel(grams[half].sum(axis=0), debiased=True) for half in pair)
        values.append(one @ other)
    return float(np.mean(values)) if values else np.nan
