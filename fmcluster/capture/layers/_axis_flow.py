"""Axis flow: where samples and channels lie in what a forward pass computes, followed from operation to operation."""

import math
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import torch

from .._compat import TorchDispatchMode, in_backward, is_operation, is_transformed

Label = Literal["batch", "channel", "mixed", ""]  # mixed: channels, of which a Linear has mixed the positions
Axis = tuple[tuple[int, Label], ...]  # factors of an axis's length, the slowest first, and what each counts
Axes = tuple[Axis, ...]

_ROW_MAJOR = frozenset({"view", "_unsafe_view", "reshape", "_reshape_alias", "squeeze", "unsqueeze", "flatten"})
_REMOVING = frozenset({"select", "unbind", "mean", "sum", "amax", "amin", "var", "std", "logsumexp", "max", "min"})
_BY_AXIS = (
    *("slice", "cat", "index", "pad", "pool", "upsample", "split", "chunk", "narrow", "expand", "grid_sampler"),
    *("glu", "topk", "gather", "repeat", "_fft_"),
)
_IN_SECOND = ("conv", "batch_norm", "group_norm", "im2col", "col2im", "pixel_shuffle", "pixel_unshuffle", "roi_")


class AxisFlow(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Within its block, follows the axes of samples and of channels through the operations of a forward pass.

    A tensor is known again by its memory, shape and strides. Views, permutations, products of matrices, sums and
    whatever keeps the shape are followed; what else an operation returns is not known.

    Examples
    --------
    >>> images = torch.zeros(2, 3, 5, 5)
    >>> with AxisFlow() as flow:
    ...     flow.label(images, 1, label="channel")
    ...     tokens = images.flatten(2).transpose(1, 2) + 1
    >>> flow.axis_of(tokens, "channel")
    2
    """

    supports_higher_order_operators = True

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._known: dict[Any, Axes] = {}
        self._constant: dict[Any, bool] = {}

    def label(self, tensor: torch.Tensor, axis: int, *, label: Label) -> None:
        """Say which axis of a tensor holds the samples, or the channels; what other axis was said to, does not."""
        axes = self._axes_of(tensor) or _unlabeled(tensor.shape)
        if axes[axis] and all(what == label for _, what in axes[axis]):
            return
        axes = tuple(_relabeled(each, label, "") for each in axes)
        self._remember(tensor, (*axes[:axis], _whole(tensor.shape[axis], label), *axes[axis + 1 :]))

    def axis_of(self, tensor: torch.Tensor, label: Label) -> int | None:
        """Return the axis that holds the samples, or the channels; None where that is not known, or no axis alone."""
        axes = self._axes_of(tensor) or ()
        holding = [i for i, axis in enumerate(axes) if any(what == label for _, what in axis)]
        if len(holding) == 1 and all(what == label for _, what in axes[holding[0]]):
            return holding[0]
        return None

    def note_given(self, inputs: Any) -> None:
        """Say what the model is shown, which is no constant, however it was made."""
        self._constant.update({_key(each): False for each in _tensors_in(inputs)})

    def are_constant(self, values: Any) -> bool:
        """Whether all tensors among values are constant."""
        return all(map(self.is_constant, _tensors_in(values)))

    def is_constant(self, tensor: torch.Tensor) -> bool:
        """Whether a tensor was made of parameters, constants and positions alone, whatever the model is shown."""
        return self._constant.get(_key(tensor), isinstance(tensor, torch.nn.Parameter))

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Call an operation, and follow the axes through it."""
        if in_backward() or not is_operation(func):
            return func(*args, **(kwargs or {}))
        given = [(each, self._axes_of(each)) for each in _tensors_in((args, kwargs or {}))]
        constant = torch.Tag.nondeterministic_seeded not in func.tags and all(
            self.is_constant(each) for each, _ in given
        )
        out = func(*args, **(kwargs or {}))
        for each in _tensors_in(out):
            self._constant[_key(each)] = constant and _has_memory(each)
            axes = _after(func, args, kwargs or {}, given=given, shape=tuple(each.shape))
            if axes is None:
                self._known.pop(_key(each), None)
            else:
                self._remember(each, axes)
        return out

    def _axes_of(self, tensor: torch.Tensor) -> Axes | None:
        return self._known.get(_key(tensor)) if _has_memory(tensor) else None

    def _remember(self, tensor: torch.Tensor, axes: Axes) -> None:
        if _has_memory(tensor):
            self._known[_key(tensor)] = axes


def _key(tensor: torch.Tensor) -> Any:
    return (tensor.data_ptr(), tuple(tensor.shape), tensor.stride()) if _has_memory(tensor) else None


def _has_memory(tensor: torch.Tensor) -> bool:
    return (
        type(tensor) in (torch.Tensor, torch.nn.Parameter)
        and tensor.layout == torch.strided
        and not tensor.is_nested  # which has no shape to speak of
        and tensor.device.type != "meta"
        and not is_transformed(tensor)
        and tensor.numel() > 0
    )


def _tensors_in(value: Any) -> Iterator[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        if not value.is_nested:
            yield value
    elif isinstance(value, dict):
        yield from _tensors_in(list(value.values()))
    elif isinstance(value, tuple | list):
        for each in value:
            yield from _tensors_in(each)


def _after(
    func: Any,
    args: Sequence[Any],
    kwargs: dict[str, Any],
    *,
    given: list[tuple[torch.Tensor, Axes | None]],
    shape: tuple[int, ...],
) -> Axes | None:
    """Return the axes of one tensor of this shape that an operation returned."""
    name = func.overloadpacket.__name__.rstrip("_")
    first = given[0][1] if given else None
    if any(part in name for part in _IN_SECOND) and len(shape) > 2:
        samples = _unlabeled(shape[:1]) if first is None or _length(first[0]) != shape[0] else first[:1]
        return (*samples, _second(first, shape[1]), *_unlabeled(shape[2:]))
    if name in ("mm", "addmm"):
        rows = given[0 if name == "mm" else 1][1]
        return (_relabeled(rows[0], "channel", "mixed") if rows else _whole(shape[0], ""), _whole(shape[1], "channel"))
    if name in ("bmm", "baddbmm"):
        return _after_product(*(axes for _, axes in given[-2:]), shape=shape)
    if name == "embedding":
        indices = given[1][1] or _unlabeled(shape[:-1])
        return (*indices, _whole(shape[-1], "channel"))
    if name == "stack":
        axes = next((axes for _, axes in given if axes is not None), None)
        at = (args[1] if len(args) > 1 else kwargs.get("dim", 0)) % len(shape)
        return None if axes is None else (*axes[:at], _whole(shape[at], ""), *axes[at:])
    if first is not None:
        if name in _ROW_MAJOR:
            return _regrouped(first, shape)
        if name in ("permute", "transpose", "t"):
            return _turned_back(tuple(first[i] for i in _order(name, args, n_axes=len(first))))
        if name in _REMOVING and len(shape) < len(first):
            default = 0 if name == "unbind" else range(len(first))
            gone = args[1] if len(args) > 1 and args[1] is not None else kwargs.get("dim", default)
            gone = [each % len(first) for each in ([gone] if isinstance(gone, int) else gone)]
            return tuple(axis for i, axis in enumerate(first) if i not in gone)
    return _as_given(func, name, given=given, shape=shape)


def _second(given: Axes | None, length: int) -> Axis:
    """Return the second axis, of channels; where samples lie in it too, as InstanceNorm has them, these come first."""
    n, what = given[1][0] if given is not None and len(given) > 1 and given[1] else (1, "")
    if what == "batch" and length % n == 0:
        return ((n, "batch"), *_whole(length // n, "channel"))
    return _whole(length, "channel")


def _as_given(
    func: Any, name: str, *, given: list[tuple[torch.Tensor, Axes | None]], shape: tuple[int, ...]
) -> Axes | None:
    """Return the axes of a known tensor of the same shape, or axis by axis of one with as many, where that is right."""
    known = [(tuple(tensor.shape), axes) for tensor, axes in given if axes is not None]
    same = [axes for its_shape, axes in known if its_shape == shape]
    if same:
        return next((axes for axes in same if any(what == "channel" for axis in axes for _, what in axis)), same[0])
    if name == "native_layer_norm" and len(shape) > 1 and shape == tuple(given[0][0].shape):
        return (*_unlabeled(shape[:-1]), _whole(shape[-1], "channel"))
    by_axis = any(part in name for part in _BY_AXIS) or name in _REMOVING or torch.Tag.pointwise in func.tags
    for _, axes in known if by_axis else ():
        if len(axes) == len(shape):
            return tuple(axis if _length(axis) == n else _resized(axis, n) for axis, n in zip(axes, shape, strict=True))
    return None


def _after_product(one: Axes | None, other: Axes | None, *, shape: tuple[int, ...]) -> Axes:
    """Return the axes of a batch of products: rows of one matrix, columns of the other."""
    which = one[0] if one else other[0] if other else _whole(shape[0], "")
    rows, columns = one[1] if one else _whole(shape[1], ""), other[2] if other else _whole(shape[2], "")
    in_rows, in_columns = (any(what == "channel" for _, what in each) for each in (rows, columns))
    if one and other is None and not in_rows and any(what == "channel" for _, what in one[2]):
        columns = _whole(shape[2], "channel")  # weights mix the channels
    if in_rows and in_columns:  # of which of them are the channels of this?
        rows, columns = _relabeled(rows, "channel", ""), _relabeled(columns, "channel", "")
    return which, rows, columns


def _turned_back(axes: Axes) -> Axes:
    """Where positions were mixed, each channel by itself, and are turned back, the channels are what they were."""
    if not any(what == "mixed" for axis in axes for _, what in axis):
        return axes
    return tuple(_relabeled(_relabeled(axis, "channel", ""), "mixed", "channel") for axis in axes)


def _order(name: str, args: Sequence[Any], *, n_axes: int) -> list[int]:
    if name == "permute":
        return [each % n_axes for each in args[1]]
    order = list(range(n_axes))
    one, other = (0, n_axes - 1) if name == "t" else (args[1] % n_axes, args[2] % n_axes)
    order[one], order[other] = order[other], order[one]
    return order


def _regrouped(axes: Axes, shape: tuple[int, ...]) -> Axes | None:
    """Deal the factors of all axes, in their order, out to axes of other lengths."""
    left = [factor for axis in axes for factor in axis][::-1]
    out = []
    for length in shape:
        axis: list[tuple[int, Label]] = []
        while length > 1 and left:
            size, label = left.pop()
            part = math.gcd(size, length)
            if part == 1:
                return None
            if part < size:
                if length % size and part != length:
                    return None
                left.append((size // part, label))
            axis.append((part, label))
            length //= part
        out.append(tuple(axis))
    return tuple(out)


def _length(axis: Axis) -> int:
    return math.prod(size for size, _ in axis)


def _whole(length: int, label: Label) -> Axis:
    return ((length, label),) if length > 1 else ()


def _unlabeled(shape: Sequence[int]) -> Axes:
    return tuple(_whole(length, "") for length in shape)


def _relabeled(axis: Axis, old: Label, new: Label) -> Axis:
    return tuple((size, new if label == old else label) for size, label in axis)


def _resized(axis: Axis, length: int) -> Axis:
    labels = {label for _, label in axis}
    return _whole(length, labels.pop() if len(labels) == 1 else "")
