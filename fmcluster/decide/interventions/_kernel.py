"""Kernels: smaller, separable or in groups, each the best of its kind for what the layer is given."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import nn

from .._network import Network
from ._change import Change, Skipped

MOST_WEIGHTS = 4608  # of an output channel: their second moments take 170 MB


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
        for name, module in _convolutions(network, layers):
            height, width = module.kernel_size
            sizes = [size for size in self.sizes if size < max(height, width)]
            if not sizes:
                continue
            if (reason := _unfit(network, name)) is not None:
                yield Skipped(self.name, name, reason)
                continue
            moments = network.patch_moments(name)
            for size in sizes:
                kept = _inner(module.kernel_size, size)
                share = float(kept.sum()) / kept.numel()
                inner = kept.flatten().repeat(module.in_channels // module.groups)
                weight = _refit(network.weight(name), moments, inner)
                yield Change(
                    self.name,
                    name,
                    1 - share,
                    f"{height} x {width} to {min(size, height)} x {min(size, width)}",
                    weights={f"{name}.weight": weight},
                    saves=network.facts[name].costs.times(1 - share, kept=0),
                )


@dataclass(frozen=True)
class Separable:
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

    def changes(self, network: Network, layers: Collection[str] | None) -> Iterator[Change | Skipped]:
        """Return a change for each layer and each rank."""
        for name, module in _convolutions(network, layers):
            weight = network.weight(name)
            outputs, inputs, height, width = weight.shape
            ranks = [rank for rank in self.ranks if rank < min(height * width, outputs)]
            if module.groups > 1 or not ranks:
                continue
            if (reason := _unfit(network, name)) is not None:
                yield Skipped(self.name, name, reason)
                continue
            moments = network.patch_moments(name)[0]
            flat = weight.double().flatten(2)  # outputs, inputs, positions
            _, _, right = torch.linalg.svd(flat.permute(1, 0, 2), full_matrices=False)
            for rank in ranks:
                kernels = right[:, :rank]  # inputs, rank, positions
                spread = torch.block_diag(*kernels)  # type: ignore[no-untyped-call]  # (inputs * rank, inputs * positions)
                target = flat.flatten(1) @ moments @ spread.T
                points = _solve(spread @ moments @ spread.T, target.T).T
                made = (points @ spread).reshape(weight.shape).to(weight.dtype)
                dense = outputs * inputs * height * width
                share = max(0.0, 1 - (inputs * rank * height * width + inputs * rank * outputs) / dense)
                yield Change(
                    self.name,
                    name,
                    1 - rank / min(height * width, outputs),
                    f"depthwise-separable, {rank} kernel{'s' if rank > 1 else ''} for each input channel",
                    weights={f"{name}.weight": made},
                    saves=network.facts[name].costs.times(share, kept=0),
                )


@dataclass(frozen=True)
class Groups:
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

    def changes(self, network: Network, layers: Collection[str] | None) -> Iterator[Change | Skipped]:
        """Return a change for each layer and each number of groups."""
        for name, module in _convolutions(network, layers):
            weight = network.weight(name)
            outputs, inputs, height, width = weight.shape
            counts = [n for n in self.counts if outputs % n == 0 and inputs % n == 0 and inputs > n]
            if module.groups > 1 or not counts:
                continue
            if (reason := _unfit(network, name)) is not None:
                yield Skipped(self.name, name, reason)
                continue
            moments = network.patch_moments(name)[0]
            positions = height * width
            power = moments.diagonal().reshape(inputs, positions).mean(1)
            energy = (weight.double().square().sum((2, 3)) * power).cpu().numpy()
            for count in counts:
                out_group, in_group = _assign(energy, count)
                made = torch.zeros_like(weight)
                for group in range(count):
                    rows = torch.as_tensor(np.flatnonzero(out_group == group), device=weight.device)
                    inner = torch.as_tensor(in_group == group, device=weight.device).repeat_interleave(positions)
                    made[rows] = _refit(weight[rows], moments[None], inner)
                yield Change(
                    self.name,
                    name,
                    1 - 1 / count,
                    f"{count} groups",
                    weights={f"{name}.weight": made},
                    saves=network.facts[name].costs.times(1 - 1 / count, kept=0),
                )


def _convolutions(network: Network, layers: Collection[str] | None) -> Iterator[tuple[str, nn.Conv2d]]:
    for name in network.layers:
        module = network.modules[name]
        if isinstance(module, nn.Conv2d) and (layers is None or name in layers):
            yield name, module


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


def _inner(kernel: tuple[int, ...], size: int) -> torch.Tensor:
    """Return which positions of a kernel are within the size, around its middle."""
    out = torch.zeros(*kernel, dtype=torch.bool)
    where = []
    for length in kernel:
        inner = min(size, length)
        start = (length - inner) // 2
        where.append(slice(start, start + inner))
    out[tuple(where)] = True
    return out


def _refit(weight: torch.Tensor, moments: torch.Tensor, inner: torch.Tensor) -> torch.Tensor:
    """Return weights that are zero but at `inner`, and come closest to what the whole of them returned."""
    groups = len(moments)
    flat = torch.unflatten(weight.double().flatten(1), 0, (groups, -1))
    inner = inner.to(weight.device)
    out = torch.zeros_like(flat)
    for group in range(groups):
        cross = flat[group] @ moments[group][:, inner]
        out[group][:, inner] = _solve(moments[group][inner][:, inner], cross.T).T
    return out.flatten(0, 1).reshape(weight.shape).to(weight.dtype)


def _solve(matrix: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """Solve for a positive semidefinite matrix, in the least-norm sense where it is singular."""
    values, vectors = torch.linalg.eigh(matrix)
    good = values > values[-1].clamp_min(0) * 1e-10
    inverse = torch.where(good, 1 / torch.where(good, values, 1.0), 0.0)
    solved: torch.Tensor = vectors @ (inverse[:, None] * (vectors.T @ right))
    return solved


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
