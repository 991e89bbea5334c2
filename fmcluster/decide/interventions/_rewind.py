"""Rewinding: a layer's weights, or its normalization's statistics, put back to what they were."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from ...analysis.diagnosis import FROM_BELOW, REWIND, epoch_in_words
from ...store import Run
from .._costs import Costs
from .._network import NORMALIZATION, PARAMETRIC, Network
from ._change import Change, Skipped, join

Moment = int | tuple[int, int]  # an epoch, or an epoch and a step
States = Mapping[int, Mapping[str, Any]] | Mapping[Moment, Mapping[str, Any]]


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
    states : mapping of int, or of tuple of two int, to dict
        By the number of an epoch, or, within an epoch, by that and the number of optimizer steps so far, what
        ``model.state_dict()`` returned then. `Rewind.of` takes them from a run.
    """

    states: States

    @classmethod
    def of(cls, run: Run, *, epochs: Iterable[int] | None = None, snapshots: Iterable[int] | None = None) -> "Rewind":
        """Return what puts weights back that a run holds; each tensor is read when it is needed.

        Parameters
        ----------
        run : Run
            Recorded with ``record=("activation", "weight")``.
        epochs : iterable of int, optional
            Whose weights are put back, such as ``[0]``; each one's last snapshot is taken.
        snapshots : iterable of int, optional
            In place of `epochs`: numbers of snapshots. Those within an epoch, which are not its last, are told by
            their steps.

        Raises
        ------
        ValueError
            Where the run holds no weights, has no such epoch or snapshot, or both or neither were given.
        """
        run.read_weights(snapshot=0, names=[])  # raises where it holds none
        if (epochs is None) == (snapshots is None):
            raise ValueError(f"pass either epochs or snapshots; received epochs={epochs!r}, snapshots={snapshots!r}")
        if snapshots is None:
            numbers = [run.resolve(epoch=epoch) for epoch in epochs or ()]
        else:
            numbers = [run.resolve(snapshot=number) for number in snapshots]
        return cls({_moment_of(run, number): RecordedState(run, number) for number in numbers})

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
            for moment, state in self.states.items():
                epoch, step = _epoch_and_step(moment)
                for what, keys in parts.items():
                    if not keys:
                        continue
                    lacking = [key for key in keys if key not in state or state[key].shape != now[key].shape]
                    if lacking:
                        reason = f"the state of {epoch_in_words(epoch, step)} has no {lacking[0]} of its shape"
                        yield Skipped(self.name, name, reason)
                        continue
                    weights = {key: torch.as_tensor(state[key]).to(now[key].device, now[key].dtype) for key in keys}
                    costs = network.facts[name].costs
                    saves = Costs(backward=costs.forward) if what == "weights" else Costs()
                    text = f"{what} of {epoch_in_words(epoch, step)}"
                    yield Change(self.name, name, 1.0, text, epoch=epoch, step=step, weights=weights, saves=saves)

    def together(self, found: Sequence[tuple[Change, float]]) -> Iterator[Change]:
        """Return changes that put several layers' weights back: the least harmful first, and from the first layer up.

        What the latter save is the gradients of both weights and inputs.
        """
        for moment in self.states:
            epoch, step = _epoch_and_step(moment)
            alone = [each for each in found if (each[0].epoch, each[0].step) == (epoch, step)]
            chosen = [each for each in alone if each[0].what.startswith("weights")]
            weights = f"weights of {epoch_in_words(epoch, step)}"
            ordered = [change for change, _ in sorted(chosen, key=lambda each: each[1])]
            for count in range(2, len(ordered) + 1):
                yield join(ordered[:count], what=f"{weights}, {count} layers together")
            for count in range(2, len(chosen)):
                lowest = join([change for change, _ in chosen[:count]], what=f"{weights}, {count} layers")
                yield replace(lowest, how=FROM_BELOW, saves=lowest.saves.times(2))


def _moment_of(run: Run, snapshot: int) -> Moment:
    """Return the epoch of a snapshot; and its step, where it is not the epoch's last, or epoch 0 is not the start."""
    epochs, steps = (run.snapshots[name] for name in ("epoch", "step"))
    epoch, step = int(epochs.iloc[snapshot]), int(steps.iloc[snapshot])
    within = (epochs.iloc[snapshot + 1 :] == epoch).any() or (epoch == 0 and (epochs == 0).sum() > 1)
    return (epoch, step) if within else epoch


def _epoch_and_step(moment: Moment) -> tuple[int, int | None]:
    if isinstance(moment, tuple):
        epoch, step = moment
        return int(epoch), int(step)
    return int(moment), None


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
