"""Estimate: the bytes and seconds that a run will take, and the refusal of one that is too large."""

import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd
import torch
from rich.filesize import decimal
from torch import nn

from ...errors import StoreError
from ...store import LayerSpec, in_words, remedy, run_location
from ..forward import Firing, device_of, isolated, plain_model
from ..inputs import ModelInputs
from ..layers import PlannedLayer, discover
from ..options import Channels, Crop, Keep, Layers, PerLayer, Recorded, Size, is_optional, select_modules
from ..weights import weight_specs
from ._recording_seconds import PARTS, RecordingSeconds
from ._timed_batch import time_batch

_SIZES = (56, 28, 14, 7)


@dataclass(frozen=True, eq=False, repr=False)
class Estimate:
    """What a run will take.

    Attributes
    ----------
    layers : DataFrame
        One row per layer: ``layer``, ``shape`` (of a sample), ``bytes`` (uncompressed, all snapshots) and
        ``bytes_stored`` (compressed as one batch was).
    n_samples, n_snapshots : int
        For how many.
    parts : RecordingSeconds
        Seconds for all snapshots of the forward pass, the copy, the encoder and the disk, each as one batch took
        with the machine as busy as it was then, and which of them bounds the run.
    averaged : DataFrame
        What `max_size` would change: a row for each of 56, 28, 14 and 7 that would average a layer down (further),
        with ``max_size``, ``bytes`` and ``bytes_stored`` in all, the seconds of each part (``forward``, ``copy``,
        ``encode``, ``disk``), those of all (``seconds``), and the part that bounds the run (``bound``).
    nbytes_weights : int
        Bytes of the weights of all snapshots, where they are recorded; they hardly compress, and their time is not
        in `seconds`.
    """

    layers: pd.DataFrame
    n_samples: int
    n_snapshots: int
    parts: RecordingSeconds
    averaged: pd.DataFrame
    nbytes_weights: int = 0

    @property
    def seconds(self) -> float:
        """For all snapshots, training not counted: the longest of what goes on side by side.

        Loading the probe, the statistics and the commits are not in it, so that it is rather too low: 64 photographs
        through a ResNet-18, ten layers at full resolution, on 2 cores that others kept busy too, took 0.83 (0.67 to
        0.97) as long by the estimate as a snapshot did that was recorded and flushed right after it, in five rounds.
        """
        return self.parts.total

    @property
    def nbytes(self) -> int:
        """Bytes in all, uncompressed, the weights among them."""
        return int(self.layers["bytes"].sum()) + self.nbytes_weights

    @property
    def nbytes_stored(self) -> int:
        """Bytes in all, compressed, the weights among them, uncompressed."""
        return int(self.layers["bytes_stored"].sum()) + self.nbytes_weights

    def __repr__(self) -> str:
        """Say how much a run will take, what bounds it, and what would change that."""
        lines = [
            f"{self.n_snapshots} snapshots of {self.n_samples} samples: {decimal(self.nbytes)}, on disk about "
            f"{decimal(self.nbytes_stored)}, about {self.seconds:.3g} s",
            str(self.parts),
        ]
        lines += [
            f"max_size={row['max_size']}: {decimal(row['bytes'])}, on disk about {decimal(row['bytes_stored'])}, about "
            f"{row['seconds']:.3g} s, bound by {row['bound']}"
            for row in self.averaged.to_dict("records")
        ]
        return "\n".join(lines)


def estimate(
    model: nn.Module,
    images: torch.Tensor,
    *,
    n_samples: int,
    n_snapshots: int,
    layers: Layers = "children",
    record: Sequence[Recorded] = ("activation",),
    dtype: PerLayer[str] = "float16",
    channels: PerLayer[Channels] | None = None,
    crop: PerLayer[Crop] | None = None,
    max_size: PerLayer[Size] | None = None,
    max_bytes: int | None = None,
    path: str | os.PathLike[str] | None = None,
) -> Estimate:
    """Show a model one batch, a few times, and extrapolate.

    Of each layer, what is kept is copied, encoded and written once for each size, which tells bytes and seconds; and
    the disk is given up to 32 MiB in files of about a shard's size, which are removed afterwards.

    Parameters
    ----------
    model : Module
        The model; it is left as it was.
    images : Tensor of shape (n, ...)
        A batch of the probe. How well feature maps compress depends on the images and the weights: noise and random
        weights compress worse than what a trained network makes of photographs.
    n_samples, n_snapshots : int
        Size of the probe, and how often it will be shown.
    layers, record, dtype, channels, crop, max_size, max_bytes
        As for `Recorder`.
    path : path-like, optional
        Where the run will lie, for the speed of its disk, or of its object store where it is a URL; by default the
        system's folder for temporary files counts.

    Returns
    -------
    Estimate
        Bytes and seconds. The statistics, and what describes the samples, are not counted.

    Raises
    ------
    ValueError
        For counts below one, layers that the model does not have, or more than `max_bytes`.
    CaptureError
        Where a layer does not fire or returns no vectors, tokens or feature maps.
    StoreError
        Where nothing can be written next to `path`.
    """
    keep = Keep(dtype, channels, crop, max_size, record=tuple(record))
    inputs = ModelInputs((images,))
    return estimate_kept(
        model,
        inputs,
        n_samples=n_samples,
        n_snapshots=n_snapshots,
        layers=layers,
        keep=keep,
        max_bytes=max_bytes,
        path=path,
    )


def estimate_kept(
    model: nn.Module,
    inputs: ModelInputs,
    *,
    n_samples: int,
    n_snapshots: int,
    layers: Layers,
    keep: Keep,
    max_bytes: int | None = None,
    path: str | os.PathLike[str] | None = None,
) -> Estimate:
    """Do the same; gradients are counted as large as they are, uncompressed, and their time is not."""
    if n_samples < 1 or n_snapshots < 1 or len(inputs) < 1:
        raise ValueError(
            f"received {len(inputs)} images, n_samples={n_samples}, n_snapshots={n_snapshots}; expected one at least"
        )
    plain = plain_model(model)
    modules = select_modules(plain, layers)
    inputs = inputs.to(device_of(plain))
    weight_bytes = sum(spec.nbytes for spec in weight_specs(plain)) if keep.weight else 0
    with isolated(plain), tempfile.TemporaryDirectory() as folder:
        found = discover(plain, modules, inputs=inputs, keep=keep, optional=is_optional(plain, layers))
        planned = found.layers
        if max_bytes is not None:
            specs = [layer.spec for layer in planned.values()]
            counts = {"n_samples": n_samples, "n_snapshots": n_snapshots, "weight_bytes": weight_bytes}
            check_size(specs, max_bytes=max_bytes, **counts)
        plans: dict[int | None, dict[Firing, PlannedLayer]] = {None: planned}
        for size in _SIZES:
            smaller = {firing: _average(layer, size) for firing, layer in planned.items()}
            if smaller != planned:
                plans[size] = smaller
        near = _near(folder if path is None else path)
        try:
            timed = time_batch(plain, modules, inputs=inputs, plans=plans, folder=Path(folder), near=near)
        except OSError as error:
            raise StoreError(
                f"nothing can be written to {near} or {folder}: {in_words(error)}. {remedy(error)}estimate again, or "
                f"name another path."
            ) from error
    tables = {
        size: _table(
            plan, timed[size].nbytes, share=n_samples * n_snapshots / len(inputs), n_rows=n_samples * n_snapshots
        )
        for size, plan in plans.items()
    }
    seconds = {size: each.seconds.times(n_samples * n_snapshots / len(inputs)) for size, each in timed.items()}
    weights = weight_bytes * n_snapshots
    averaged = [
        {
            "max_size": size,
            "bytes": int(tables[size]["bytes"].sum()) + weights,
            "bytes_stored": int(tables[size]["bytes_stored"].sum()) + weights,
            **{name: getattr(seconds[size], name) for name in PARTS},
            "seconds": seconds[size].total,
            "bound": seconds[size].bound,
        }
        for size in plans
        if size is not None
    ]
    columns = ["max_size", "bytes", "bytes_stored", *PARTS, "seconds", "bound"]
    frame = pd.DataFrame(averaged, columns=columns)
    return Estimate(tables[None], n_samples, n_snapshots, seconds[None], frame, weights)


def _table(
    plan: Mapping[Firing, PlannedLayer], stored: Mapping[str, int], *, share: float, n_rows: int
) -> pd.DataFrame:
    """Return a row per layer, from what a batch of each was stored in."""
    rows = []
    for spec in (layer.spec for layer in plan.values()):
        gradient = spec.sample_bytes - replace(spec, gradient=False).sample_bytes
        rows.append(
            {
                "layer": spec.name,
                "shape": spec.shape,
                "bytes": spec.sample_bytes * n_rows,
                "bytes_stored": round(stored[spec.name] * share) + gradient * n_rows,
            }
        )
    return pd.DataFrame(rows)


def _average(layer: PlannedLayer, size: int) -> PlannedLayer:
    spec = _average_pooled(layer.spec, size)
    if spec == layer.spec:
        return layer
    height, width = spec.shape[-2:]
    return replace(layer, spec=spec, reduction=replace(layer.reduction, size=(height, width)))


def _near(path: str | os.PathLike[str]) -> Path | str:
    """Return the folder that a run will lie in, or the nearest above it that exists; a URL as it is."""
    where = run_location(path)
    return where if "://" in where else next(folder for folder in Path(where).resolve().parents if folder.is_dir())


def check_size(
    specs: Sequence[LayerSpec], *, max_bytes: int, n_samples: int, n_snapshots: int, weight_bytes: int = 0
) -> None:
    """Raise `ValueError` where a run of these layers, and weights, would take more than `max_bytes`, uncompressed."""
    times, weights = n_samples * n_snapshots, n_snapshots * weight_bytes
    total = times * sum(spec.sample_bytes for spec in specs) + weights
    if total <= max_bytes:
        return
    largest = sorted(specs, key=lambda spec: spec.sample_bytes, reverse=True)[:3]
    named = ", ".join(f"{spec.name} ({decimal(times * spec.sample_bytes)})" for spec in largest)
    held = f", {decimal(weights)} of them weights" if weights else ""
    raise ValueError(
        f"{n_snapshots} snapshot{'s' if n_snapshots > 1 else ''} of {n_samples} samples would take "
        f"{decimal(total)} before compression{held}; max_bytes allows {decimal(max_bytes)}. The largest layers are "
        f"{named}."
        f"{_advice(specs, max_bytes=max_bytes - weights, total=total - weights, times=times)}"
    )


def _advice(specs: Sequence[LayerSpec], *, max_bytes: int, total: int, times: int) -> str:
    sizes = {size: times * sum(_average_pooled(spec, size).sample_bytes for spec in specs) for size in _SIZES}
    fitting = [size for size in _SIZES if sizes[size] <= max_bytes]
    size = fitting[0] if fitting else _SIZES[-1]
    if sizes[size] == total:
        return " Choose fewer layers, samples or channels."
    more = "" if fitting else "; choose fewer layers, samples or channels besides"
    return f" Averaged down with max_size={size} they would take {decimal(sizes[size])}{more}."


def _average_pooled(spec: LayerSpec, size: int) -> LayerSpec:
    if len(spec.shape) < 3:
        return spec
    *rest, height, width = spec.shape
    return replace(spec, shape=(*rest, min(height, size), min(width, size)))
