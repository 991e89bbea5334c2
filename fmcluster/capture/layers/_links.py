"""Links between layers: which recorded output each module was given, and the geometry of its kernel."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from ...store import KernelGeometry
from ..forward import CallCounts, Firing, KnownTensors
from ._streams import ADD, Streams

_RELU = frozenset({torch.relu, torch.relu_, torch.Tensor.relu, torch.Tensor.relu_, nn.functional.relu})


@dataclass(frozen=True)
class Link:
    """What a module was given.

    Attributes
    ----------
    firing : Firing
        Whose output.
    relu : bool
        Whether of its values, those below zero were set to zero outside of recorded modules.
    """

    firing: Firing
    relu: bool = False


class Links:
    """Finds out which recorded output each recorded module was given, as it was returned, or its positive part.

    What was computed otherwise outside of recorded modules, such as the sum at the end of a residual branch, is
    nobody's output.

    Attributes
    ----------
    streams : Streams
        Which outputs are added to one another.
    """

    def __init__(self) -> None:
        self.streams = Streams()
        self._made: KnownTensors[Link] = KnownTensors()
        self._given: dict[tuple[str, int], Link] = {}

    @contextmanager
    def watch(self, modules: Mapping[str, nn.Module]) -> Iterator[None]:
        """Within the block, look at what modules are given."""
        counts = CallCounts(modules)

        def hook_of(name: str) -> Callable[..., None]:
            def hook(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
                call = counts.next(name)
                first = next((each for each in (*args, *kwargs.values()) if isinstance(each, torch.Tensor)), None)
                if first is not None and (maker := self.maker(first)) is not None:
                    self._given[name, call] = maker

            return hook

        handles = [
            module.register_forward_pre_hook(hook_of(name), with_kwargs=True) for name, module in modules.items()
        ]
        try:
            with _Functions(self):
                yield
        finally:
            for handle in handles:
                handle.remove()

    def note(self, firing: Firing, output: torch.Tensor) -> None:
        """Remember an output, as it is now, for as long as others hold it."""
        self.remember(Link(firing), output)
        self.streams.note(firing, output)

    def remember(self, link: Link, tensor: torch.Tensor) -> None:
        """Remember whose a tensor is."""
        self._made.remember(link, tensor)

    def input_of(self, firing: Firing) -> Link | None:
        """Return the recorded output that was the first tensor given to a module; None for none."""
        return self._given.get((firing.name, firing.call))

    def maker(self, tensor: torch.Tensor) -> Link | None:
        """Return who made a tensor: of a block and the last module within it, the block."""
        return self._made.of(tensor)


class _Functions(TorchFunctionMode):
    """Follows outputs through a rectifier and a sum that are called as functions."""

    def __init__(self, links: Links) -> None:
        super().__init__()
        self._links = links

    def __torch_function__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        relu = func in _RELU and bool(args)
        added = getattr(func, "__name__", "") in ADD and len(args) == 2
        link = self._links.maker(args[0]) if relu else None
        streams = self._links.streams
        carried = tuple(streams.carried_by(each) for each in args) if relu or added else ()
        out = func(*args, **(kwargs or {}))
        if link is not None:
            self._links.remember(Link(link.firing, relu=True), out)
        if relu:
            streams.passed_on(carried[0], out)
        elif added:
            streams.added(args, out, carried=carried)
        return out


def kernel_geometry(module: nn.Module) -> KernelGeometry | None:
    """Return the geometry of a 2-D convolution's kernel; None of other modules, and where it is not padded with zeros.

    Examples
    --------
    >>> kernel_geometry(nn.Conv2d(3, 8, 3, stride=2, padding=1))
    KernelGeometry(size=(3, 3), stride=(2, 2), padding=((1, 1), (1, 1)), dilation=(1, 1), groups=1)
    """
    if not isinstance(module, nn.Conv2d) or module.padding_mode != "zeros":
        return None
    size, dilation, stride = (_pair(each) for each in (module.kernel_size, module.dilation, module.stride))
    if module.padding == "valid":
        padding = ((0, 0), (0, 0))
    elif module.padding == "same":
        total = [d * (s - 1) for d, s in zip(dilation, size, strict=True)]
        padding = ((total[0] // 2, total[0] - total[0] // 2), (total[1] // 2, total[1] - total[1] // 2))
    else:
        height, width = _pair(module.padding)
        padding = ((height, height), (width, width))
    return KernelGeometry(size, stride, padding, dilation, module.groups)


def _pair(value: Any) -> tuple[int, int]:
    first, second = value
    return int(first), int(second)
