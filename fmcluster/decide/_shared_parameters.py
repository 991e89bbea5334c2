"""Shared parameters: modules of which one cannot be refitted without changing, or leaving, another."""

from collections.abc import Iterable, Mapping

from torch import nn


def first_shared(modules: Mapping[str, nn.Module], layers: Iterable[str]) -> tuple[str, str] | None:
    """Return the first of some layers that shares a parameter with another module, and that module; None for none."""
    for layer in layers:
        own = {id(each) for each in modules[layer].parameters(recurse=False)}
        for name, module in modules.items():
            if name != layer and any(id(each) in own for each in module.parameters(recurse=False)):
                return layer, name
    return None
