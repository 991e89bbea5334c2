"""The arms of `decide.py`: what each trains, and training at a budget of multiply-adds."""

import copy
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from math import cos, pi

import numpy as np
import torch
from resnet20 import ResNet20
from shifts import Task
from torch import nn
from torch.nn import functional
from torch.optim import SGD
from torch.utils.data import TensorDataset
from torch.utils.flop_counter import FlopCounterMode

from fmcluster.decide.building import freeze

BATCH_SIZE, RATE = 32, 0.01
PARTS = {
    "stem": ("conv1", "bn1"),
    "layer1": ("layer1",),
    "layer2": ("layer2",),
    "layer3": ("layer3",),
    "head": ("linear",),
}
BODY = ("stem", "layer1", "layer2", "layer3")


@dataclass
class Arm:
    """What is trained.

    Attributes
    ----------
    model : Module
        The network before training, frozen as it is to be.
    before_step : callable
        Called with the network and the share of the budget that is spent; may freeze more of it.
    scale : callable
        Called with the network's gradients there; returns by which number each parameter's learning rate is
        multiplied, or None.
    drawn_anew : bool
        Whether the head was.
    """

    model: nn.Module
    before_step: Callable[[nn.Module, float], None] = lambda _model, _share: None
    scale: Callable[[nn.Module], dict[str, float]] | None = None
    drawn_anew: bool = False


@dataclass
class Trained:
    """A network after training, and what that took."""

    model: nn.Module
    steps: int = 0
    multiply_adds: float = 0.0
    losses: list[float] = field(default_factory=list)


def modules_of(parts: Collection[str]) -> list[str]:
    return [module for part in parts for module in PARTS[part]]


def frozen(start: nn.Module, parts: Collection[str], *, statistics: bool = False) -> nn.Module:
    """Return a copy of which some parts are frozen; with `statistics`, their normalizations follow the images."""
    model = copy.deepcopy(start)
    if statistics:
        for name in modules_of(parts):
            model.get_submodule(name).requires_grad_(False)
    else:
        freeze(model, modules_of(parts))
    return model


def full(task: Task, _draw: np.random.Generator) -> Arm:
    return Arm(copy.deepcopy(task.start))


def head(task: Task, _draw: np.random.Generator) -> Arm:
    return Arm(frozen(task.start, BODY))


def head_and_statistics(task: Task, _draw: np.random.Generator) -> Arm:
    return Arm(frozen(task.start, BODY, statistics=True))


def bottom_up(task: Task, _draw: np.random.Generator) -> Arm:
    """Freeze the stem and the first stage after a third of the budget, the second stage after two thirds."""
    calendar = {1 / 3: ("stem", "layer1"), 2 / 3: ("layer2",)}

    def before_step(model: nn.Module, share: float) -> None:
        for since in [each for each in calendar if share >= each]:
            freeze(model, modules_of(calendar.pop(since)))

    return Arm(copy.deepcopy(task.start), before_step)


def at_random(task: Task, draw: np.random.Generator) -> Arm:
    """Train each part with probability one half, at least one; a new head always."""
    while True:
        trained = [part for part in PARTS if draw.random() < 0.5 or (part == "head" and task.new_head)]
        if trained:
            return Arm(frozen(task.start, [part for part in PARTS if part not in trained]))


def relative_gradient(task: Task, _draw: np.random.Generator) -> Arm:
    """Scale each weight's learning rate by its gradient's norm over its own, relative to the largest: Auto-RGN.

    Of convolutions and linear layers, mean over the steps so far; normalizations are not trained, but follow the images
    (Y. Lee et al., Surgical fine-tuning improves adaptation to distribution shifts, ICLR 2023).
    """
    model = copy.deepcopy(task.start)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.requires_grad_(False)
    sums: dict[str, float] = {}

    def scale(model: nn.Module) -> dict[str, float]:
        for name, value in model.named_parameters():
            if value.grad is not None:
                sums[name] = sums.get(name, 0.0) + float(value.grad.norm() / value.detach().norm().clamp_min(1e-12))
        most = max(sums.values())
        return {name: each / most for name, each in sums.items()}

    return Arm(model, scale=scale)


ARMS: dict[str, Callable[[Task, np.random.Generator], Arm]] = {
    "full": full,
    "head": head,
    "head + statistics": head_and_statistics,
    "bottom-up": bottom_up,
    "random": at_random,
    "relative gradient": relative_gradient,
}


def train(
    arm: Arm,
    data: TensorDataset,
    *,
    seed: int,
    budget: float = 0.0,
    rate: float = RATE,
    n_steps: int | None = None,
) -> Trained:
    """Train until the multiply-adds of forward and backward passes reach the budget, or for a number of steps.

    The learning rate falls with the share of the budget that is spent, as half a cosine, whatever is trained.
    """
    model, before_step = arm.model, arm.before_step
    images, labels = data.tensors
    answers = model.train()
    if not any(value.requires_grad for value in [*model.parameters()][:-2]) and not model.bn1.training:
        answers, images = model.linear, _features(model, images)  # the same numbers, computed once; counted each time
    order = torch.Generator().manual_seed(seed)
    optimizer = SGD([{"params": [value], "name": name} for name, value in model.named_parameters()], momentum=0.9)
    done, queue = Trained(model), []
    while done.steps < n_steps if n_steps else done.multiply_adds < budget:
        share = done.steps / n_steps if n_steps else done.multiply_adds / budget
        model.train()
        before_step(model, share)
        if not queue:
            queue = list(torch.randperm(len(labels), generator=order).split(BATCH_SIZE))
            queue = [each for each in queue if len(each) == BATCH_SIZE]
        chosen = queue.pop()
        optimizer.zero_grad()
        loss = functional.cross_entropy(answers(images[chosen]), labels[chosen])
        loss.backward()
        scales = {} if arm.scale is None else arm.scale(model)
        for group in optimizer.param_groups:
            group["lr"] = rate * 0.5 * (1 + cos(pi * share)) * scales.get(group["name"], 1.0)
        optimizer.step()
        done.losses.append(float(loss.detach()))
        done.steps += 1
        done.multiply_adds += step_cost(model)
    model.eval()
    return done


@torch.no_grad()
def _features(model: ResNet20, images: torch.Tensor) -> torch.Tensor:
    model.eval()
    return torch.cat([model.features(each) for each in images.split(100)])


_COUNTED: dict[object, float] = {}


def step_cost(model: nn.Module) -> float:
    """Count the multiply-adds of one step as the network stands: of what is frozen, no backward pass."""
    shapes = tuple((name, tuple(value.shape), value.requires_grad) for name, value in model.named_parameters())
    if shapes not in _COUNTED:
        counted = copy.deepcopy(model)
        with FlopCounterMode(display=False) as counter:
            loss = functional.cross_entropy(
                counted(torch.zeros(BATCH_SIZE, 3, 32, 32)), torch.zeros(BATCH_SIZE, dtype=torch.long)
            )
            loss.backward()
        _COUNTED[shapes] = counter.get_total_flops() / 2
    return _COUNTED[shapes]


@torch.no_grad()
def accuracy(model: nn.Module, data: TensorDataset) -> float:
    model.eval()
    images, labels = data.tensors
    right = sum(int((model(x).argmax(1) == y).sum()) for x, y in zip(images.split(100), labels.split(100), strict=True))
    return right / len(labels)


def of_full(model: ResNet20, n_steps: int) -> float:
    """Return the budget: what so many steps cost where everything is trained."""
    return n_steps * step_cost(model)
