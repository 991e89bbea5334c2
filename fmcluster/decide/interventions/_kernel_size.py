"""Kernel size: smaller kernels, the inner weights refitted for what the layer is given."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

import torch

from .._least_squares import inner_weights
from .._network import Network
from ._change import Change, Skipped
from ._convolutions import Refitted, refit_convolutions, refit_inner


@dataclass(frozen=True)
class KernelSize:
    """Asks how large kernels have to be: the inner kernel is refitted, and the rings around it are gone.

    The inner weights are those that come closest, in the mean square over the probe, to what the layer returned.

    Attributes
    ----------
    sizes : tuple of int
        Sizes of a side; of each layer, those below its own.
    """

    sizes: tuple[int, ...] = (5, 3, 1)

    @property
    def name(self) -> str:
        """What it is called in the table."""
        return "kernel size"

    def changes(self, network: Network, layers: Collection[str] | None) -> Iterator[Change | Skipped]:
        """Return a change for each layer and each smaller size."""
        return refit_convolutions(network, layers, intervention=self.name, amounts=self._sizes, refit=_refit)

    def sizes_of(self, kernel: Sequence[int]) -> list[int]:
        """Return those of the sizes that are smaller than a kernel."""
        return [size for size in self.sizes if size < max(kernel)]

    @staticmethod
    def in_words(kernel: Sequence[int], *, size: int) -> str:
        """Say what is done to a kernel of a height and a width."""
        height, width = kernel
        return f"{height} x {width} to {min(size, height)} x {min(size, width)}"

    def _sizes(self, shape: Sequence[int], _groups: int) -> list[int]:
        return self.sizes_of(shape[2:])


def _refit(weight: torch.Tensor, moments: torch.Tensor, sizes: Sequence[int]) -> Iterator[Refitted]:
    _, inputs, height, width = weight.shape
    for size in sizes:
        kept = inner_weights((height, width), size)
        share = float(kept.sum()) / kept.numel()
        yield Refitted(
            refit_inner(weight, moments, inner=kept.flatten().repeat(inputs)),
            amount=1 - share,
            what=KernelSize.in_words((height, width), size=size),
            saved=1 - share,
            setting=size,
        )
