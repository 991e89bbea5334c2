"""Estimate: the bytes and seconds that a run will take, and the refusal of one that is too large."""

import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter

import pandas as pd
import torch
from rich.filesize import decimal
from torch import nn

from ..store import LayerSpec, RunWriter, open_run
from ._hooks import Firing, hooked
from ._inputs import ModelInputs
from ._isolation import isolated
from ._layers import PlannedLayer, discover
from ._options import Channels, Crop, Keep, PerLayer, Recorded, Size
from ._patterns import Layers, select_modules
from ._plain_model import device_of, plain_model
from ._weights import weight_specs
from .transfer import Copier, Copy

_SIZES = (56, 28, 14, 7)


@dataclass(frozen=True, eq=False)
class Estimate:
    """What a run will take.

    Attributes
    ----------
    layers : DataFrame
        One row per layer: ``layer``, ``shape`` (of a sample), ``bytes`` (uncompressed, all snapshots) and
        ``bytes_stored`` (compressed as one batch was).
    n_samples, n_snapshots : int
        For how many.
    seconds : float
        For all snapshots: forward passes, capture and compression, as one batch took, with nothing else running.
    nbytes_weights : int
        Bytes of the weights of all snapshots, where they are recorded; they hardly compress, and their time is not
        in `seconds`.
    """

    layers: pd.DataFrame
    n_samples: int
    n_snapshots: int
    seconds: float
    nbytes_weights: int = 0

    @property
    def nbytes(self) -> int:
        """Bytes in all, uncompressed, the weights among them."""
        return int(self.layers["bytes"].sum()) + self.nbytes_weights

    @property
    def nbytes_stored(self) -> int:
        """Bytes in all, compressed, the weights among them, uncompressed."""
        return int(self.layers["bytes_stored"].sum()) + self.nbytes_weights


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
) -> Estimate:
    """Show a model one batch, twice, and extrapolate.

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
    """
    keep = Keep(dtype, channels, crop, max_size, record=tuple(record))
    inputs = ModelInputs((images,))
    return estimate_kept(
        model, inputs, n_samples=n_samples, n_snapshots=n_snapshots, layers=layers, keep=keep, max_bytes=max_bytes
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
        found = discover(plain, modules, inputs=inputs, keep=keep, optional=layers in ("children", "leaves"))
        planned = found.layers
        if max_bytes is not None:
            specs = [layer.spec for layer in planned.values()]
            counts = {"n_samples": n_samples, "n_snapshots": n_snapshots, "weight_bytes": weight_bytes}
            check_size(specs, max_bytes=max_bytes, **counts)
        with _copies(plain, modules, inputs=inputs, planned=planned):
            pass  # the first forward pass warms up
        start = perf_counter()
        with _copies(plain, modules, inputs=inputs, planned=planned) as copies:
            stored = _store(Path(folder) / "run.zarr", planned, copies)
        seconds = perf_counter() - start
    share = n_samples * n_snapshots / len(inputs)
    rows = []
    for spec in (layer.spec for layer in planned.values()):
        gradient = spec.sample_bytes - replace(spec, gradient=False).sample_bytes
        rows.append(
            {
                "layer": spec.name,
                "shape": spec.shape,
                "bytes": spec.sample_bytes * n_samples * n_snapshots,
                "bytes_stored": round(stored[spec.name] * share) + gradient * n_samples * n_snapshots,
            }
        )
    return Estimate(pd.DataFrame(rows), n_samples, n_snapshots, seconds * share, weight_bytes * n_snapshots)


@contextmanager
def _copies(
    model: nn.Module, modules: dict[str, nn.Module], *, inputs: ModelInputs, planned: dict[Firing, PlannedLayer]
) -> Iterator[dict[str, Copy]]:
    """Show the model a batch; what is kept of it is there within the block."""
    copier = Copier(max_bytes=1, clips=True, threads=max(1, torch.get_num_threads()))
    copies: dict[str, Copy] = {}

    def keep(firing: Firing, output: torch.Tensor, *, module: nn.Module) -> None:
        if (layer := planned.get(firing)) is not None:
            copies[layer.spec.name] = copier.copy(layer.in_order(output), layer.reduction, waits=False)

    try:
        with hooked(modules, keep):
            inputs.show(model)
        yield copies
    finally:
        for copy in copies.values():
            copy.release()
        copier.close()


def _store(path: Path, planned: dict[Firing, PlannedLayer], copies: dict[str, Copy]) -> dict[str, int]:
    """Write the batch as a run would hold it; return the bytes of each layer."""
    specs = [replace(layer.spec, gradient=False) for layer in planned.values()]
    arrays = {spec.name: copies[spec.name].result()[0] for spec in specs}
    count = len(next(iter(arrays.values())))
    arrays = {spec.name: arrays[spec.name].reshape(count, *spec.shape) for spec in specs}
    with RunWriter(path) as writer:
        writer.create(specs, n_samples=count, shard_samples=count, kind="probe")
        with ThreadPoolExecutor(2) as pool:
            for done in [pool.submit(writer.write, name, offset=0, values=batch) for name, batch in arrays.items()]:
                done.result()
        run = open_run(path)
        return {
            spec.name: sum(
                file.stat().st_size for file in (path / run.layer_path(spec.name) / "activation").glob("c.*")
            )
            for spec in specs
        }


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
