"""Refitted convolutions: weights replaced by the best of a simpler kind, for what each is given."""

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import nn

from .._least_squares import MOST_WEIGHTS, solve
from .._network import Network
from .._shared_parameters import first_shared
from ._change import Change, Skipped


@dataclass(frozen=True)
class Refit:
    """What a convolution is to become, before its weight is fitted.

    Attributes
    ----------
    setting : int
        The amount as an integer; see `Change`.
    amount : float
        How much of a change it is; see `Change`.
    what : str
        The amount in words.
    saved : float
        Which share of the convolution's costs it saves.
    unknowns : int
        How many weights are solved for, of each output channel.
    """

    setting: int
    amount: float
    what: str
    saved: float
    unknowns: int


class RefittedConvolution(ABC):
    """An intervention that replaces the weight of a convolution by the best of a simpler kind."""

    @property
    @abstractmethod
    def name(self) -> str:
        """What it is called in the table."""

    @abstractmethod
    def refits(self, shape: Sequence[int], groups: int) -> list[Refit]:
        """Return what a convolution may become; where there is nothing, it is passed over.

        Parameters
        ----------
        shape : sequence of int
            Of the convolution's weight: outputs, inputs of a group, height, width.
        groups : int
            Its number of groups.
        """

    @staticmethod
    @abstractmethod
    def solve(weight: torch.Tensor, moments: torch.Tensor, *, setting: int) -> torch.Tensor:
        """Return the weight of one of these that comes closest to what the convolution returned.

        Parameters
        ----------
        weight : Tensor of shape (outputs, inputs / groups, height, width)
            The convolution's.
        moments : Tensor of shape (groups, k, k), float64
            Second moments of what its kernel sees.
        setting : int
            That of the `Refit`.

        Returns
        -------
        Tensor of the weight's shape
        """

    def changes(self, network: Network, layers: Collection[str] | None) -> Iterator[Change | Skipped]:
        """Return a change for each convolution and each amount, or why it cannot be asked.

        Parameters
        ----------
        network : Network
            The network.
        layers : collection of str, optional
            Names of modules; by default all.
        """
        for name in network.layers:
            module = network.modules[name]
            if isinstance(module, nn.Linear) or (layers is not None and name not in layers):
                continue
            if not isinstance(module, nn.Conv2d):
                yield Skipped(
                    self.name, name, f"it is a {type(module).__name__}: only kernels of 2-D convolutions are refitted"
                )
                continue
            if not (asked := self.refits(module.weight.shape, module.groups)):
                continue
            if (reason := _unfit(network, name)) is not None:
                yield Skipped(self.name, name, reason)
                continue
            for refit in asked:
                change = Change(
                    self.name,
                    name,
                    refit.amount,
                    refit.what,
                    saves=network.facts[name].costs.times(refit.saved, kept=0),
                    setting=refit.setting,
                    unknowns=refit.unknowns,
                )
                yield replace(change, fit=partial(self._fitted, change))

    def _fitted(self, change: Change, network: Network) -> Change:
        """Return a change with the weight that is fitted to what its layer is given."""
        name, setting = change.layer, change.setting
        assert setting is not None
        weight = self.solve(network.weight(name), network.patch_moments(name), setting=setting)
        return replace(change, weights={f"{name}.weight": weight})


def refit_inner(weight: torch.Tensor, moments: torch.Tensor, *, inner: torch.Tensor) -> torch.Tensor:
    """Return weights that are zero but at `inner`, and come closest to what the whole of them returned."""
    groups = len(moments)
    flat = torch.unflatten(weight.double().flatten(1), 0, (groups, -1))
    chosen = inner.nonzero().flatten().to(weight.device)
    out = torch.zeros_like(flat)
    for group in range(groups):
        rows = moments[group][chosen]
        out[group][:, chosen] = solve(rows[:, chosen], rows @ flat[group].T).T
    return out.flatten(0, 1).reshape(weight.shape).to(weight.dtype)


def _unfit(network: Network, name: str) -> str | None:
    """Say why a convolution's kernel cannot be replaced."""
    weight = network.weight(name)
    if not network.is_convolution(name):
        return "it is called several times, or pads with other values than zeros"
    if shared := first_shared(network.modules, [name]):
        return f"its weight is that of {shared[1]}, too"
    if f"{name}.weight" not in network.tensors:
        return "its weight is computed from others (a parametrization)"
    if weight[0].numel() > MOST_WEIGHTS:
        return f"an output channel has {weight[0].numel():,} weights; the refit takes {MOST_WEIGHTS:,} at most"
    return None
