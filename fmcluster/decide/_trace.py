"""Trace of a forward pass: which functions were called, on which tensors, and what each module did."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.overrides import TorchFunctionMode, resolve_name

from ._compat import version_of

Key = tuple[int, int]  # a tensor, and how often it had been changed in place

# functions after which channel c is still a function of channel c alone
_BY_CHANNEL = frozenset(
    [
        *("relu", "relu_", "relu6", "hardtanh", "leaky_relu", "elu", "selu", "celu", "gelu", "silu", "mish"),
        *("hardswish", "hardsigmoid", "sigmoid", "tanh", "softplus", "prelu", "clamp", "clamp_", "clamp_min"),
        *("dropout", "dropout1d", "dropout2d", "dropout3d", "alpha_dropout", "batch_norm", "instance_norm"),
        *("max_pool2d", "max_pool2d_with_indices", "avg_pool2d", "adaptive_avg_pool2d", "adaptive_max_pool2d"),
        *("contiguous", "clone"),
    ]
)
_ADDITIONS = frozenset({"add", "add_", "__add__", "__iadd__", "__radd__"})


@dataclass(frozen=True)
class Call:
    """A function that was called.

    Attributes
    ----------
    name : str
        The function's.
    inputs : tuple
        The tensors that it was given, each with how often it had been changed.
    output : tuple, optional
        What it returned, where that is one tensor.
    module : str
        The module whose weights it was given; empty for none.
    shape : tuple of int
        Of the output.
    """

    name: str
    inputs: tuple[Key, ...]
    output: Key | None
    module: str
    shape: tuple[int, ...]

    @property
    def adds(self) -> bool:
        """Whether it adds two tensors."""
        return self.name in _ADDITIONS and len(self.inputs) == 2

    def keeps_channels(self, n_channels: int) -> bool:
        """Whether channel c of the output depends on channel c of the input alone."""
        if self.name in ("flatten", "view", "reshape"):
            return len(self.shape) == 2 and self.shape[1] == n_channels
        if self.name == "mean":
            return len(self.shape) in (2, 4) and self.shape[1] == n_channels
        return self.name in _BY_CHANNEL


@dataclass
class Trace(TorchFunctionMode):
    """Records the calls within the block.

    Attributes
    ----------
    weights : mapping of int to str
        Modules by the identity of their parameters and buffers.
    calls : list of Call
        In their order.
    spans : dict of str to (int, int)
        By module, which calls were made within its first call.
    """

    weights: Mapping[int, str]
    calls: list[Call] = field(default_factory=list)
    spans: dict[str, tuple[int, int]] = field(default_factory=dict)
    _alive: list[Any] = field(default_factory=list)
    _starts: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__init__()

    def __torch_function__(self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None) -> Any:
        """Call a function, and note it."""
        tensors = list(tensors_in((args, kwargs)))
        module = next((self.weights[id(each)] for each in tensors if id(each) in self.weights), "")
        inputs = tuple(_key(each) for each in tensors if id(each) not in self.weights)
        out = func(*args, **(kwargs or {}))
        first = out[0] if isinstance(out, tuple) and out else out
        name = (resolve_name(func) or getattr(func, "__name__", "")).rsplit(".", 1)[-1]
        if isinstance(first, torch.Tensor) and inputs and name != "__get__":  # an attribute
            self._alive += [*tensors, first]  # so that no other tensor gets its identity
            self.calls.append(Call(name, inputs, _key(first), module, tuple(first.shape)))
        return out

    def enter(self, module: str, *_: Any) -> None:
        """Note that a module is called, by its name."""
        self._starts.setdefault(module, len(self.calls))

    def leave(self, module: str, *_: Any) -> None:
        """Note that a module has returned."""
        self.spans.setdefault(module, (self._starts[module], len(self.calls)))

    def used_by(self, key: Key) -> list[Call]:
        """Return the calls that were given a tensor, but for questions of its size."""
        return [call for call in self.calls if key in call.inputs and call.output is not None]


def _key(tensor: torch.Tensor) -> Key:
    return id(tensor), version_of(tensor)


def tensors_in(value: Any) -> Iterator[torch.Tensor]:
    """Yield the tensors of what a function is given, within tuples, lists and dicts, too."""
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, tuple | list):
        for each in value:
            yield from tensors_in(each)
    elif isinstance(value, dict):
        yield from tensors_in(list(value.values()))
