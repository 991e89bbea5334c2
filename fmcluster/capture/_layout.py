"""Which layers there are, what each returns, and what is kept of it."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import nn

from ..errors import CaptureError
from ..store import LayerSpec
from ._hooks import Firing, hooked, is_batch
from ._options import Keep, Reduction, spec_of


@dataclass(frozen=True)
class Planned:
    """A layer that is recorded.

    Attributes
    ----------
    spec : LayerSpec
        How it is stored.
    output : tuple of int
        Shape of what it returns for one sample.
    reduction : Reduction
        What is kept of its activations.
    """

    spec: LayerSpec
    output: tuple[int, ...]
    reduction: Reduction

    @property
    def gradient(self) -> Reduction:
        """What is kept of its gradients: the same, in float32, as most are too small for float16."""
        return replace(self.reduction, dtype="float32")


@dataclass(frozen=True)
class Seen:
    """What a module returned when it was first seen: one sample's shape, and the module's class."""

    shape: tuple[int, ...]
    module: str


def discover(
    model: nn.Module, modules: Mapping[str, nn.Module], *, sample: torch.Tensor, keep: Keep
) -> dict[Firing, Planned]:
    """Show the model one sample, and note what the modules return.

    Returns
    -------
    dict of Firing to Planned
        In forward order. A module that fires several times is a layer per call (``name.call0``, ``name.call1``, ...),
        one that returns several tensors is a layer per tensor (``name[0]``, ``name[key]``); what else is in such an
        output is left out.

    Raises
    ------
    CaptureError
        Where a module did not fire, or returned something that is not a batch of vectors, tokens or maps.
    """
    seen: dict[Firing, Seen] = {}

    def note(firing: Firing, output: torch.Tensor, *, module: nn.Module) -> None:
        if is_kept(firing, output, module=module, rows=1):
            seen[firing] = Seen(tuple(output.shape[1:]), type(module).__name__)

    with hooked(modules, note):
        model(sample)
    return plan(seen, modules=modules, keep=keep, shown="one sample")


def is_kept(firing: Firing, output: torch.Tensor, *, module: nn.Module, rows: int) -> bool:
    """Whether an output is recorded; one of several tensors that is no batch is not.

    Raises
    ------
    CaptureError
        Where a module's only tensor is no batch of `rows`.
    """
    if is_batch(output) and output.shape[0] == rows:
        return True
    if firing.part:
        return False
    raise CaptureError(
        f"layer {firing.name!r} ({type(module).__name__}) returned {str(output.dtype).removeprefix('torch.')} of shape "
        f"{tuple(output.shape)} for a batch of {'one' if rows == 1 else rows}; expected floating-point "
        f"({rows}, channel), ({rows}, token, channel) or ({rows}, channel, height, width). Leave it out of `layers`."
    )


def plan(
    seen: Mapping[Firing, Seen], *, modules: Mapping[str, nn.Module], keep: Keep, shown: str
) -> dict[Firing, Planned]:
    """Name the layers, and settle what is kept of each.

    Raises
    ------
    CaptureError
        Where a module did not fire.
    ValueError
        Where an option names a layer that there is not.
    """
    fired = {firing.name for firing in seen}
    if silent := [name for name in modules if name not in fired]:
        more = f" (nor did {', '.join(silent[1:4])}{' and others' if len(silent) > 4 else ''})" if silent[1:] else ""
        raise CaptureError(
            f"layer {silent[0]!r} did not fire when the model was shown {shown}{more}: the forward pass does not "
            f"go through the module's own call. Leave it out of `layers`."
        )
    often = {firing.name for firing in seen if firing.call > 0}
    keep.check_names(name for firing in seen for name in names_of(firing)[: 3 if firing.name in often else 2])
    planned = {}
    for firing, what in seen.items():
        name = names_of(firing)[2 if firing.name in often else 1]
        reduction = keep.of(names_of(firing), what.shape)
        spec = spec_of(name, reduction, shape=what.shape, module=what.module, gradient=keep.gradient)
        planned[firing] = Planned(spec, what.shape, reduction)
    return planned


def names_of(firing: Firing) -> tuple[str, str, str]:
    """Return the names that a layer may go by: the module's, that of its tensor, and that of its call's tensor."""
    name, call, part = firing.name, firing.call, firing.part
    return name, f"{name}{part}", f"{name}.call{call}{part}"
