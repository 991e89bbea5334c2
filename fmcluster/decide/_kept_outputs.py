"""Kept outputs: what the modules return that end before a change begins, so that they need not be computed again."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from ._trace import tensors_in

MOST_BYTES = 256 << 20  # of the kept outputs of a network; what is more is computed each time

Key = tuple[nn.Module, int]  # a module, and the number of its call in a pass


@dataclass(eq=False)
class KeptOutputs:
    """Outputs of modules, of the batches that a model is shown while some things of it are changed.

    Modules that have ended before any of these is used return what they returned in the pass before. They do so only
    where the network as it is then returns, bit for bit, what it returns without: a model may draw random numbers on
    its way, or change in place what was returned before.

    Attributes
    ----------
    model : Module
        The model.
    show : callable
        Returns what the model as it is makes of a batch, by the number of the batch.
    """

    model: nn.Module
    show: Callable[[int], Any]
    _orders: dict[int, "_Order"] = field(default_factory=dict)
    _of_batch: dict[int, dict[Key, torch.Tensor]] = field(default_factory=dict)
    _are_right: dict[tuple[int, frozenset[Key]], bool] = field(default_factory=dict)

    @contextmanager
    def instead(self, number: int, changed: Sequence[str]) -> Iterator[None]:
        """Within the block, in which the model is shown a batch, modules return what was kept of them.

        Parameters
        ----------
        number : int
            Of the batch.
        changed : sequence of str
            Names of modules whose inputs or outputs are changed, and of parameters and buffers that are.
        """
        if number not in self._orders:
            self._orders[number] = _Order.of(self.model, lambda: self.show(number))
        order = self._orders[number]
        ended = order.ended_before(changed)
        kept = {key: value for key, value in self._of_batch.pop(number, {}).items() if key in ended}
        if not self._are_right.get((number, frozenset(kept))):
            kept = {}
        others = sum(each.nbytes for values in self._of_batch.values() for each in values.values())
        wanted = order.outermost(ended)
        with _returning(kept, wanted, most_bytes=MOST_BYTES - others):
            yield
        kept = {key: value for key, value in kept.items() if key in wanted}
        if kept and self._can_be_used(number, kept):
            self._of_batch[number] = kept

    def _can_be_used(self, number: int, kept: dict[Key, torch.Tensor]) -> bool:
        """Whether the network as it is makes the same of a batch when modules return what is kept."""
        key = (number, frozenset(kept))
        if key not in self._are_right:
            with _returning(kept, set(), most_bytes=0):
                self._are_right[key] = _are_equal(self.show(number), self._orders[number].output)
        return self._are_right[key]


@dataclass(frozen=True)
class _Call:
    key: Key
    start: int
    end: int


@dataclass(frozen=True, eq=False)
class _Order:
    """In which order modules are called and end, and weights are used, in a pass of the network as it is.

    Attributes
    ----------
    output : object
        What the network returns.
    calls : list of _Call
        Those that return one tensor.
    first_use : dict of str to int
        By name of a module, a parameter or a buffer.
    """

    output: Any
    calls: list[_Call]
    first_use: dict[str, int]

    @classmethod
    def of(cls, model: nn.Module, show: Callable[[], Any]) -> "_Order":
        """Look at a pass; of a model with modules of TorchScript, in which nothing can be seen, nothing is told."""
        if any(isinstance(module, torch.jit.ScriptModule) for module in model.modules()):
            return cls(None, [], {})
        names: dict[int, list[str]] = {}
        for named in (model.named_modules, model.named_parameters, model.named_buffers):
            for name, each in named(remove_duplicate=False):
                names.setdefault(id(each), []).append(name)
        watch = _Watch(names)
        with ExitStack() as stack:
            for module in model.modules():
                stack.callback(module.register_forward_pre_hook(watch.enter).remove)
                stack.callback(module.register_forward_hook(watch.leave, prepend=True).remove)
            stack.enter_context(watch)
            output = show()
        return cls(output, watch.calls, watch.first_use)

    def ended_before(self, changed: Sequence[str]) -> set[Key]:
        """Return the calls that have ended before anything changed is used; none where that is not known."""
        if not changed or any(name not in self.first_use for name in changed):
            return set()
        begin = min(self.first_use[name] for name in changed)
        return {call.key for call in self.calls if call.end < begin}

    def outermost(self, keys: set[Key]) -> set[Key]:
        """Return those of some calls that are not within another of them."""
        out, until = set(), -1
        for call in sorted(self.calls, key=lambda call: (call.start, -call.end)):
            if call.key in keys and call.start > until:
                out.add(call.key)
                until = call.end
        return out


class _Watch(TorchFunctionMode):
    """Notes when modules are called and end, and which weights functions are given."""

    def __init__(self, names: Mapping[int, list[str]]) -> None:
        super().__init__()
        self.calls: list[_Call] = []
        self.first_use: dict[str, int] = {}
        self._names = names
        self._time = 0
        self._n_calls: Counter[nn.Module] = Counter()
        self._open: list[tuple[Key, int]] = []

    def enter(self, module: nn.Module, _args: Any) -> None:
        """Note that a module is called."""
        self._open.append(((module, self._n_calls[module]), self._time + 1))
        self._use(module)
        self._n_calls[module] += 1

    def leave(self, module: nn.Module, *given: Any) -> None:
        """Note that a module has ended, by its arguments and its output."""
        key, start = self._open.pop()
        while key[0] is not module:  # it raised, and who called it went on
            key, start = self._open.pop()
        self._time += 1
        if _can_be_kept(given[-1]):
            self.calls.append(_Call(key, start, self._time))

    def __torch_function__(self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None) -> Any:
        """Call a function, and look at what it is given."""
        for each in tensors_in((args, kwargs)) if self._open else ():  # others come before the model is called
            self._use(each)
        return func(*args, **(kwargs or {}))

    def _use(self, thing: nn.Module | torch.Tensor) -> None:
        self._time += 1
        for name in self._names.get(id(thing), ()):
            self.first_use.setdefault(name, self._time)


def _can_be_kept(output: Any) -> bool:
    return type(output) is torch.Tensor and output.layout == torch.strided and not output.requires_grad


@contextmanager
def _returning(kept: dict[Key, torch.Tensor], wanted: set[Key], *, most_bytes: int) -> Iterator[None]:
    """Let modules return within the block what is kept of their calls; of others that are wanted, keep it."""
    with ExitStack() as stack:
        for module in {module for module, _ in (*kept, *wanted)}:
            stack.callback(_put_forward_back, module, vars(module).get("forward"))
            vars(module)["forward"] = _forward_of(module, kept, wanted, most_bytes)
        yield


def _forward_of(
    module: nn.Module, kept: dict[Key, torch.Tensor], wanted: set[Key], most_bytes: int
) -> Callable[..., Any]:
    compute, n_calls = module.forward, 0

    def forward(*args: Any, **kwargs: Any) -> Any:
        nonlocal n_calls
        key, n_calls = (module, n_calls), n_calls + 1
        if key in kept:
            return kept[key].clone()  # what follows may change it in place
        output = compute(*args, **kwargs)
        if key in wanted and _can_be_kept(output):
            n_bytes = sum(each.nbytes for each in kept.values()) + output.nbytes
            kept.update({key: output.clone()} if n_bytes <= most_bytes else {})
        return output

    return forward


def _put_forward_back(module: nn.Module, before: Any) -> None:
    if before is None:
        del vars(module)["forward"]
    else:
        vars(module)["forward"] = before


def _are_equal(one: Any, other: Any) -> bool:
    """Whether two outputs hold the same numbers; of what is no tensor and holds none it is not known."""
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        return one.shape == other.shape and torch.equal(one, other)
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(_are_equal(one[name], other[name]) for name in one)
    if isinstance(one, tuple | list) and type(one) is type(other):
        return len(one) == len(other) and all(map(_are_equal, one, other))
    return one is None and other is None
