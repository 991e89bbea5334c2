"""Whether a run would be too large, and what would make it smaller."""

from collections.abc import Sequence
from dataclasses import replace

from rich.filesize import decimal

from ..store import LayerSpec

_SIZES = (56, 28, 14, 7)


def check_budget(specs: Sequence[LayerSpec], *, max_bytes: int, n_samples: int, n_snapshots: int) -> None:
    """Raise `ValueError` where a run of these layers would take more than `max_bytes`, uncompressed."""
    times = n_samples * n_snapshots
    total = times * sum(spec.sample_bytes for spec in specs)
    if total <= max_bytes:
        return
    largest = sorted(specs, key=lambda spec: spec.sample_bytes, reverse=True)[:3]
    named = ", ".join(f"{spec.name} ({decimal(times * spec.sample_bytes)})" for spec in largest)
    raise ValueError(
        f"{n_snapshots} snapshot{'s' if n_snapshots > 1 else ''} of {n_samples} samples would take "
        f"{decimal(total)} before compression; max_bytes allows {decimal(max_bytes)}. The largest layers are {named}."
        f"{_advice(specs, max_bytes=max_bytes, total=total, times=times)}"
    )


def _advice(specs: Sequence[LayerSpec], *, max_bytes: int, total: int, times: int) -> str:
    sizes = {size: times * sum(_pooled(spec, size).sample_bytes for spec in specs) for size in _SIZES}
    fitting = [size for size in _SIZES if sizes[size] <= max_bytes]
    size = fitting[0] if fitting else _SIZES[-1]
    if sizes[size] == total:
        return " Choose fewer layers, samples or channels."
    more = "" if fitting else "; choose fewer layers, samples or channels besides"
    return f" Averaged down with max_size={size} they would take {decimal(sizes[size])}{more}."


def _pooled(spec: LayerSpec, size: int) -> LayerSpec:
    if len(spec.shape) != 3:
        return spec
    channels, height, width = spec.shape
    return replace(spec, shape=(channels, min(height, size), min(width, size)))
