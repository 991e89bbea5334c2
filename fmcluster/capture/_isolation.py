"""Isolation: a block whose forward passes leave no trace on a model or on random generators."""

import random
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import numpy as np
import torch
from torch import nn

from ._compat import buffers_of


@contextmanager
def isolated(model: nn.Module, *, gradients: bool = False) -> Iterator[None]:
    """Within the block the model is in evaluation mode, without autocast or compilation.

    And without gradients, unless they are asked for; then whoever asks sees to it that they reach no parameter.
    Afterwards every module's training flag, every buffer, and the global random generators of Python, NumPy and torch
    (CUDA's included) are bit for bit what they were. The flags are set directly: a module's own `train` may do more
    than set a flag.
    """
    flags = [(module, module.training) for module in model.modules()]
    held = [(buffers_of(module), dict(buffers_of(module))) for module in model.modules()]
    buffers = [(buffer, buffer.detach().clone()) for buffer in model.buffers()]
    python, numpy, cpu = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []  # type: ignore[no-untyped-call]
    devices = {tensor.device.type for tensor in (*model.parameters(), *model.buffers())} | {"cpu"}
    try:
        for module, _ in flags:
            module.training = False
        with ExitStack() as stack:
            stack.enter_context(torch.set_grad_enabled(gradients))
            stack.enter_context(torch.compiler.set_stance("force_eager"))
            for device in sorted(devices):
                stack.enter_context(torch.autocast(device, enabled=False))
            yield
    finally:
        for module, training in flags:
            module.training = training
        for holder, names in held:  # a forward pass may have put new tensors there instead
            for name in holder.keys() - names.keys():
                del holder[name]
            holder.update({name: buffer for name, buffer in names.items() if holder.get(name) is not buffer})
        with torch.no_grad():
            for buffer, before in buffers:
                if not _same_bits(buffer, before):
                    buffer.copy_(before)
        random.setstate(python)
        np.random.set_state(numpy)  # noqa: NPY002
        torch.set_rng_state(cpu)
        if cuda:
            torch.cuda.set_rng_state_all(cuda)


def _same_bits(one: torch.Tensor, other: torch.Tensor) -> bool:
    if one.layout != torch.strided:
        return False
    return torch.equal(*(t.detach().reshape(-1).contiguous().view(torch.uint8) for t in (one, other)))
