"""Outputs that are kept: a changed network returns what it returns when all is computed, and less is computed."""

from collections import Counter
from collections.abc import Callable, Mapping

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from fmcluster.capture import ModelInputs
from fmcluster.decide import Network, _kept_outputs

from .conftest import Residual, with_statistics

IMAGES = torch.randn(7, 3, 8, 8, generator=torch.Generator().manual_seed(0))


class Tied(nn.Module):
    """The last layer's weight is the first's, which is used once more before, by a function."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.middle, self.last = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(3, 3, 1)
        self.last.weight = self.first.weight
        self.scale = nn.Linear(3, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.middle(functional.linear(x.movedim(1, -1), self.scale.weight).movedim(-1, 1))
        return self.scale(self.last(self.first(x)).mean((2, 3)))


class Twice(nn.Module):
    """One module is called twice, and another returns two tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.pair, self.head = nn.Conv2d(3, 3, 3, padding=1), Pair(), nn.Linear(3, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        one, other = self.pair(self.conv(self.conv(x)))
        return self.head((one + other).mean((2, 3)))


class Pair(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.left(x), self.right(x)


class InPlace(nn.Module):
    """What a module has returned is changed in place, and then read once more."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.relu, self.next, self.head = (
            nn.Conv2d(3, 3, 3),
            nn.ReLU(inplace=True),
            nn.Conv2d(3, 3, 1),
            Head(),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        kept = self.conv(x)
        return self.head(self.next(self.relu(kept)) + kept)


class Head(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(x.mean((2, 3)))


class Noisy(nn.Module):
    """Two modules draw random numbers, in evaluation mode, too."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.early, self.next, self.late, self.head = (
            nn.Conv2d(3, 3, 1),
            Noise(),
            nn.Conv2d(3, 3, 1),
            Noise(),
            Head(),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        torch.manual_seed(5)
        return self.head(self.late(self.next(self.early(self.conv(x)))))


class Noise(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + torch.randn_like(x)


class Branching(nn.Module):
    """Of some images, the second module is called before the first."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.other, self.head = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 3, padding=1), Head()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        order = (self.one, self.other) if x[0, 0, 0, 0] > 0 else (self.other, self.one)
        return self.head(order[1](order[0](x)))


class Catching(nn.Module):
    """A module raises, and who called it goes on."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.raising, self.head = nn.Conv2d(3, 3, 1), Raising(), Head()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.conv(x)
        try:
            x = self.raising(x)
        except ArithmeticError:
            x = x * 2
        return self.head(x)


class Raising(nn.Module):
    def forward(self, _: torch.Tensor) -> torch.Tensor:
        raise ArithmeticError


MODELS = (Residual, Tied, Twice, InPlace, Noisy, Branching, Catching)


def network_of(kind: Callable[[], nn.Module]) -> Network:
    torch.manual_seed(1)
    model = with_statistics(kind()).eval()
    signed = IMAGES.clone()
    signed[:, 0, 0, 0] = signed[:, 0, 0, 0].abs() * torch.tensor([1, 1, 1, 1, -1, -1, -1])
    return Network(model, [ModelInputs((signed[:4],)), ModelInputs((signed[4:],))], loss=None)


def changes_of(network: Network) -> list[Mapping[str, Mapping[str, object]]]:
    """Return each weight doubled, each module's input and output halved, and two at a time."""
    named = dict(network.model.named_parameters())
    inputs = [{name: lambda given: given / 2} for name in network.facts if network.facts[name].given]
    outputs = [{name: lambda _, output: output / 2} for name, facts in network.facts.items() if facts.returned]
    one = [{"weights": {name: value.detach() * 2}} for name, value in named.items()]
    one += [{"inputs": each} for each in inputs] + [{"outputs": each} for each in outputs]
    both = [{"weights": one[-1 - k].get("weights", {}), "inputs": each} for k, each in enumerate(inputs)]
    return [{"weights": {}, "inputs": {}, "outputs": {}, **each} for each in (*one, *both)]


@given(
    kind=st.sampled_from(MODELS),
    most_bytes=st.sampled_from([0, 3000, 20_000, 1 << 20]),
    steps=st.lists(st.tuples(st.integers(0, 200), st.integers(1, 3)), min_size=1, max_size=8),
)
@settings(max_examples=60, deadline=None)
def test_a_changed_network_returns_what_it_does_when_all_is_computed(
    kind: Callable[[], nn.Module], most_bytes: int, steps: list[tuple[int, int]]
) -> None:
    network, fresh = network_of(kind), network_of(kind)
    changes = changes_of(network)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_kept_outputs, "MOST_BYTES", most_bytes)
        for at, times in steps:
            change = changes[at % len(changes)]
            for number in (0, 1) * times:
                found = network.changed_outputs(number, **change)
                patch.setattr(_kept_outputs, "MOST_BYTES", 0)
                assert torch.equal(found, fresh.changed_outputs(number, **change))
                patch.setattr(_kept_outputs, "MOST_BYTES", most_bytes)
    assert not any("forward" in vars(module) or module._forward_hooks for module in network.model.modules())
    assert sum(each.nbytes for kept in network._kept._of_batch.values() for each in kept.values()) <= most_bytes


def test_what_is_before_a_change_is_computed_once() -> None:
    network = network_of(Residual)
    calls: Counter[str] = Counter()
    for name in ("stem", "block1.conv1", "block2.conv1", "block2.conv2"):
        compute = network.modules[name].forward

        def counted(x: torch.Tensor, name: str = name, compute: Callable[..., torch.Tensor] = compute) -> torch.Tensor:
            calls[name] += 1
            return compute(x)

        network.modules[name].forward = counted
    weights = {"block2.conv2.weight": network.weight("block2.conv2") * 2}
    for _ in range(5):
        network.changed_outputs(0, weights=weights, inputs={}, outputs={})
    # one look at the order, one in which outputs are kept, and of what comes after one comparison and four more
    assert calls == {"stem": 2, "block1.conv1": 2, "block2.conv1": 2, "block2.conv2": 7}
    weights = {"head.weight": network.weight("head") * 2}
    for _ in range(5):
        network.changed_outputs(0, weights=weights, inputs={}, outputs={})
    assert calls == {"stem": 2, "block1.conv1": 2, "block2.conv1": 2, "block2.conv2": 8}
    assert set(vars(network.modules["stem"])) >= {"forward"}


@pytest.mark.filterwarnings("ignore:.*torch.jit.script.* is deprecated:FutureWarning")
def test_nothing_is_kept_of_what_torchscript_runs_as_it_cannot_be_seen() -> None:
    model = nn.Sequential(nn.Conv2d(3, 3, 1), torch.jit.script(nn.Conv2d(3, 3, 1)), nn.Conv2d(3, 3, 1))
    network = Network(model.eval(), [ModelInputs((IMAGES,))], loss=None)
    changed = {"1.weight": model[1].weight.detach() * 2}
    for _ in range(3):
        found = network.changed_outputs(0, weights=changed, inputs={}, outputs={})
    doubled = functional.conv2d(model[0](IMAGES), 2 * model[1].weight, model[1].bias)
    torch.testing.assert_close(found, model[2](doubled))
    assert not any(network._kept._of_batch.values())
