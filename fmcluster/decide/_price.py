"""Prices: what a step of training costs, counted of a network as it stands, and measured on this machine."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from copy import deepcopy
from dataclasses import dataclass
from statistics import median
from time import perf_counter
from typing import Any

import torch
from torch import nn

from ..capture import ModelInputs, isolated
from ._costs import Costs, multiply_adds
from ._first_input import hook_first
from ._network import NORMALIZATION, PARAMETRIC
from ._outcomes import scores_of

_TOO_FEW = "more than 1 value per channel"  # what a normalization says in training mode of one number, of no variance


@dataclass(frozen=True)
class Seconds:
    """How long a step of training takes: forward and backward pass of a batch.

    Attributes
    ----------
    median, shortest, longest : float
        Over the rounds, in seconds.
    """

    median: float
    shortest: float
    longest: float


def price(model: nn.Module, inputs: ModelInputs) -> Costs:
    """Count what a step costs, of one sample, as the network stands: what is frozen has no backward pass.

    Of a convolution or a linear layer, the gradient with respect to its inputs is counted where these need one, and the
    gradient with respect to its weights where it is trained; its inputs are kept for the latter, as those of a
    normalization are where it is trained or hands gradients on.

    Parameters
    ----------
    model : Module
        The network; it is left as it was.
    inputs : ModelInputs
        What it can be called with.
    """
    found: list[Costs] = []

    def hook(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        given = args[0] if args and isinstance(args[0], torch.Tensor) else None
        if given is None or not isinstance(output, torch.Tensor):
            return
        weight = getattr(module, "weight", None)
        trained = isinstance(weight, torch.Tensor) and weight.requires_grad
        kept = 4.0 * given[0].numel()
        if isinstance(module, PARAMETRIC):
            forward = multiply_adds(module, output[0].numel())
            backward = forward * (int(given.requires_grad) + int(trained))
            found.append(Costs(forward, backward, kept=kept if trained else 0.0))
        elif isinstance(module, NORMALIZATION):
            found.append(Costs(kept=kept if trained or given.requires_grad else 0.0))

    with ExitStack() as stack:
        for module in model.modules():
            stack.callback(hook_first(module, hook, before=False))
        with isolated(model, gradients=True):
            inputs.rows(slice(0, 2)).show(model)
    counted = Costs.total(found)
    return counted + Costs(parameters=sum(each.numel() for each in model.parameters()))


def measure_seconds(models: Sequence[nn.Module], inputs: ModelInputs, *, rounds: int = 7) -> list[Seconds] | None:
    """Measure a step of several networks in turn, so that what else the machine does meets all of them.

    Copies are measured, in training mode; the sum of squares of the scores stands for the loss.

    Parameters
    ----------
    models : sequence of Module
        The networks; they are left as they were.
    inputs : ModelInputs
        A batch.
    rounds : int
        How often each takes a step, after one that is not counted.

    Returns
    -------
    list of Seconds, or None
        Of each network; None where no step can be taken, as of a batch of one image, of which a normalization is given
        one position.
    """
    steps = [_step(deepcopy(model).train(), inputs) for model in models]
    times: list[list[float]] = [[] for _ in steps]
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()  # type: ignore[no-untyped-call]
    with torch.random.fork_rng(devices=devices):  # dropout draws
        for number in range(rounds + 1):
            for step, taken in zip(steps, times, strict=True):
                begun = perf_counter()
                try:
                    step()
                except ValueError as error:
                    if _TOO_FEW not in str(error):
                        raise
                    return None
                if number:
                    taken.append(perf_counter() - begun)
    return [Seconds(median(each), min(each), max(each)) for each in times]


def _step(model: nn.Module, inputs: ModelInputs) -> Callable[[], None]:
    device = inputs.first.device

    def step() -> None:
        scores = scores_of(inputs.show(model))
        if scores.requires_grad:
            scores.square().sum().backward()  # type: ignore[no-untyped-call]
        for parameter in model.parameters():
            parameter.grad = None
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    return step
