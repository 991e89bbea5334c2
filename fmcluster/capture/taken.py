"""A snapshot on its way from the model to the disk."""

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
