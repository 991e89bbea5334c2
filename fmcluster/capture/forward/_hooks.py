"""Hooks: forward hooks, and hooks on gradients, for the length of one block."""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from ...errors import CaptureError
from .._compat import in_backward, is_transformed, is_view, version_of


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
        mapping or a dataclass.
    """

    name: str
    call: int
    part: str


class OnOutput(Protocol):
    """What takes an output."""

    def __call__(self, firing: Firing, output: torch.Tensor, *, module: nn.Module) -> None:
        """Take it, as it is now."""


class OnRecomputed(Protocol):
    """What takes an output that is computed once more, during a backward pass."""

    def __call__(self, name: str, output: torch.Tensor, *, part: str) -> None:
        """Take it; which call of the module it is of cannot be known."""


class CallCounts:
    """How often each module has fired.

    Parameters
    ----------
    names : iterable of str
        Of the modules.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self._now = dict.fromkeys(names, 0)
        self._before = dict(self._now)

    def next(self, name: str) -> int:
        """Return how often a module has fired before, and count this time."""
        self._now[name] += 1
        return self._now[name] - 1

    def start(self, *, repeats: bool) -> None:
        """Begin another forward pass.

        Where it repeats the last one, with the rest of the samples, calls are counted from where that one began.
        """
        if repeats:
            self._now = dict(self._before)
        else:
            self._before = dict(self._now)


class GradientHooks:
    """Hooks on outputs, which report the gradients with respect to what these held when they were followed.

    Parameters
    ----------
    on_error : callable, optional
        Takes what goes wrong in a hook, which otherwise goes through the backward pass.
    """

    def __init__(self, *, on_error: Callable[[Exception], None] | None = None) -> None:
        self._on_error = on_error
        self._handles: list[RemovableHandle] = []
        self._views: dict[int, tuple[str, torch.Tensor, int]] = {}

    def follow(self, output: torch.Tensor, on_gradient: Callable[[torch.Tensor | None], None], *, layer: str) -> None:
        """Call ``on_gradient(gradient)`` when it has come back to an output, one that requires it."""
        key = len(self._handles)
        if is_view(output):
            self._views[key] = layer, output.detach(), version_of(output)

        def hook(gradient: torch.Tensor | None) -> None:
            try:
                if key in self._views:
                    _check_unchanged(*self._views.pop(key))
                on_gradient(gradient)
            except Exception as error:
                if self._on_error is None:
                    raise
                self._on_error(error)

        self._handles.append(output.register_hook(hook))  # type: ignore[no-untyped-call]

    def check(self) -> None:
        """Raise `CaptureError` where a gradient may have gone past its hook."""
        for view in self._views.values():
            _check_unchanged(*view)

    def remove(self) -> None:
        """Remove the hooks; the tensors may outlive them."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self._views.clear()


def _check_unchanged(layer: str, view: torch.Tensor, version: int) -> None:
    """Raise where a view was changed in place: its graph was built anew then, without the hook that it had."""
    if version_of(view) != version:
        raise CaptureError(
            f"layer {layer!r} returned a view of another tensor, which was changed in place afterwards, so that its "
            f"gradient cannot be seen. Leave it out of `layers`, record the layer before it, or change a copy."
        )


@contextmanager
def hooked(
    modules: Mapping[str, nn.Module],
    on_output: OnOutput,
    *,
    counts: CallCounts | None = None,
    on_recomputed: OnRecomputed | None = None,
    optional: bool = False,
    on_error: Callable[[Exception], None] | None = None,
) -> Iterator[None]:
    """Within the block, call ``on_output(firing, tensor, module=module)`` for each tensor that a module returns.

    It runs on the current stream, before anything downstream can overwrite the output in place. The hooks are gone when
    the block is left, however it is left. What is computed once more during a backward pass is not an output; it goes
    to ``on_recomputed``. A module that returns no tensors is an error, unless it is `optional`. What goes
    wrong in a hook goes to ``on_error``, where that is given, and else through the model's forward pass.
    """
    counts = counts or CallCounts(modules)

    def hook_of(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(module: nn.Module, _inputs: Any, output: Any) -> None:
            try:
                take(module, output)
            except Exception as error:
                if on_error is None:
                    raise
                on_error(error)

        def take(module: nn.Module, output: Any) -> None:
            if in_backward():
                if on_recomputed is not None:
                    for part, tensor in _tensors(output):
                        on_recomputed(name, tensor, part=part)
                return
            call = counts.next(name)
            empty = True
            for part, tensor in _tensors(output):
                empty = False
                if is_transformed(tensor):
                    raise CaptureError(
                        f"layer {name!r} was called inside a transformation of torch.func (vmap, grad, ...), where its "
                        f"output has no values of its own; record a plain forward pass of the batch instead"
                    )
                on_output(Firing(name, call, part), tensor, module=module)
            if empty and not optional:
                raise CaptureError(
                    f"layer {name!r} ({type(module).__name__}) returned a {type(output).__name__} without tensors of "
                    f"vectors, tokens or feature maps; expected some. Choose a layer inside or behind it, or leave it "
                    f"out of `layers`."
                )

        return hook

    handles = [module.register_forward_hook(hook_of(name)) for name, module in modules.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def is_batch(tensor: torch.Tensor) -> bool:
    """Whether a tensor may be a dense batch of vectors, tokens or feature maps, of floats or quantized numbers."""
    if tensor.is_nested or tensor.layout != torch.strided:
        return False
    is_float = tensor.is_floating_point() and tensor.dtype.itemsize > 1  # of 8 bits nothing can be computed
    return tensor.ndim in (2, 3, 4, 5) and tensor.numel() > 0 and (is_float or tensor.is_quantized)


def _tensors(output: Any, part: str = "") -> Iterator[tuple[str, torch.Tensor]]:
    """Find the tensors of an output; within tuples, mappings and dataclasses, those that may be batches."""
    if isinstance(output, torch.Tensor):
        if not output.is_nested and (not part or is_batch(output)):  # nested ones have no shape to speak of
            yield part, output
    elif isinstance(output, Mapping):
        for key, value in output.items():
            yield from _tensors(value, f"{part}[{key}]")
    elif isinstance(output, tuple | list):
        for position, value in enumerate(output):
            yield from _tensors(value, f"{part}[{position}]")
    elif dataclasses.is_dataclass(output) and not isinstance(output, type):
        for field in dataclasses.fields(output):
            yield from _tensors(getattr(output, field.name), f"{part}[{field.name}]")
