"""Freezing the rest: what an advice names is trained, and nothing else."""

import copy

import pandas as pd
import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import TensorDataset

from fmcluster.analysis.diagnosis import Advice
from fmcluster.decide import freeze_rest


def advice(until: str | None, action: str = "tune") -> Advice:
    return Advice("block2", action, "Tune it", pd.DataFrame(), until=until)


def step(model: nn.Module, probe: TensorDataset) -> set[str]:
    """Take a training step, and return what changed of the model's state."""
    before = copy.deepcopy(model.state_dict())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    model.train()
    functional.cross_entropy(model(probe.tensors[0]), probe.tensors[1]).backward()
    optimizer.step()
    return {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}


def statistics(model: nn.Module) -> set[str]:
    return {name for name, _ in model.named_buffers()}


@pytest.mark.parametrize(
    ("until", "trained"),
    [("bn", ("stem.", "bn.", "head.")), ("block1.bn2", ("stem.", "bn.", "block1.", "head."))],
)
def test_up_to_a_normalization_weights_are_trained_and_all_statistics_follow(
    until: str, trained: tuple[str, ...], residual: nn.Module, probe: TensorDataset
) -> None:
    state = copy.deepcopy(residual.state_dict())
    tuned = freeze_rest(residual, advice(until))
    expected = {name for name, _ in residual.named_parameters() if name.startswith(trained)}
    assert step(tuned, probe) == expected | statistics(residual)
    assert all(torch.equal(value, state[name]) for name, value in residual.state_dict().items())
    assert all(value.requires_grad for value in residual.parameters())


def test_of_the_head_alone_statistics_stay_too(residual: nn.Module, probe: TensorDataset) -> None:
    assert step(freeze_rest(residual, advice("")), probe) == {"head.weight", "head.bias"}


def test_of_all_everything_is_trained(residual: nn.Module, probe: TensorDataset) -> None:
    assert step(freeze_rest(residual, advice(None)), probe) == set(residual.state_dict())


def test_parameters_of_a_module_that_holds_others_are_frozen_and_these_are_not() -> None:
    class Tokens(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.token = nn.Parameter(torch.zeros(4))
            self.body, self.head = nn.Linear(4, 4), nn.Linear(4, 2)

    tuned = freeze_rest(Tokens(), advice(""))
    assert [name for name, value in tuned.named_parameters() if value.requires_grad] == ["head.weight", "head.bias"]


def test_what_cannot_be_meant_is_refused(residual: nn.Module) -> None:
    with pytest.raises(ValueError, match=r"the model has no normalization 'layer1\.bn', up to which"):
        freeze_rest(residual, advice("layer1.bn"))
    with pytest.raises(ValueError, match="expected an advice to tune, got one of the action 'freeze'"):
        freeze_rest(residual, advice("", action="freeze"))
    with pytest.raises(TypeError, match="expected an Advice of diagnose"):
        freeze_rest(residual, "bn")
    with pytest.raises(ValueError, match="DataParallel"):
        freeze_rest(nn.DataParallel(residual), advice("bn"))
