"""Forward hooks for the length of one block."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from ..errors import CaptureError
from ..store import LayerSpec


@dataclass(frozen=True)
class Firing:
    """One tensor of one call of a module.

    Attributes
    ----------
    name : str
        The module's name.
    call : int
        How often it had fired before, in this forward pass.
    part : str
        Which tensor of its output: empty where that is a tensor, ``[0]``, ``[1]`` ... of a tuple, ``[key]`` of a
        mapping.
    """

    name: str
    call: int
    part: str


OnOutput = Callable[[Firing, nn.Module, torch.Tensor], None]


@contextmanager
def hooked(modules: Mapping[str, nn.Module], on_output: OnOutput) -> Iterator[None]:
    """Within the block, call ``on_output(firing, module, tensor)`` for each tensor that one of `modules` returns.

    It runs on the current stream, before anything downstream can overwrite the output in place. The hooks are gone when
    the block is left, however it is left.
    """
    calls = dict.fromkeys(modules, 0)

    def hook_of(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(module: nn.Module, _inputs: Any, output: Any) -> None:
            call = calls[name]
            calls[name] += 1
            empty = True
            for part, tensor in _tensors(output):
                empty = False
                on_output(Firing(name, call, part), module, tensor)
            if empty:
                raise CaptureError(
                    f"layer {name!r} ({type(module).__name__}) returned a {type(output).__name__} without tensors of "
                    f"vectors, tokens or maps; expected some. Choose a layer inside or behind it."
                )

        return hook

    handles = [module.register_forward_hook(hook_of(name)) for name, module in modules.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def discover(
    model: nn.Module, modules: Mapping[str, nn.Module], *, sample: torch.Tensor, dtype: str
) -> dict[Firing, LayerSpec]:
    """Show the model one sample, and note what the modules return.

    Returns
    -------
    dict of Firing to LayerSpec
        In forward order. A module that fires several times is a layer per call (``name.call0``, ``name.call1``, ...),
        one that returns several tensors is a layer per tensor (``name[0]``, ``name[key]``); what else is in such an
        output is left out.

    Raises
    ------
    CaptureError
        Where a module did not fire, or returned something that is not a batch of vectors, tokens or maps.
    """
    seen: dict[Firing, tuple[tuple[int, ...], str]] = {}

    def note(firing: Firing, module: nn.Module, output: torch.Tensor) -> None:
        kind = type(module).__name__
        if not _is_batch(output) or output.shape[0] != 1:
            if firing.part:
                return
            raise CaptureError(
                f"layer {firing.name!r} ({kind}) returned {str(output.dtype).removeprefix('torch.')} of shape "
                f"{tuple(output.shape)} for a batch of one; expected floating-point (1, channel), (1, token, channel) "
                f"or (1, channel, height, width). Leave it out of `layers`."
            )
        seen[firing] = tuple(output.shape[1:]), kind

    with hooked(modules, note):
        model(sample)
    fired = {firing.name for firing in seen}
    if silent := [name for name in modules if name not in fired]:
        more = f" (nor did {', '.join(silent[1:4])}{' and others' if len(silent) > 4 else ''})" if silent[1:] else ""
        raise CaptureError(
            f"layer {silent[0]!r} did not fire when the model was shown one sample{more}: the forward pass does not "
            f"go through the module's own call. Leave it out of `layers`."
        )
    often = {firing.name for firing in seen if firing.call > 0}
    return {
        firing: LayerSpec(_layer_name(firing, often=firing.name in often), shape, dtype, kind)
        for firing, (shape, kind) in seen.items()
    }


def _layer_name(firing: Firing, *, often: bool) -> str:
    return f"{firing.name}.call{firing.call}{firing.part}" if often else f"{firing.name}{firing.part}"


def _is_batch(tensor: torch.Tensor) -> bool:
    return tensor.ndim in (2, 3, 4) and tensor.is_floating_point()


def _tensors(output: Any, part: str = "") -> Iterator[tuple[str, torch.Tensor]]:
    """Find the tensors of an output; within tuples and mappings, those that may be batches of vectors or maps."""
    if isinstance(output, torch.Tensor):
        if not part or _is_batch(output):
            yield part, output
    elif isinstance(output, Mapping):
        for key, value in output.items():
            yield from _tensors(value, f"{part}[{key}]")
    elif isinstance(output, tuple | list):
        for position, value in enumerate(output):
            yield from _tensors(value, f"{part}[{position}]")
