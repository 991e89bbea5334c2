"""Chosen layers: those that a report shows unless they are named."""

from contextlib import suppress

import numpy as np

from ...analysis.diagnosis import passes_on
from ...store import FinitePart, Layer, Run, part_by_rows

AT_LEAST, AT_MOST = 4, 5


def choose_layers(run: Run) -> list[str]:
    """Choose up to five layers spread over the depth: those that make new feature maps, coarse blocks first.

    Where fewer than four layers of the run are such, others fill up: those that make something new before those that
    pass it on. Where no layer is finite as a whole, it is the first of those of which most channels are, alone.

    Parameters
    ----------
    run : Run
        A run with at least one snapshot.

    Returns
    -------
    list of str
        Names in forward order; for a torchvision ResNet's children ``conv1`` and ``layer1`` to ``layer4``.

    Raises
    ------
    ValueError
        Where no layer has enough channels for an embedding, or nothing is finite.
    """
    part = part_to_show(run)
    layers = {name: run[name] for name in part.layers}
    n_snapshots = len(part.snapshots)
    drawable = [name for name in layers if layers[name].n_channels * n_snapshots >= AT_LEAST]
    if not drawable:
        raise ValueError(
            f"no layer of {run.path} has {AT_LEAST} channels, counted over its finite snapshots ({n_snapshots}), which "
            f"an embedding needs: record layers with more channels, or more snapshots; or name a layer, and take "
            f"another view of it, such as sample"
        )
    chosen: list[str] = []
    for rank in range(4):
        if len(chosen) < AT_LEAST:
            chosen += [name for name in drawable if _rank(layers[name]) == rank]
    return _spread(_coarsest([name for name in drawable if name in chosen]))


def part_to_show(run: Run) -> FinitePart:
    """Return the part of a run of which layers are shown unless they are named.

    Its finite part; where there is none, the first layer of which most channels are finite, at the snapshots at which
    they are.

    Raises
    ------
    ValueError
        Where there is no such layer either.
    """
    try:
        return run.finite_part()
    except ValueError:
        for name in run.layers:
            with suppress(ValueError):
                return part_by_rows(run, name)
        raise


def _rank(layer: Layer) -> int:
    """Return how little a layer is worth a section: new feature maps most, then other outputs, then those passed on."""
    _, height, width = layer.feature_map_shape
    return 2 * passes_on(layer.module) + (height * width == 1)


def _coarsest(names: list[str]) -> list[str]:
    """Return the names nested least, of so many levels that there are enough."""
    for depth in sorted({name.count(".") for name in names}):
        coarse = [name for name in names if name.count(".") <= depth]
        if len(coarse) >= AT_LEAST:
            return coarse
    return names


def _spread(names: list[str]) -> list[str]:
    """Return at most five of the names, evenly spread, first and last among them."""
    if len(names) <= AT_MOST:
        return names
    return [names[i] for i in np.linspace(0, len(names) - 1, AT_MOST).round().astype(int)]
