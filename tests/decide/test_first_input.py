"""First inputs: modules that are called by name are seen, changed and left out as those that are called by position."""

import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

import fmcluster as fm
from fmcluster.analysis.diagnosis import Findings, Thresholds
from fmcluster.decide import Depth, KernelSize, Resolution, Width
from fmcluster.decide._first_input import first_name


class Gated(nn.Module):
    """A residual block that is told how much of its branch to add."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)

    def forward(self, x: torch.Tensor, gate: torch.Tensor) -> torch.Tensor:
        """Return the input and a part of the branch."""
        return x + gate * self.conv2(input=self.conv1(input=x).relu())


class Called(nn.Module):
    """Two such blocks, called by name, in another order than they are defined in, or by position."""

    def __init__(self, *, by_name: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.by_name = by_name
        self.block1, self.block2, self.head = Gated(), Gated(), nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the scores of three classes."""
        gate = torch.ones(len(x), 4, 1, 1)
        for block in (self.block1, self.block2):
            x = block(gate=gate, x=x) if self.by_name else block(x, gate)
        x = x.mean((2, 3))
        return self.head(input=x) if self.by_name else self.head(x)


@pytest.fixture
def probe() -> TensorDataset:
    generator = torch.Generator().manual_seed(1)
    return TensorDataset(torch.randn(24, 4, 6, 6, generator=generator), torch.arange(24) % 3)


def test_the_first_tensor_is_that_of_the_definition_not_of_the_call() -> None:
    tensor = torch.zeros(1)
    assert first_name(("x", "gate"), {"gate": tensor, "x": tensor}) == "x"
    assert first_name(("x", "gate"), {"gate": tensor, "x": None}) == "gate"
    assert first_name(("kwargs",), {"b": 1, "a": tensor}) == "a"
    assert first_name((), {"b": 1}) is None


@pytest.mark.slow
def test_what_is_called_by_name_is_measured_as_what_is_called_by_position(probe: TensorDataset) -> None:
    asked = [Depth(), Width(shares=(0.5,), rankings=("redundancy", "taylor")), KernelSize(), Resolution(factors=(2,))]
    named, placed = (fm.ablate(Called(by_name=each), probe, interventions=asked, n_null=1) for each in (True, False))
    assert {"block1", "block2", "block1.conv1"} <= set(placed.frame["layer"])
    assert set(placed.frame["intervention"]) == {"depth", "width", "kernel size", "resolution"}
    assert named.costs == placed.costs
    assert named.frame.equals(placed.frame)


def test_a_block_that_is_called_by_name_is_left_out(probe: TensorDataset) -> None:
    model = Called(by_name=True)
    damage = fm.ablate(model, probe, interventions=[Depth(single=False)], n_null=1)
    alone = damage.frame[damage.frame["layer"] == "block2"].assign(below_null=1.0, below_null_se=0.0, null_loss=1e3)
    findings = Findings(alone, alone, alone, (), Thresholds())
    damage = fm.analysis.Damage(alone, damage.skipped, damage.loss, damage.accuracy, 24, damage.costs)
    plan = fm.plan(findings, damage, tolerance=1e3, model=model, probe=probe, rounds=0)
    assert [str(each) for each in plan.actions] == ["shorten block2: replaced by the identity"]
    assert plan.after.forward == plan.before.forward - 2 * 4 * 4 * 9 * 36
    images = probe.tensors[0]
    with torch.no_grad():
        expected = model.head(model.block1(images, torch.ones(24, 4, 1, 1)).mean((2, 3)))
        torch.testing.assert_close(plan.apply(model)(images), expected)
