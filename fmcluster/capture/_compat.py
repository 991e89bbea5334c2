"""Private interfaces of other libraries that capture needs: of torch (checked with 2.14.1), pytorch-ignite (0.5.5).

Each name here stands for one of them; ``tests/capture/test_compat.py`` says which one a new version has changed.
"""

import copy
import sys
from collections import OrderedDict
from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.modules import conv, dropout, instancenorm, pooling
from torch.utils._python_dispatch import TorchDispatchMode as TorchDispatchMode
from torch.utils.data import BatchSampler, DataLoader, SequentialSampler

BATCH_NORM = nn.modules.batchnorm._BatchNorm  # what BatchNorms of all kinds are, SyncBatchNorm's too
CONVOLUTION = conv._ConvNd  # likewise, of any number of axes
INSTANCE_NORM = instancenorm._InstanceNorm
POOLING = (pooling._MaxPoolNd, pooling._AvgPoolNd, pooling._AdaptiveMaxPoolNd, pooling._AdaptiveAvgPoolNd)
OTHERS_OF_CHANNELS = (  # of which the documentation says (N, C, L)
    *(pooling._LPPoolNd, dropout.Dropout1d, nn.Upsample),
    *(nn.ConstantPad1d, nn.ReflectionPad1d, nn.ReplicationPad1d, nn.CircularPad1d),
)


@contextmanager
def eagerly(model: nn.Module) -> Iterator[None]:
    """Run what was compiled, or made a CUDA graph, as it was written; hooks that were added since then fire.

    What `torch.compile` needs takes seconds to import; where nobody has, nothing is compiled. A forward method that
    `torch.cuda.make_graphed_callables` put into a module gives way to the one that it encloses.
    """
    replaced = [(module, vars(module)["forward"]) for module in model.modules() if "forward" in vars(module)]
    graphed = [(module, forward) for module, forward in replaced if is_graph(forward)]
    compiled = "torch._dynamo" in sys.modules
    with ExitStack() as restored:
        for module, forward in graphed:
            enclosed = dict(zip(forward.__code__.co_freevars, forward.__closure__ or (), strict=True))
            restored.callback(setattr, module, "forward", forward)
            module.forward = enclosed["orig_fwd"].cell_contents
        restored.enter_context(torch.compiler.set_stance("force_eager") if compiled else nullcontext())
        yield


def is_graph(forward: Any) -> bool:
    """Whether a forward method is the one that `torch.cuda.make_graphed_callables` puts into a module."""
    code = getattr(forward, "__code__", None)
    return getattr(forward, "__module__", "") == "torch.cuda.graphs" and "orig_fwd" in getattr(code, "co_freevars", ())


def with_versions(weights: Mapping[str, Any], *, like: Mapping[str, Any]) -> dict[str, Any]:
    """Return weights with the versions of a model's quantized modules, whose packed weights are loaded by them.

    They are what `Module.state_dict` puts into ``_metadata``; others may be of another version than the model's.
    """
    packed = {name.rpartition("._packed_params")[0] for name, own in like.items() if not isinstance(own, torch.Tensor)}
    state = OrderedDict(weights)
    versions = {name: each for name, each in getattr(like, "_metadata", {}).items() if _is_inside(name, packed)}
    state._metadata = versions  # type: ignore[attr-defined]
    return state


def _is_inside(name: str, modules: Collection[str]) -> bool:
    return any(name == each or name.startswith(f"{each}.") for each in modules)


def in_backward() -> bool:
    """Whether a backward pass is running in this thread: what fires then is recomputed, by gradient checkpointing.

    `torch._C._current_graph_task_id` is -1 outside one, as `torch.utils.module_tracker` asks it.
    """
    return bool(torch._C._current_graph_task_id() != -1)


def is_operation(func: Any) -> bool:
    """Whether what a `TorchDispatchMode` was handed is an operation of torch, as opposed to a higher-order one."""
    return isinstance(func, torch._ops.OpOverload)


def is_transformed(tensor: torch.Tensor) -> bool:
    """Whether a tensor stands for many, or for a derivative, inside a transformation of `torch.func`."""
    return bool(torch._C._functorch.is_functorch_wrapped_tensor(tensor))


def is_fake(tensor: torch.Tensor) -> bool:
    """Whether a tensor has a shape and no values: made in a `FakeTensorMode`, which takes long to import."""
    return any(each.__name__ == "FakeTensor" for each in type(tensor).__mro__)


def is_exported(model: nn.Module) -> bool:
    """Whether a module is what `torch.export` returns as ``program.module()``: a graph without calls of modules.

    Newer versions call `_guards_fn` in it, which checks the inputs alone.
    """
    graph = getattr(model, "graph", None)
    if not isinstance(model, torch.fx.GraphModule) or graph is None:
        return False
    called = {node.target for node in graph.nodes if node.op == "call_module"} - {"_guards_fn"}
    return not called and any(name != "_guards_fn" for name, _ in model.named_children())


def is_view(tensor: torch.Tensor) -> bool:
    """Whether a tensor shares its memory with one that it was made from."""
    return tensor._is_view()


def version_of(tensor: torch.Tensor) -> int:
    """Return how often a tensor's memory was changed in place."""
    return tensor._version


def with_own_workers(loader: DataLoader[Any]) -> DataLoader[Any]:
    """Return a loader of the same that does not share its one iterator, which others may be at.

    It has one where workers are persistent, and in torchdata's loaders, which can say how far they are and be set to go
    on from there (checked with 0.11); so can their samplers.
    """
    is_stateful = hasattr(loader, "state_dict")
    if not (loader.persistent_workers or is_stateful):
        return loader
    own = copy.copy(loader)
    own._iterator = None
    if is_stateful:
        of_loader = {"next_iter_state": None, "sampler": copy.copy(loader.sampler)}
        vars(own).update(of_loader, batch_sampler=copy.copy(loader.batch_sampler))
        vars(own.batch_sampler)["sampler"] = own.sampler
    return own


def goes_through_in_order(loader: DataLoader[Any]) -> bool:
    """Whether a loader's batches are of one item after another: nobody's own sampler says otherwise."""
    batches = type(loader.batch_sampler)
    is_torchs = issubclass(batches, BatchSampler) and batches.__module__.partition(".")[0] in ("torch", "torchdata")
    return is_torchs and isinstance(loader.sampler, SequentialSampler)


def buffers_of(module: nn.Module) -> dict[str, torch.Tensor | None]:
    """Return a module's own dict of its own buffers; changing it changes the module."""
    return module._buffers


def tensors_of(module: nn.Module) -> list[torch.Tensor]:
    """Return a module's own parameters and buffers."""
    own = (*module._parameters.values(), *module._buffers.values())
    return [tensor for tensor in own if tensor is not None]


def uncompiled(model: nn.Module) -> nn.Module:
    """Return what `torch.compile` made a model of; any other model as it is."""
    inner = getattr(model, "_orig_mod", model)
    assert isinstance(inner, nn.Module)
    return inner


def ignite_handlers(engine: Any, event: Any) -> list[Any]:
    """Return the list of handlers that an Ignite engine calls at an event, in their order; changing it changes that."""
    handlers: list[Any] = engine._event_handlers[event]
    return handlers


def job_store() -> Any:
    """Return the store of keys that the processes of the running torch.distributed job share."""
    return dist.distributed_c10d._get_default_store()
