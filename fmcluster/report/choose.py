"""Which layers a report shows when it is not told."""

import numpy as np

from fmcluster.store import Layer, Run

AT_LEAST, AT_MOST = 4, 5

# Parts of the class names of modules that pass on what the layer before them made.
_PASSING = (
    "Norm",
    "LU",
    "Hardswish",
    "Sigmoid",
    "Tanh",
    "Softmax",
    "Pool",
    "Dropout",
    "Identity",
    "Flatten",
    "Upsample",
)


def choose_layers(run: Run) -> list[str]:
    """Choose up to five layers spread over the depth: those that make new feature maps, coarse blocks first.

    Where fewer than four layers of the run are such, other layers with feature maps fill up, and then any.

    Parameters
    ----------
    run : Run
        A run with at least one snapshot.

    Returns
    -------
    list of str
        Names in forward order; for a torchvision ResNet's children ``conv1`` and ``layer1`` to ``layer4``.
    """
    drawable = [name for name in run.layers if run[name].n_channels * run[name].shape[0] >= AT_LEAST]
    layers = {name: run[name] for name in drawable}
    maps = [name for name in drawable if _has_maps(layers[name])]
    made = [name for name in maps if not any(part in layers[name].module for part in _PASSING)]
    return _spread(_coarsest(next((group for group in (made, maps) if len(group) >= AT_LEAST), drawable)))


def _has_maps(layer: Layer) -> bool:
    _, height, width = layer.map_shape
    return height * width > 1


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
    places = np.linspace(0, len(names) - 1, AT_MOST).round().astype(int)
    return [names[place] for place in places]
