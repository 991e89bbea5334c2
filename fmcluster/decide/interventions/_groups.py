"""Groups: convolutions whose channels are split, which go together chosen, and the rest refitted."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment

from ._convolutions import Refit, RefittedConvolution, refit_inner


@dataclass(frozen=True)
class Groups(RefittedConvolution):
    """Asks whether grouped convolutions would do: which channels go together is chosen, and the rest refitted.

    Attributes
    ----------
    counts : tuple of int
        Numbers of groups; of each layer, those that divide its channels.
    """

    counts: tuple[int, ...] = (2, 4, 8)

    @property
    def name(self) -> str:
        """What it is called in the table."""
        return "groups"

    def refits(self, shape: Sequence[int], groups: int) -> list[Refit]:
        """Return a refit for each number of groups; see `RefittedConvolution`."""
        outputs, inputs, height, width = shape
        fitting = [n for n in self.counts if outputs % n == 0 and inputs % n == 0 and inputs > n]
        unknowns = inputs * height * width
        return [Refit(n, 1 - 1 / n, f"{n} groups", 1 - 1 / n, unknowns // n) for n in (fitting if groups == 1 else ())]

    @staticmethod
    def solve(weight: torch.Tensor, moments: torch.Tensor, *, setting: int) -> torch.Tensor:
        """Return the weight of `setting` groups that comes closest to what the whole returned, zero between groups."""
        return _grouping(weight, moments, setting)[2]


@dataclass(frozen=True, eq=False)
class Grouping:
    """A grouped convolution that stands for another.

    Attributes
    ----------
    inputs, outputs : Tensor of int64
        The channels in the order in which the groups have them.
    weight : Tensor of shape (outputs, inputs / groups, height, width)
        Of the grouped convolution, its channels in that order.
    """

    inputs: torch.Tensor
    outputs: torch.Tensor
    weight: torch.Tensor


def grouped(weight: torch.Tensor, moments: torch.Tensor, *, count: int) -> Grouping:
    """Return the best convolution of so many groups in place of one of a weight and patch moments."""
    out_group, in_group, made = _grouping(weight, moments, count)
    inputs, outputs = (torch.from_numpy(np.argsort(each, kind="stable")) for each in (in_group, out_group))
    blocks = [
        made[some][:, others]
        for some, others in zip(outputs.reshape(count, -1), inputs.reshape(count, -1), strict=True)
    ]
    return Grouping(inputs, outputs, torch.cat(blocks))


def _grouping(weight: torch.Tensor, moments: torch.Tensor, count: int) -> tuple[np.ndarray, np.ndarray, torch.Tensor]:
    """Return the group of each output and of each input, and the refitted weight."""
    _, inputs, height, width = weight.shape
    positions = height * width
    power = moments[0].diagonal().reshape(inputs, positions).mean(1)
    energy = (weight.double().square().sum((2, 3)) * power).cpu().numpy()
    out_group, in_group = _assign(energy, count)
    made = torch.zeros_like(weight)
    for group in range(count):
        rows = torch.as_tensor(np.flatnonzero(out_group == group), device=weight.device)
        inner = torch.as_tensor(in_group == group, device=weight.device).repeat_interleave(positions)
        made[rows] = refit_inner(weight[rows], moments, inner=inner)
    return out_group, in_group, made


def _assign(energy: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the groups, all of one size, of outputs and of inputs that keep most of the energy (a local optimum)."""
    outputs, inputs = energy.shape
    in_group = np.repeat(np.arange(count), inputs // count)
    out_group = np.repeat(np.arange(count), outputs // count)
    best = -1.0
    for _ in range(20):
        kept = np.stack([energy[:, in_group == group].sum(1) for group in range(count)], axis=1)
        out_group = linear_sum_assignment(np.repeat(kept, outputs // count, axis=1), maximize=True)[1]
        out_group = out_group // (outputs // count)
        kept = np.stack([energy[out_group == group].sum(0) for group in range(count)], axis=1)
        in_group = linear_sum_assignment(np.repeat(kept, inputs // count, axis=1), maximize=True)[1]
        in_group = in_group // (inputs // count)
        total = float(energy[out_group[:, None] == in_group[None, :]].sum())
        if total <= best:
            break
        best = total
    return out_group, in_group
