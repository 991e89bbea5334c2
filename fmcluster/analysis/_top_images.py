"""Top images: the images, and the positions in them, that drive each channel most, and how far these stay the same."""

from collections.abc import Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from ..store import Layer
from ..vectors import Vectors, split_box
from ._parallel import run_each
from ._results import MAX_BYTES, Array, Labels
from ._validation import require

By = Literal["max", "mean", "relevance"]

NONE = -1
_HELD_BYTES = 200  # of each top image, until all are found
_BLOCK_BYTES = 16 << 20
_LEAST_BLOCK_BYTES = 1 << 20  # about what a chunk has: smaller blocks would decode the same chunk again and again
# A block is held as stored, as read, in order, and in float32; and of each feature map there are a few numbers.
_COPIES = 4
_MAP_BYTES = 30


@dataclass(frozen=True, eq=False)
class TopImages:
    """The images that drive each channel of a layer most, that which does so most first.

    Where a channel has fewer top images than `k`, the last ones are missing: NaN, and -1 for integers.

    Attributes
    ----------
    layer : str
        What the layer is called.
    by : {"max", "mean", "relevance"}
        What images are ranked by: the highest activation in the channel's feature map of an image, the mean of the
        feature map, or what the loss would grow by to first order were the feature map zero.
    k : int
        TopImages of a channel at most: as many as were asked for, or as there are images.
    snapshots : DataFrame
        One row per snapshot: snapshot, epoch, step.
    samples : ndarray of shape (n_snapshots, n_channels, k), int64
        Dataset indices of the images.
    values : ndarray of shape (n_snapshots, n_channels, k), float64
        What the images were ranked by, in the units of the activations, or of the loss.
    positions : ndarray of shape (n_snapshots, n_channels, k, 2), int64
        Row and column of the highest activation in the stored feature map, or of the largest part of its relevance; of
        several, the first. Of a layer of tokens, the token and 0; of a layer without positions, 0 and 0.
    fractions : ndarray of shape (n_snapshots, n_channels, k, 2), float64
        Where the center of that position lies in the module's whole output, from 0 (top, left) to 1 (bottom, right): a
        crop and averaging down are taken into account. NaN for layers without height and width.
    channels : DataFrame
        One row per snapshot and channel: ``snapshot, epoch, step, channel, n_top_images, nonfinite`` (images whose
        feature map holds NaN or infinite values), ``constant`` (whether all finite feature maps hold one and the same
        value), ``tied`` (whether another image has the value of the last top image, so that their order alone decided).
    n_samples : int
        Number of images that were looked at.
    left_out : ndarray of int64
        Dataset indices of the images that some of the snapshots hold and some do not, which were not looked at.
    """

    layer: str
    by: By
    k: int
    snapshots: pd.DataFrame
    samples: Labels
    values: Array
    positions: Labels
    fractions: Array
    channels: pd.DataFrame
    n_samples: int
    left_out: Labels

    def __repr__(self) -> str:
        count, channels, k = self.values.shape
        return (
            f"<TopImages of {self.layer} by {self.by}: {count} snapshots, {channels} channels, up to {k} images each>"
        )

    @cached_property
    def frame(self) -> pd.DataFrame:
        """One row per top image.

        Columns ``snapshot, epoch, step, channel, rank`` (0 for the first), ``sample, y, x, fraction_y, fraction_x,
        value``.
        """
        held = self.samples != NONE
        snapshot, channel, rank = np.nonzero(held)
        names = self.channels[["snapshot", "epoch", "step", "channel"]]
        return (
            names.take(snapshot * self.samples.shape[1] + channel)
            .reset_index(drop=True)
            .assign(
                rank=rank,
                sample=self.samples[held],
                y=self.positions[held][:, 0],
                x=self.positions[held][:, 1],
                fraction_y=self.fractions[held][:, 0],
                fraction_x=self.fractions[held][:, 1],
                value=self.values[held],
            )
        )

    @cached_property
    def turnover(self) -> pd.DataFrame:
        """How far top images stay the same, one row per channel and step from one snapshot to the next.

        Columns ``from_snapshot, to_snapshot, from_epoch, to_epoch, channel``; ``kept``, the share of the top images
        before the step that are top images after it, and ``jaccard``, the share of both in either; the same towards the
        last snapshot, ``kept_at_last`` and ``jaccard_at_last``; and ``chance``, which ``kept`` would be of images drawn
        at random. NaN where there are no top images to be kept. Which position in an image it is does not count.
        """
        before, after = self.samples[:-1], self.samples[1:]
        kept, jaccard = _shared(before, after)
        kept_at_last, jaccard_at_last = _shared(before, np.broadcast_to(self.samples[-1], before.shape))
        steps, channels = kept.shape
        per_step = {
            f"{side}_{name}": np.repeat(self.snapshots[name].to_numpy()[part], channels)
            for name in ("snapshot", "epoch")
            for side, part in (("from", slice(None, -1)), ("to", slice(1, None)))
        }
        chance = np.where(np.isnan(kept), np.nan, (after != NONE).sum(axis=2) / self.n_samples)
        return pd.DataFrame(
            {
                **per_step,
                "channel": self.channels["channel"].to_numpy()[: steps * channels],
                "kept": kept.ravel(),
                "jaccard": jaccard.ravel(),
                "kept_at_last": kept_at_last.ravel(),
                "jaccard_at_last": jaccard_at_last.ravel(),
                "chance": chance.ravel(),
            }
        )


def top_images(
    layer: Layer,
    *,
    k: int = 9,
    by: By = "max",
    snapshots: Sequence[int] | None = None,
    samples: Sequence[int] | None = None,
    channels: Sequence[int] | None = None,
    max_bytes: int = MAX_BYTES,
    executor: Executor | None = None,
) -> TopImages:
    """Find the images that drive each channel most, at every snapshot, and where in them it is most active.

    The feature maps are read once, in blocks of images. Images of the same value are taken in their order, whatever the
    blocks.

    An image is no top image of a channel where the feature map holds NaN or infinite values, or where it is nowhere
    above the lowest value that the channel has over all images: nothing in it drives the channel. A constant (dead)
    channel therefore has no top images, and one that is zero but for three images has three.

    Parameters
    ----------
    layer : Layer
        A layer of a run, or its `gradient`.
    k : int
        How many top images of each channel and snapshot; fewer where there are fewer images.
    by : {"max", "mean", "relevance"}
        Whether images are ranked by the highest activation in the feature map, by its mean, or by minus the sum of
        gradient times activation over the feature map: what the loss would grow by to first order were the feature map
        zero. The position is that of the highest activation, or of the largest part of that sum.
    snapshots : sequence of int, optional
        Numbers of the snapshots; all by default.
    samples : sequence of int, optional
        Dataset indices; by default all that every one of the snapshots holds.
    channels : sequence of int, optional
        The module's numbers of channels, in the order wanted; all that were kept by default.
    max_bytes : int
        Memory that may be taken, above what is in use; at least one feature map is read at a time. The top images are
        held here, and each worker of an `executor` may take as much for blocks.
    executor : concurrent.futures.Executor, optional
        Where blocks are read and searched; by default here, one after the other.

    Returns
    -------
    TopImages
        ``samples``, ``values`` of shape (n_snapshots, n_channels, k), and ``frame``; how they change is in
        ``turnover``.

    Raises
    ------
    TypeError
        For what is not a layer, or `k` or channels that are not integers.
    ValueError
        For `k` under 1, an unknown `by`, snapshots, samples or channels that do not exist, or one given twice; for
        relevance of a layer without gradients.
    MemoryError
        Where the top images, 200 bytes each and one more of each channel, and a block of 4 MiB do not fit into
        `max_bytes`.

    References
    ----------
    B. Zhou, A. Khosla, A. Lapedriza, A. Oliva and A. Torralba, "Object Detectors Emerge in Deep Scene CNNs", ICLR 2015
    (the images that activate a unit most, and where in them); P. Molchanov et al., "Importance Estimation for Neural
    Network Pruning", CVPR 2019 (gradient times activation).
    """
    require(layer, Layer, verb="top_images", made_by="open_run(path)[name]")
    if by not in ("max", "mean", "relevance"):
        raise ValueError(f"by is {by!r}; expected 'max', 'mean' or 'relevance'")
    slopes = _slopes_of(layer) if by == "relevance" else None
    if isinstance(k, bool) or not isinstance(k, int | np.integer):
        raise TypeError(f"k is {k!r}; expected an integer")
    if k < 1:
        raise ValueError(f"k is {k}; expected at least 1")
    vectors = layer.vectors("sample", snapshots=snapshots, samples=samples)
    _refuse_twice(vectors.samples, "samples")
    wanted = _find_channels(layer, channels)
    ordered, back = np.unique(wanted, return_inverse=True)
    count, k = len(vectors.snapshots), min(int(k), len(vectors.samples))

    # the best of each channel, one more than asked for to see ties: value, highest activation, image, position
    shape = (count, len(wanted))
    limit = _block_bytes(max_bytes, held=_HELD_BYTES * count * len(wanted) * (k + 1))
    best = np.full((4, *shape, k + 1), -np.inf)
    low, high, nonfinite = np.full(shape, np.inf), np.full(shape, -np.inf), np.zeros(shape, np.int64)
    search = partial(_search, layer, slopes, by, k + 1)
    for found in run_each(search, _cut(layer, vectors, ordered, limit=limit), executor=executor):
        at = found.at
        best[:, *at] = _largest(np.concatenate([best[:, *at], found.best], axis=2), k + 1)
        low[at], high[at] = np.minimum(low[at], found.low), np.maximum(high[at], found.high)
        nonfinite[at] += found.nonfinite
    best, low, high, nonfinite = best[:, :, back], low[:, back], high[:, back], nonfinite[:, back]

    values, peaks = best[:2]
    held = (peaks > low[..., None]) & np.isfinite(peaks)
    tied = held[..., k] & (values[..., k] == values[..., k - 1])
    held, values = held[..., :k], values[..., :k]
    sample, position = np.where(held, best[2:, ..., :k], NONE).astype(np.int64)
    positions = np.stack(np.divmod(position, layer.feature_map_shape[2]), axis=-1)
    centers = [axis[np.where(held, positions[..., i], 0)] for i, axis in enumerate(relative_centers(layer))]
    table = vectors.source.snapshots.set_index("snapshot").loc[list(vectors.snapshots)].reset_index()
    summary = table.loc[table.index.repeat(len(wanted))].reset_index(drop=True)
    return TopImages(
        layer=layer.label,
        by=by,
        k=k,
        snapshots=table,
        samples=np.where(held, vectors.samples[sample], NONE),
        values=np.where(held, values, np.nan),
        positions=np.where(held[..., None], positions, NONE),
        fractions=np.where(held[..., None], np.stack(centers, axis=-1), np.nan),
        channels=summary.assign(
            channel=np.tile(layer.channels[wanted], count),
            n_top_images=held.sum(axis=2).ravel(),
            nonfinite=nonfinite.ravel(),
            constant=(low == high).ravel(),
            tied=tied.ravel(),
        ),
        n_samples=len(vectors.samples),
        left_out=vectors.left_out,
    )


class _Block(NamedTuple):
    """Some channels of some images at one snapshot."""

    at: tuple[int, slice]  # the snapshot and the channels, as indices among those asked for
    snapshot: int
    start: int  # of the first of the images among those asked for
    samples: Labels
    channels: slice  # what is read of the layer
    picked: Labels  # which of these are wanted


class _Found(NamedTuple):
    """What was found in a block: (4, n_channels, count) of the best, and (n_channels,) of all images."""

    at: tuple[int, slice]
    best: Array
    low: Array
    high: Array
    nonfinite: Labels


def _cut(layer: Layer, vectors: Vectors, indices: Labels, *, limit: int) -> Iterator[_Block]:
    """Cut what is to be read into blocks: by images, and by channels where one image is too large."""
    _, height, width = layer.feature_map_shape
    first, last = int(indices[0]), int(indices[-1]) + 1
    sizes = {"n": len(vectors.samples), "c": last - first}
    size = (4 * height * width + _MAP_BYTES) * sizes["n"] * sizes["c"]
    for order, snapshot in enumerate(vectors.snapshots):
        for box in split_box({}, ["n", "c"], sizes=sizes, size=size, limit=limit):
            inner = box.get("c", slice(0, sizes["c"]))
            read = slice(first + inner.start, first + inner.stop)
            into = slice(*(int(edge) for edge in np.searchsorted(indices, [read.start, read.stop])))
            if into.stop > into.start:
                images = box.get("n", slice(0, sizes["n"]))
                samples, picked = vectors.samples[images], indices[into] - read.start
                yield _Block((order, into), snapshot, images.start, samples, read, picked)


def _slopes_of(layer: Layer) -> Layer:
    """Return the gradients of a layer."""
    if layer.quantity == "gradient":
        raise ValueError(f"relevance of the gradients of {layer.name} was asked for; pass run[{layer.name!r}]")
    return layer.gradient


def _search(layer: Layer, slopes: Layer | None, by: By, count: int, block: _Block) -> _Found:
    """Read a block, and find the best images in it."""
    flat = _read(layer, block)
    if slopes is not None:
        with np.errstate(invalid="ignore", over="ignore"):  # such images are left out
            flat = -(flat * _read(slopes, block))
    position = flat.argmax(axis=2)  # of a feature map with NaN, the NaN
    peak = np.take_along_axis(flat, position[..., None], axis=2)[..., 0].astype(np.float64)
    trough = flat.min(axis=2).astype(np.float64)
    finite = np.isfinite(peak) & np.isfinite(trough)
    with np.errstate(invalid="ignore"):
        total = flat.sum(axis=2, dtype=np.float64)
    value = {"max": peak, "mean": total / flat.shape[2], "relevance": total}[by]
    image = np.broadcast_to(block.start + np.arange(len(flat))[:, None], peak.shape)
    found = np.stack([np.where(finite, value, -np.inf), np.where(finite, peak, -np.inf), image, position])
    return _Found(
        at=block.at,
        best=_largest(found.transpose(0, 2, 1), count),
        low=np.where(finite, trough, np.inf).min(axis=0),
        high=np.where(finite, peak, -np.inf).max(axis=0),
        nonfinite=(~finite).sum(axis=0),
    )


def _read(layer: Layer, block: _Block) -> npt.NDArray[np.float32]:
    """Return the feature maps of a block, ndarray of shape (n_samples, n_channels, n_positions)."""
    maps = layer.read_feature_maps(
        snapshot=block.snapshot, samples=block.samples, channels=block.channels, rows=slice(None)
    )
    if len(block.picked) < maps.shape[1]:
        maps = maps[:, block.picked]
    return np.ascontiguousarray(maps, np.float32).reshape(*maps.shape[:2], -1)


def _largest(found: Array, count: int) -> Array:
    """Return the `count` of greatest value, ndarray of shape (4, n_channels, count); of equal ones, the first."""
    order = np.argsort(-found[0], axis=1, kind="stable")[:, :count]
    return np.take_along_axis(found, order[None], axis=2)


def _block_bytes(max_bytes: int, *, held: int) -> int:
    if max_bytes < held + _COPIES * _LEAST_BLOCK_BYTES:
        raise MemoryError(
            f"the top images take {held / 2**20:,.1f} MiB and a block {_COPIES * _LEAST_BLOCK_BYTES >> 20} MiB, the "
            f"budget is {max_bytes / 2**20:,.1f} MiB; ask for fewer (k, snapshots, channels), or raise max_bytes"
        )
    return min(_BLOCK_BYTES, (max_bytes - held) // _COPIES)


def _find_channels(layer: Layer, channels: Sequence[int] | None) -> Labels:
    """Return where the channels asked for lie among those kept; at least one, and each once."""
    indices = layer.channel_indices(channels)
    if not indices.size:
        raise ValueError(f"channels is {channels!r}; expected the numbers of one or more channels, or None for all")
    _refuse_twice(layer.channels[indices], "channels")
    return indices


def _refuse_twice(numbers: npt.NDArray[np.integer], what: str) -> None:
    values, counts = np.unique(numbers, return_counts=True)
    if (counts > 1).any():
        raise ValueError(f"{what} holds {values[counts > 1][0]} more than once; expected each once")


def relative_centers(layer: Layer) -> tuple[Array, Array]:
    """Return the centers of a feature map's rows and columns, as fractions of the module's whole output.

    Two ndarrays of shapes (height,) and (width,), float64: NaN where the layer has no positions.
    """
    _, height, width = layer.feature_map_shape
    if layer.dimensions[2:] != ("channel", "height", "width"):
        return np.full(height, np.nan), np.full(width, np.nan)
    full = layer.output_shape[1:]
    centers = []
    for (start, stop), length, whole in zip(layer.crop or [(0, n) for n in full], (height, width), full, strict=True):
        # as adaptive average pooling divides what was kept; without any, each is one pixel
        position, kept = np.arange(length), stop - start
        top, bottom = position * kept // length, -(-(position + 1) * kept // length)
        centers.append((start + (top + bottom) / 2) / whole)
    return centers[0], centers[1]


def _shared(before: Labels, after: Labels) -> tuple[Array, Array]:
    """Return the share of the top images before that are top images after, and the share of both in either.

    Arrays of shape (n_steps, n_channels, k) give two of shape (n_steps, n_channels).
    """
    span = int(max(before.max(initial=0), after.max(initial=0))) + 2
    whose = np.arange(before[..., 0].size).reshape(*before.shape[:-1], 1) * span
    common = (np.isin(before + whose, after + whose) & (before != NONE)).sum(axis=-1)
    size, other = ((each != NONE).sum(axis=-1) for each in (before, after))
    either = size + other - common
    return common / np.where(size, size, np.nan), common / np.where(either, either, np.nan)
