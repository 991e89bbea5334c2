"""Width: channels removed, the least needed first, and what is known of them from the others kept."""

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, replace

import torch
from torch import nn

from .._compat import convolved
from .._costs import Costs
from .._least_squares import order_by_redundancy, predict_from_others
from .._network import Consumer, Network
from .._shared_parameters import first_shared
from ._change import Change, OnOutput, Skipped

RANKINGS = ("redundancy", "taylor", "l1")


@dataclass(frozen=True)
class Width:
    """Asks how many channels are needed: some are removed from layers that feed one other layer.

    What the next layer reads of a removed channel becomes its mean over the probe (``fold=False``), or what the kept
    channels predict of it linearly (``fold=True``): either can be folded into the next layer's weights and constants.
    So that it can, what the next layer pads is the constant of this, too, instead of zero. Channels of a residual
    stream are tied to those of other layers, and are not removed one layer at a time.

    Which channels are removed is chosen on the whole probe. What the others predict of them is fitted on each half of
    it and measured on the other; means are those over the whole probe.

    Attributes
    ----------
    shares : tuple of float
        How many channels are removed, as shares of all.
    rankings : tuple of {"redundancy", "taylor", "l1"}
        How they are chosen: by what the others do not predict of them, times the norm of their outgoing weights; by the
        squared sum of gradient times activation (needs labels); by the sum of their absolute weights.
    fold : bool
        Whether what is removed is predicted from what is kept.

    References
    ----------
    P. Molchanov, A. Mallya, S. Tyree, I. Frosio, J. Kautz, Importance estimation for neural network pruning, CVPR 2019
    (taylor); H. Li, A. Kadav, I. Durdanovic, H. Samet, H. P. Graf, Pruning filters for efficient ConvNets, ICLR 2017
    (l1); Y. He, X. Zhang, J. Sun, Channel pruning for accelerating very deep neural networks, ICCV 2017 (the refit).
    """

    shares: tuple[float, ...] = (0.1, 0.25, 0.5, 0.75, 0.9)
    rankings: tuple[str, ...] = ("redundancy",)
    fold: bool = True

    def __post_init__(self) -> None:
        if unknown := [each for each in self.rankings if each not in RANKINGS]:
            raise ValueError(f"there is no ranking {unknown[0]!r}; expected any of {', '.join(RANKINGS)}")
        if bad := [each for each in self.shares if not 0 < each < 1]:
            raise ValueError(f"a share of channels is {bad[0]}; expected numbers between 0 and 1")

    @property
    def name(self) -> str:
        """What it is called in the table."""
        return "width"

    def counts_of(self, width: int) -> list[int]:
        """Return how many of so many channels are removed: at least one, and not all."""
        return sorted({min(width - 1, max(1, round(share * width))) for share in self.shares})

    @staticmethod
    def in_words(width: int, *, count: int) -> str:
        """Say what is done to so many channels."""
        return f"{count} of {width} channels removed"

    def changes(self, network: Network, layers: Collection[str] | None) -> Iterator[Change | Skipped]:
        """Return a change for each layer, ranking and share."""
        for name in network.layers:
            if layers is not None and name not in layers:
                continue
            consumer = network.consumer(name)
            if consumer is None:
                reason = "its channels are tied to those of other layers, or read by several, or it is the last"
                yield Skipped(self.name, name, reason)
                continue
            if getattr(network.modules[name], "groups", 1) != 1:
                yield Skipped(self.name, name, "its channels are made in groups, from each of which as many would go")
                continue
            if shared := first_shared(network.modules, (name, *consumer.between, consumer.module)):
                yield Skipped(self.name, name, f"the weight of {shared[0]} is that of {shared[1]}, too")
                continue
            yield from self._of(network, name, consumer)

    def _of(self, network: Network, name: str, consumer: Consumer) -> Iterator[Change | Skipped]:
        _, covariance = network.moments(consumer.module)
        width = len(covariance)
        outgoing = network.weight(consumer.module).double().movedim(1, 0).flatten(1)
        counts = self.counts_of(width)
        for ranking in self.rankings:
            if ranking == "taylor" and not network.has_loss:
                yield Skipped(self.name, name, "the ranking taylor needs labels or a loss")
                continue
            order = _order(network, name, consumer, ranking=ranking, covariance=covariance, outgoing=outgoing)
            for count in counts:
                change = self._described(network, name, consumer, order[:count], width, ranking)
                yield (
                    replace(change, fit=_fit_of(change, order[:count]))
                    if self.fold
                    else _replaced(change, network, order[:count], fold=False)
                )

    def _described(
        self, network: Network, name: str, consumer: Consumer, removed: torch.Tensor, width: int, ranking: str
    ) -> Change:
        """Return what is done to which channels, without what it makes of them."""
        count = len(removed)
        share = count / width
        behind = (network.facts[each].costs.times(share) for each in (consumer.module, *consumer.between))
        return Change(
            self.name,
            name,
            share,
            self.in_words(width, count=count),
            how=ranking if not self.fold else f"{ranking}, folded",
            saves=network.facts[name].costs.times(share, kept=0) + Costs.total(behind),
            channels=tuple(sorted(removed.tolist())),
            setting=width - count,
            consumer=consumer.module,
            unknowns=width - count + 1 if self.fold else 0,
        )


def _fit_of(change: Change, removed: torch.Tensor) -> Callable[[Network], Change]:
    return lambda network: _replaced(change, network, removed, fold=True)


def _replaced(change: Change, network: Network, removed: torch.Tensor, *, fold: bool) -> Change:
    """Return a change with what becomes of the removed channels, by the moments that they have in a network."""
    reader = change.consumer
    mean, covariance = network.moments(reader)
    replaced = Replaced(mean, covariance, removed=removed, fold=fold)

    def at_random(generator: torch.Generator) -> Change:
        drawn = torch.randperm(len(mean), generator=generator)[: len(removed)].to(removed.device)
        return _replaced(change, network, drawn, fold=fold)

    return replace(
        change,
        inputs={reader: replaced},
        outputs={reader: _beyond_the_border(network.modules[reader], replaced.constant)},
        null=at_random,
    )


class Replaced:
    """Replaces channels by their means, or by what the others predict of them.

    Parameters
    ----------
    mean, covariance : Tensor, float64
        Of the channels.
    removed : Tensor of int64
        Those that are replaced.
    fold : bool
        Whether by what the others predict.
    """

    def __init__(self, mean: torch.Tensor, covariance: torch.Tensor, *, removed: torch.Tensor, fold: bool) -> None:
        self._removed = removed
        self._kept, self._weights, constant = predict_from_others(mean, covariance, removed=removed)
        if not fold:
            self._weights, constant = torch.zeros_like(self._weights), mean[removed]
        self.constant = torch.zeros_like(mean)
        self.constant[removed] = constant

    def __call__(self, given: torch.Tensor) -> torch.Tensor:
        out = given.clone()
        shape = (1, -1, *(1 for _ in given.shape[2:]))
        out[:, self._removed] = self.constant[self._removed].to(given.dtype).reshape(shape)
        out[:, self._removed] += torch.einsum("rk,nk...->nr...", self._weights.to(given.dtype), given[:, self._kept])
        return out

    def folded(self, weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the weight that does the same with the kept channels alone, and what is added to its outputs.

        Parameters
        ----------
        weight : Tensor of shape (outputs, n_channels, ...)
            Of the module that reads the channels.

        Returns
        -------
        weight : Tensor of shape (outputs, n_channels, ...)
            Zero at what is removed.
        added : Tensor of shape (outputs,)
        """
        exact = weight.double()
        whole = exact.clone()
        whole[:, self._kept] += torch.einsum("or...,rk->ok...", exact[:, self._removed], self._weights)
        whole[:, self._removed] = 0
        added = exact.flatten(2).sum(2) if weight.ndim > 2 else exact
        return whole.to(weight.dtype), (added @ self.constant).to(weight.dtype)


def _beyond_the_border(module: nn.Module, constant: torch.Tensor) -> OnOutput:
    """Add what a convolution would return more, if it padded a constant of each channel instead of zero."""

    def hook(given: torch.Tensor, output: torch.Tensor) -> torch.Tensor:
        if not isinstance(module, nn.Conv2d):
            return output
        plane = constant.to(given.dtype).reshape(1, -1, 1, 1).expand(1, -1, *given.shape[2:])
        without = convolved(module, plane)
        whole = module.weight.flatten(2).sum(2) @ constant.to(given.dtype)
        corrected: torch.Tensor = output + (whole.reshape(1, -1, 1, 1) - without)
        return corrected

    return hook


def _order(
    network: Network,
    name: str,
    consumer: Consumer,
    *,
    ranking: str,
    covariance: torch.Tensor,
    outgoing: torch.Tensor,
) -> torch.Tensor:
    """Return the channels, the least needed first."""
    if ranking == "l1":
        return network.weight(name).abs().flatten(1).sum(1).argsort()
    if ranking == "taylor":
        return network.gradient_terms(consumer.module).double().square().mean(0).argsort()
    return order_by_redundancy(covariance, outgoing.square().sum(1))
