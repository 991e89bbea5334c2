"""Convolutions whose weights are replaced by the best of a simpler kind, for what each of them is given."""

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import nn

from .._least_squares import MOST_WEIGHTS, solve
from .._network import Network
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


class Solve(Protocol):
    """Fits the weight to use instead of a convolution's."""

    def __call__(self, weight: torch.Tensor, moments: torch.Tensor, *, setting: int) -> torch.Tensor:
        """Return it, of the same shape, by the convolution's weight and `Network.patch_moments`."""


def refit_convolutions(
    network: Network,
    layers: Collection[str] | None,
    *,
    intervention: str,
    refits: Callable[[Sequence[int], int], Sequence[Refit]],
    solve: Solve,
) -> Iterator[Change | Skipped]:
    """Yield a change for each convolution and each amount of an intervention, or why it cannot be asked.

    Parameters
    ----------
    network : Network
        The network.
    layers : collection of str, optional
        Names of modules; by default all.
    intervention : str
        What asks for the changes.
    refits : callable
        Returns what a convolution may become, by the shape of its weight and its number of groups; where there is
        nothing, it is passed over.
    solve : callable
        Fits the weight of one of these.
    """
    for name in network.layers:
        module = network.modules[name]
        if not isinstance(module, nn.Conv2d) or (layers is not None and name not in layers):
            continue
        if not (asked := refits(module.weight.shape, module.groups)):
            continue
        if (reason := _unfit(network, name)) is not None:
            yield Skipped(intervention, name, reason)
            continue
        for refit in asked:
            change = Change(
                intervention,
                name,
                refit.amount,
                refit.what,
                saves=network.facts[name].costs.times(refit.saved, kept=0),
                setting=refit.setting,
                unknowns=refit.unknowns,
            )
            yield replace(change, fit=_fit_of(change, solve))


def _fit_of(change: Change, solve: Solve) -> Callable[[Network], Change]:
    """Return what fits the weight of a change to what its layer is given."""

    def fit(network: Network) -> Change:
        name, setting = change.layer, change.setting
        assert setting is not None
        weight = solve(network.weight(name), network.patch_moments(name), setting=setting)
        return replace(change, weights={f"{name}.weight": weight})

    return fit


def refit_inner(weight: torch.Tensor, moments: torch.Tensor, *, inner: torch.Tensor) -> torch.Tensor:
    """Return weights that are zero but at `inner`, and come closest to what the whole of them returned."""
    groups = len(moments)
    flat = torch.unflatten(weight.double().flatten(1), 0, (groups, -1))
    inner = inner.to(weight.device)
    out = torch.zeros_like(flat)
    for group in range(groups):
        cross = flat[group] @ moments[group][:, inner]
        out[group][:, inner] = solve(moments[group][inner][:, inner], cross.T).T
    return out.flatten(0, 1).reshape(weight.shape).to(weight.dtype)


def _unfit(network: Network, name: str) -> str | None:
    """Say why a convolution's kernel cannot be replaced."""
    weight = network.weight(name)
    if not network.is_convolution(name):
        return "it is called several times, or pads with other values than zeros"
    if f"{name}.weight" not in network.tensors:
        return "its weight is computed from others (a parametrization)"
    if weight[0].numel() > MOST_WEIGHTS:
        return f"an output channel has {weight[0].numel():,} weights; the refit takes {MOST_WEIGHTS:,} at most"
    return None
