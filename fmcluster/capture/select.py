"""Which modules are captured, and under which names."""

import re
from collections.abc import Callable, Iterable
from difflib import get_close_matches

from torch import nn

Layers = str | Iterable[str] | Callable[[str, nn.Module], bool]


def select_modules(model: nn.Module, layers: Layers) -> dict[str, nn.Module]:
    """Choose modules of a model.

    Parameters
    ----------
    model : Module
        The model.
    layers : {"children", "leaves"}, str, iterable of str, or callable
        The model's direct children; all modules without children; names and patterns, in which ``*`` and ``?`` stop
        at dots, as a shell's stop at slashes; or a function of a name and a module that says whether to take it.

    Returns
    -------
    dict of str to Module
        By name, in the order in which the model holds them.

    Raises
    ------
    ValueError
        Where a name or pattern matches nothing, or nothing is chosen.
    """
    modules = {name: module for name, module in model.named_modules() if name}
    if layers == "children":
        chosen = dict(model.named_children())
    elif layers == "leaves":
        chosen = {name: module for name, module in modules.items() if not any(module.children())}
    elif callable(layers):
        chosen = {name: module for name, module in modules.items() if layers(name, module)}
    else:
        patterns = [layers] if isinstance(layers, str) else list(layers)
        wanted = {name for pattern in patterns for name in _matches(pattern, modules)}
        chosen = {name: module for name, module in modules.items() if name in wanted}
    if not chosen:
        raise ValueError(f"layers={layers!r} chooses no module of {type(model).__name__}; {_known(modules)}")
    return chosen


def _matches(pattern: str, modules: Iterable[str]) -> list[str]:
    if not isinstance(pattern, str):
        raise TypeError(f"layers holds {pattern!r}; expected names or patterns, as strings")
    expression = re.compile(re.escape(pattern).replace(r"\*", "[^.]*").replace(r"\?", "[^.]"))
    found = [name for name in modules if expression.fullmatch(name)]
    if not found:
        near = get_close_matches(pattern, modules, n=3, cutoff=0.5)
        hint = f"did you mean {', '.join(near)}?" if near else _known(modules)
        raise ValueError(f"the model has no layer {pattern!r}; {hint}")
    return found


def _known(modules: Iterable[str]) -> str:
    names = list(modules)
    more = f" and {len(names) - 12} more" if len(names) > 12 else ""
    return f"it has: {', '.join(names[:12])}{more}" if names else "it has no submodules"
