"""The structural half of `decide.py`: fewer multiply-adds, chosen in five ways.

Channels of the residual streams stay: torch-pruning cannot follow the padded shortcuts of this network, and builds one
that does not run. So every way removes channels inside blocks; the plan may remove blocks, too.
"""

import copy
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch_pruning
from shifts import Task
from torch import nn
from torch.utils.data import TensorDataset

import fmcluster as fm
from fmcluster.decide import Depth, Plan, Width
from fmcluster.decide._candidates import action_of
from fmcluster.decide._costs import Costs

N_ABLATED = 100  # images of the probe that changes are measured on
EXAMPLE = torch.zeros(1, 3, 32, 32)
BUDGETS = (0.75, 0.5)  # of the multiply-adds of a forward pass
SHARES = tuple(count / 8 for count in range(1, 8))  # of a layer's channels that may go
Measured = tuple[TensorDataset, fm.analysis.Damage]


def multiply_adds(model: nn.Module) -> float:
    """Count those of a forward pass of one image."""
    return float(torch_pruning.utils.count_ops_and_params(copy.deepcopy(model), EXAMPLE)[0])


def measure(task: Task) -> Measured:
    """Measure what fewer layers and fewer channels do to the network as it is."""
    ablated = TensorDataset(*(tensor[:N_ABLATED] for tensor in task.probe.tensors))
    inner = _inner(task.start)
    layers = [*inner, *(name.removesuffix(".conv1") for name in inner)]
    questions = [Depth(), Width(shares=SHARES)]
    return ablated, fm.ablate(task.start, ablated, interventions=questions, layers=layers, n_null=2)


def plan(task: Task, measured: Measured, *, budget: float) -> Plan:
    """Plan for a share of the multiply-adds of a forward pass."""
    ablated, damage = measured
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "run.zarr"
        with fm.Recorder(task.start, path, layers=["linear"], probe=ablated) as recorder:
            recorder.snapshot(epoch=0)
        findings = fm.diagnose(fm.open_run(path))
    how = {"budget": budget, "of": "forward", "model": task.start, "probe": ablated, "rounds": 0}
    return fm.plan(findings, damage, **how)


def share_removed(task: Task, planned: nn.Module) -> float:
    """Return which share of all inner channels is to be removed for the multiply-adds that another network has."""
    whole, inner = multiply_adds(task.start), multiply_adds(task.start) - multiply_adds(by_norm(task, 0.5))
    return float((whole - multiply_adds(planned)) / (2 * inner))


def uniform(task: Task, share: float, measured: Measured) -> nn.Module:
    """Remove those inner channels that the others predict best, and fold them into what reads them."""
    ablated, damage = measured
    asked = [Width(shares=(share,))]
    frame = fm.ablate(task.start, ablated, interventions=asked, layers=_inner(task.start), n_null=0).frame
    before = Costs(**damage.costs)
    actions = tuple(action_of(row, costs=before) for row in frame.to_dict("records"))
    return Plan(actions, "forward", None, None, before, before).apply(task.start, probe=ablated)


def by_norm(task: Task, share: float) -> nn.Module:
    return _without(task, share, lambda weight: weight.abs().flatten(1).sum(1))


def at_random(task: Task, share: float, draw: np.random.Generator) -> nn.Module:
    return _without(task, share, lambda weight: torch.from_numpy(draw.random(len(weight))))


def by_torch_pruning(task: Task, share: float) -> nn.Module:
    """Remove inner channels by the importance that torch-pruning takes by default."""
    model = copy.deepcopy(task.start)
    inner = [id(model.get_submodule(name)) for name in _inner(model)]
    kept = [each for each in model.modules() if isinstance(each, nn.Conv2d | nn.Linear) and id(each) not in inner]
    importance = torch_pruning.importance.GroupMagnitudeImportance()
    torch_pruning.pruner.BasePruner(
        model, EXAMPLE, importance=importance, pruning_ratio=share, ignored_layers=kept
    ).step()
    return model


def _inner(model: nn.Module) -> list[str]:
    return [name for name, _ in model.named_modules() if name.startswith("layer") and name.endswith("conv1")]


def _without(task: Task, share: float, rank: Callable[[torch.Tensor], torch.Tensor]) -> nn.Module:
    """Remove a share of each block's inner channels, those that rank lowest."""
    model = copy.deepcopy(task.start)
    for name in _inner(model):
        layer = model.get_submodule(name)
        gone = rank(layer.weight.detach()).argsort()[: round(share * layer.out_channels)].tolist()
        graph = torch_pruning.DependencyGraph().build_dependency(model, example_inputs=EXAMPLE)
        graph.get_pruning_group(layer, torch_pruning.prune_conv_out_channels, idxs=gone).prune()
    return model
