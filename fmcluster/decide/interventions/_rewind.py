"""Rewinding: a layer's weights, or its normalization's statistics, put back to what they were."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from ...analysis.diagnosis import FROM_BELOW, REWIND
from ...store import Run
from .._costs import Costs
from .._network import NORMALIZATION, PARAMETRIC, Network
from ._change import Change, Skipped, join


@dataclass(frozen=True, eq=False)
class Rewind:
    """Asks which layers had to be trained: one at a time gets the weights of an earlier state back.

    Then several are put back together, for where one layer is put back, the others make up for it: those first that
    cost least by themselves, and the first layers of the network, one more at a time, as only what lies below all that
    is trained saves its whole backward pass when it is frozen.

    Of all layers, these are convolutions, linear layers and normalizations; a module that is named is put back with all
    that it holds.

    A layer that costs nothing to put back could have been frozen then. What is saved is the gradient of its weights; a
    frozen layer above one that is trained saves no more, as the gradient has to pass through it.

    Attributes
    ----------
    states : mapping of int to dict
        By the number of an epoch, what ``model.state_dict()`` returned then. `Rewind.of` takes them from a run.
    """

    states: Mapping[int, Mapping[str, Any]]

    @classmethod
    def of(cls, run: Run, *, epochs: Iterable[int]) -> "Rewind":
        """Return what puts weights back that a run holds; each tensor is read when it is needed.

        Parameters
        ----------
        run : Run
            Recorded with ``record=("activation", "weight")``.
        epochs : iterable of int
            Whose weights are put back, such as ``[0]``; each one's last snapshot is taken.

        Raises
        ------
        ValueError
            Where the run holds no weights, or has no such epoch.
        """
        run.read_weights(snapshot=0, names=[])  # raises where it holds none
        return cls({int(epoch): RecordedState(run, run.resolve(epoch=epoch)) for epoch in epochs})

    @property
    def name(self) -> str:
        """What it is called in the table."""
        return REWIND

    def changes(self, network: Network, layers: Collection[str] | None) -> Iterator[Change | Skipped]:
        """Return changes for each layer and each state: its parameters, and its statistics."""
        for name in network.facts:
            module = network.modules[name]
            if not (isinstance(module, (*PARAMETRIC, *NORMALIZATION)) if layers is None else name in layers):
                continue
            parts = {
                "weights": [key for key, _ in module.named_parameters(name)],
                "statistics": [key for key, value in module.named_buffers(name) if value.is_floating_point()],
            }
            now = network.tensors
            for epoch, state in self.states.items():
                for what, keys in parts.items():
                    if not keys:
                        continue
                    lacking = [key for key in keys if key not in state or state[key].shape != now[key].shape]
                    if lacking:
                        yield Skipped(self.name, name, f"the state of epoch {epoch} has no {lacking[0]} of its shape")
                        continue
                    weights = {key: torch.as_tensor(state[key]).to(now[key].device, now[key].dtype) for key in keys}
                    costs = network.facts[name].costs
                    saves = Costs(backward=costs.forward) if what == "weights" else Costs()
                    text = f"{what} of epoch {epoch}"
                    yield Change(self.name, name, 1.0, text, epoch=int(epoch), weights=weights, saves=saves)

    def together(self, found: Sequence[tuple[Change, float]]) -> Iterator[Change]:
        """Return changes that put several layers' weights back: the least harmful first, and from the first layer up.

        What the latter save is the gradients of both weights and inputs.
        """
        for epoch in self.states:
            chosen = [each for each in found if each[0].epoch == epoch and each[0].what.startswith("weights")]
            ordered = [change for change, _ in sorted(chosen, key=lambda each: each[1])]
            for count in range(2, len(ordered) + 1):
                yield join(ordered[:count], what=f"weights of epoch {epoch}, {count} layers together")
            for count in range(2, len(chosen)):
                lowest = join(
                    [change for change, _ in chosen[:count]], what=f"weights of epoch {epoch}, {count} layers"
                )
                yield replace(lowest, how=FROM_BELOW, saves=lowest.saves.times(2))


class RecordedState(Mapping[str, Any]):
    """A state of a network that lies in a run.

    Parameters
    ----------
    run : Run
        The run.
    snapshot : int
        Number of the snapshot.
    """

    def __init__(self, run: Run, snapshot: int) -> None:
        self._run = run
        self._snapshot = snapshot
        self._names = frozenset(run.weight_names)

    def __getitem__(self, name: str) -> Any:
        if name not in self._names:
            raise KeyError(name)
        return self._run.read_weights(snapshot=self._snapshot, names=[name])[name]

    def __contains__(self, name: object) -> bool:
        return name in self._names

    def __iter__(self) -> Iterator[str]:
        return iter(self._run.weight_names)

    def __len__(self) -> int:
        return len(self._names)
