"""Probe set: the same samples for every snapshot, their digests, and the pictures of them that a run keeps."""

import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from google_crc32c import value as crc32c
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset, SequentialSampler

from ...errors import CaptureError
from .._compat import goes_through_in_order, with_own_workers
from ._datasets import (
    as_labels,
    check_numbered,
    classes,
    fitting_names,
    listed_classes,
    n_indices,
    normalizations,
    of_each_sample,
    paths,
)
from ._forward_arguments import ForwardArguments
from ._inputs import ModelInputs, ToInputs, as_inputs
from ._items import describe, why_no_batch
from ._split_batch import as_lists, split_batch, targets_of, without_indices
from ._text_labels import as_texts, look_like_labels, numbered

DISPLAY_PIXELS = 224


@dataclass(frozen=True)
class ProbeBatch:
    """A batch of the probe.

    Attributes
    ----------
    offset : int
        Slot of its first sample.
    inputs : ModelInputs
        What the model is shown.
    labels : ndarray of shape (n,), int64
        -1 where the data set has none.
    targets : Any
        What the items hold second, as the loader put it together; None where they hold nothing else.
    texts : tuple of str or None
        Labels that are text.
    unusable : str
        What the labels are, where they are no classes.
    """

    offset: int
    inputs: ModelInputs
    labels: npt.NDArray[np.int64]
    targets: Any
    texts: tuple[str, ...] | None
    unusable: str

    def __len__(self) -> int:
        return len(self.labels)

    def without_images(self) -> "ProbeBatch":
        """Return the batch without what takes memory."""
        return replace(self, inputs=ModelInputs(()), targets=None)


class Probe:
    """A data set, batch by batch in its own order.

    Parameters
    ----------
    data : Dataset or DataLoader
        Items are an image tensor, or start with one; a second element is taken for the label if it is an integer. Items
        may be mappings (``pixel_values`` or ``image``, ``label``), or begin with their index (`with_index`). A loader
        has to go through its data set in order, and to the end.
    batch_size : int
        For a data set; a loader has its own.
    to_inputs : callable, optional
        Makes of a batch, as the loader puts it together, what the model is called with: ``(args, kwargs)``.
    takes : ForwardArguments, optional
        What the model's ``forward`` takes; a tensor, by default.

    Raises
    ------
    ValueError
        For an empty or iterable data set, or a loader that shuffles or drops samples.
    """

    def __init__(
        self,
        data: Dataset[Any] | DataLoader[Any],
        *,
        batch_size: int,
        to_inputs: ToInputs | None = None,
        takes: ForwardArguments | None = None,
    ) -> None:
        if to_inputs is not None and not callable(to_inputs):
            raise TypeError(f"to_inputs is a {type(to_inputs).__name__}; expected a function of a batch")
        self._to_inputs = to_inputs
        self._takes = takes or ForwardArguments()
        if isinstance(data, DataLoader):
            self._loader = with_own_workers(_checked_loader(data))
            assert data.batch_size is not None
            batch_size = data.batch_size
        else:
            check_numbered(data, what="the probe")
            together = as_lists if self._takes.takes_list and to_inputs is None else None
            self._loader = DataLoader(data, batch_size=batch_size, shuffle=False, collate_fn=together)
        self.dataset: Dataset[Any] = self._loader.dataset
        self._n_indices = n_indices(self.dataset)
        self.batch_size = batch_size
        self.n_samples = len(self.dataset)  # type: ignore[arg-type]
        if self.n_samples == 0:
            raise ValueError("the probe is empty; pass a data set with at least one image")

    def __iter__(self) -> Iterator[ProbeBatch]:
        offset = 0
        for item in self._items():
            due = min(self.batch_size, self.n_samples - offset)
            if self._to_inputs is None:
                inputs, targets = split_batch(item, n_indices=self._n_indices, takes=self._takes, due=due)
            else:
                batch = without_indices(item, self._n_indices) if self._n_indices else item
                inputs, targets = as_inputs(self._to_inputs(batch), due=due), targets_of(batch)
            if any(row.is_meta for rows in inputs.by_sample() for row in rows[:1]):
                raise ValueError("the probe's items are tensors on the device 'meta', without values; expected images")
            given = of_each_sample(targets, count=len(inputs))
            texts, labels = (
                as_texts(given, count=len(inputs)),
                None if given is None else as_labels(given, count=len(inputs)),
            )
            is_unusable = texts is None and labels is None and look_like_labels(given)
            unusable = describe(given) if is_unusable else ""
            labels = np.full(len(inputs), -1, np.int64) if labels is None else labels
            yield ProbeBatch(offset, inputs, labels, targets, texts, unusable)
            offset += len(inputs)

    def _items(self) -> Iterator[Any]:
        """Go through the loader; what cannot be put together to a batch is said in plain words."""
        try:
            yield from self._loader
        except (TypeError, RuntimeError, KeyError, ValueError) as error:
            if why := why_no_batch(error, self.dataset):
                raise ValueError(f"the probe's items {why}") from error
            raise

    def batch(self) -> ModelInputs:
        """Return what the model is shown first."""
        return next(iter(self)).inputs

    def generators(self) -> tuple[Any, ...]:
        """Return what may draw random numbers when the probe is read: loader, samplers, data set and `to_inputs`."""
        return (self._loader, self._loader.sampler, self._loader.batch_sampler, self.dataset, self._to_inputs)

    def display(self, images: torch.Tensor | Sequence[torch.Tensor]) -> npt.NDArray[np.uint8] | None:
        """Make pictures of inputs.

        The data set's ``Normalize`` is undone where it has one; otherwise images outside 0 to 1 are stretched, each
        by its own extremes. Images in a list, which may be of any size, are scaled to squares of 224 pixels, black
        below or on the right.

        Returns
        -------
        ndarray of shape (n, height, width, 3), uint8, or None
            At most 224 pixels a side. None where the inputs are not images of one or three channels.
        """
        if not isinstance(images, torch.Tensor):
            of_each = [each for each in (self.display(image[None]) for image in images) if each is not None]
            return np.concatenate([_square(each) for each in of_each]) if len(of_each) == len(images) else None
        if images.ndim != 4 or images.shape[1] not in (1, 3):
            return None
        pictures = images.detach().cpu().float()
        if images.dtype == torch.uint8:
            pictures = pictures / 255
        if (undone := _without_normalization(pictures, self.dataset)) is not None:
            pictures = undone
        else:
            pictures = torch.where(pictures.isfinite(), pictures, torch.nan)
            low = pictures.nan_to_num(nan=torch.inf).amin((1, 2, 3), keepdim=True)
            high = pictures.nan_to_num(nan=-torch.inf).amax((1, 2, 3), keepdim=True)
            if low.min() < 0 or high.max() > 1:
                pictures = (pictures - low) / (high - low).clamp_min(1e-12)
            pictures = pictures.nan_to_num()
        longest = max(pictures.shape[2:])
        if longest > DISPLAY_PIXELS:
            size = [max(1, round(side * DISPLAY_PIXELS / longest)) for side in pictures.shape[2:]]
            pictures = functional.interpolate(pictures, size=size, mode="bilinear", antialias=True)
        pictures = pictures.expand(-1, 3, -1, -1).clamp(0, 1).mul(255).round().to(torch.uint8)
        out: npt.NDArray[np.uint8] = pictures.permute(0, 2, 3, 1).contiguous().numpy()
        return out


def _square(pictures: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Scale pictures until they fill a square, and pad them as detectors do: below, or on the right."""
    scaled = torch.from_numpy(pictures).permute(0, 3, 1, 2).float()
    scale = DISPLAY_PIXELS / max(scaled.shape[2:])
    size = [max(1, round(side * scale)) for side in scaled.shape[2:]]
    scaled = functional.interpolate(scaled, size=size, mode="bilinear", antialias=True)
    square = functional.pad(scaled, (0, DISPLAY_PIXELS - size[1], 0, DISPLAY_PIXELS - size[0]))
    out: npt.NDArray[np.uint8] = square.round().to(torch.uint8).permute(0, 2, 3, 1).contiguous().numpy()
    return out


def _without_normalization(pictures: torch.Tensor, dataset: Any) -> torch.Tensor | None:
    """Undo the data set's ``Normalize``, to values of 0 to 1; None where it has none that made these pictures."""
    done = normalizations(dataset)
    if not done:
        return None
    n_channels, largest = pictures.shape[1], 0.0
    for mean, std in done:
        try:
            one, other = (torch.as_tensor(v, dtype=torch.float32).reshape(1, -1, 1, 1) for v in (mean, std))
        except (TypeError, ValueError):  # of a transform of that name with other attributes
            return None
        if {one.shape[1], other.shape[1]} - {1, n_channels}:
            return None
        pictures, largest = pictures * other + one, float(one.max())
    if largest > 1 or float(pictures.nan_to_num().amax()) > 2:  # the data set's pixels are 0 to 255
        pictures = pictures / 255
    return pictures.nan_to_num(nan=0.0)


class Identity:
    """Digest of each sample of the probe, with which every later snapshot's samples are compared.

    Where the probe is first gone through, a sample's digest is taken: SHA-256 of its dtype, its shape and its bytes; of
    several tensors, of their digests. Later its CRC-32C is compared with that of the first time, which takes a
    twentieth of the time.

    Parameters
    ----------
    probe : Probe
        The probe.
    digests : ndarray of shape (n_samples, 32), uint8, or None
        What is stored of it already.

    Attributes
    ----------
    stored : bool
        Whether the run holds (or is about to hold) the samples' table.
    """

    def __init__(self, probe: Probe, digests: npt.NDArray[np.uint8] | None) -> None:
        self._probe = probe
        self._paths = paths(probe.dataset)
        self._digests = digests
        self._checksums: npt.NDArray[np.uint32] | None = None
        self._first: list[tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint32]]] = []
        self.stored = digests is not None

    def check(self, batch: ProbeBatch) -> None:
        """Raise `CaptureError` where a sample is not what it was."""
        here = slice(batch.offset, batch.offset + len(batch))
        checksums = _checksums(batch.inputs)
        if self._checksums is not None:
            changed = np.flatnonzero(checksums != self._checksums[here])
        else:
            digests = _digests(batch.inputs)
            self._first = [*(self._first if batch.offset else []), (digests, checksums)]
            if self._digests is None:
                return
            changed = np.flatnonzero((digests != self._digests[here]).any(axis=1))
        if len(changed):
            sample = batch.offset + int(changed[0])
            where = f" ({self._paths[sample]})" if self._paths else ""
            raise CaptureError(
                f"probe sample {sample}{where} is not what it was in the first snapshot. Epochs can only be compared "
                f"on the same inputs: give the probe evaluation transforms, without random crops or flips."
            )

    def remember(self, batches: Sequence[ProbeBatch]) -> None:
        """Keep the digests of all batches; raise `CaptureError` where samples are missing."""
        shown = sum(map(len, batches))
        if shown != self._probe.n_samples:
            raise CaptureError(
                f"the probe gave {shown} samples, but its data set has {self._probe.n_samples}; pass a data set whose "
                f"items are all there"
            )
        if self._checksums is None:
            digests, self._checksums = (np.concatenate(each) for each in zip(*self._first, strict=True))
            self._digests, self._first = digests, []

    def tables(self, batches: Sequence[ProbeBatch]) -> tuple[dict[str, npt.NDArray[Any]], tuple[str, ...]]:
        """Return what the run keeps of the samples: arrays of n_samples rows, by name; and the names of the classes."""
        labels, named = np.concatenate([batch.labels for batch in batches]), classes(self._probe.dataset)
        if all(batch.texts is not None for batch in batches):
            texts = [text for batch in batches for text in batch.texts or ()]
            labels, named = numbered(texts, classes=named or listed_classes(self._probe.dataset))
        elif any(batch.unusable for batch in batches):  # of a batch of whole numbers by chance, too
            labels = np.full_like(labels, -1)
        named = fitting_names(named, labels)
        assert self._digests is not None
        tables: dict[str, npt.NDArray[Any]] = {
            "sample": np.arange(self._probe.n_samples),
            "label": labels,
            "digest": self._digests,
        }
        if self._paths is not None:
            tables["path"] = np.array(self._paths)
        return tables, named


def _checked_loader(loader: DataLoader[Any]) -> DataLoader[Any]:
    check_numbered(loader.dataset, what="the probe's data set")
    if loader.batch_size is None:
        raise ValueError(
            "the probe's DataLoader has no batch_size (it has a batch_sampler, or leaves batches to its data set); "
            "pass batch_size and shuffle=False, or the data set itself"
        )
    if not goes_through_in_order(loader):
        in_order = isinstance(loader.sampler, SequentialSampler)
        sampler = type(loader.batch_sampler if in_order else loader.sampler).__name__
        raise ValueError(
            f"the probe's DataLoader goes through its data in the order of a {sampler}; every "
            f"snapshot has to see the same samples in the same order. Pass shuffle=False, or the data set itself."
        )
    if loader.drop_last:
        raise ValueError("the probe's DataLoader has drop_last=True; pass drop_last=False, or the data set itself")
    return loader


def _digests(inputs: ModelInputs) -> npt.NDArray[np.uint8]:
    """Return the SHA-256 of each sample, ndarray of shape (n, 32)."""
    return np.frombuffer(b"".join(_of_each(inputs, _sha256)), np.uint8).reshape(len(inputs), 32)


def _checksums(inputs: ModelInputs) -> npt.NDArray[np.uint32]:
    """Return the CRC-32C of each sample, ndarray of shape (n,)."""
    return np.frombuffer(b"".join(_of_each(inputs, _crc32c)), "<u4")


def _sha256(about: bytes, values: memoryview) -> bytes:
    found = sha256(about)
    found.update(values)  # no copy of it
    return found.digest()


def _crc32c(about: bytes, values: memoryview) -> bytes:
    return struct.pack("<I", crc32c(about + values.tobytes()))


def _of_each(inputs: ModelInputs, take: Callable[[bytes, memoryview], bytes]) -> list[bytes]:
    """Return what `take` makes of each sample: of its dtype and shape, and its bytes; of several tensors, joined."""
    count = len(inputs)
    by_tensor = [[take(*_content(row)) for row in rows] for rows in inputs.by_sample() if len(rows) == count]
    return [
        each[0] if len(each) == 1 else take(b"", memoryview(b"".join(each))) for each in zip(*by_tensor, strict=True)
    ]


def _content(image: torch.Tensor) -> tuple[bytes, memoryview]:
    about = f"{str(image.dtype).removeprefix('torch.')}{tuple(image.shape)}".encode()
    return about, image.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data
