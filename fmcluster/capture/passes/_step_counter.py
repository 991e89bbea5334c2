"""Step counter: the optimizer steps that a model takes."""

from typing import Any

import torch
from torch import nn
from torch.optim.optimizer import register_optimizer_step_post_hook
from torch.utils.hooks import RemovableHandle


class StepCounter:
    """Counts the steps of any optimizer that holds one of a model's parameters, between `start` and `stop`.

    A step that a gradient scaler skips is not one.
    """

    def __init__(self, model: nn.Module) -> None:
        self.count = 0
        self._model = model
        self._handle: RemovableHandle | None = None

    def start(self) -> None:
        """Begin to count."""
        self._handle = register_optimizer_step_post_hook(self._stepped)

    def stop(self) -> None:
        """Count no more."""
        if self._handle is not None:
            self._handle.remove()
            self._handle = None

    def _stepped(self, optimizer: torch.optim.Optimizer, *_: Any) -> None:
        held = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
        if any(id(parameter) in held for parameter in self._model.parameters()):
            self.count += 1
