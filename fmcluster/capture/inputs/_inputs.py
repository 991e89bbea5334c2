"""Model inputs: what a model is called with, as positional and keyword arguments that hold a batch."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from ...errors import CALLED_WITH, CaptureError, StoreError
from ._items import describe

ToInputs = Callable[[Any], tuple[tuple[Any, ...], Mapping[str, Any]]]


@dataclass(frozen=True, eq=False)
class ModelInputs:
    """What a model is called with.

    Attributes
    ----------
    args : tuple
        Positional arguments: tensors, or tuples, lists and mappings of them; what else there is, is handed on.
    kwargs : mapping of str to Any
        Keyword arguments.
    is_list : bool
        Whether the first argument is a list with a tensor of each sample; else samples are rows.
    """

    args: tuple[Any, ...]
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    is_list: bool = False

    def __len__(self) -> int:
        """Return the number of samples: rows of the first tensor, or entries of the list."""
        return len(self.images)

    @property
    def images(self) -> torch.Tensor | Sequence[torch.Tensor]:
        """What holds the samples: the first tensor, or the list."""
        if not self.is_list:
            return self.first
        of_all: Sequence[torch.Tensor] = next(iter((*self.args, *self.kwargs.values())))
        return of_all

    def by_sample(self) -> Iterator[torch.Tensor | Sequence[torch.Tensor]]:
        """Yield what is indexed by the sample."""
        if self.is_list:
            yield self.images
        else:
            yield from self.tensors()

    @property
    def first(self) -> torch.Tensor:
        """The first tensor."""
        return next(self.tensors())

    def tensors(self) -> Iterator[torch.Tensor]:
        """Yield the tensors, in their order."""
        yield from _tensors((self.args, self.kwargs))

    def to(self, device: torch.device) -> "ModelInputs":
        """Return the inputs on a device."""
        return self._changed(lambda tensor: tensor.to(device))

    def rows(self, part: slice | torch.Tensor) -> "ModelInputs":
        """Return some of the samples: those rows of every tensor that has as many as there are samples.

        Of samples in a list, those entries of every list that has as many.
        """
        count = len(self)
        if self.is_list:
            chosen = torch.arange(count)[part.cpu() if isinstance(part, torch.Tensor) else part].tolist()

            def cut(value: Any) -> Any:
                return [value[i] for i in chosen] if isinstance(value, list | tuple) and len(value) == count else value

            return ModelInputs(
                tuple(map(cut, self.args)), {name: cut(value) for name, value in self.kwargs.items()}, is_list=True
            )
        return self._changed(lambda t: t[part] if t.ndim and t.shape[0] == count else t)

    def with_leaf(self) -> "tuple[ModelInputs, torch.Tensor]":
        """Return inputs whose first floating-point tensor comes from a leaf that requires a gradient, and that leaf.

        Where there is none of floating point, the first tensor is returned as it is.
        """
        source = next((tensor for tensor in self.tensors() if tensor.is_floating_point()), None)
        if source is None:
            return self, self.first
        leaf = source.detach().requires_grad_()
        copy = leaf.clone()  # the model may change it in place, which a leaf does not allow
        return self._changed(lambda tensor: copy if tensor is source else tensor), leaf

    def show(self, model: nn.Module) -> Any:
        """Call the model with them; what it raises is given a note that says with what it was called."""
        try:
            return model(*self.args, **self.kwargs)
        except (CaptureError, StoreError, MemoryError):
            raise
        except Exception as error:
            error.add_note(self._note(model))
            raise

    def _note(self, model: nn.Module) -> str:
        called = [*map(describe, self.args), *(f"{name}={describe(each)}" for name, each in self.kwargs.items())]
        own = next((each.dtype for each in model.parameters() if each.is_floating_point()), self.first.dtype)
        weights = f", whose weights are {str(own).removeprefix('torch.')}," if own != self.first.dtype else ""
        return (
            f"{type(model).__name__}{weights} {CALLED_WITH} {len(self)}: {', '.join(called)}. Where it "
            f"takes something else, change the data set's transform, or pass to_inputs, a function from a batch to "
            f"(args, kwargs)."
        )

    def _changed(self, change: Callable[[torch.Tensor], torch.Tensor]) -> "ModelInputs":
        return ModelInputs(_map(self.args, change), _map(dict(self.kwargs), change), is_list=self.is_list)


def as_inputs(made: object, *, due: int = 0) -> ModelInputs:
    """Return what a caller's `to_inputs` made as inputs: of so many samples, where that is known.

    Where the first argument is a list of as many tensors, these are the samples, unless they are batches themselves.

    Raises
    ------
    TypeError
        Where it is not a tuple of positional arguments and a mapping of keyword arguments, with a tensor among them.
    """
    args, kwargs = made if isinstance(made, tuple) and len(made) == 2 else (None, None)
    if not (
        isinstance(args, tuple | list) and isinstance(kwargs, Mapping) and all(isinstance(key, str) for key in kwargs)
    ):
        raise TypeError(
            f"to_inputs returned {type(made).__name__}; expected (args, kwargs): a tuple of what the model is called "
            f"with by position, and a dict of what it is called with by name"
        )
    inputs = ModelInputs(tuple(args), dict(kwargs))
    first: Any = next(iter((*args, *kwargs.values())), None)
    if is_list_of_images(first) and len(first) == due:
        return ModelInputs(tuple(args), dict(kwargs), is_list=True)
    if next(inputs.tensors(), None) is None:
        raise TypeError("to_inputs returned (args, kwargs) without a tensor among them; expected a batch")
    return inputs


def is_list_of_images(value: Any) -> bool:
    """Whether a value is a list, or plain tuple, of tensors of three axes: one image of each sample."""
    images = isinstance(value, tuple | list) and not hasattr(value, "_fields") and len(value) > 0
    return images and all(isinstance(each, torch.Tensor) and each.ndim == 3 for each in value)


def _tensors(value: Any) -> Iterator[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, Mapping):
        for each in value.values():
            yield from _tensors(each)
    elif isinstance(value, tuple | list):
        for each in value:
            yield from _tensors(each)


def _map(value: Any, change: Callable[[torch.Tensor], torch.Tensor]) -> Any:
    if isinstance(value, torch.Tensor):
        return change(value)
    if isinstance(value, dict):
        return {key: _map(each, change) for key, each in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(_map(each, change) for each in value))
    if isinstance(value, tuple | list):
        return type(value)(_map(each, change) for each in value)
    return value
