"""Isolation: a forward pass that leaves no trace in the model, the random generators or the data set."""

import random
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.parameter import is_lazy

from .._compat import buffers_of, eagerly, tensors_of
from ._held_state import HeldState, few_numbers, put_counters_back_by, same_bits, start_anew


@contextmanager
def isolated(model: nn.Module, *, gradients: bool = False, reads: Sequence[object] = ()) -> Iterator[None]:
    """Within the block the model is in evaluation mode, without autocast, compilation or CUDA graphs.

    And without gradients, unless they are asked for; then whoever asks sees to it that they reach no parameter.
    Afterwards every module's training flag, every buffer, the global random generators of Python, NumPy and torch
    (CUDA's included) and those that the modules and `reads` (a loader, its samplers, a data set, a loss) can reach, the
    counters and orders that `reads` can, and those of modules of one's own are bit for bit what they were. Every step
    of putting back is done, even where another fails. The flags are set directly: a module's own `train` may do more
    than set a flag.
    """
    if isinstance(model, torch.jit.ScriptModule):
        raise TypeError(
            f"the model is a TorchScript {type(model).__name__}, whose modules cannot be hooked; pass the module that "
            f"it was scripted from"
        )
    check_has_weights(model)
    modules = tuple(model.modules())
    with ExitStack() as restored:
        restored.callback(_put_flags_back, [(module, module.training) for module in modules])
        for part in (modules, *(tuple(read.modules()) for read in reads if isinstance(read, nn.Module))):
            _remember_buffers(restored, part)
        _remember_generators(restored, HeldState.of((*modules, *reads)))
        HeldState.of(reads).put_attributes_back_by(restored)
        put_counters_back_by(restored, modules)
        devices = {tensor.device for module in modules for tensor in tensors_of(module)} | {torch.device("cpu")}
        for module in modules:
            if module.training is not False:
                module.training = False
        with ExitStack() as stack:
            stack.enter_context(torch.set_grad_enabled(gradients))
            stack.enter_context(eagerly(model))
            for device in sorted({device.type for device in devices}):
                stack.enter_context(torch.autocast(device, enabled=False))
            yield


def check_has_weights(model: nn.Module) -> None:
    """Raise `ValueError` for a lazy module that has no weights yet."""
    if any(_has_no_weights_yet(module) for module in model.modules()):
        lazy = [name for name, module in model.named_modules() if _has_no_weights_yet(module)]
        raise ValueError(
            f"module {lazy[0]!r} is lazy and has no weights yet; show the model a batch before it is recorded, so that "
            f"its weights are drawn as they would be without a recorder"
        )


def _has_no_weights_yet(module: nn.Module) -> bool:
    return any(map(is_lazy, tensors_of(module)))


@contextmanager
def same_random_numbers(model: nn.Module) -> Iterator[None]:
    """Within the block, random numbers are the same each time: all generators start from one seed, and are put back.

    So a model that draws some in evaluation mode, as for a mask or by a dropout that ignores the mode, gives the same
    for the same weights and inputs.
    """
    with ExitStack() as restored:
        held = HeldState.of(tuple(model.modules()))
        _remember_generators(restored, held)
        for generator in held.generators:
            start_anew(generator)
        random.seed(0)
        np.random.seed(0)  # noqa: NPY002
        torch.default_generator.manual_seed(0)  # torch.manual_seed would seed a CUDA that is not there yet, too
        if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
            torch.cuda.manual_seed_all(0)
        yield


def _remember_generators(restored: ExitStack, held: HeldState) -> None:
    """Note the state of the global random generators and of those that are held."""
    restored.callback(random.setstate, random.getstate())
    restored.callback(np.random.set_state, np.random.get_state())  # noqa: NPY002
    restored.callback(torch.set_rng_state, torch.get_rng_state())
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        restored.callback(torch.cuda.set_rng_state_all, torch.cuda.get_rng_state_all())
    held.put_generators_back_by(restored)


def _put_flags_back(before: Sequence[tuple[nn.Module, bool]]) -> None:
    with ExitStack() as restored:
        for module, flag in before:
            if getattr(module, "training", None) is not flag:
                restored.callback(setattr, module, "training", flag)


def _remember_buffers(restored: ExitStack, modules: Sequence[nn.Module]) -> None:
    named = [(holder, dict(holder)) for holder in map(buffers_of, modules)]
    buffers = {id(buffer): buffer for _, names in named for buffer in names.values() if buffer is not None}
    few = [(buffer, few_numbers(buffer)) for buffer in buffers.values()]
    copies = [(buffer, buffer.detach().clone() if numbers is None else numbers.copy()) for buffer, numbers in few]
    restored.callback(_put_all_back, named, copies)


def _put_all_back(
    named: Sequence[tuple[dict[str, Any], dict[str, Any]]],
    copies: Sequence[tuple[torch.Tensor, torch.Tensor | np.ndarray]],
) -> None:
    """Put names and values of buffers back, each step even where another fails; what did not change is not touched."""
    with ExitStack() as restored:
        for holder, names in named:
            if names or holder:
                restored.callback(_put_back, holder, names)
        for buffer, before in copies:
            if isinstance(before, torch.Tensor):
                restored.callback(_copy_back, buffer, before)
                continue
            now = few_numbers(buffer)
            if now is None or now.tobytes() != before.tobytes():
                restored.callback(_copy_back, buffer, torch.from_numpy(before))


def _put_back(holder: dict[str, Any], names: dict[str, Any]) -> None:
    """Put the tensors back under their names: a forward pass may have put new ones there."""
    for name in holder.keys() - names.keys():
        del holder[name]
    holder.update({name: buffer for name, buffer in names.items() if holder.get(name) is not buffer})


def _copy_back(buffer: torch.Tensor, before: torch.Tensor) -> None:
    with torch.no_grad():
        if not same_bits(buffer, before):
            buffer.copy_(before)
