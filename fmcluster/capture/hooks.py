"""Forward hooks for the length of one block."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from ..errors import CaptureError
from ..store import LayerSpec

OnOutput = Callable[[str, int, nn.Module, torch.Tensor], None]


@contextmanager
def hooked(modules: Mapping[str, nn.Module], on_output: OnOutput) -> Iterator[None]:
    """Within the block, call ``on_output(name, call, module, output)`` whenever one of `modules` has fired.

    `call` counts how often the module fired since the block began. It runs on the current stream, before anything
    downstream can overwrite the output in place. The hooks are gone when the block is left, however it is left.
    """
    calls = dict.fromkeys(modules, 0)

    def hook_of(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(module: nn.Module, _inputs: Any, output: Any) -> None:
            if not isinstance(output, torch.Tensor):
                raise CaptureError(
                    f"layer {name!r} ({type(module).__name__}) returned a {type(output).__name__}; expected a tensor. "
                    f"Choose a layer inside or behind it."
                )
            calls[name] += 1
            on_output(name, calls[name] - 1, module, output)

        return hook

    handles = [module.register_forward_hook(hook_of(name)) for name, module in modules.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def discover(
    model: nn.Module, modules: Mapping[str, nn.Module], sample: torch.Tensor, *, dtype: str
) -> dict[tuple[str, int], LayerSpec]:
    """Show the model one sample, and note what the modules return.

    Returns
    -------
    dict of (str, int) to LayerSpec
        By module and number of the call, in forward order. A module that fires several times is a layer per call:
        ``name.call0``, ``name.call1``, ...

    Raises
    ------
    CaptureError
        Where a module did not fire, or returned something that is not a batch of vectors, tokens or maps.
    """
    seen: dict[tuple[str, int], tuple[tuple[int, ...], str]] = {}

    def note(name: str, call: int, module: nn.Module, output: torch.Tensor) -> None:
        kind = type(module).__name__
        if output.ndim not in (2, 3, 4) or output.shape[0] != 1 or not output.is_floating_point():
            raise CaptureError(
                f"layer {name!r} ({kind}) returned {str(output.dtype).removeprefix('torch.')} of shape "
                f"{tuple(output.shape)} for a batch of one; expected floating-point (1, channel), (1, token, channel) "
                f"or (1, channel, height, width). Leave it out of `layers`."
            )
        seen[name, call] = tuple(output.shape[1:]), kind

    with hooked(modules, note):
        model(sample)
    fired = {name for name, _ in seen}
    if silent := [name for name in modules if name not in fired]:
        more = f" (nor did {', '.join(silent[1:4])}{' and others' if len(silent) > 4 else ''})" if silent[1:] else ""
        raise CaptureError(
            f"layer {silent[0]!r} did not fire when the model was shown one sample{more}: the forward pass does not "
            f"go through the module's own call. Leave it out of `layers`."
        )
    often = {name for name, call in seen if call > 0}
    return {
        (name, call): LayerSpec(f"{name}.call{call}" if name in often else name, shape, dtype, kind)
        for (name, call), (shape, kind) in seen.items()
    }
