"""Depth: modules that are replaced by the identity, residual branches that add nothing, one by one and together."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from .._costs import Costs
from .._network import NORMALIZATION, PARAMETRIC, ModuleFacts, Network
from ._change import Change, Skipped, join


@dataclass(frozen=True)
class Depth:
    """Asks how many layers are needed.

    A module whose output has the shape of its input is replaced by the identity: of a residual block, this leaves the
    shortcut. Of a residual block that changes the shape, the branch is set to zero.

    Attributes
    ----------
    blocks : bool
        Whether to try modules that hold several convolutions or linear layers.
    single : bool
        Whether to try single convolutions and linear layers.
    """

    blocks: bool = True
    single: bool = True

    @property
    def name(self) -> str:
        """What it is called in the table."""
        return "depth"

    def changes(self, network: Network, layers: Collection[str] | None) -> Iterator[Change | Skipped]:
        """Return a change for each module that can be left out."""
        for name, facts in network.facts.items():
            if layers is not None and name not in layers:
                continue
            module = network.modules[name]
            is_single = isinstance(module, PARAMETRIC)
            held = sum(isinstance(each, PARAMETRIC) for each in module.modules())
            if facts.calls != 1 or not (self.single if is_single else self.blocks and held > 1):
                continue
            if not is_single and _is_only_part(name, network) and (layers is None or _parent(name) in layers):
                continue
            if facts.given and facts.given == facts.returned:
                yield Change(
                    self.name, name, 1.0, "replaced by the identity", outputs={name: _identity}, saves=facts.costs
                )
            elif not is_single and (branch := residual_branch(network, name)) is not None:
                last, modules = branch
                saves = Costs.total(network.facts[each].costs for each in modules)
                yield Change(
                    self.name, name, 1.0, "its residual branch set to zero", outputs={last: _zero}, saves=saves
                )
            elif layers is not None:
                yield Skipped(self.name, name, f"{_in_words(facts)}: nothing can stand for it")

    def together(self, found: Sequence[tuple[Change, float]]) -> Iterator[Change]:
        """Return changes of several modules at once: the one that did least, the two that did least, and so on."""
        chosen: list[Change] = []
        for change, _ in sorted(found, key=lambda each: each[1]):
            if any(_overlap(change.layer, other.layer) for other in chosen):
                continue
            chosen.append(change)
            if len(chosen) > 1:
                yield join(chosen, what=f"{len(chosen)} modules left out together")


def _in_words(facts: ModuleFacts) -> str:
    """Say what a module makes of what."""
    if not facts.given:
        return "it was given something else than one tensor"
    if not facts.returned:
        return "it returns something else than one tensor"
    return f"it makes {facts.returned} of {facts.given}"


def _overlap(one: str, other: str) -> bool:
    return one == other or one.startswith(f"{other}.") or other.startswith(f"{one}.")


def _identity(given: torch.Tensor, _output: torch.Tensor) -> torch.Tensor:
    return given.clone()


def _zero(_given: torch.Tensor, output: torch.Tensor) -> torch.Tensor:
    return torch.zeros_like(output)


def _holds_layers(module: nn.Module) -> bool:
    return any(isinstance(each, PARAMETRIC) for each in module.modules())


def _parent(name: str) -> str:
    return name.rpartition(".")[0]


def _is_only_part(name: str, network: Network) -> bool:
    """Whether a module of several layers is all that the one that holds it has, which is tried itself."""
    parent = _parent(name)
    called_once = parent in network.facts and network.facts[parent].calls == 1
    return called_once and len(list(network.modules[parent].children())) == 1


def residual_branch(network: Network, name: str) -> tuple[str, tuple[str, ...]] | None:
    """Return the last module of a block's residual branch, and all of the branch; None where it is not known.

    An addition inside one of the blocks that a module holds is that block's.
    """
    trace = network.trace
    start, stop = trace.spans.get(name, (0, 0))
    calls = trace.calls[start:stop]
    additions = [call for call in calls if call.adds]
    if len(additions) != 1:
        return None
    at = start + calls.index(additions[0])
    for inner, span in trace.spans.items():
        is_part = inner.startswith(f"{name}.") and span != (start, stop)
        if is_part and span[0] <= at < span[1] and _holds_layers(network.modules[inner]):
            return None
    made = {call.output: call for call in calls}

    def behind(key: object) -> list[str]:
        found, todo = [], [key]
        while todo:
            call = made.get(todo.pop())  # type: ignore[call-overload]
            if call is not None:
                found += [call.module] if call.module else []
                todo += call.inputs
        return found

    sides = [behind(key) for key in additions[0].inputs]
    depth = [sum(isinstance(network.modules[each], PARAMETRIC) for each in side) for side in sides]
    if depth[0] == depth[1]:
        return None
    side, shortcut = (sides[0], sides[1]) if depth[0] > depth[1] else (sides[1], sides[0])
    if not side or not isinstance(network.modules[side[0]], (*PARAMETRIC, *NORMALIZATION, nn.Identity)):
        return None
    return side[0], tuple(sorted(set(side) - set(shortcut)))
