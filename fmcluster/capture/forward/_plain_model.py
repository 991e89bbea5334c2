"""Plain model: the module under compilation and DistributedDataParallel, and its device."""

import torch
from torch import nn

from .._compat import is_exported, is_fake, uncompiled


def plain_model(model: nn.Module) -> nn.Module:
    """Look through `torch.compile` and DistributedDataParallel.

    Raises
    ------
    TypeError
        For what is not a module, or is of TorchScript.
    ValueError
        For `nn.DataParallel`, whose replicas each see a part of a batch, and for weights without values.
    """
    if type(model).__name__ == "ExportedProgram":
        raise TypeError(
            "model is an ExportedProgram of torch.export; pass the module that it was exported from, or "
            "torch.export.unflatten(program)"
        )
    if not isinstance(model, nn.Module):
        raise TypeError(f"model is a {type(model).__name__}; expected a torch.nn.Module")
    if isinstance(model, nn.DataParallel):
        raise ValueError("nn.DataParallel splits batches over replicas; pass model.module, on one device, instead")
    scripted = next((each for each in model.modules() if isinstance(each, torch.jit.ScriptModule)), None)
    if scripted is not None:
        raise TypeError(
            f"the model is, or holds, a TorchScript {type(scripted).__name__}, whose modules cannot be hooked; pass "
            f"the module that it was scripted from"
        )
    if is_exported(model):
        raise TypeError(
            "the model is the graph of a torch.export program, which calls operations and none of its modules, so that "
            "hooks do not fire; pass the module that it was exported from, or torch.export.unflatten(program)"
        )
    tensors = [*model.parameters(), *model.buffers()]
    devices = {tensor.device.type for tensor in tensors}
    if devices == {"meta"}:  # where some have values, others may be loaded as they are needed
        raise ValueError("the model is on the device 'meta', without values; load its weights, or call to_empty, first")
    if any(map(is_fake, tensors)):
        raise ValueError("the model holds fake tensors, without values; make it outside of FakeTensorMode")
    inner = model.module if isinstance(model, nn.parallel.DistributedDataParallel) else model
    inner = uncompiled(inner)
    return model if inner is model else plain_model(inner)


def device_of(model: nn.Module) -> torch.device:
    """Return the device of a model's first parameter or buffer."""
    for tensor in (*model.parameters(), *model.buffers()):
        return tensor.device
    return torch.device("cpu")
