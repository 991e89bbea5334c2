"""Cross-fitting: what is fitted on one half of the probe is measured on the other, and the other way round."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

import torch

from ._network import Network
from ._outcomes import Loss, Outcomes, outcomes_of

_T = TypeVar("_T")


@dataclass(frozen=True, eq=False)
class Part:
    """Some images of the probe, and those that what they are shown to is fitted on.

    Attributes
    ----------
    shown : Network
        The network on these images.
    targets : list
        The labels of its batches.
    fitted_on : Network
        The network on the images to fit on.
    """

    shown: Network
    targets: list[Any]
    fitted_on: Network


class CrossFit:
    """A network on parts of the probe that together are all of it.

    Weights look better on the images that they were fitted on than they are. So what is fitted is measured on others:
    the loss of each image comes from weights that never saw it, and means and standard errors are of all images.

    Parameters
    ----------
    parts : sequence of Part
        Of one part, everything is fitted on the images that it is shown.
    loss : callable, optional
        As in `ablate`.

    References
    ----------
    V. Chernozhukov, D. Chetverikov, M. Demirer, E. Duflo, C. Hansen, W. Newey, J. Robins, Double/debiased machine
    learning for treatment and structural parameters, The Econometrics Journal 21, 2018 (cross-fitting).
    """

    def __init__(self, parts: Sequence[Part], *, loss: Loss | None) -> None:
        self._parts = parts
        self._loss = loss

    @classmethod
    def whole(cls, network: Network, targets: list[Any], *, loss: Loss | None) -> "CrossFit":
        """Return all of the probe as one part, for what is not fitted."""
        return cls([Part(network, targets, network)], loss=loss)

    @classmethod
    def halves(cls, network: Network, targets: list[Any], *, loss: Loss | None, random_state: int) -> "CrossFit":
        """Return two halves of the probe, each of which is fitted on for the other; see `in_first_half`.

        Raises
        ------
        ValueError
            For a probe of fewer than four samples.
        """
        sizes = [len(network.batch(number)) for number in range(network.n_batches)]
        if sum(sizes) < 4:
            raise ValueError(
                f"the probe has {sum(sizes)} samples; expected at least 4: what is refitted is fitted on one half of "
                f"them and measured on the other, and a half needs two"
            )
        first = in_first_half(_classes(targets, sizes), random_state=random_state)
        halves = []
        for half in (first, ~first):
            rows = [part.nonzero().flatten() for part in torch.split(half, sizes)]
            labels = [None if each is None else each[part] for each, part in zip(targets, rows, strict=True)]
            halves.append((network.some(rows), [each for each, part in zip(labels, rows, strict=True) if len(part)]))
        (one, of_one), (other, of_other) = halves
        return cls([Part(one, of_one, other), Part(other, of_other, one)], loss=loss)

    @property
    def n_fitted(self) -> int:
        """On how many images each fit rests, at least."""
        return min(sum(len(part.fitted_on.batch(k)) for k in range(part.fitted_on.n_batches)) for part in self._parts)

    def fit(self, make: Callable[[Network], _T]) -> list[_T]:
        """Return what is made of the network on the images to fit on, for each part."""
        return [make(part.fitted_on) for part in self._parts]

    def outcomes(self, made: Sequence[_T], outputs_of: Callable[[Network, _T], list[Any]]) -> Outcomes:
        """Return what is made of all images, part by part.

        Parameters
        ----------
        made : sequence
            What `fit` returned.
        outputs_of : callable
            Makes of the network on a part, and of what was fitted for it, the outputs of each batch.
        """
        outputs, targets = [], []
        for part, each in zip(self._parts, made, strict=True):
            outputs += outputs_of(part.shown, each)
            targets += part.targets
        return outcomes_of(outputs, targets, loss=self._loss)

    @cached_property
    def before(self) -> Outcomes:
        """What the network as it is makes of all images, in the same order."""
        return self.outcomes(self._parts, lambda network, _: network.show_all())


def in_first_half(classes: torch.Tensor, *, random_state: int) -> torch.Tensor:
    """Draw which images are in the first of two halves; of each class as many as in the second, to within one.

    Parameters
    ----------
    classes : Tensor of shape (n_samples,), int64
        Labels; all the same where there are none.
    random_state : int
        Seed.

    Returns
    -------
    Tensor of shape (n_samples,), bool
        The halves differ by one image at most.

    Examples
    --------
    >>> first = in_first_half(torch.tensor([0, 0, 1, 1, 1, 1]), random_state=0)
    >>> int(first[:2].sum()), int(first[2:].sum())
    (1, 2)
    """
    generator = torch.Generator().manual_seed(random_state)
    drawn = torch.randperm(len(classes), generator=generator)
    known, number = torch.unique(classes, return_inverse=True)
    order = torch.randperm(
        len(known), generator=generator
    )  # so that no class has the odd image in the first half always
    by_class = drawn[order[number[drawn]].argsort(stable=True)]
    out = torch.zeros(len(classes), dtype=torch.bool)
    out[by_class[::2]] = True
    return out


def _classes(targets: Sequence[Any], sizes: Sequence[int]) -> torch.Tensor:
    """Return one label for each sample where there is one, and zeros elsewhere."""
    known = [each if isinstance(each, torch.Tensor) and each.ndim == 1 else None for each in targets]
    whole = [
        torch.zeros(size, dtype=torch.int64) if each is None else each.cpu()
        for each, size in zip(known, sizes, strict=True)
    ]
    return torch.cat(whole)
