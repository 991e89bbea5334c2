"""Shortening: modules replaced by the identity, residual branches that add nothing removed."""

from inspect import signature

from torch import nn

from ...capture import kernel_geometry
from .._action import Action
from .._network import NORMALIZATION, Network
from ..interventions import residual_branch
from ._modules import Skip, Zeros


def shorten(model: nn.Module, action: Action, *, network: Network) -> None:
    """Replace a module by the identity, or the modules of its residual branch by what costs nothing, in place.

    Parameters
    ----------
    model : Module
        The network that is being built.
    action : Action
        Of the kind ``shorten``.
    network : Network
        The network as it was.

    Raises
    ------
    ValueError
        For a module that makes another shape of what it is given, and has no residual branch.
    """
    name = action.module
    facts = network.facts[name]
    if facts.calls != 1:
        raise ValueError(f"'{action}' cannot be built: {name} is called {facts.calls} times in a forward pass")
    if isinstance(network.modules[name], Skip):
        raise ValueError(f"'{action}' cannot be built: {name} was replaced already")
    if facts.given and facts.given == facts.returned:
        model.set_submodule(name, Skip(tuple(signature(network.modules[name].forward).parameters)))
        return
    branch = residual_branch(network, name)
    if branch is None:
        raise ValueError(
            f"'{action}' cannot be built: {name} makes {facts.returned} of {facts.given}, and has no residual branch "
            f"that can be left out; was the plan made for another model, or applied before?"
        )
    last, modules = branch
    for each in modules:
        model.set_submodule(each, _without_weights(network.modules[each], action, is_last=each == last))


def _without_weights(module: nn.Module, action: Action, *, is_last: bool) -> nn.Module:
    """Return what stands for a module of a branch of zeros: it returns the same shape."""
    if isinstance(module, nn.Conv2d) and (kernel := kernel_geometry(module)) is not None:
        return Zeros(module.out_channels, kernel=kernel)
    if isinstance(module, nn.Linear):
        return Zeros(module.out_features)
    if isinstance(module, (*NORMALIZATION, nn.Identity)):
        return Zeros() if is_last else nn.Identity()
    raise ValueError(f"'{action}' cannot be built: its residual branch holds a {type(module).__name__}")
