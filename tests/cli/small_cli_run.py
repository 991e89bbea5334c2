"""What the commands are tried on."""

from pathlib import Path

import numpy as np

from fmcluster.store import LayerSpec, RunWriter


def write_run(path: Path, *, channels: int) -> Path:
    """Write a run of two layers and three snapshots, without a model."""
    rng = np.random.default_rng(0)
    specs = [LayerSpec("conv1", (channels, 5, 4), "float16", "Conv2d"), LayerSpec("fc", (2,), "float16", "Linear")]
    with RunWriter(path) as writer:
        writer.create(specs, n_samples=8, shard_samples=4, kind="probe")
        for name, values in {"sample": np.arange(8), "label": np.arange(8) % 2}.items():
            writer.add_static(f"samples/{name}", values, dimensions=("item",))
        digests = rng.integers(0, 256, (8, 32)).astype(np.uint8)
        writer.add_static("samples/digest", digests, dimensions=("item", "byte"))
        for epoch in range(3):
            for spec in specs:
                for offset in (0, 4):
                    values = rng.standard_normal((4, *spec.shape)).astype(np.float16)
                    writer.write(spec.name, offset=offset, values=values)
            statistics = {(spec.name, "activation"): made_up(rng, spec.n_channels) for spec in specs}
            metrics = {"val_accuracy": epoch / 2}
            writer.commit(
                epoch=epoch, step=5 * epoch, index=np.arange(8), statistics=statistics, metrics=metrics, clipped={}
            )
    return path


def made_up(rng: np.random.Generator, n_channels: int) -> np.ndarray:
    """Return statistics of nothing, by which all values are finite."""
    statistics = rng.random((6, n_channels))
    statistics[5] = 0
    return statistics
