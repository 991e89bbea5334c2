"""Kernel size: smaller kernels, the inner weights refitted for what the layer is given."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from .._least_squares import inner_weights
from ._convolutions import Refit, RefittedConvolution, refit_inner


@dataclass(frozen=True)
class KernelSize(RefittedConvolution):
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

    def sizes_of(self, kernel: Sequence[int]) -> list[int]:
        """Return those of the sizes that are smaller than a kernel."""
        return [size for size in self.sizes if size < max(kernel)]

    @staticmethod
    def in_words(kernel: Sequence[int], *, size: int) -> str:
        """Say what is done to a kernel of a height and a width."""
        height, width = kernel
        return f"{height} x {width} to {min(size, height)} x {min(size, width)}"

    def refits(self, shape: Sequence[int], groups: int) -> list[Refit]:
        """Return a refit for each smaller size; see `RefittedConvolution`."""
        _, inputs, *kernel = shape
        found = []
        for size in self.sizes_of(kernel):
            kept = inner_weights(kernel, size)
            share = 1 - float(kept.sum()) / kept.numel()
            found.append(Refit(size, share, self.in_words(kernel, size=size), share, inputs * int(kept.sum())))
        return found

    @staticmethod
    def solve(weight: torch.Tensor, moments: torch.Tensor, *, setting: int) -> torch.Tensor:
        """Return the weight whose inner part, `setting` wide, comes closest to what the whole returned."""
        inner = inner_weights(weight.shape[2:], setting)
        return refit_inner(weight, moments, inner=inner.flatten().repeat(weight.shape[1]))
