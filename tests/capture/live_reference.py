"""What a batch makes of every module, with its gradients, by means that have nothing in common with the package."""

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import nn


class Reference:
    """A copy of a model whose modules return clones, so that nothing downstream can overwrite what they returned."""

    def __init__(self, model: nn.Module) -> None:
        self.model = copy.deepcopy(model)
        self.calls: dict[str, list[torch.Tensor]] = {}
        for name, module in self.model.named_modules():
            if name:
                module.register_forward_hook(self._hook(name))

    def _hook(self, name: str) -> Callable[..., Any]:
        def hook(_module: nn.Module, _inputs: Any, output: Any) -> Any:
            if not isinstance(output, torch.Tensor):
                return output
            if output.requires_grad:
                output.retain_grad()
            self.calls.setdefault(name, []).append(output)
            return output.clone()

        return hook

    def activation(self, layer: str) -> torch.Tensor:
        return self._tensor(layer).detach()

    def gradient(self, layer: str) -> torch.Tensor | None:
        return self._tensor(layer).grad

    def _tensor(self, layer: str) -> torch.Tensor:
        name, _, call = layer.partition(".call")
        return self.calls[name][int(call or 0)]
