"""Probe set: the same samples for every snapshot, their digests, and the pictures of them that a run keeps."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional
from torch.utils.data import BatchSampler, DataLoader, Dataset, SequentialSampler

from ..errors import CaptureError
from ._compat import with_own_workers
from ._datasets import INPUTS, LABELS, as_labels, check_numbered, n_indices, normalizations, paths
from ._inputs import ModelInputs, ToInputs, as_inputs
from ._items import describe, why_no_batch

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
    digests : ndarray of shape (n, 32), uint8
        SHA-256 of each sample: of its dtype, its shape and its bytes; of several tensors, of their digests.
    """

    offset: int
    inputs: ModelInputs
    labels: npt.NDArray[np.int64]
    targets: Any
    digests: npt.NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.digests)

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
    accepts : collection of str
        Names of the arguments that the model's ``forward`` takes.

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
        accepts: Collection[str] = (),
    ) -> None:
        if to_inputs is not None and not callable(to_inputs):
            raise TypeError(f"to_inputs is a {type(to_inputs).__name__}; expected a function of a batch")
        self._to_inputs = to_inputs
        self._accepts = accepts
        if isinstance(data, DataLoader):
            self._loader = with_own_workers(_checked_loader(data))
            assert data.batch_size is not None
            batch_size = data.batch_size
        else:
            check_numbered(data, what="the probe")
            self._loader = DataLoader(data, batch_size=batch_size, shuffle=False)
        self.dataset: Dataset[Any] = self._loader.dataset
        self._n_indices = n_indices(self.dataset)
        self.batch_size = batch_size
        self.n_samples = len(self.dataset)  # type: ignore[arg-type]
        if self.n_samples == 0:
            raise ValueError("the probe is empty; pass a data set with at least one image")

    def __iter__(self) -> Iterator[ProbeBatch]:
        offset = 0
        for item in self._items():
            if self._to_inputs is None:
                inputs, targets = _split(item, n_indices=self._n_indices, accepts=self._accepts)
                _check_together(item, inputs, due=min(self.batch_size, self.n_samples - offset))
            else:
                batch = _without_indices(item, self._n_indices) if self._n_indices else item
                inputs, targets = as_inputs(self._to_inputs(batch)), _targets(batch)
            yield ProbeBatch(offset, inputs, _labels(targets, len(inputs)), targets, _digests(inputs))
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
        """Return what may draw random numbers when the probe is read: loader, samplers and data set."""
        return (self._loader, self._loader.sampler, self._loader.batch_sampler, self.dataset)

    def display(self, images: torch.Tensor) -> npt.NDArray[np.uint8] | None:
        """Make pictures of inputs.

        The data set's ``Normalize`` is undone where it has one; otherwise images outside 0 to 1 are stretched, each
        by its own extremes.

        Returns
        -------
        ndarray of shape (n, height, width, 3), uint8, or None
            At most 224 pixels a side. None where the inputs are not images of one or three channels.
        """
        if images.ndim != 4 or images.shape[1] not in (1, 3):
            return None
        pictures = images.detach().cpu().float()
        if images.dtype == torch.uint8:
            pictures = pictures / 255
        if (undone := _without_normalization(pictures, self.dataset)) is not None:
            pictures = undone
        elif pictures.amin() < 0 or not pictures.amax() <= 1:
            pictures = torch.where(pictures.isfinite(), pictures, torch.nan)
            low = pictures.nan_to_num(nan=torch.inf).amin((1, 2, 3), keepdim=True)
            high = pictures.nan_to_num(nan=-torch.inf).amax((1, 2, 3), keepdim=True)
            pictures = ((pictures - low) / (high - low).clamp_min(1e-12)).nan_to_num()
        longest = max(pictures.shape[2:])
        if longest > DISPLAY_PIXELS:
            size = [max(1, round(side * DISPLAY_PIXELS / longest)) for side in pictures.shape[2:]]
            pictures = functional.interpolate(pictures, size=size, mode="bilinear", antialias=True)
        pictures = pictures.expand(-1, 3, -1, -1).clamp(0, 1).mul(255).round().to(torch.uint8)
        out: npt.NDArray[np.uint8] = pictures.permute(0, 2, 3, 1).contiguous().numpy()
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
        self.stored = digests is not None

    def check(self, batch: ProbeBatch) -> None:
        """Raise `CaptureError` where a sample is not what it was."""
        if self._digests is None:
            return
        before = self._digests[batch.offset : batch.offset + len(batch)]
        changed = np.flatnonzero((batch.digests != before).any(axis=1))
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
        if self._digests is None:
            self._digests = np.concatenate([batch.digests for batch in batches])

    def tables(self, batches: Sequence[ProbeBatch]) -> dict[str, npt.NDArray[Any]]:
        """Return what the run keeps of the samples: arrays of n_samples rows, by name."""
        tables: dict[str, npt.NDArray[Any]] = {
            "sample": np.arange(self._probe.n_samples),
            "label": np.concatenate([batch.labels for batch in batches]),
            "digest": np.concatenate([batch.digests for batch in batches]),
        }
        if self._paths is not None:
            tables["path"] = np.array(self._paths)
        return tables


def _checked_loader(loader: DataLoader[Any]) -> DataLoader[Any]:
    check_numbered(loader.dataset, what="the probe's data set")
    if loader.batch_size is None:
        raise ValueError(
            "the probe's DataLoader has no batch_size (it has a batch_sampler, or leaves batches to its data set); "
            "pass batch_size and shuffle=False, or the data set itself"
        )
    if not isinstance(loader.sampler, SequentialSampler) or type(loader.batch_sampler) is not BatchSampler:
        raise ValueError(
            f"the probe's DataLoader goes through its data in the order of a {type(loader.sampler).__name__}; every "
            f"snapshot has to see the same samples in the same order. Pass shuffle=False, or the data set itself."
        )
    if loader.drop_last:
        raise ValueError("the probe's DataLoader has drop_last=True; pass drop_last=False, or the data set itself")
    return loader


def _check_together(item: Any, inputs: ModelInputs, *, due: int) -> None:
    """Raise `ValueError` where a batch is a list of its items, as detectors' ``collate_fn`` make one."""
    if isinstance(item, list) and len(item) == due != len(inputs):
        raise ValueError(
            f"the probe's batches are lists of {due} items, the first {describe(item[0])}; expected tensors with a row "
            f"for each sample. Pass to_inputs, a function from such a list to (args, kwargs)"
        )


def _split(item: Any, *, n_indices: int, accepts: Collection[str]) -> tuple[ModelInputs, Any]:
    """Return what the model is called with, and what comes with it: labels, where there are any.

    Of a mapping, what the model takes by name goes to it by name.
    """
    if isinstance(item, Mapping):
        named = {key: value for key, value in item.items() if isinstance(value, torch.Tensor) and key not in LABELS}
        first = next((key for key in INPUTS if key in named), None)
        more = {key: value for key, value in named.items() if key != first and key in accepts}
        if first is not None:
            images = named[first]
            inputs = ModelInputs((), {first: images} | more) if first in accepts else ModelInputs((images,), more)
        elif more:
            inputs = ModelInputs((), more)
        else:
            raise ValueError(
                f"the probe's items are mappings with the keys {', '.join(map(str, item))}; expected a tensor under "
                f"one of {', '.join(INPUTS)}, or under a name that the model's forward takes. Or pass to_inputs, a "
                f"function from a batch to (args, kwargs)"
            )
        return inputs, _targets(item)
    parts = tuple(item) if isinstance(item, (tuple, list)) else (item,)
    parts = parts[n_indices:]
    if not parts or not isinstance(parts[0], torch.Tensor):
        raise ValueError(
            f"the probe's items start with {_kind_of(parts[0]) if parts else 'nothing'}; expected an image "
            f"tensor, or a tuple that starts with one (does the data set lack its ToTensor transform?). Of anything "
            f"else, to_inputs, a function from a batch to (args, kwargs), makes what the model is called with"
        )
    return ModelInputs((parts[0],)), parts[1] if len(parts) > 1 else None


def _targets(batch: Any) -> Any:
    """Return a batch's labels: under one of their keys, or last in a tuple; None where there are none."""
    if isinstance(batch, Mapping):
        return next((batch[key] for key in LABELS if key in batch), None)
    return batch[-1] if isinstance(batch, tuple | list) and len(batch) > 1 else None


def _kind_of(value: Any) -> str:
    """Say what a batch starts with; of texts and such, a list that the loader made of them."""
    texts = isinstance(value, tuple | list) and value and not isinstance(value[0], torch.Tensor)
    return type(value[0] if texts else value).__name__


def _without_indices(item: Any, n_indices: int) -> Any:
    """Return a batch of an indexed data set without the index, or indices."""
    if isinstance(item, Mapping):
        return {key: value for key, value in item.items() if key != "index"}
    rest = tuple(item)[n_indices:]
    return rest[0] if len(rest) == 1 else rest


def _labels(targets: Any, count: int) -> npt.NDArray[np.int64]:
    found = None if targets is None else as_labels(targets, count=count)
    return np.full(count, -1, np.int64) if found is None else found


def _digests(inputs: ModelInputs) -> npt.NDArray[np.uint8]:
    count = len(inputs)
    by_tensor = [[_digest(row) for row in tensor] for tensor in inputs.tensors() if tensor.shape[:1] == (count,)]
    of_all = [each[0] if len(each) == 1 else sha256(b"".join(each)).digest() for each in zip(*by_tensor, strict=True)]
    return np.frombuffer(b"".join(of_all), np.uint8).reshape(count, 32)


def _digest(image: torch.Tensor) -> bytes:
    digest = sha256(f"{str(image.dtype).removeprefix('torch.')}{tuple(image.shape)}".encode())
    digest.update(image.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)  # no copy of it
    return digest.digest()
