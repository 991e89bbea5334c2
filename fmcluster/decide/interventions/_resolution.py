"""Resolution: feature maps averaged down and brought back, as a layer of a larger stride would have them."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

from .._network import Network
from ._change import Change, Skipped


@dataclass(frozen=True)
class Resolution:
    """Asks whether a layer needs its resolution: its feature maps are averaged down, and interpolated back.

    Attributes
    ----------
    factors : tuple of int
        By how much each side becomes shorter; of each layer, those that divide it and leave two positions at least.
    """

    factors: tuple[int, ...] = (2, 4)

    @property
    def name(self) -> str:
        """What it is called in the table."""
        return "resolution"

    def factors_of(self, height: int, width: int) -> list[int]:
        """Return those of the factors that fit feature maps of a height and a width."""
        return [
            factor
            for factor in self.factors
            if not (height % factor or width % factor or min(height, width) < 2 * factor)
        ]

    @staticmethod
    def in_words(height: int, width: int, *, factor: int) -> str:
        """Say what is done to feature maps of a height and a width."""
        return f"{height} x {width} to {height // factor} x {width // factor}"

    def changes(self, network: Network, layers: Collection[str] | None) -> Iterator[Change | Skipped]:
        """Return a change for each convolution and each factor."""
        for name in network.layers:
            module = network.modules[name]
            if isinstance(module, nn.Linear) or (layers is not None and name not in layers):
                continue
            if not isinstance(module, nn.Conv2d):
                yield Skipped(
                    self.name, name, f"it is a {type(module).__name__}: only what 2-D convolutions return is averaged"
                )
                continue
            height, width = network.facts[name].returned[1:]
            for factor in self.factors_of(height, width):
                share = 1 - 1 / factor**2
                yield Change(
                    self.name,
                    name,
                    share,
                    self.in_words(height, width, factor=factor),
                    outputs={name: _Averaged(factor)},
                    saves=network.facts[name].costs.times(share, kept=0).without_parameters(),
                    setting=factor,
                )


class _Averaged:
    """Averages feature maps down by a factor, and brings them back."""

    def __init__(self, factor: int) -> None:
        self._factor = factor

    def __call__(self, _given: torch.Tensor, output: torch.Tensor) -> torch.Tensor:
        return averaged(output, self._factor)


def averaged(output: torch.Tensor, factor: int) -> torch.Tensor:
    """Return feature maps averaged down by a factor, and brought back."""
    small = functional.avg_pool2d(output, factor)
    return functional.interpolate(small, size=output.shape[2:], mode="bilinear", align_corners=False)
