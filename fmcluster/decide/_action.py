"""Actions: what to do to which modules, on what evidence, and what that saves; and which exclude one another."""

from dataclasses import dataclass, field
from itertools import combinations
from math import isnan

from ._costs import Costs

KINDS = ("freeze", "shorten", "narrow", "kernel", "separable", "groups", "resolution")


@dataclass(frozen=True)
class MeasuredDamage:
    """What a change costs on the probe, in nats.

    Attributes
    ----------
    mean, lower, upper : float
        Change of the loss (of the divergence, where there are no labels), and its 95 % interval.
    null : float
        The same of a random change of the same size; NaN where there is none.
    """

    mean: float
    lower: float
    upper: float
    null: float = float("nan")

    def __eq__(self, other: object) -> bool:
        return self._known() == other._known() if isinstance(other, MeasuredDamage) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._known())

    def _known(self) -> tuple[float | None, ...]:
        """Return the numbers, with None for NaN, which is not equal to itself."""
        return tuple(None if isnan(each) else each for each in (self.mean, self.lower, self.upper, self.null))


@dataclass(frozen=True)
class Action:
    """One thing to do to a network.

    Attributes
    ----------
    kind : {"freeze", "shorten", "narrow", "kernel", "separable", "groups", "resolution"}
        What is done.
    modules : tuple of str
        To which modules; several may be frozen at once, the others change one each.
    what : str
        How much of it, in words.
    damage : MeasuredDamage
        What `ablate` measured of it alone.
    saves : Costs
        What it saves alone, of one sample and one step.
    how : str
        How what is changed was chosen; empty where there is no choice.
    setting : int, optional
        Side of the kernel, kernels for each input channel, number of groups, factor of the resolution.
    keep : tuple of int
        Of channels, those that stay.
    width : int, optional
        How many channels there were.
    consumer : str
        The module that reads these channels.
    epoch : int, optional
        Of freezing: from which epoch of the fine-tuning on.
    by_prediction : float, optional
        The measured damage, of those of its kind, that has the rank which this action has by its predicted damage;
        None where nothing was predicted, and it is ranked by its own.
    """

    kind: str
    modules: tuple[str, ...]
    what: str
    damage: MeasuredDamage
    saves: Costs = field(default_factory=Costs)
    how: str = ""
    setting: int | None = None
    keep: tuple[int, ...] = ()
    width: int | None = None
    consumer: str = ""
    epoch: int | None = None
    by_prediction: float | None = None

    @property
    def module(self) -> str:
        """The first of the modules."""
        return self.modules[0]

    @property
    def weight(self) -> float:
        """The damage in nats that it is chosen by: of its rank in the prediction, or else its own."""
        return self.damage.mean if self.by_prediction is None else self.by_prediction

    @property
    def removed(self) -> tuple[int, ...]:
        """Of channels, those that go."""
        kept = set(self.keep)
        return tuple(channel for channel in range(self.width or 0) if channel not in kept)

    def __str__(self) -> str:
        named = self.module if len(self.modules) == 1 else f"{len(self.modules)} modules"
        return f"{self.kind} {named}: {self.what}"


def contains(outer: str, inner: str) -> bool:
    """Whether a module is another, or holds it."""
    return inner == outer or inner.startswith(f"{outer}.")


def exclude(one: Action, other: Action) -> bool:
    """Whether two actions cannot both be taken."""
    kinds = {one.kind, other.kind}
    if "freeze" in kinds:
        return kinds == {"freeze"} and bool(set(one.modules) & set(other.modules))
    if "shorten" in kinds:
        touched = [{each.module, each.consumer} - {""} for each in (one, other)]
        return any(contains(a, b) or contains(b, a) for a in touched[0] for b in touched[1])
    if one.module == other.module:
        return "narrow" not in kinds or len(kinds) == 1 or "groups" in kinds
    return any(
        narrow.consumer == also.module and also.kind not in ("narrow", "kernel", "resolution")
        for narrow, also in ((one, other), (other, one))
        if narrow.kind == "narrow"
    )


def overlap(one: Action, other: Action) -> bool:
    """Whether two actions exclude one another, or change one module, so that their savings do not add up."""
    touched = [{each.module, each.consumer} - {""} for each in (one, other)]
    return exclude(one, other) or ("freeze" not in {one.kind, other.kind} and bool(touched[0] & touched[1]))


def check_together(actions: tuple[Action, ...]) -> None:
    """Raise where two actions exclude one another.

    Raises
    ------
    ValueError
        With both of them.
    """
    for one, other in combinations(actions, 2):
        if exclude(one, other):
            raise ValueError(f"the plan holds '{one}' and '{other}', which cannot be built together; drop one of them")
