"""Rate of change: how far a layer would still move to the end of training, beyond what it does at learning rate 0."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt

import numpy as np

from ...store import FinitePart, Run
from .._cka import FEWEST_SAMPLES, flatten_kernel
from .._damage import SIGMAS
from .._results import Array, Labels
from ..components import accumulate_gram
from ._channels import first_to_stay

N_GROUPS = 10


@dataclass(frozen=True, eq=False)
class Change:
    """How far a layer moved from each snapshot to the next, in 1 - debiased CKA.

    Attributes
    ----------
    value : ndarray of shape (n_snapshots,)
        NaN at the first.
    without : ndarray of shape (n_snapshots, n_groups)
        The same without each group of images, for standard errors; no columns where they were not asked for.
    """

    value: Array
    without: Array


@dataclass(frozen=True, eq=False)
class ToEnd:
    """How far a layer would move from each snapshot to the end, at the rate of the steps just before.

    Attributes
    ----------
    value, at_rest : ndarray of shape (n_snapshots,)
        In 1 - debiased CKA; and what it would be at learning rate 0. NaN at the first snapshot, and where the optimizer
        made no step.
    excess, error : ndarray of shape (n_snapshots,)
        Their difference, and its standard error over the images.
    """

    value: Array
    at_rest: Array
    excess: Array
    error: Array

    @property
    def lower(self) -> Array:
        """Lower ends of the 95 % intervals of the excess."""
        return self.excess - SIGMAS * self.error

    @property
    def upper(self) -> Array:
        """Upper ends of the 95 % intervals of the excess."""
        return self.excess + SIGMAS * self.error


class Movement:
    """Compares each Gram matrix of a layer's images with the one before.

    Parameters
    ----------
    with_errors : bool
        Whether to compare without each of ten groups of images, or fewer, too: that takes ten times as long.
    random_state : int
        Seed of these groups.

    References
    ----------
    B. Efron, C. Stein, The jackknife estimate of variance, Annals of Statistics 9, 1981.
    """

    def __init__(self, *, with_errors: bool, random_state: int) -> None:
        self._with_errors = with_errors
        self._random_state = random_state
        self._value: list[float] = []
        self._without: list[list[float]] = []
        self._before: tuple[Array, Array] | None = None

    @property
    def change(self) -> Change:
        """How far the layer moved so far."""
        return Change(np.array(self._value), np.array(self._without).reshape(len(self._value), -1))

    def add(self, gram: Array) -> Array:
        """Look at the next snapshot, and return what `flatten_kernel` makes of it.

        Parameters
        ----------
        gram : ndarray of shape (n_samples, n_samples)
            Inner products of its images' vectors.
        """
        groups = _kept(len(gram), self._random_state) if self._with_errors else []
        kernel = flatten_kernel(gram, debiased=True)
        if self._before is None:
            self._value.append(np.nan)
            self._without.append([np.nan] * len(groups))
        else:
            before, kernel_before = self._before
            self._value.append(1 - float(kernel_before @ kernel))
            self._without.append([_moved(before[np.ix_(kept, kept)], gram[np.ix_(kept, kept)]) for kept in groups])
        self._before = gram, kernel
        return kernel


def part_at_rest(at_rest: Run, layers: Sequence[str]) -> FinitePart:
    """Return what of a run at learning rate 0 can be compared with; nothing, where too little of it is finite.

    Raises
    ------
    ValueError
        Where the run lacks layers, or its snapshots hold no steps that grow.
    """
    if absent := [name for name in layers if name not in at_rest.layers]:
        raise ValueError(f"the run at rest, {at_rest.path}, lacks layer {absent[0]!r}; record the same layers in both")
    at_rest.resolve(snapshot=0)
    check_steps(at_rest.snapshots["step"].to_numpy(np.float64))
    return at_rest.finiteness.part_if_any(layers)


def changes_at_rest(
    at_rest: Run, part: FinitePart, *, samples: Labels, block_bytes: int, random_state: int
) -> tuple[dict[str, Change], Array]:
    """Return what layers move at learning rate 0, and after which optimizer steps.

    Parameters
    ----------
    at_rest : Run
        The run; each of the layers is read once.
    part : FinitePart
        What of it is finite; of fewer than two snapshots, nothing is known.
    samples : ndarray of int64
        Dataset indices of the images that are compared, of which none is left out of `part`.
    block_bytes : int
        About how large a block of vectors is.
    random_state : int
        As of `Movement`.

    Raises
    ------
    ValueError
        Where the run lacks samples.
    """
    numbers = part.snapshots
    steps = at_rest.snapshots.set_index("snapshot").loc[numbers, "step"].to_numpy(np.float64)
    found: dict[str, Change] = {}
    if not has_rates(steps):
        return found, steps
    for name in part.layers:
        images = at_rest[name].vectors("sample", snapshots=numbers, samples=samples.tolist())
        movement = Movement(with_errors=True, random_state=random_state)
        for number in images.snapshots:
            movement.add(accumulate_gram(images.at([number]), block_bytes=block_bytes))
        found[name] = movement.change
    return found, steps


def change_to_end(
    change: Change, rest: Change | None, *, steps: Array, rest_steps: Array | None, steps_left: int
) -> ToEnd:
    """Continue the rate of each snapshot's last steps to the end of training.

    Parameters
    ----------
    change, rest : Change
        Of the training, and of the same at learning rate 0, over the same images; None where that was not recorded.
    steps, rest_steps : ndarray of shape (n_snapshots,)
        Optimizer steps made by each of their snapshots.
    steps_left : int
        How many follow the last snapshot.
    """
    left = steps[-1] - steps + steps_left
    rate, rates = _rates(change, steps)
    value = rate * left
    if rest is None or rest_steps is None:
        nothing = np.full(len(steps), np.nan)
        return ToEnd(value, nothing, nothing, nothing)
    rest_rate, rest_rates = _rates(rest, rest_steps)
    known = np.flatnonzero(np.isfinite(rest_rate))
    if not len(known):
        return change_to_end(change, None, steps=steps, rest_steps=None, steps_left=steps_left)
    nearest = known[np.abs(rest_steps[known][None] - steps[:, None]).argmin(axis=1)]
    excess = (rate - rest_rate[nearest]) * left
    each = (rates - rest_rates[nearest]) * left[:, None]
    count = each.shape[1]
    error = np.full(len(steps), np.nan)
    if count > 1:
        error = sqrt((count - 1) / count) * np.linalg.norm(each - each.mean(axis=1, keepdims=True), axis=1)
    return ToEnd(value, rest_rate[nearest] * left, excess, error)


def frozen_from(to_end: ToEnd, *, tolerance: float, steps_left: int) -> int | None:
    """Return the first snapshot from which on a layer would clearly move less than is tolerated; None for none.

    Where no steps are left, the last snapshot says nothing by itself; and one rate is not enough.
    """
    if len(to_end.value) < 3:
        return None
    good = to_end.upper <= tolerance
    first = first_to_stay(good)
    return len(good) - 1 if first is None and steps_left and good[-1] else first


def has_rates(steps: Array) -> bool:
    """Say whether optimizer steps grow from snapshot to snapshot: rates need that."""
    return bool(len(steps) > 1 and steps[-1] > steps[0] >= 0)


def check_steps(steps: Array) -> None:
    """Check that optimizer steps grow from snapshot to snapshot.

    Raises
    ------
    ValueError
        Where they do not: rates need them.
    """
    if not has_rates(steps):
        raise ValueError(
            f"the snapshots hold the optimizer steps {steps[:5].astype(int).tolist()}; a rate of change needs steps "
            f"that grow. They are counted while the recorder is open, or given as snapshot(..., step=)"
        )


def _rates(change: Change, steps: Array) -> tuple[Array, Array]:
    """Return 1 - CKA by step, over the steps before each snapshot; NaN where there are none."""
    made = np.diff(steps, prepend=np.nan)
    made = np.where(made > 0, made, np.nan)
    return change.value / made, change.without / made[:, None]


def _moved(before: Array, after: Array) -> float:
    return 1 - float(flatten_kernel(before, debiased=True) @ flatten_kernel(after, debiased=True))


def _kept(n_samples: int, random_state: int) -> list[Labels]:
    """Return the images that stay where each of ten groups is left out; none where too few would stay."""
    if n_samples < 2 * FEWEST_SAMPLES:
        return []
    order = np.random.default_rng(random_state).permutation(n_samples)
    groups = np.array_split(order, min(N_GROUPS, n_samples // 2))
    return [np.setdiff1d(order, group) for group in groups]
