"""The reference of the zoo: clones of what every module returns, and cheap weights."""

import dataclasses
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from fmcluster.store import Run


def fill(skeleton: nn.Module) -> nn.Module:
    """Give a model without memory random weights, in less time than its own initialization takes."""
    model = skeleton.to_empty(device="cpu")
    with torch.no_grad():
        for name, tensor in (*model.named_parameters(), *model.named_buffers()):
            if not tensor.is_floating_point():
                tensor.zero_()
            elif name.endswith("running_var"):
                tensor.uniform_(0.5, 1.5)
            else:
                tensor.uniform_(-1, 1).mul_(2 / max(1, tensor[0].numel() if tensor.ndim else 1) ** 0.5)
    return model


def without_repetitions(model: nn.Module) -> nn.Module:
    """Remove from a model the third and later of equal blocks that follow one another, and return it.

    They are recorded as the second is; two stay, as shifted windows come every second time.
    """
    for blocks in list(model.modules()):
        if isinstance(blocks, nn.Sequential):  # those of a list may stand side by side
            built = [(name, _structure(block)) for name, block in blocks.named_children()]
            for (_, first), (_, second), (name, third) in zip(built, built[1:], built[2:], strict=False):
                if third and first == second == third:
                    delattr(blocks, name)
    return model


def _structure(block: nn.Module) -> list[object]:
    """Return modules and shapes of weights by name; nothing of a module without others in it."""
    if not list(block.children()):
        return []
    modules = [(name, type(module)) for name, module in block.named_modules()]
    return [*modules, *((name, tensor.shape) for name, tensor in block.state_dict().items())]


Clones = dict[str, npt.NDArray[np.floating]]


@contextmanager
def cloning(model: nn.Module) -> Iterator[Clones]:
    """Yield what each module returns within the block, by the names under which it is recorded, once it is left."""
    seen: dict[str, list[dict[str, torch.Tensor]]] = {}

    def hook(name: str) -> Any:
        def keep(_module: nn.Module, _inputs: Any, output: Any) -> None:
            seen.setdefault(name, []).append({part: t.detach().clone() for part, t in tensors(output)})

        return keep

    handles = [module.register_forward_hook(hook(name)) for name, module in model.named_modules() if name]
    named: Clones = {}
    try:
        yield named
    finally:
        for handle in handles:
            handle.remove()
    for name, calls in seen.items():
        for number, parts in enumerate(calls):
            call = f".call{number}" if len(calls) > 1 else ""
            named |= {f"{name}{call}{part}": tensor.float().numpy() for part, tensor in parts.items()}


def clones(model: nn.Module, args: tuple[Any, ...], **kwargs: Any) -> Clones:
    """Return what each module returns in evaluation mode."""
    modes = {module: module.training for module in model.modules()}
    state = torch.get_rng_state()
    model.eval()
    torch.manual_seed(0)
    with cloning(model) as named, torch.no_grad():
        model(*args, **kwargs)
    torch.set_rng_state(state)
    for module, training in modes.items():
        module.training = training
    return named


def tensors(output: Any, part: str = "") -> Iterator[tuple[str, torch.Tensor]]:
    if isinstance(output, torch.Tensor):
        yield part, output
    elif isinstance(output, Mapping):
        for key, value in output.items():
            yield from tensors(value, f"{part}[{key}]")
    elif isinstance(output, tuple | list):
        for position, value in enumerate(output):
            yield from tensors(value, f"{part}[{position}]")
    elif dataclasses.is_dataclass(output) and not isinstance(output, type):
        for field in dataclasses.fields(output):
            yield from tensors(getattr(output, field.name), f"{part}[{field.name}]")


def state_of(model: nn.Module) -> dict[str, Any]:
    """Return what a recorder must leave as it is: modes, hooks, and sums of every parameter and buffer."""
    state: dict[str, Any] = {name: module.training for name, module in model.named_modules()}
    state |= {f"hooks of {name}": len(module._forward_hooks) for name, module in model.named_modules()}
    state |= {name: tensor.double().sum().item() for name, tensor in model.state_dict().items()}
    return state


def check(run: Run, returned: dict[str, npt.NDArray[np.floating]], *, snapshot: int = 0) -> None:
    """Compare every layer of a run with the clones: bit for bit, with the channels where they are stored."""
    for layer in map(run.__getitem__, run.layers):
        expected, found = returned[layer.name], layer.read(snapshot=snapshot)
        if len(expected) != len(found):  # several rows for each sample, in an order of their own
            np.testing.assert_array_equal(np.sort(expected, axis=None), np.sort(found, axis=None), layer.name)
        else:
            moved = np.moveaxis(expected, layer.channel_axis, layer.dimensions.index("channel") - 1)
            np.testing.assert_array_equal(moved, found, layer.name)
