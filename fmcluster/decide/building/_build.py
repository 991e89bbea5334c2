"""Building: a changed copy of a network, as a plan says."""

from collections.abc import Sequence
from copy import deepcopy

from torch import nn

from .._action import Action, check_together, contains
from .._network import Network
from .._shared_parameters import first_shared
from ._convolutions import build_convolution
from ._freeze import freeze
from ._narrow import check_narrow, narrow
from ._shorten import shorten

_CONVOLUTIONS = ("kernel", "separable", "groups", "resolution")
_REFITTED = ("kernel", "separable", "groups", "narrow")


def build(model: nn.Module, actions: Sequence[Action], *, network: Network | None) -> nn.Module:
    """Return a changed copy of a network; convolutions first, then widths, then depth, then what is frozen.

    Weights are fitted in the order of the forward pass, each to what its layer is given by what was changed before it:
    convolutions so that they return what they did in the network as it was (as in the channel pruning of He, Zhang and
    Sun, ICCV 2017), widths to the channels that are there. An action alone is built as
    `ablate` measured it, on each half of the probe, but fitted on all of it.

    Parameters
    ----------
    model : Module
        The network; it is not changed.
    actions : sequence of Action
        What to do.
    network : Network, optional
        The same network on a probe: what is built is fitted to what its layers are given there. Freezing needs none.

    Raises
    ------
    KeyError
        For a module that the network does not have.
    ValueError
        For what cannot be built, by name.
    ImportError
        Where channels are removed, without torch-pruning.
    """
    check_together(tuple(actions))
    check_modules(model, actions)
    changed = deepcopy(model)
    if structural := [action for action in actions if action.kind != "freeze"]:
        if network is None:
            raise ValueError(
                f"'{structural[0]}' is fitted to what its layers are given: pass probe=, the images "
                f"that the damage was measured on"
            )
        _restructure(changed, structural, network)
    gone = [action.module for action in structural if action.kind == "shorten"]
    for action in actions:
        if action.kind == "freeze":
            freeze(changed, [name for name in action.modules if not any(contains(each, name) for each in gone)])
    return changed


def check_modules(model: nn.Module, actions: Sequence[Action]) -> None:
    """Raise where a model does not have what actions are about.

    Raises
    ------
    KeyError
        With the action and the module.
    """
    known = {name for name, _ in model.named_modules()}
    for action in actions:
        for name in _modules_of(action):
            if name not in known:
                raise KeyError(
                    f"the plan says '{action}', and the model has no module {name!r}: the plan was made for another "
                    f"model, or the layer has gone"
                )


def _modules_of(action: Action) -> tuple[str, ...]:
    """Return the modules that an action changes: what reads removed channels, too."""
    return (*action.modules, action.consumer) if action.consumer else action.modules


def _restructure(changed: nn.Module, actions: Sequence[Action], network: Network) -> None:
    for action in actions:
        if action.module not in network.facts:
            raise ValueError(f"'{action}' cannot be built: the model does not call {action.module}")
        if action.kind == "narrow":
            check_narrow(action, network)
        if action.kind in _REFITTED and (shared := first_shared(network.modules, _modules_of(action))):
            raise ValueError(
                f"'{action}' cannot be built: {shared[0]} has a parameter that {shared[1]} has, too, and they would no "
                f"longer be the same"
            )
    order = {name: number for number, name in enumerate(network.facts)}
    forward = sorted(actions, key=lambda action: order[action.module])
    for action in forward:
        if action.kind in _CONVOLUTIONS:
            so_far = network.of(changed)
            changed.set_submodule(action.module, build_convolution(action, network, so_far=so_far))
    for action in forward:
        if action.kind == "narrow":
            narrow(changed, action, so_far=network.of(changed))
    for action in actions:
        if action.kind == "shorten":
            shorten(changed, action, network=network)
