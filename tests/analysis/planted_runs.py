"""Small runs of known contents, written as a recorder would, with faults of known place."""

import numpy as np

from fmcluster.store import LayerSpec, RunWriter, open_run

N_SAMPLES, N_CHANNELS, N_SNAPSHOTS, SIDE = 24, 16, 6, 5


def write_run(path, layers, *, labels=None, index=None, steps=None, epochs=None, digests=None, dtype="float32"):
    """Write maps of shape (snapshot, sample, channel[, height, width]), by layer name, with the class of the module."""
    maps = {name: np.asarray(values, dtype) for name, (_, values) in layers.items()}
    n_snapshots, n_samples = next(iter(maps.values())).shape[:2]
    specs = [LayerSpec(name, maps[name].shape[2:], dtype, module) for name, (module, _) in layers.items()]
    index = np.arange(n_samples) if index is None else np.asarray(index)
    with RunWriter(path, mode="x") as writer:
        writer.create(specs, n_samples=n_samples, shard_samples=n_samples, kind="probe")
        for now in range(n_snapshots):
            for name, values in maps.items():
                writer.write(name, offset=0, values=values[now])
            if now == 0:
                known = np.full(n_samples, -1) if labels is None else np.asarray(labels)
                writer.add_static("samples/sample", index, dimensions=("item",))
                writer.add_static("samples/label", known, dimensions=("item",))
                if digests is not None:
                    writer.add_static("samples/digest", digests, dimensions=("item", "byte"))
            writer.commit(
                epoch=now if epochs is None else epochs[now],
                step=10 * now if steps is None else steps[now],
                index=index,
                statistics={
                    (name, "activation"): statistics_of(values[now], spec.n_channels)
                    for (name, values), spec in zip(maps.items(), specs, strict=True)
                },
                metrics={"accuracy": now / 10},
                clipped={},
            )
    return open_run(path)


def statistics_of(values, n_channels):
    """Return statistics that are zero but for the number of values that are not finite, of (sample, channel, ...)."""
    channels = values if values.ndim != 3 else values.transpose(0, 2, 1)
    broken = ~np.isfinite(channels.swapaxes(0, 1).reshape(n_channels, -1))
    return np.concatenate([np.zeros((5, n_channels)), broken.sum(axis=1)[None]])


def moving(seed=0, *, angles=None, n_channels=N_CHANNELS, side=SIDE, n_latent=6):
    """Return maps of channels that mix a few patterns, each with something of its own; the patterns turn into others.

    `angles` says how far at each snapshot; by default evenly, to the very end: a layer that never converges.
    """
    rng = np.random.default_rng(seed)
    angles = np.linspace(0, np.pi / 2, N_SNAPSHOTS) if angles is None else np.asarray(angles)
    first, last = rng.normal(size=(2, N_SAMPLES, n_latent, side, side))
    mixing = rng.normal(size=(n_channels, n_latent))
    own_first, own_last = 0.5 * rng.normal(size=(2, N_SAMPLES, n_channels, side, side))
    sees_first, sees_last = (np.einsum("ck,nkhw->nchw", mixing, latent) for latent in (first, last))
    return np.stack([np.cos(a) * (sees_first + own_first) + np.sin(a) * (sees_last + own_last) for a in angles])


def head(maps, seed=9, n_classes=3):
    """Return what a linear layer on the averaged maps would give."""
    weights = np.random.default_rng(seed).normal(size=(maps.shape[2], n_classes))
    return maps.mean(axis=(3, 4)) @ weights
