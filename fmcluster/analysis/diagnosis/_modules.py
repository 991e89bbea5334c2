"""Modules of a run: which layers have parameters that one could freeze, narrow or leave out, and which only pass on."""

import re
from collections.abc import Sequence
from itertools import pairwise

from ...store import Run

# of torch.nn, which takes long to import; a test holds these and the names below against it
_ACTIVATIONS = {
    "CELU", "ELU", "GELU", "GLU", "Hardshrink", "Hardsigmoid", "Hardswish", "Hardtanh", "LeakyReLU", "LogSigmoid",
    "LogSoftmax", "Mish", "PReLU", "RReLU", "ReLU", "ReLU6", "SELU", "SiLU", "Sigmoid", "Softmax", "Softmax2d",
    "Softmin", "Softplus", "Softshrink", "Softsign", "Tanh", "Tanhshrink", "Threshold",
}  # fmt: skip
_PASSING_NAMES = re.compile(
    r"Norm|LRN|[Pp]ool|Drop|LU|Swish|Mish|Sigmoid|Tanh|Softmax|Softplus|Act|StochasticDepth|Identity|[Ff]latten|[Ff]old|"
    r"Upsampl|[Ss]huffle|Pad\dd"
)
_MAKING_NAMES = re.compile(r"Conv|Linear|Attention|Block|Mlp|MLP|Loss")


def passes_on(module: str) -> bool:
    """Say whether a module of this class only scales, masks, averages or reorders what it is given.

    Normalization has parameters, but no channel of its own: it counts as part of what comes before it.

    Examples
    --------
    >>> [passes_on(name) for name in ("BatchNorm2d", "GELU", "AdaptiveAvgPool2d", "LayerNorm2d", "DropPath")]
    [True, True, True, True, True]
    >>> [passes_on(name) for name in ("Conv2d", "Sequential", "Conv2dNormActivation", "MultiheadAttention", "Linear")]
    [False, False, False, False, False]
    """
    if _MAKING_NAMES.search(module):
        return False
    return module in _ACTIVATIONS or bool(_PASSING_NAMES.search(module))


def head_of(run: Run) -> str | None:
    """Return the network's head: the last layer recorded, unless it gives feature maps or tokens."""
    last = run.layers[-1]
    return last if len(run[last].shape) == 3 else None


def next_layers(run: Run, layers: Sequence[str]) -> dict[str, str]:
    """Return for each layer that counts the next one that does, at the same depth of the module tree.

    A module is no neighbor of what it is made of; neither is the head.

    Parameters
    ----------
    run : Run
        The run.
    layers : sequence of str
        The layers to choose from, in forward order.
    """
    head = head_of(run)
    counting = [name for name in layers if name != head and not passes_on(run[name].module)]
    out = {}
    for number, name in enumerate(counting, start=1):
        for other in counting[number:]:
            if _depth(other) == _depth(name) and _parts(other) != _parts(name):
                out[name] = other
                break
    return out


def is_activation(module: str) -> bool:
    """Say whether a module of this class is an activation function of torch.nn.

    Examples
    --------
    >>> [is_activation(name) for name in ("ReLU", "GELU", "BatchNorm2d", "Conv2d")]
    [True, True, False, False]
    """
    return module in _ACTIVATIONS


def activated_by(run: Run, layers: Sequence[str]) -> dict[str, str]:
    """Return for each activation the layer that made what it is given, where what lies between only passes that on."""
    out = {}
    for name in layers:
        maker, given = name, run[name].input if is_activation(run[name].module) else None
        while given is not None and given.layer in layers:
            maker = given.layer
            given = run[maker].input if passes_on(run[maker].module) else None
        if maker != name and not passes_on(run[maker].module):
            out[name] = maker
    return out


def made_by(run: Run, layers: Sequence[str]) -> dict[str, str]:
    """Return for each layer that only passes on, the layer right before it, where that has as many channels."""
    pairs = pairwise(layers)
    return {
        name: before
        for before, name in pairs
        if passes_on(run[name].module) and run[before].n_channels == run[name].n_channels
    }


def _parts(name: str) -> list[str]:
    return re.sub(r"\.call\d+$", "", name).split(".")


def _depth(name: str) -> int:
    return len(_parts(name))
