"""Costs of a network: multiply-adds, parameters, and what is kept for the backward pass, of one sample."""

from collections.abc import Iterable
from dataclasses import astuple, dataclass, replace
from math import prod
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


def own_costs(
    module: "nn.Module", given: tuple[int, ...], *, returned: tuple[int, ...], computes: bool, keeps: bool
) -> Costs:
    """Return the costs of a module by itself; its parameters are counted where all of it is known.

    Parameters
    ----------
    module : Module
        The module.
    given, returned : tuple of int
        Shapes of its first input and of its output, without the axis of samples; empty where it is no tensor.
    computes : bool
        Whether it is a convolution, or a linear layer.
    keeps : bool
        Whether it keeps its input for the backward pass.
    """
    kept = 4.0 * prod(given) if keeps and given else 0.0
    if not computes or not returned:
        return Costs(kept=kept)
    forward = multiply_adds(module, float(prod(returned)))
    return Costs(forward=forward, backward=2 * forward, kept=kept)
