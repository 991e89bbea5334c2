"""Residual streams: which recorded outputs are added to one another, channel by channel."""

from collections.abc import Hashable, Iterator, Sequence
from typing import Any

import torch

from ..forward import Firing, KnownTensors

ADD = frozenset({"add", "add_", "__add__", "__radd__", "__iadd__"})


class Streams:
    """Groups recorded outputs whose channels of one number are added up.

    A sum ties what is added; a module that returns the sum, or its positive part, is tied to it. Sums of what was not
    recorded tie what is recorded of them later.

    Examples
    --------
    >>> streams, branch, shortcut = Streams(), torch.ones(1, 2), torch.ones(1, 2)
    >>> streams.note(Firing("branch", 0, ""), branch)
    >>> streams.note(Firing("shortcut", 0, ""), shortcut)
    >>> streams.added([branch, shortcut], branch + shortcut)
    >>> [sorted(firing.name for firing in each) for each in streams]
    [['branch', 'shortcut']]
    """

    def __init__(self) -> None:
        self._known: KnownTensors[Hashable] = KnownTensors()
        self._above: dict[Hashable, Hashable] = {}
        self._sums: list[Hashable] = []

    def __iter__(self) -> Iterator[list[Firing]]:
        """Return the streams: of each, what was recorded, in the order in which it was."""
        sums = {self._top(each) for each in self._sums}
        members: dict[Hashable, list[Firing]] = {top: [] for top in sums}
        for each in self._above:
            if isinstance(each, Firing) and self._top(each) in sums:
                members[self._top(each)].append(each)
        return iter(members.values())

    def note(self, firing: Firing, output: torch.Tensor) -> None:
        """Remember an output; of a sum, as one of what was added."""
        carried = self._known.of(output)
        self._tie(firing, firing if carried is None else carried)
        self._known.remember(firing, output)

    def passed_on(self, carried: Hashable | None, output: Any) -> None:
        """Remember that an output's channels are those of another tensor."""
        if carried is not None and isinstance(output, torch.Tensor):
            self._known.remember(carried, output)

    def carried_by(self, value: Any) -> Hashable | None:
        """Return whose channels a tensor has; None where this is not known."""
        return self._known.of(value) if isinstance(value, torch.Tensor) else None

    def added(self, parts: Sequence[Any], total: Any, *, carried: Sequence[Hashable | None] | None = None) -> None:
        """Remember a sum of tensors of equal shape; `carried` is what they were before, where it changed one."""
        if not all(isinstance(each, torch.Tensor) and each.shape == total.shape for each in parts):
            return
        sum_of = object()
        self._sums.append(sum_of)
        for part in (sum_of, *([self.carried_by(each) for each in parts] if carried is None else carried)):
            if part is not None:
                self._tie(sum_of, part)
        self._known.remember(sum_of, total)

    def _tie(self, one: Hashable, other: Hashable) -> None:
        for each in (one, other):
            self._above.setdefault(each, each)
        self._above[self._top(one)] = self._top(other)

    def _top(self, member: Hashable) -> Hashable:
        while self._above[member] is not member:
            member = self._above[member]
        return member
