"""A snapshot on its way from the model to the disk."""

from collections.abc import Mapping

import numpy as np

from .reduce import Moments


class Taken:
    """A snapshot that is being taken, or is taken and not yet committed.

    Attributes
    ----------
    epoch, step : int
        Its coordinates.
    metrics : dict of str to float
        Numbers to keep beside it.
    moments : dict of str to Moments
        What is summed up of each layer so far.
    failed : bool
        Whether something went wrong, so that it is to be left out.
    """

    def __init__(self, *, epoch: int, step: int, metrics: dict[str, float]) -> None:
        self.epoch = int(epoch)
        self.step = int(step)
        self.metrics = metrics
        self.moments: dict[str, Moments] = {}
        self.failed = False

    def add(self, layer: str, moments: Moments) -> None:
        """Add what a batch of a layer sums up to."""
        self.moments[layer] = self.moments[layer] + moments if layer in self.moments else moments


def check_order(epoch: int, step: int, *, last: tuple[int, int]) -> None:
    """Raise `ValueError` where a snapshot does not come after the last one, an (epoch, step)."""
    if isinstance(epoch, bool) or not isinstance(epoch, (int, np.integer)) or epoch < 0:
        raise ValueError(f"epoch is {epoch!r}; expected an integer from 0 on")
    if epoch < last[0]:
        raise ValueError(
            f"epoch {epoch} comes after epoch {last[0]} was recorded; snapshots are taken in order "
            f"(a resumed training loop starts at the epoch after the last)"
        )
    if isinstance(step, bool) or not isinstance(step, (int, np.integer)) or step < max(0, last[1]):
        raise ValueError(f"step is {step!r}; expected an integer from {max(0, last[1])} on: steps so far")
    if (epoch, step) == last:
        raise ValueError(
            f"epoch {epoch}, step {step} was recorded already; inside an epoch, take one snapshot per optimizer "
            f"step (pass step= where the optimizer is not one of torch.optim)"
        )


def as_numbers(metrics: Mapping[str, float]) -> dict[str, float]:
    """Return metrics as floats; raise `TypeError` naming one that is no number."""
    numbers = {}
    for name, value in metrics.items():
        try:
            numbers[str(name)] = float(value)
        except (TypeError, ValueError):
            raise TypeError(f"the metric {name!r} is {value!r}; expected a number") from None
    return numbers
