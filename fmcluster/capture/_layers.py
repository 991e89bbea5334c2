"""Recorded layers: which modules are chosen, what each returns, and how it is stored."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from difflib import get_close_matches

import torch
from torch import nn

from ..errors import CaptureError
from ..store import LayerSpec, Quantity, layer_expression
from ._axes import AxisTracker, ChannelAxis, in_order, shape_in_order
from ._hooks import Firing, hooked, is_batch
from ._options import Keep, Reduction, spec_of
from ._patterns import Layers, known_names


def select_modules(model: nn.Module, layers: Layers) -> dict[str, nn.Module]:
    """Choose modules of a model.

    Parameters
    ----------
    model : Module
        The model.
    layers : {"children", "leaves"}, str, re.Pattern, module class, iterable of these, or callable
        The model's direct children; all modules without children; names and patterns, in which ``*`` and ``?`` stop
        at dots, as a shell's stop at slashes, and a leading ``!`` leaves out; regular expressions that match a whole
        name; all modules of a class; or a function of a name and a module that says whether to take it.

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
    elif layers == "leaves":
        chosen = {name: module for name, module in modules.items() if _is_leaf(name, module)}
    elif callable(layers) and not isinstance(layers, type):
        chosen = {name: module for name, module in modules.items() if layers(name, module)}
    else:
        choices = [layers] if isinstance(layers, str | re.Pattern | type) else list(layers)
        without = [choice[1:] for choice in choices if isinstance(choice, str) and choice.startswith("!")]
        choices = [choice for choice in choices if not (isinstance(choice, str) and choice.startswith("!"))]
        wanted = {name for choice in choices or (["*"] if without else []) for name in _matches(choice, modules)}
        wanted -= {name for choice in without for name in _matches(choice, modules)}
        chosen = {name: module for name, module in modules.items() if name in wanted}
    if not chosen:
        raise ValueError(f"layers={layers!r} chooses no module of {type(model).__name__}; {known_names(modules)}")
    return chosen


def _is_leaf(name: str, module: nn.Module) -> bool:
    """Whether a module has no children but the parametrizations of its weights, and is none of these itself."""
    children = [child for child, _ in module.named_children()]
    return set(children) <= {"parametrizations"} and "parametrizations" not in name.split(".")


def _matches(choice: object, modules: Mapping[str, nn.Module]) -> list[str]:
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


@dataclass(frozen=True)
class PlannedLayer:
    """A layer that is recorded.

    Attributes
    ----------
    spec : LayerSpec
        How it is stored.
    output : tuple of int
        Shape of what it returns for one sample.
    reduction : Reduction
        What is kept of its activations.
    axis : int
        Which axis of a batch of its outputs holds the channels.
    """

    spec: LayerSpec
    output: tuple[int, ...]
    reduction: Reduction
    axis: int

    def in_order(self, output: torch.Tensor) -> torch.Tensor:
        """Return a view of an output, or of its gradient, with the channels where they are stored."""
        return in_order(output, self.axis)

    def reduction_of(self, quantity: Quantity) -> Reduction:
        """Return what is kept of a quantity, in the dtype that it is stored in: gradients in float32."""
        return replace(self.reduction, dtype=self.spec.dtype_of(quantity))


@dataclass(frozen=True)
class FirstOutput:
    """What a module returned when it was first seen: one sample's shape, its channel axis, and the module's class."""

    shape: tuple[int, ...]
    module: str
    axis: ChannelAxis


def discover(
    model: nn.Module,
    modules: Mapping[str, nn.Module],
    *,
    images: torch.Tensor,
    keep: Keep,
    optional: bool = False,
) -> dict[Firing, PlannedLayer]:
    """Show the model a batch, and note what the modules return.

    Parameters
    ----------
    model : Module
        The model.
    modules : mapping of str to Module
        Those of its modules that are recorded.
    images : Tensor of shape (n, ...)
        The batch.
    keep : Keep
        What is kept of the layers.
    optional : bool
        Whether modules that do not fire, or return no batch, are left out; else they are an error.

    Returns
    -------
    dict of Firing to PlannedLayer
        In forward order. A module that fires several times is a layer per call (``name.call0``, ``name.call1``, ...),
        one that returns several tensors is a layer per tensor (``name[0]``, ``name[key]``); what else is in such an
        output is left out.

    Raises
    ------
    CaptureError
        Where a module did not fire, or returned something that is not a batch of vectors, tokens or feature maps.
    """
    found: dict[Firing, FirstOutput] = {}
    tracker = AxisTracker()

    def note(firing: Firing, output: torch.Tensor, *, module: nn.Module) -> None:
        if is_kept(firing, output, module=module, rows=len(images), optional=optional):
            found[firing] = first_output(output, module=module, tracker=tracker)

    with tracker.watch(model), hooked(modules, note, optional=optional):
        model(images)
    if len(images) > 1 and any(firing.part for firing in found):
        rows: dict[Firing, int] = {}

        def count(firing: Firing, output: torch.Tensor, *, module: nn.Module) -> None:
            rows[firing] = output.shape[0] if output.ndim else 0

        with hooked(modules, count, optional=optional):  # another size tells a batch from what is as long by chance
            model(images[1:])
        found = {f: what for f, what in found.items() if not f.part or rows.get(f) == len(images) - 1}
    return plan(found, modules=modules, keep=keep, shown="the first batch", optional=optional)


def is_kept(firing: Firing, output: torch.Tensor, *, module: nn.Module, rows: int, optional: bool = False) -> bool:
    """Whether an output is recorded; one of several tensors that is no batch is not, nor an optional one.

    Raises
    ------
    CaptureError
        Where a module's only tensor is no batch of `rows`.
    """
    if is_batch(output) and output.shape[0] == rows:
        return True
    if firing.part or optional:
        return False
    raise CaptureError(
        f"layer {firing.name!r} ({type(module).__name__}) returned {str(output.dtype).removeprefix('torch.')} of shape "
        f"{tuple(output.shape)} for a batch of {'one' if rows == 1 else rows}; expected floating-point "
        f"({rows}, channel), ({rows}, token, channel) or ({rows}, channel, height, width). Leave it out of `layers`."
    )


def plan(
    seen: Mapping[Firing, FirstOutput],
    *,
    modules: Mapping[str, nn.Module],
    keep: Keep,
    shown: str,
    optional: bool = False,
) -> dict[Firing, PlannedLayer]:
    """Name the layers, and decide what is kept of each.

    Raises
    ------
    CaptureError
        Where a module did not fire.
    ValueError
        Where an option names a layer that there is not.
    """
    fired = {firing.name for firing in seen}
    silent = [name for name in modules if name not in fired]
    if silent and not (optional and fired):
        more = f" (nor did {', '.join(silent[1:4])}{' and others' if len(silent) > 4 else ''})" if silent[1:] else ""
        raise CaptureError(
            f"layer {silent[0]!r} did not fire when the model was shown {shown}{more}: the forward pass does not "
            f"go through the module's own call. Leave it out of `layers`."
        )
    often = {firing.name for firing in seen if firing.call > 0}
    keep.check_names(name for firing in seen for name in names_of(firing)[: 3 if firing.name in often else 2])
    planned = {}
    for firing, what in seen.items():
        planned[firing] = plan_layer(firing, what, keep=keep, name=names_of(firing)[2 if firing.name in often else 1])
    return planned


def first_output(output: torch.Tensor, *, module: nn.Module, tracker: AxisTracker) -> FirstOutput:
    """Note what a module has just returned."""
    return FirstOutput(tuple(output.shape[1:]), type(module).__name__, tracker.of(module, output))


def plan_layer(firing: Firing, first: FirstOutput, *, keep: Keep, name: str) -> PlannedLayer:
    """Decide what is kept of a layer, and how it is stored."""
    axis_asked = keep.axis_of(names_of(firing), n_axes=len(first.shape) + 1)
    axis = first.axis if axis_asked is None else ChannelAxis(axis_asked, "option")
    shape = shape_in_order(first.shape, axis.axis)
    reduction = keep.of(names_of(firing), shape)
    spec = spec_of(name, reduction, shape=shape, module=first.module, gradient=keep.gradient)
    spec = replace(spec, returned=first.shape, returned_axis=axis.axis, axis_source=axis.source)
    return PlannedLayer(spec, first.shape, reduction, axis.axis)


def names_of(firing: Firing) -> tuple[str, str, str]:
    """Return the names that a layer may go by: the module's, that of its tensor, and that of its call's tensor."""
    name, call, part = firing.name, firing.call, firing.part
    return name, f"{name}{part}", f"{name}.call{call}{part}"
