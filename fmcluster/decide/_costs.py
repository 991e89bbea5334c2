"""Costs of a network: multiply-adds, parameters, and what is kept for the backward pass, of one sample."""

from collections.abc import Iterable
from dataclasses import astuple, dataclass, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Costs:
    """What a part of a network costs, or a change of it saves, of one sample.

    Attributes
    ----------
    forward : float
        Multiply-adds of convolutions and linear layers.
    backward : float
        Multiply-adds of their gradients: with respect to the inputs, and to the weights.
    parameters : float
        Numbers that are learned.
    kept : float
        Bytes of inputs that convolutions, linear layers and normalizations keep for the backward pass.
    """

    forward: float = 0.0
    backward: float = 0.0
    parameters: float = 0.0
    kept: float = 0.0

    def __add__(self, other: "Costs") -> "Costs":
        return Costs(*(a + b for a, b in zip(astuple(self), astuple(other), strict=True)))

    @staticmethod
    def total(parts: "Iterable[Costs]") -> "Costs":
        """Return the sum of several."""
        return sum(parts, Costs())

    def without_parameters(self) -> "Costs":
        """Return the same, of no parameters."""
        return replace(self, parameters=0.0)

    def times(self, share: float, *, kept: float | None = None) -> "Costs":
        """Return a share of each; of what is kept for the backward pass, another share where it is given."""
        return Costs(
            self.forward * share,
            self.backward * share,
            self.parameters * share,
            self.kept * (share if kept is None else kept),
        )


def multiply_adds(module: "nn.Module", numbers: float) -> float:
    """Return how many multiply-adds a convolution or a linear layer takes for so many numbers of its output."""
    weight: Any = module.weight
    return float(weight.numel() / (weight.shape[0] or 1) * numbers)
