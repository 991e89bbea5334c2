"""Isolation: a forward pass that leaves no trace in the model, the random generators or the data set."""

import random
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from types import BuiltinMethodType, CellType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.parameter import is_lazy

from ._compat import buffers_of, eagerly

_GENERATORS = (torch.Generator, np.random.Generator, np.random.RandomState, random.Random)
_PLAIN = (str, bytes, int, float, complex, np.ndarray, torch.Tensor)  # which hold no generators
_MOST_ENTRIES, _MOST_OBJECTS = 10_000, 100_000  # a longer list is of items; a search that takes seconds is none


@contextmanager
def isolated(model: nn.Module, *, gradients: bool = False, reads: Sequence[object] = ()) -> Iterator[None]:
    """Within the block the model is in evaluation mode, without autocast, compilation or CUDA graphs.

    And without gradients, unless they are asked for; then whoever asks sees to it that they reach no parameter.
    Afterwards every module's training flag, every buffer, and the global random generators of Python, NumPy and torch
    (CUDA's included), and those that the modules and `reads` (a loader, its samplers, a data set) hold, are bit for bit
    what they were. Every step of putting back is done, even where another fails. The flags are set directly: a module's
    own `train` may do more than set a flag.
    """
    if isinstance(model, torch.jit.ScriptModule):
        raise TypeError(
            f"the model is a TorchScript {type(model).__name__}, whose modules cannot be hooked; pass the module that "
            f"it was scripted from"
        )
    if lazy := [name for name, module in model.named_modules() if _has_no_weights_yet(module)]:
        raise ValueError(
            f"module {lazy[0]!r} is lazy and has no weights yet; show the model a batch before it is recorded, so that "
            f"its weights are drawn as they would be without a recorder"
        )
    with ExitStack() as restored:
        for module in model.modules():
            restored.callback(setattr, module, "training", module.training)
            restored.callback(_put_back, buffers_of(module), dict(buffers_of(module)))
        for buffer in model.buffers():
            restored.callback(_copy_back, buffer, buffer.detach().clone())
        _remember_generators(restored, (*model.modules(), *reads))
        devices = {tensor.device.type for tensor in (*model.parameters(), *model.buffers())} | {"cpu"}
        for module in model.modules():
            module.training = False
        with ExitStack() as stack:
            stack.enter_context(torch.set_grad_enabled(gradients))
            stack.enter_context(eagerly(model))
            for device in sorted(devices):
                stack.enter_context(torch.autocast(device, enabled=False))
            yield


def _has_no_weights_yet(module: nn.Module) -> bool:
    return any(is_lazy(tensor) for tensor in (*module.parameters(False), *module.buffers(False)))


@contextmanager
def same_random_numbers(model: nn.Module) -> Iterator[None]:
    """Within the block, random numbers are the same each time: all generators start from one seed, and are put back.

    So a model that draws some in evaluation mode, as for a mask or by a dropout that ignores the mode, gives the same
    for the same weights and inputs.
    """
    with ExitStack() as restored:
        for generator in _remember_generators(restored, tuple(model.modules())):
            _seed(generator)
        random.seed(0)
        np.random.seed(0)  # noqa: NPY002
        torch.default_generator.manual_seed(0)  # torch.manual_seed would seed a CUDA that is not there yet, too
        if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
            torch.cuda.manual_seed_all(0)
        yield


def _remember_generators(restored: ExitStack, holders: Sequence[object]) -> list[Any]:
    """Note the state of the global random generators and of those that are held; return these."""
    restored.callback(random.setstate, random.getstate())
    restored.callback(np.random.set_state, np.random.get_state())  # noqa: NPY002
    restored.callback(torch.set_rng_state, torch.get_rng_state())
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        restored.callback(torch.cuda.set_rng_state_all, torch.cuda.get_rng_state_all())
    held = _generators(holders)
    for generator in held:
        if isinstance(generator, np.random.Generator):
            restored.callback(setattr, generator.bit_generator, "state", generator.bit_generator.state)
        elif isinstance(generator, random.Random):
            restored.callback(generator.setstate, generator.getstate())
        else:  # of torch, or NumPy's older kind
            restored.callback(generator.set_state, generator.get_state())
    return held


def _seed(generator: Any) -> None:
    if isinstance(generator, torch.Generator):
        generator.manual_seed(0)
    elif isinstance(generator, np.random.Generator):
        generator.bit_generator.state = type(generator.bit_generator)(0).state
    else:
        generator.seed(0)


def _generators(holders: Sequence[object]) -> list[Any]:
    """Find the random generators that objects can reach.

    By their attributes, entries and slots, and by what their functions are bound to, enclose, or name as a global.
    """
    found: dict[int, Any] = {}
    seen: dict[int, object] = {}  # the objects too: an id is another's once its owner is gone
    todo = deque(holders)
    while todo and len(seen) < _MOST_OBJECTS:
        holder = todo.popleft()
        if holder is None or id(holder) in seen or isinstance(holder, (*_PLAIN, type, ModuleType)):
            continue
        seen[id(holder)] = holder
        if isinstance(holder, _GENERATORS):
            found[id(holder)] = holder
        else:
            todo += _reached_from(holder)
    return list(found.values())


def _reached_from(holder: object) -> list[object]:
    if isinstance(holder, Mapping):
        return list(holder.values()) if len(holder) <= _MOST_ENTRIES else []
    if isinstance(holder, list | tuple | set):
        return list(holder) if len(holder) <= _MOST_ENTRIES else []
    if isinstance(holder, MethodType):
        return [holder.__self__, holder.__func__]
    if isinstance(holder, BuiltinMethodType):
        return [holder.__self__]
    if isinstance(holder, partial):
        return [holder.func, *holder.args, *holder.keywords.values()]
    if isinstance(holder, FunctionType):
        enclosed = [cell.cell_contents for cell in holder.__closure__ or () if _is_filled(cell)]
        named = [holder.__globals__.get(name) for name in holder.__code__.co_names]
        return [*enclosed, *(each for each in named if isinstance(each, _GENERATORS))]
    slots = [name for each in type(holder).__mro__ for name in vars(each).get("__slots__", ())]
    attributes = vars(holder) if hasattr(holder, "__dict__") else {}
    kept = [value for name, value in attributes.items() if name not in ("_parameters", "_buffers")]
    methods = [getattr(type(holder), name, None) for name in ("forward", "__call__", "__getitem__", "__iter__")]
    functions = [each for each in methods if isinstance(each, FunctionType)]
    return [*kept, *(getattr(holder, name, None) for name in slots if isinstance(name, str)), *functions]


def _is_filled(cell: CellType) -> bool:
    try:
        return cell.cell_contents is not None
    except ValueError:  # of a name that was never given a value
        return False


def _put_back(holder: dict[str, Any], names: dict[str, Any]) -> None:
    """Put the tensors back under their names: a forward pass may have put new ones there."""
    for name in holder.keys() - names.keys():
        del holder[name]
    holder.update({name: buffer for name, buffer in names.items() if holder.get(name) is not buffer})


def _copy_back(buffer: torch.Tensor, before: torch.Tensor) -> None:
    with torch.no_grad():
        if not _same_bits(buffer, before):
            buffer.copy_(before)


def _same_bits(one: torch.Tensor, other: torch.Tensor) -> bool:
    if one.layout != torch.strided:
        return False
    plain = (t.detach().resolve_conj().resolve_neg() for t in (one, other))
    return torch.equal(*(t.reshape(-1).contiguous().view(torch.uint8) for t in plain))
