"""Pending snapshot: coordinates, metrics and moments of a snapshot that is not committed yet."""

import reprlib
from collections.abc import Callable, Mapping, Sequence
from threading import Lock

import numpy as np
import numpy.typing as npt

from ...errors import CaptureError, StoreError
from ...store import LayerSpec, Quantity
from ..transfer import Moments, no_statistics

_LARGEST = np.iinfo(np.int64).max


class PendingSnapshot:
    """A snapshot that is being recorded, or is recorded and not yet committed.

    Attributes
    ----------
    epoch, step : int
        Its coordinates.
    metrics : dict of str to float
        Numbers to keep beside it.
    failed : bool
        Whether something went wrong, so that it is to be left out.
    reason : str
        What went wrong.
    beside : list of callable
        Each returns, at the commit, values of this snapshot by the paths of their arrays.
    """

    def __init__(self, *, epoch: int, step: int, metrics: dict[str, float]) -> None:
        self.epoch = int(epoch)
        self.step = int(step)
        self.metrics = metrics
        self.failed = False
        self.reason = ""
        self.beside: list[Callable[[], Mapping[str, npt.NDArray[np.float64]]]] = []
        self._moments: dict[tuple[str, Quantity], dict[int, Moments]] = {}
        self._withdrawn: set[int] = set()
        self._lock = Lock()

    def fail(self, error: Exception) -> None:
        """Note that something went wrong; the first reason stays."""
        self.failed, self.reason = True, self.reason or reason_of(error)

    def add(self, layer: str, quantity: Quantity, *, slot: int, moments: Moments, batch: int) -> None:
        """Add what the samples of a batch, from a slot on, sum up to; nothing of a batch that was withdrawn."""
        with self._lock:
            if batch not in self._withdrawn:
                self._moments.setdefault((layer, quantity), {})[slot] = moments

    def add_up(self, slot: int) -> None:
        """Keep one sum of all samples before a slot, instead of one of each batch."""
        with self._lock:
            for parts in self._moments.values():
                early = sorted(start for start in parts if start < slot)
                for start in early[1:]:
                    parts[early[0]] += parts.pop(start)

    def withdraw(self, batch: int, *, slot: int) -> None:
        """Forget the samples of the last batch, which are those from a slot on, also those still to be added."""
        with self._lock:
            self._withdrawn.add(batch)
            for parts in self._moments.values():
                for late in [start for start in parts if start >= slot]:
                    del parts[late]

    def total(self, layer: str, quantity: Quantity) -> Moments | None:
        """Return what all samples so far sum up to, added in the order of their slots; None where there is none."""
        with self._lock:
            parts = [moments for _, moments in sorted(self._moments.get((layer, quantity), {}).items())]
        if not parts:
            return None
        total = parts[0]
        for moments in parts[1:]:
            total += moments
        return total

    def totals(self) -> dict[tuple[str, Quantity], Moments]:
        """Return what all samples so far sum up to, by layer and quantity."""
        found = {key: self.total(*key) for key in list(self._moments)}
        return {key: moments for key, moments in found.items() if moments is not None}

    def statistics(self, specs: Sequence[LayerSpec]) -> dict[tuple[str, Quantity], npt.NDArray[np.float64]]:
        """Return the statistics of layers, by name and quantity."""
        out = {}
        for spec in specs:
            for quantity in spec.quantities:
                total = self.total(spec.name, quantity)
                out[spec.name, quantity] = no_statistics(spec.n_channels) if total is None else total.statistics()
        return out

    def clipped(self) -> dict[str, int]:
        """Return how many values of each layer were clipped."""
        counts: dict[str, int] = {}
        for layer, quantity in list(self._moments):
            total = self.total(layer, quantity)
            counts[layer] = counts.get(layer, 0) + (total.n_overflow if total is not None else 0)
        return counts

    def check_overflow(self, specs: Sequence[LayerSpec]) -> None:
        """Raise `CaptureError` where a value does not fit the dtype that it is stored in."""
        for spec in specs:
            for quantity in spec.quantities:
                total = self.total(spec.name, quantity)
                if total is not None and total.n_overflow:
                    raise CaptureError(self._overflow(spec, quantity, total))

    def _overflow(self, spec: LayerSpec, quantity: Quantity, total: Moments) -> str:
        dtype = spec.dtype_of(quantity)
        advice = 'Record with dtype="float32", or with' if dtype == "float16" else "Record with"
        return (
            f"layer {spec.name!r}, epoch {self.epoch}, step {self.step}: {total.n_overflow} values of its {quantity} "
            f"are beyond what {dtype} can hold ({'65504' if dtype == 'float16' else '3.4e38'}), the largest "
            f'{total.overflow:g}. The snapshot was left out. {advice} overflow="clip".'
        )


def reason_of(error: Exception) -> str:
    """Return why something was not recorded; our own errors say it without their names."""
    return str(error) if isinstance(error, CaptureError | StoreError) else f"{type(error).__name__}: {error}"


def check_order(epoch: int, step: int, *, last: tuple[int, int]) -> None:
    """Raise `ValueError` where a snapshot does not come after the last one, an (epoch, step)."""
    check_epoch(epoch, last=last[0])
    if not _is_number(step) or step < max(0, last[1]):
        raise ValueError(f"step is {step!r}; expected an integer from {max(0, last[1])} on: steps so far")
    if (epoch, step) == last:
        raise ValueError(
            f"epoch {epoch}, step {step} was recorded already; inside an epoch, take one snapshot per optimizer "
            f"step (pass step= where the optimizer is not one of torch.optim)"
        )


def check_epoch(epoch: int, *, last: int) -> None:
    """Raise `ValueError` where an epoch comes before the last one."""
    if not _is_number(epoch) or epoch < 0:
        raise ValueError(f"epoch is {epoch!r}; expected an integer from 0 on")
    if epoch < last:
        raise ValueError(
            f"epoch {epoch} comes after epoch {last} was recorded; snapshots are taken in order "
            f"(a resumed training loop starts at the epoch after the last)"
        )


def _is_number(value: object) -> bool:
    """Whether a value is an integer that 64 bits hold."""
    return isinstance(value, int | np.integer) and not isinstance(value, bool) and int(value) <= _LARGEST


def as_numbers(metrics: Mapping[str, float]) -> dict[str, float]:
    """Return metrics as floats; raise `TypeError` naming one that is no number, or whose name is no text."""
    if not isinstance(metrics, Mapping):
        raise TypeError(f"metrics is {metrics!r}; expected a mapping of names to numbers")
    numbers = {}
    for name, value in metrics.items():
        try:
            numbers[str(name)] = float(value.item() if hasattr(value, "item") else value)
        except (TypeError, ValueError, OverflowError, RuntimeError):  # the last of a tensor of several numbers
            raise TypeError(f"the metric {name!r} is {reprlib.repr(value)}; expected a number") from None
        if not _is_text(str(name)):
            raise TypeError(f"a metric is called {name!r}; expected text that UTF-8 can hold")
    return numbers


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:  # half a letter
        return False
    return True
