"""Width: channels removed, the least needed first, and what is known of them from the others kept."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass

import torch

from .._costs import Costs
from .._least_squares import order_by_redundancy, predict_from_others
from .._network import Consumer, Network
from ._change import Change, Skipped

RANKINGS = ("redundancy", "taylor", "l1")


@dataclass(frozen=True)
class Width:
    """Asks how many channels are needed: some are removed from layers that feed one other layer.

    What the next layer reads of a removed channel becomes its mean over the probe (``fold=False``), or what the kept
    channels predict of it linearly (``fold=True``): either can be folded into the next layer's weights (up to its
    padding). Channels of a residual stream are tied to those of other layers, and are not removed one layer at a time.

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
            yield from self._of(network, name, consumer)

    def _of(self, network: Network, name: str, consumer: Consumer) -> Iterator[Change | Skipped]:
        mean, covariance = network.moments(consumer.module)
        width = len(mean)
        outgoing = network.weight(consumer.module).double().movedim(1, 0).flatten(1)
        counts = self.counts_of(width)
        for ranking in self.rankings:
            if ranking == "taylor" and not network.has_loss:
                yield Skipped(self.name, name, "the ranking taylor needs labels or a loss")
                continue
            order = _order(network, name, consumer, ranking=ranking, covariance=covariance, outgoing=outgoing)
            for count in counts:
                yield self._change(network, name, consumer, (mean, covariance), order[:count], ranking)

    def _change(
        self,
        network: Network,
        name: str,
        consumer: Consumer,
        moments: tuple[torch.Tensor, torch.Tensor],
        removed: torch.Tensor,
        ranking: str,
    ) -> Change:
        width, count = len(moments[0]), len(removed)

        def at_random(generator: torch.Generator) -> Change:
            drawn = torch.randperm(width, generator=generator)[:count].to(removed.device)
            return self._change(network, name, consumer, moments, drawn, "random")

        share = count / width
        behind = (network.facts[each].costs.times(share) for each in (consumer.module, *consumer.between))
        saves = network.facts[name].costs.times(share, kept=0) + Costs.total(behind)
        return Change(
            self.name,
            name,
            share,
            self.in_words(width, count=count),
            how=ranking if not self.fold else f"{ranking}, folded",
            inputs={consumer.module: _Replaced(*moments, removed=removed, fold=self.fold)},
            saves=saves,
            channels=tuple(sorted(removed.tolist())),
            null=at_random,
        )


class _Replaced:
    """Replaces channels by their means, or by what the others predict of them."""

    def __init__(self, mean: torch.Tensor, covariance: torch.Tensor, *, removed: torch.Tensor, fold: bool) -> None:
        self._removed = removed
        self._constant, self._weights = mean[removed], None
        if fold:
            self._kept, self._weights, self._constant = predict_from_others(mean, covariance, removed=removed)

    def __call__(self, given: torch.Tensor) -> torch.Tensor:
        out = given.clone()
        shape = (1, -1, *(1 for _ in given.shape[2:]))
        out[:, self._removed] = self._constant.to(given.dtype).reshape(shape)
        if self._weights is not None:
            weights = self._weights.to(given.dtype)
            out[:, self._removed] += torch.einsum("rk,nk...->nr...", weights, given[:, self._kept])
        return out


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
