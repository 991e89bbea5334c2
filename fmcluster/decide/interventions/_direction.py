"""Directions: what is left of a network without a direction, a set of channels or a cluster of a layer."""

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from ...capture import AxisTracker
from .._network import Network
from ._change import Change, Skipped


@dataclass(frozen=True, eq=False)
class Direction:
    """Asks what directions in the space of a layer's channels matter: they are projected out, about the probe's mean.

    Attributes
    ----------
    vectors : mapping of str to ndarray of shape (n_directions, n_channels)
        By layer; of a principal component, its loadings; of a set or a cluster of channels, a row for each with a one
        at that channel, ``np.eye(n_channels)[channels]`` (a single row with ones at all of them takes out their mean
        alone). They need not be orthogonal. Channels lie where a recording of the model has them: of tokens, they are
        the features of each.
    """

    vectors: Mapping[str, npt.NDArray[np.floating]]

    @property
    def name(self) -> str:
        """What it is called in the table."""
        return "direction"

    def changes(self, network: Network, layers: Collection[str] | None) -> Iterator[Change | Skipped]:
        """Return a change for each layer."""
        for name, vectors in self.vectors.items():
            if layers is not None and name not in layers:
                continue
            rows = np.atleast_2d(np.asarray(vectors, dtype=np.float64))
            if name not in network.facts:
                yield Skipped(self.name, name, "the model has no such module, or does not call it")
                continue
            if not network.facts[name].returned:
                yield Skipped(self.name, name, "it returns something else than one tensor with channels")
                continue
            axis = _channel_axis(network, name)
            width = network.facts[name].returned[axis - 1]
            if rows.shape[1] != width:
                yield Skipped(self.name, name, f"vectors of shape {rows.shape} were given, and it has {width} channels")
                continue
            if not np.isfinite(rows).all() or not rows.any():
                yield Skipped(self.name, name, "its vectors are zero, or hold values that are NaN or infinite")
                continue
            _, values, right = np.linalg.svd(rows, full_matrices=False)
            basis = right[values > 1e-10 * values[0]]
            count, mean = len(basis), _mean_output(network, name, axis=axis)
            yield Change(
                self.name,
                name,
                count / rows.shape[1],
                f"{count} of {rows.shape[1]} directions projected out",
                outputs={name: _Projection(basis, mean, axis=axis)},
                null=_at_random(self.name, name, count=count, mean=mean, axis=axis),
            )


class _Projection:
    """Projects directions out of the channels, about their means over the probe."""

    def __init__(self, basis: npt.NDArray[np.float64], mean: torch.Tensor, *, axis: int) -> None:
        self._basis = basis
        self._mean = mean
        self._axis = axis

    def __call__(self, _given: torch.Tensor, output: torch.Tensor) -> torch.Tensor:
        basis = torch.as_tensor(self._basis, dtype=output.dtype, device=output.device)
        away = output.movedim(self._axis, -1) - self._mean.to(output.dtype)
        return output - (away @ basis.T @ basis).movedim(-1, self._axis)


def _channel_axis(network: Network, layer: str) -> int:
    """Return which axis of a layer's output holds the channels, as recordings have it."""
    tracker, found = AxisTracker(), []

    def look(_given: torch.Tensor, output: torch.Tensor) -> torch.Tensor:
        found.append(tracker.of(network.modules[layer], output).axis)
        return output

    with tracker.watch(network.model):
        network.changed_outputs(0, weights={}, inputs={}, outputs={layer: look})
    return found[0]


def _mean_output(network: Network, layer: str, *, axis: int) -> torch.Tensor:
    """Return the mean of each channel of a layer's output over samples and positions of the probe, in float64."""
    total: list[torch.Tensor] = []
    count = 0

    def take(_given: torch.Tensor, output: torch.Tensor) -> torch.Tensor:
        nonlocal count
        each = output.detach().double().movedim(axis, 0).flatten(1)
        total.append(each.sum(1))
        count += each.shape[1]
        return output

    for number in range(network.n_batches):
        network.changed_outputs(number, weights={}, inputs={}, outputs={layer: take})
    return torch.stack(total).sum(0) / count


def _at_random(
    name: str, layer: str, *, count: int, mean: torch.Tensor, axis: int
) -> Callable[[torch.Generator], Change]:
    width = len(mean)

    def draw(generator: torch.Generator) -> Change:
        basis = torch.linalg.qr(torch.randn(width, count, generator=generator, dtype=torch.float64))[0].T.numpy()
        projection = _Projection(basis, mean, axis=axis)
        return Change(name, layer, count / width, "random directions", outputs={layer: projection})

    return draw
