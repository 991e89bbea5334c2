"""Freezing: no gradients, no graph, and statistics that stay."""

import copy
import pickle

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import TensorDataset

from fmcluster.decide.building import freeze

PREFIX = ["stem", "bn", "block1"]


def step(model: nn.Module, probe: TensorDataset) -> list[torch.Tensor]:
    """Take a training step, and return the tensors that autograd kept."""
    kept: list[torch.Tensor] = []
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=0.1)
    model.train()
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor) or tensor, lambda tensor: tensor):
        loss = functional.cross_entropy(model(probe.tensors[0]), probe.tensors[1])
    loss.backward()
    optimizer.step()
    return kept


def test_the_frozen_prefix_runs_without_a_graph(residual, probe: TensorDataset) -> None:
    whole = step(copy.deepcopy(residual), probe)
    freeze(residual, PREFIX)
    outputs = {}
    for name in (*PREFIX, "block2.conv1"):
        residual.get_submodule(name).register_forward_hook(lambda _m, _i, out, n=name: outputs.update({n: out}))
    kept = step(residual, probe)
    for name in PREFIX:
        assert outputs[name].grad_fn is None
        assert not outputs[name].requires_grad
    assert outputs["block2.conv1"].grad_fn is not None
    frozen = [parameter for name in PREFIX for parameter in residual.get_submodule(name).parameters()]
    assert not {each.data_ptr() for each in kept} & {each.data_ptr() for each in frozen}
    assert sum(each.nbytes for each in kept) < 0.6 * sum(each.nbytes for each in whole)


@pytest.mark.parametrize("copied", ["itself", "deepcopy", "pickle"])
def test_frozen_layers_stay_bit_for_bit(copied: str, residual, probe: TensorDataset) -> None:
    freeze(residual, PREFIX)
    model = {"itself": lambda m: m, "deepcopy": copy.deepcopy, "pickle": lambda m: pickle.loads(pickle.dumps(m))}[
        copied
    ](residual)
    before = copy.deepcopy(model.state_dict())
    for _ in range(3):
        step(model, probe)
    assert not model.bn.training
    assert not model.block1.bn2.training
    assert model.block2.bn1.training
    if copied != "itself":
        assert residual.bn is not model.bn
        residual.bn.training = True  # whose hold is its own
        model.train()
        assert residual.bn.training
        assert not model.bn.training
    for name, value in model.state_dict().items():
        frozen = name.startswith(tuple(f"{each}." for each in PREFIX))
        assert torch.equal(before[name], value) == frozen, name


def test_momentum_does_not_move_what_is_frozen(residual, probe: TensorDataset) -> None:
    optimizer = torch.optim.SGD(residual.parameters(), lr=0.1, momentum=0.9)
    functional.cross_entropy(residual(probe.tensors[0]), probe.tensors[1]).backward()
    optimizer.step()
    optimizer.zero_grad(set_to_none=False)
    freeze(residual, PREFIX)
    before = copy.deepcopy(residual.state_dict())
    optimizer.step()
    assert torch.equal(residual.stem.weight, before["stem.weight"])
    assert not torch.equal(residual.head.weight, before["head.weight"])


def test_a_shared_parameter_is_refused() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    model[1].weight = model[0].weight
    with pytest.raises(ValueError, match=r"1\.weight is shared with a layer that is to be frozen \(0\)"):
        freeze(model, ["0"])
    freeze(model, ["0", "1"])
    assert not any(parameter.requires_grad for parameter in model.parameters())
