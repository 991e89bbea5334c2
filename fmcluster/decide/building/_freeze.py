"""Freezing: parameters without gradients, and normalizations that keep their statistics whatever the mode."""

from collections.abc import Iterable
from functools import partial

from torch import nn


def freeze(model: nn.Module, modules: Iterable[str], *, follow: bool = False) -> None:
    """Freeze modules, in place.

    Their parameters get no gradients, so that autograd keeps nothing for a frozen prefix, and lose those that they
    have, by which an optimizer would go on. Their normalizations stay in evaluation mode, also after
    ``model.train()``: in training mode they would go on following the images.

    Parameters
    ----------
    model : Module
        The network.
    modules : iterable of str
        Names of modules; all that they hold is frozen.
    follow : bool
        Whether the statistics of their normalizations go on following the images in training mode.

    Raises
    ------
    ValueError
        Where a parameter belongs to a module that is not frozen, too.
    """
    named = list(modules)
    held = {
        f"{name}.{inner}".rstrip("."): None
        for name in named
        for inner, _ in model.get_submodule(name).named_modules(remove_duplicate=False)
    }
    freeze_own(model, held, follow=follow)


def freeze_own(model: nn.Module, modules: Iterable[str], *, follow: bool = False) -> None:
    """Freeze modules, in place, as `freeze` does, but not the modules that they hold.

    Parameters
    ----------
    model, modules, follow
        As of `freeze`.

    Raises
    ------
    ValueError
        Where a parameter belongs to a module that is not frozen, too.
    """
    named = list(modules)
    chosen = [model.get_submodule(name) for name in named]
    inside = {id(each) for each in chosen}
    frozen = {id(each) for module in chosen for each in module.parameters(recurse=False)}
    for name, module in model.named_modules():
        shared = [key for key, each in module.named_parameters(recurse=False) if id(each) in frozen]
        if id(module) not in inside and shared:
            raise ValueError(
                f"{name}.{shared[0]} is shared with a layer that is to be frozen ({', '.join(named)}), and is not to "
                f"be frozen itself; freeze both or neither"
            )
    for module in chosen:
        if hasattr(module, "running_mean") and not follow:
            _hold(module)
        for parameter in module.parameters(recurse=False):
            parameter.requires_grad_(False)
            parameter.grad = None  # an optimizer passes over what has none


def _hold(module: nn.Module) -> None:
    """Keep a module in evaluation mode."""
    module.training = False
    # A partial, as deepcopy and pickle take it with the module it holds.
    module.train = partial(_stay, module)  # type: ignore[method-assign]


def _stay(module: nn.Module, mode: bool = True) -> nn.Module:
    module.training = False
    return module
