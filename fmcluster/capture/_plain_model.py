"""Plain model: the module under compilation and DistributedDataParallel, and its device."""

import torch
from torch import nn

from ._compat import uncompiled


def plain_model(model: nn.Module) -> nn.Module:
    """Look through `torch.compile` and DistributedDataParallel.

    Raises
    ------
    TypeError
        For what is not a module.
    ValueError
        For `nn.DataParallel`, whose replicas each see a part of a batch.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model is a {type(model).__name__}; expected a torch.nn.Module")
    if isinstance(model, nn.DataParallel):
        raise ValueError("nn.DataParallel splits batches over replicas; pass model.module, on one device, instead")
    inner = model.module if isinstance(model, nn.parallel.DistributedDataParallel) else model
    inner = uncompiled(inner)
    return model if inner is model else plain_model(inner)


def device_of(model: nn.Module) -> torch.device:
    """Return the device of a model's first parameter or buffer."""
    for tensor in (*model.parameters(), *model.buffers()):
        return tensor.device
    return torch.device("cpu")
