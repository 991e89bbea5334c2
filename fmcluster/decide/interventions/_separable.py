"""Separable convolutions: kernels for each input channel, then 1 x 1, refitted for what the layer is given."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import torch

from .._least_squares import solve
from ._convolutions import Refit, RefittedConvolution


@dataclass(frozen=True)
class Separable(RefittedConvolution):
    """Asks whether depthwise-separable convolutions would do: r kernels for each input channel, then 1 x 1.

    Attributes
    ----------
    ranks : tuple of int
        How many kernels each input channel gets. They are those of the weights' singular vectors; the 1 x 1 weights are
        refitted on the probe.

    References
    ----------
    J. Guo et al., Network decoupling: from regular to depthwise separable convolutions, BMVC 2018.
    """

    ranks: tuple[int, ...] = (1, 2, 3)

    @property
    def name(self) -> str:
        """What it is called in the table."""
        return "separable"

    def refits(self, shape: Sequence[int], groups: int) -> list[Refit]:
        """Return a refit for each rank; see `RefittedConvolution`."""
        outputs, inputs, *kernel = shape
        found = []
        for rank in self.ranks if groups == 1 else ():
            if rank >= min(prod(kernel), outputs):
                continue
            share = 1 - rank / min(prod(kernel), outputs)
            what = f"depthwise-separable, {rank} kernel{'s' if rank > 1 else ''} for each input channel"
            saved = max(0.0, 1 - inputs * rank * (prod(kernel) + outputs) / prod(shape))
            found.append(Refit(rank, share, what, saved, inputs * rank))
        return found

    @staticmethod
    def solve(weight: torch.Tensor, moments: torch.Tensor, *, setting: int) -> torch.Tensor:
        """Return the separable weight, `setting` kernels for each input channel, that comes closest to the whole."""
        return _factors(weight, moments, setting)[2].to(weight.dtype)


def separated(weight: torch.Tensor, moments: torch.Tensor, *, rank: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the weights of the two convolutions that stand for one.

    Parameters
    ----------
    weight : Tensor of shape (outputs, inputs, height, width)
        The convolution's.
    moments : Tensor of shape (1, k, k), float64
        Second moments of what its kernel sees.
    rank : int
        How many kernels each input channel gets.

    Returns
    -------
    kernels : Tensor of shape (inputs * rank, 1, height, width)
        Of the depthwise convolution.
    points : Tensor of shape (outputs, inputs * rank, 1, 1)
        Of the pointwise one.
    """
    kernels, points, _ = _factors(weight, moments, rank)
    return kernels.to(weight.dtype), points[:, :, None, None].to(weight.dtype)


def _factors(weight: torch.Tensor, moments: torch.Tensor, rank: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return kernels, 1 x 1 weights, and what they are together, in float64."""
    _, inputs, height, width = weight.shape
    flat = weight.double().flatten(2)  # outputs, inputs, positions
    _, _, right = torch.linalg.svd(flat.permute(1, 0, 2), full_matrices=False)
    kernels = right[:, :rank]  # inputs, rank, positions
    rows = (kernels @ torch.unflatten(moments[0], 0, (inputs, -1))).flatten(0, 1)  # (inputs * rank, inputs * positions)
    own = torch.einsum("kip,irp->kir", torch.unflatten(rows, 1, (inputs, -1)), kernels).flatten(1)
    points = solve(own, rows @ flat.flatten(1).T).T
    made = torch.einsum("oir,irp->oip", torch.unflatten(points, 1, (inputs, -1)), kernels)
    return kernels.reshape(-1, 1, height, width), points, made.reshape(weight.shape)
