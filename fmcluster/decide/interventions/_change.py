"""Changes of a network: parameters to use instead, and what to make of a module's inputs and outputs."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import torch

from .._costs import Costs
from .._network import Network

OnInput = Callable[[torch.Tensor], torch.Tensor]
OnOutput = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""Makes of a module's first input and its output another output."""


@dataclass(frozen=True, eq=False)
class Change:
    """One change of a network.

    Attributes
    ----------
    intervention : str
        What asks for it, such as ``"width"``.
    layer : str
        The module; of several, their names, separated by commas.
    amount : float
        How much of it: larger changes more.
    what : str
        The amount in words, such as ``"3 x 3 to 1 x 1"``.
    how : str
        How what is changed was chosen, such as ``"redundancy"``; empty where there is no choice.
    epoch : int, optional
        To which epoch something is put back.
    step : int, optional
        To how many optimizer steps, within that epoch; the epoch's end where there is none.
    weights : mapping of str to Tensor
        By name, parameters and buffers to use instead of the model's own; of the same shape.
    inputs : mapping of str to callable
        By module: makes another first input of it.
    outputs : mapping of str to callable
        By module: makes another output of it, from its first input and its output.
    saves : Costs
        What the network would save if it were built so.
    channels : tuple of int
        Which channels are removed, in ascending order; empty where it is not a matter of channels.
    setting : int, optional
        The amount as whoever builds such a network needs it: how many channels are left, the side of a kernel, how many
        kernels each input channel gets, the number of groups, the factor by which feature maps are averaged.
    consumer : str
        The other module that is changed: where channels are removed, the one that reads them.
    null : callable, optional
        Draws a change of the same size at random, from a generator. By default noise of the same norm: added to the
        weights, or to each sample's inputs or outputs.
    fit : callable, optional
        Where weights have to be fitted: returns the change as it is fitted on the probe of a `Network`. What has it has
        no `weights`, `inputs`, `outputs` and `null` of its own. `ablate` calls it once on each half of the probe.
    unknowns : int
        How many numbers the fit solves for, of each output of the layer.
    """

    intervention: str
    layer: str
    amount: float
    what: str
    how: str = ""
    epoch: int | None = None
    step: int | None = None
    weights: Mapping[str, torch.Tensor] = field(default_factory=dict)
    inputs: Mapping[str, OnInput] = field(default_factory=dict)
    outputs: Mapping[str, OnOutput] = field(default_factory=dict)
    saves: Costs = field(default_factory=Costs)
    channels: tuple[int, ...] = ()
    setting: int | None = None
    consumer: str = ""
    null: "Callable[[torch.Generator], Change] | None" = None
    fit: "Callable[[Network], Change] | None" = None
    unknowns: int = 0


def join(changes: Sequence[Change], *, what: str) -> Change:
    """Return several changes of one intervention, of weights or outputs, as one; its null is noise of their norms."""
    return replace(
        changes[0],
        layer=", ".join(each.layer for each in changes),
        amount=float(len(changes)),
        what=what,
        weights={name: tensor for each in changes for name, tensor in each.weights.items()},
        outputs={name: hook for each in changes for name, hook in each.outputs.items()},
        saves=Costs.total(each.saves for each in changes),
    )


@dataclass(frozen=True)
class Skipped:
    """A layer that an intervention does not change, and why."""

    intervention: str
    layer: str
    reason: str


class Intervention(Protocol):
    """A question that is asked of a network; write one to ask your own.

    Attributes
    ----------
    name : str
        What it is called in the table.
    """

    @property
    def name(self) -> str:
        """What it is called in the table."""

    def changes(self, network: Network, layers: "Collection[str] | None") -> Iterable[Change | Skipped]:
        """Return the changes to be tried, of all layers or of some; and which are not, with the reason."""
