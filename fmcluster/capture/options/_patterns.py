"""Layer patterns: names of modules in which ``*`` and ``?`` stop at dots, and all else that chooses layers."""

import re
from collections.abc import Callable, Iterable, Mapping
from difflib import get_close_matches

from torch import nn

from ...store import layer_expression

Choice = str | re.Pattern[str] | type[nn.Module]
Layers = Choice | Iterable[Choice] | Callable[[str, nn.Module], bool]


def known_names(modules: Iterable[str]) -> str:
    """Say which names there are, for an error."""
    names = list(modules)
    more = f" and {len(names) - 12} more" if len(names) > 12 else ""
    return f"it has: {', '.join(names[:12])}{more}" if names else "it has no submodules"


WORDS = ("children", "leaves")

# children that hold a module's weights and compute none of its outputs: parametrized, and quantized
_HOLDERS = frozenset({"parametrizations", "_packed_params", "_all_weight_values"})


def select_modules(model: nn.Module, layers: Layers) -> dict[str, nn.Module]:
    """Choose modules of a model.

    Parameters
    ----------
    model : Module
        The model.
    layers : {"children", "leaves"}, str, re.Pattern, module class, iterable of these, or callable
        The model's direct children; all modules without children; names and patterns, in which ``*`` and ``?`` stop
        at dots, as a shell's stop at slashes, and a leading ``!`` leaves out, as in ``["leaves", "!fc"]``; regular
        expressions that match a whole name; all modules of a class; or a function of a name and a module that says
        whether to take it.

    Returns
    -------
    dict of str to Module
        By name, in the order in which the model holds them.

    Raises
    ------
    ValueError
        Where a name, pattern or class matches nothing, or nothing is chosen.
    TypeError
        Where `layers` holds anything else.
    """
    modules = {name: module for name, module in model.named_modules() if name}
    if layers == "children":
        chosen = dict(model.named_children())
    elif isinstance(layers, str) and layers == "leaves":
        chosen = {name: modules[name] for name in _meant_by(layers, modules)}
    elif callable(layers) and not isinstance(layers, type):
        chosen = {name: module for name, module in modules.items() if layers(name, module)}
    else:
        if not isinstance(layers, str | re.Pattern | type | Iterable):
            raise TypeError(
                f"layers is {layers!r}; expected 'children', 'leaves', a name or pattern, a class, or several of these"
            )
        choices = [layers] if isinstance(layers, str | re.Pattern | type) else list(layers)
        without = [choice[1:] for choice in choices if isinstance(choice, str) and choice.startswith("!")]
        choices = [choice for choice in choices if not (isinstance(choice, str) and choice.startswith("!"))]
        wanted = {name for choice in choices or (["*"] if without else []) for name in _matches(choice, modules)}
        wanted -= {name for choice in without for name in _matches(choice, modules)}
        chosen = {name: module for name, module in modules.items() if name in wanted}
    if not chosen:
        raise ValueError(f"layers={layers!r} chooses no module of {type(model).__name__}; {known_names(modules)}")
    return chosen


def is_optional(model: nn.Module, layers: Layers) -> bool:
    """Whether no layer is chosen by its own name, but by words, patterns and classes: what never fires is left out.

    Of a function, which may look for names, nobody can tell: what it takes has to fire.
    """
    choices = [layers] if isinstance(layers, str | re.Pattern | type) else layers
    if not isinstance(choices, list | tuple):
        return False
    named = {name for name, _ in model.named_modules()}
    taken = [each for each in choices if not (isinstance(each, str) and each.startswith("!"))]
    return all(not isinstance(each, str) or (each not in named and _is_pattern(each)) for each in taken)


def _is_pattern(choice: str) -> bool:
    return choice in WORDS or "*" in choice or "?" in choice


def _meant_by(word: str, modules: Mapping[str, nn.Module]) -> list[str]:
    if word == "children":
        return [name for name in modules if "." not in name]
    return [name for name, module in modules.items() if _is_leaf(name, module)]


def _is_leaf(name: str, module: nn.Module) -> bool:
    """Whether a module has no children but what holds its weights, and is nothing of that kind itself."""
    children = {child for child, _ in module.named_children()}
    return children <= _HOLDERS and not _HOLDERS & set(name.split("."))


def _matches(choice: object, modules: Mapping[str, nn.Module]) -> list[str]:
    if isinstance(choice, str) and choice in WORDS and choice not in modules:
        return _meant_by(choice, modules)
    if isinstance(choice, type) and issubclass(choice, nn.Module):
        found = [name for name, module in modules.items() if isinstance(module, choice)]
        wanted = f"module of class {choice.__name__}"
    elif isinstance(choice, str | re.Pattern):
        pattern = choice if isinstance(choice, re.Pattern) else layer_expression(choice)
        found = [name for name in modules if pattern.fullmatch(name)]
        wanted = f"layer {choice!r}" if isinstance(choice, str) else f"layer that matches {choice.pattern!r} as a whole"
    else:
        raise TypeError(
            f"layers holds {choice!r}; expected names, patterns, regular expressions (re.compile) or module classes"
        )
    if not found:
        near = get_close_matches(choice, modules, n=3, cutoff=0.5) if isinstance(choice, str) else []
        hint = f"did you mean {', '.join(near)}?" if near else known_names(modules)
        raise ValueError(f"the model has no {wanted}; {hint}")
    return found
