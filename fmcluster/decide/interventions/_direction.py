"""Directions: what is left of a network without a direction, a set of channels or a cluster of a layer."""

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from .._network import Network
from ._change import Change, Skipped


@dataclass(frozen=True, eq=False)
class Direction:
    """Asks what directions in the space of a layer's channels matter: they are projected out, about the mean.

    Attributes
    ----------
    vectors : mapping of str to ndarray of shape (n_directions, n_channels)
        By layer; of a principal component, its loadings; of a set of channels or a cluster, ones at its channels. They
        need not be orthogonal.
    """

    vectors: Mapping[str, npt.NDArray[np.floating]]

    @property
    def name(self) -> str:
        """What it is called in the table."""
        return "direction"

    def changes(self, network: Network, layers: Collection[str] | None) -> Iterator[Change | Skipped]:
        """Return a change for each layer."""
        for name, vectors in self.vectors.items():
            rows = np.atleast_2d(np.asarray(vectors, dtype=np.float64))
            if name not in network.facts:
                yield Skipped(self.name, name, "the model has no such module, or does not call it")
                continue
            width = network.facts[name].returned[:1] or (0,)
            if rows.shape[1:] != width:
                yield Skipped(
                    self.name, name, f"vectors of shape {rows.shape} were given, and it has {width[0]} channels"
                )
                continue
            _, values, right = np.linalg.svd(rows, full_matrices=False)
            basis = right[values > 1e-10 * values[0]]
            count = len(basis)
            yield Change(
                self.name,
                name,
                count / rows.shape[1],
                f"{count} of {rows.shape[1]} directions projected out",
                outputs={name: _Projection(basis)},
                null=_at_random(self.name, name, count, rows.shape[1]),
            )


class _Projection:
    """Projects directions out of the channels, about the mean of each batch."""

    def __init__(self, basis: npt.NDArray[np.float64]) -> None:
        self._basis = basis

    def __call__(self, _given: torch.Tensor, output: torch.Tensor) -> torch.Tensor:
        basis = torch.as_tensor(self._basis, dtype=output.dtype, device=output.device)
        axes = [0, *range(2, output.ndim)]
        away = output - output.mean(axes, keepdim=True)
        along = torch.einsum("dc,nc...->nd...", basis, away)
        return output - torch.einsum("dc,nd...->nc...", basis, along)


def _at_random(name: str, layer: str, count: int, width: int) -> Callable[[torch.Generator], Change]:
    def draw(generator: torch.Generator) -> Change:
        basis = torch.linalg.qr(torch.randn(width, count, generator=generator, dtype=torch.float64))[0].T.numpy()
        return Change(name, layer, count / width, "random directions", outputs={layer: _Projection(basis)})

    return draw
