"""What a run will take, before it is recorded."""

import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from torch import nn

from ..store import LayerSpec, RunWriter, open_run
from .hooks import Firing, discover, hooked
from .models import device_of, plain_model
from .reduce import reduce_output
from .select import Layers, select_modules
from .undisturbed import undisturbed


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
        For all snapshots: forward passes, capture and compression, as one batch took, and nothing else going on.
    """

    layers: pd.DataFrame
    n_samples: int
    n_snapshots: int
    seconds: float

    @property
    def nbytes(self) -> int:
        """Bytes in all, uncompressed."""
        return int(self.layers["bytes"].sum())

    @property
    def nbytes_stored(self) -> int:
        """Bytes in all, compressed."""
        return int(self.layers["bytes_stored"].sum())


def estimate(
    model: nn.Module,
    images: torch.Tensor,
    *,
    n_samples: int,
    n_snapshots: int,
    layers: Layers = "children",
    dtype: str = "float16",
) -> Estimate:
    """Show a model one batch, twice, and extrapolate.

    Parameters
    ----------
    model : Module
        The model; it is left as it was.
    images : Tensor of shape (n, ...)
        A batch of the probe. How well maps compress depends on the images and the weights: noise and random weights
        compress worse than what a trained network makes of photographs.
    n_samples, n_snapshots : int
        Size of the probe, and how often it will be shown.
    layers, dtype
        As for `Recorder`.

    Returns
    -------
    Estimate
        Bytes and seconds. The statistics, and what describes the samples, are not counted.

    Raises
    ------
    ValueError
        For counts below one, or layers that the model does not have.
    CaptureError
        Where a layer does not fire or returns no maps.
    """
    if n_samples < 1 or n_snapshots < 1 or len(images) < 1:
        raise ValueError(
            f"received {len(images)} images, n_samples={n_samples}, n_snapshots={n_snapshots}; expected one at least"
        )
    plain = plain_model(model)
    modules = select_modules(plain, layers)
    images = images.to(device_of(plain))
    with undisturbed(plain), tempfile.TemporaryDirectory() as folder:
        calls = discover(plain, modules, sample=images[:1], dtype=dtype)
        _capture(plain, modules, images, calls)  # the first pass warms up
        start = perf_counter()
        values = _capture(plain, modules, images, calls)
        stored = _store(Path(folder) / "run.zarr", calls, values)
        seconds = perf_counter() - start
    share = n_samples * n_snapshots / len(images)
    rows = [
        {
            "layer": spec.name,
            "shape": spec.shape,
            "bytes": spec.sample_bytes * n_samples * n_snapshots,
            "bytes_stored": round(stored[spec.name] * share),
        }
        for spec in calls.values()
    ]
    return Estimate(pd.DataFrame(rows), n_samples, n_snapshots, seconds * share)


def _capture(
    model: nn.Module, modules: dict[str, nn.Module], images: torch.Tensor, calls: dict[Firing, LayerSpec]
) -> dict[str, npt.NDArray[np.floating[Any]]]:
    values = {}
    threads = max(1, torch.get_num_threads())
    with ThreadPoolExecutor(threads) as pool:

        def keep(firing: Firing, _module: nn.Module, output: torch.Tensor) -> None:
            spec = calls.get(firing)
            if spec is not None:
                values[spec.name] = reduce_output(output, dtype=spec.dtype, pool=pool, threads=threads)[0]

        with hooked(modules, keep):
            model(images)
    return values


def _store(
    path: Path, calls: dict[Firing, LayerSpec], values: dict[str, npt.NDArray[np.floating[Any]]]
) -> dict[str, int]:
    """Write the batch as a run would hold it; return the bytes of each layer."""
    specs = list(calls.values())
    count = len(next(iter(values.values())))
    with RunWriter(path) as writer:
        writer.create(specs, n_samples=count, shard_samples=count, kind="probe")
        for name, batch in values.items():
            writer.write(name, offset=0, values=batch)
        run = open_run(path)
        return {
            spec.name: sum(
                file.stat().st_size for file in (path / run.layer_path(spec.name) / "activation").glob("c.*")
            )
            for spec in specs
        }
