"""First input: what a module is given first, by position or by name, seen and replaced by hooks."""

from collections.abc import Callable, Iterable, Mapping
from inspect import signature
from typing import Any

import torch
from torch import nn


def first_name(names: Iterable[str], kwargs: Mapping[str, Any]) -> str | None:
    """Return which argument by name is the first tensor; None for none.

    Parameters
    ----------
    names : iterable of str
        The order of the arguments in ``forward``; others come behind them, as they are given.
    kwargs : mapping
        The arguments.
    """
    known = [name for name in names if name in kwargs]
    return next((name for name in [*known, *kwargs] if isinstance(kwargs[name], torch.Tensor)), None)


def hook_first(module: nn.Module, hook: Callable[..., Any], *, before: bool) -> Callable[[], None]:
    """Register a hook that is given the first input alone, however the module is called.

    Parameters
    ----------
    module : Module
        The module.
    hook : callable
        Called with the module, a tuple of its arguments by position (of a module that is called by name, its first
        tensor) and, after the call, its output; as hooks of torch it may return others.
    before : bool
        Whether it is called before the module.

    Returns
    -------
    callable
        Removes it.
    """

    names = tuple(signature(module.forward).parameters)

    def on_call(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        name = None if args else first_name(names, kwargs)
        changed = hook(module, args if name is None else (kwargs[name],))
        if changed is None:
            return None
        return (changed, kwargs) if name is None else ((), {**kwargs, name: changed[0]})

    def on_return(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
        name = None if args else first_name(names, kwargs)
        return hook(module, args if name is None else (kwargs[name],), output)

    if before:
        return module.register_forward_pre_hook(on_call, with_kwargs=True).remove
    return module.register_forward_hook(on_return, with_kwargs=True).remove
