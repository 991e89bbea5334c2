"""Split batch: what a model is called with of a loader's batch, and what comes with it."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.utils.data import default_collate

from ._datasets import INPUTS, LABELS
from ._forward_arguments import ForwardArguments
from ._inputs import ModelInputs, is_list_of_images
from ._items import describe


def split_batch(batch: Any, *, n_indices: int, takes: ForwardArguments, due: int) -> tuple[ModelInputs, Any]:
    """Return what the model is called with, and what comes with it: labels, where there are any.

    Of a mapping, what the model takes by name goes to it by name. Of a tuple, it is given the first, or as many as it
    needs; where the first is itself a tuple or mapping, it holds all that the model is given, and a label follows. Of
    images that lie in a list, it is given the list.

    Parameters
    ----------
    batch : Any
        As the loader put it together.
    n_indices : int
        How many indices it begins with.
    takes : ForwardArguments
        What the model takes.
    due : int
        How many samples the batch should have.

    Raises
    ------
    ValueError
        Where it is not a batch that the model can be called with.
    """
    if isinstance(batch, Mapping):
        return _of_mapping(batch, takes=takes, other=LABELS), targets_of(batch)
    parts = tuple(batch) if isinstance(batch, (tuple, list)) else (batch,)
    if takes.takes_list and len(parts) == due and all(map(_is_item, parts)):
        parts = as_lists(parts)
    parts = parts[n_indices:]
    if parts and is_list_of_images(parts[0]) and len(parts[0]) == due and not _are_batches(parts[0], takes, due=due):
        return ModelInputs((list(parts[0]),), is_list=True), parts[1] if len(parts) > 1 else None
    if parts and (inputs := _of_nested(parts[0], takes=takes, due=due)) is not None:
        return inputs, parts[1] if len(parts) > 1 else None
    if not parts or not isinstance(parts[0], torch.Tensor):
        raise ValueError(
            f"the probe's items start with {_kind_of(parts[0]) if parts else 'nothing'}; expected an image "
            f"tensor, or a tuple that starts with one (does the data set lack its ToTensor transform?). Of anything "
            f"else, to_inputs, a function from a batch to (args, kwargs), makes what the model is called with"
        )
    if isinstance(batch, list) and len(batch) == due != len(parts[0]):
        raise ValueError(
            f"the probe's batches are lists of {due} items, the first {describe(batch[0])}; expected tensors with a "
            f"row for each sample. Pass to_inputs, a function from such a list to (args, kwargs)"
        )
    if len(takes.by_name) == 1:
        return ModelInputs((), {takes.by_name[0]: parts[0]}), parts[1] if len(parts) > 1 else None
    if takes.by_name:
        given = ", ".join(f'"{name}": batch[{number}]' for number, name in enumerate(takes.by_name))
        raise ValueError(
            f"the model takes {', '.join(takes.by_name)} by name only, and the probe's items are no mappings; give "
            f"them these keys, or pass to_inputs=lambda batch: ((), {{{given}}})"
        )
    given_by_place = parts[: takes.n_needed]
    if 1 < takes.n_needed <= len(parts) and all(isinstance(each, torch.Tensor) for each in given_by_place):
        return ModelInputs(given_by_place), parts[min(takes.n_needed, len(parts) - 1)]
    return ModelInputs((parts[0],)), parts[1] if len(parts) > 1 else None


def as_lists(items: Sequence[Any]) -> Any:
    """Put items together without stacking them: lists of their parts, as detectors take images of any size."""
    if isinstance(items[0], Mapping):
        return default_collate(list(items))
    if isinstance(items[0], tuple | list):
        return tuple(map(list, zip(*items, strict=True)))
    return (list(items),)


def targets_of(batch: Any) -> Any:
    """Return a batch's labels: under one of their keys, or last in a tuple; None where there are none."""
    if isinstance(batch, Mapping):
        return next((batch[key] for key in LABELS if key in batch), None)
    return batch[-1] if isinstance(batch, tuple | list) and len(batch) > 1 else None


def without_indices(batch: Any, n_indices: int) -> Any:
    """Return a batch of an indexed data set without the index, or indices."""
    if isinstance(batch, Mapping):
        return {key: value for key, value in batch.items() if key != "index"}
    rest = tuple(batch)[n_indices:]
    return rest[0] if len(rest) == 1 else rest


def _of_mapping(batch: Mapping[Any, Any], *, takes: ForwardArguments, other: Sequence[str] = ()) -> ModelInputs:
    named = {key: value for key, value in batch.items() if isinstance(value, torch.Tensor) and key not in other}
    only = [key for key, value in named.items() if value.ndim > 2]
    first = next((key for key in INPUTS if key in named), only[0] if len(only) == 1 else None)
    more = {key: value for key, value in named.items() if key != first and key in takes.names}
    if first is not None:
        images = named[first]
        return ModelInputs((), {first: images} | more) if first in takes.names else ModelInputs((images,), more)
    if more:
        return ModelInputs((), more)
    raise ValueError(
        f"the probe's items are mappings with the keys {', '.join(map(str, batch))}; expected a tensor under one of "
        f"{', '.join(INPUTS)}, or under a name that the model's forward takes. Or pass to_inputs, a function from a "
        f"batch to (args, kwargs)"
    )


def _of_nested(first: Any, *, takes: ForwardArguments, due: int) -> ModelInputs | None:
    """Return what lies in the first part of items, as of ``((left, right), label)``; None where that holds no inputs.

    A tuple goes to the model as it is where that takes one argument, and else part by part.
    """
    if isinstance(first, Mapping):
        return _of_mapping(first, takes=takes)
    rows = [each for each in ModelInputs((first,)).tensors() if each.ndim and len(each) == due]
    if not isinstance(first, tuple | list) or not rows:
        return None
    if takes.by_name and len(takes.by_name) == len(first):
        return ModelInputs((), dict(zip(takes.by_name, first, strict=True)))
    is_whole = takes.n_needed == 1 and len(first) > takes.n_taken
    return ModelInputs((first,) if is_whole else tuple(first))


def _are_batches(tensors: Sequence[torch.Tensor], takes: ForwardArguments, *, due: int) -> bool:
    """Whether tensors of three axes are a batch for each of a model's arguments, rather than each an image."""
    return not takes.takes_list and 1 < takes.n_needed == len(tensors) and all(len(each) == due for each in tensors)


def _is_item(value: Any) -> bool:
    """Whether a value is an image, or a tuple with one among its parts."""
    parts = value if isinstance(value, tuple | list) else (value,)
    return any(isinstance(each, torch.Tensor) and each.ndim == 3 for each in parts)


def _kind_of(value: Any) -> str:
    """Say what a batch starts with; of texts and such, a list that the loader made of them."""
    texts = isinstance(value, tuple | list) and value and not isinstance(value[0], torch.Tensor)
    return type(value[0] if texts else value).__name__
