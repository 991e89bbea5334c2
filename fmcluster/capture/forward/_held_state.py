"""Held state: random generators, and counters and orders of the caller's own objects, found and put back."""

import random
import sys
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import cache, partial
from queue import Queue, SimpleQueue
from threading import Thread
from types import BuiltinMethodType, CellType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
import torch
from torch import nn

_GENERATORS = (torch.Generator, np.random.Generator, np.random.RandomState, np.random.BitGenerator, random.Random)
_ARRAYS = (np.ndarray, torch.Tensor)
_NUMBERS = (int, float, complex, str, bytes, np.generic)
_CONTAINERS = (list, dict, deque)
_ENTRIES = (list, tuple, set, frozenset, deque)
_PLAIN_ENTRIES = frozenset({dict, *_ENTRIES})
_MAY_BE_EMPTY = frozenset({OrderedDict, *_PLAIN_ENTRIES})
_FUNCTIONS_AND_TYPES = (FunctionType, type)  # tuples are asked sooner than unions
_METHODS, _DESCRIPTORS = (MethodType, BuiltinMethodType), (property, classmethod, staticmethod)
_WITH_ENTRIES = (dict, *_ENTRIES)
_PLAIN = frozenset({str, bytes, int, float, bool, type(None), np.ndarray, torch.Tensor})
_ON_THEIR_WAY = (Iterator, Queue, SimpleQueue, Thread)  # files are iterators
_NO_HOLDERS = (*_NUMBERS, *_ARRAYS, ModuleType)
_MOST_ENTRIES, _MOST_OBJECTS = 10_000, 100_000  # a longer list is of items; a search that takes seconds is none
_MOST_BYTES = 16 << 20  # of an array: what is larger holds data
_FEW_NUMBERS = 1 << 14  # that are copied and compared sooner by NumPy than by torch
_OF_NUMPY = frozenset({torch.float32, torch.float64, torch.float16, torch.int64, torch.int32, torch.uint8, torch.bool})
_SEQUENCES = frozenset({"SobolEngine", "QMCEngine"})  # of torch and SciPy, in the place of random numbers
_OF_EVERY_MODULE = frozenset(vars(nn.Module()))
_LIBRARIES = frozenset({"fmcluster", "numpy", "torch", *sys.stdlib_module_names})


@dataclass(frozen=True, eq=False)
class HeldState:
    """What objects can reach.

    Attributes
    ----------
    generators : list
        Random generators of Python, NumPy and torch.
    own : list
        Objects of classes that belong to no library, and are no modules of torch; and sequences that stand for random
        numbers.
    scopes : list
        Such classes, and functions that belong to no library: what they hold, enclose or name may count, too.
    """

    generators: list[Any]
    own: list[Any]
    scopes: list[Any]

    @classmethod
    def of(cls, holders: Sequence[object]) -> "HeldState":
        """Find it.

        By attributes, entries and slots, by what functions are bound to, enclose, or name as a global, and by what is
        written into classes of one's own.
        """
        found: list[Any] = []
        own: list[Any] = []
        scopes: list[Any] = []
        seen: dict[int, object] = {}  # the objects too: an id is another's once its owner is gone
        slots: dict[int, list[str]] = {}  # by the id of a type, which its objects keep
        todo = deque(holders)
        while todo and len(seen) < _MOST_OBJECTS:
            holder = todo.popleft()
            kind = type(holder)
            if holder is None or id(holder) in seen:
                continue
            if kind in _PLAIN_ENTRIES:  # the most of them, which have neither attributes nor slots
                seen[id(holder)] = holder
                todo += _entries_of(holder)
                continue
            if issubclass(kind, _NO_HOLDERS):
                continue
            seen[id(holder)] = holder
            if issubclass(kind, random.SystemRandom):  # which has no state
                continue
            if issubclass(kind, _GENERATORS):
                found.append(holder)
                continue
            if isinstance(holder, _FUNCTIONS_AND_TYPES):
                scopes += [holder] if _is_own(holder) else []
            elif _holds_state(holder):
                own.append(holder)
            todo += _reached_from(holder, slots)
        return cls(found, own, scopes)

    def put_generators_back_by(self, restored: ExitStack) -> None:
        """Let a stack put the generators back to what they are now."""
        for generator in self.generators:
            if isinstance(generator, np.random.Generator):
                restored.callback(setattr, generator.bit_generator, "state", generator.bit_generator.state)
            elif isinstance(generator, np.random.BitGenerator):
                restored.callback(setattr, generator, "state", generator.state)
            elif isinstance(generator, random.Random):
                restored.callback(generator.setstate, generator.getstate())
            else:  # of torch, or NumPy's older kind
                restored.callback(generator.set_state, generator.get_state())

    def put_attributes_back_by(self, restored: ExitStack) -> None:
        """Let a stack put numbers, orders and small arrays back to what they are now.

        Those that objects and classes of one's own hold, and that functions of one's own enclose or name as a global.

        Objects that hold what cannot be put back, such as a file or an iterator, keep theirs, which may count it.
        """
        for names in (each for holder in (*self.own, *self.scopes) for each in _names_of(holder)):
            _put_back_by(restored, names)


def put_counters_back_by(restored: ExitStack, modules: Iterable[nn.Module]) -> None:
    """Let a stack put back what modules of one's own count and note beside their buffers, as of other objects.

    Tensors stay what they are: they are what a forward pass leaves for whoever looks at it.
    """
    for module in modules:
        if _is_own(type(module)):
            held = vars(module)
            _put_back_by(restored, _Names(partial(_own_attributes, module), held.__setitem__, partial(_drop, held)))


def start_anew(generator: Any) -> None:
    """Let a generator start anew, from 0."""
    if isinstance(generator, torch.Generator):
        generator.manual_seed(0)
    elif isinstance(generator, np.random.Generator | np.random.BitGenerator):
        bits = generator if isinstance(generator, np.random.BitGenerator) else generator.bit_generator
        bits.state = type(bits)(0).state
    else:
        generator.seed(0)


@dataclass(frozen=True, eq=False)
class _Value:
    """The value of an attribute, and a copy of what is in it, where that may change."""

    value: Any
    copy: Any

    @classmethod
    def now(cls, value: Any) -> "_Value":
        copy = None
        if type(value) in _CONTAINERS:
            copy = value.copy() if len(value) <= _MOST_ENTRIES else None
        elif type(value) is np.ndarray:
            copy = value.copy() if value.nbytes <= _MOST_BYTES else None
        elif isinstance(value, torch.Tensor) and _is_plain(value):
            copy = value.detach().clone() if value.numel() * value.element_size() <= _MOST_BYTES else None
        return cls(value, copy)

    def way_back(self, now: Any) -> Callable[[], None] | None:
        """Return what puts the contents back; None where the value that there is now cannot be taken away."""
        if isinstance(now, _NUMBERS) and (self.value is None or isinstance(self.value, _NUMBERS)):
            return _nothing
        if type(now) is not type(self.value) or not (type(now) in _CONTAINERS or isinstance(now, _ARRAYS)):
            return _nothing if now is self.value else None
        if self.copy is None:
            return _nothing
        if isinstance(now, _ARRAYS):
            return partial(_copy_into, self.value, self.copy)
        if len(self.value) != len(self.copy):  # it is a cache, or a record, that grows
            return None
        before, after = (list(each.values() if isinstance(each, dict) else each) for each in (self.copy, self.value))
        changed = [one for one, other in zip(before, after, strict=False) if one is not other]
        if any(one is None for one in changed):  # a cache that is filled
            return None
        return partial(_refill, self.value, self.copy) if changed else _nothing


@dataclass(frozen=True, eq=False)
class _Names:
    """Names that have values: attributes of an object or a class, or what a function encloses, or names as a global."""

    now: Callable[[], dict[str, Any]]
    put: Callable[[str, Any], object]
    drop: Callable[[str], object]


def _names_of(holder: Any) -> Iterator[_Names]:
    if isinstance(holder, FunctionType):
        cells = dict(zip(holder.__code__.co_freevars, holder.__closure__ or (), strict=True))
        yield _Names(
            lambda: {name: value for name, cell in cells.items() for value in _contents_of(cell)},
            lambda name, value: setattr(cells[name], "cell_contents", value),
            lambda name: None,
        )
        known, named = holder.__globals__, set(_names_in(holder.__code__))
        for name in named & known.keys():  # each by itself: a module's globals have nothing else in common
            yield _Names(
                partial(_entry_of, known, name),
                known.__setitem__,
                lambda name: None,
            )
    elif isinstance(holder, type):
        of_class = lambda: {name: value for name, value in vars(holder).copy().items() if not name.startswith("__")}  # noqa: E731
        yield _Names(of_class, partial(setattr, holder), partial(_drop_from_class, holder))
    else:
        yield _Names(lambda: dict(vars(holder)), vars(holder).__setitem__, partial(_drop, vars(holder)))


def _drop(held: dict[str, Any], name: str) -> None:
    held.pop(name, None)  # another thread may have been sooner


def _drop_from_class(holder: type, name: str) -> None:
    with suppress(AttributeError):  # as above
        delattr(holder, name)


def _entry_of(known: dict[str, Any], name: str) -> dict[str, Any]:
    with suppress(KeyError):  # another thread may have deleted it
        return {name: known[name]}
    return {}


def _own_attributes(module: nn.Module) -> dict[str, Any]:
    own = vars(module).copy().items()  # at once: threads may change them
    return {k: value for k, value in own if k not in _OF_EVERY_MODULE and not isinstance(value, torch.Tensor)}


def _holds_state(holder: Any) -> bool:
    """Whether an object is one whose values are the caller's state."""
    if issubclass(type(holder), nn.Module) or not _has_attributes(holder):
        return False
    return _is_own(type(holder)) or any(kind.__name__ in _SEQUENCES for kind in type(holder).__mro__)


def _put_back_by(restored: ExitStack, names: _Names) -> None:
    attributes = names.now()
    if not any(issubclass(type(value), _ON_THEIR_WAY) for value in attributes.values()):
        restored.callback(_put_back, names, {name: _Value.now(value) for name, value in attributes.items()})


def _put_back(holder: _Names, before: dict[str, _Value]) -> None:
    """Put back the values of names: all that changed, or none.

    None where something changed that is no number, order or array: it was set up, or fills a cache, and what else
    changed may belong to that.
    """
    now = holder.now()
    ways = {name: before.get(name, _Value(None, None)).way_back(value) for name, value in now.items()}
    if before.keys() - now.keys() or any(way is None for way in ways.values()):
        return
    for name, way in ways.items():
        assert way is not None
        way()
        if name not in before:
            holder.drop(name)
        elif now[name] is not before[name].value:
            holder.put(name, before[name].value)


def _nothing() -> None:
    """Leave contents as they are."""


def _copy_into(value: Any, copy: Any) -> None:
    if isinstance(value, np.ndarray):
        if value.dtype.hasobject or value.tobytes() != copy.tobytes():
            value[...] = copy
    elif not same_bits(value, copy):
        with torch.no_grad():
            value.copy_(copy)


def _refill(value: Any, copy: Any) -> None:
    value.clear()
    value.update(copy) if isinstance(value, dict) else value.extend(copy)


def _is_plain(tensor: torch.Tensor) -> bool:
    is_dense = tensor.layout == torch.strided and not tensor.is_quantized and not tensor.is_nested
    return type(tensor) is torch.Tensor and is_dense and tensor.device.type != "meta"


def same_bits(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Whether two tensors of one shape and dtype hold the same, NaN and signs of zero included."""
    if one.layout != torch.strided:
        return False
    plain = (t.detach().resolve_conj().resolve_neg() for t in (one, other))
    return torch.equal(*(t.reshape(-1).contiguous().view(torch.uint8) for t in plain))


def few_numbers(tensor: torch.Tensor) -> np.ndarray | None:
    """Return an array that shares the memory of a small tensor on the processor: NumPy is asked sooner than torch."""
    if type(tensor) is not torch.Tensor or tensor.dtype not in _OF_NUMPY or tensor.layout != torch.strided:
        return None
    if not tensor.is_cpu or tensor.numel() > _FEW_NUMBERS or tensor.is_neg():
        return None
    return tensor.detach().numpy()


def _reached_from(holder: Any, slots: dict[int, list[str]]) -> list[object]:
    kind, reached = type(holder), list[object]()
    if issubclass(kind, _WITH_ENTRIES):
        reached += _entries_of(holder)
    elif issubclass(kind, _METHODS):
        reached += [holder.__self__, getattr(holder, "__func__", None)]
    elif issubclass(kind, partial):
        reached += [holder.func, *holder.args, *holder.keywords.values()]
    elif issubclass(kind, FunctionType):
        reached += [value for cell in holder.__closure__ or () for value in _contents_of(cell)]
        reached += [*(holder.__defaults__ or ()), *(holder.__kwdefaults__ or {}).values(), *_globals_of(holder)]
    elif issubclass(kind, type):
        return [value for each in holder.__mro__ if _is_own(each) for value in list(vars(each).values())]
    elif issubclass(kind, _DESCRIPTORS):
        reached += [getattr(holder, "fget", None), getattr(holder, "__func__", None)]
    attributes = dict(vars(holder)) if _has_attributes(holder) else {}
    if id(kind) not in slots:
        names = [name for each in kind.__mro__ for name in vars(each).get("__slots__", ())]
        slots[id(kind)] = [name for name in names if isinstance(name, str)]
    reached += [
        value
        for name, value in attributes.items()  # of a module the most are numbers, and hooks of which there are none
        if (each := type(value)) not in _PLAIN
        and (each not in _MAY_BE_EMPTY or value or (each is OrderedDict and vars(value)))
        and name not in ("_parameters", "_buffers")
    ]
    return [*reached, *(_slot(holder, name) for name in slots[id(kind)]), kind]


def _entries_of(holder: Any) -> list[object]:
    if len(holder) > _MOST_ENTRIES:
        return []
    entries = list(holder.values() if isinstance(holder, dict) else holder)  # at once: threads may change the holder
    return [each for each in entries if type(each) not in _PLAIN]


def _has_attributes(holder: object) -> bool:
    try:
        return isinstance(vars(holder), dict)
    except Exception:  # it has none, or what stands for another object that is not there
        return False


def _globals_of(function: FunctionType) -> list[object]:
    """Return the globals that a function of one's own names; of a library's, the generators among them."""
    named = [function.__globals__.get(name) for name in _names_in(function.__code__)]
    return [each for each in named if isinstance(each, _GENERATORS) or _is_own(function)]


def _names_in(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for each in code.co_consts:
        if isinstance(each, CodeType):
            yield from _names_in(each)


def _slot(holder: object, name: str) -> object:
    try:
        return getattr(holder, name, None)
    except Exception:  # of a class whose attributes are computed
        return None


def _is_own(thing: Any) -> bool:
    """Whether a class or function is the caller's own, as opposed to a library's."""
    return _is_own_module(getattr(thing, "__module__", None) or "builtins")


@cache
def _is_own_module(name: str) -> bool:
    file = getattr(sys.modules.get(name), "__file__", None) or ""
    installed = any(f"{folder}-packages" in file for folder in ("site", "dist"))
    return not installed and name.partition(".")[0] not in _LIBRARIES


def _contents_of(cell: CellType) -> list[Any]:
    """Return the value of a name that a function encloses; nothing of one that has none, or None."""
    try:
        value = cell.cell_contents
    except ValueError:  # of a name that was never given a value
        return []
    return [] if value is None else [value]
