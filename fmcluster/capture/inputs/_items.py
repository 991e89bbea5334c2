"""Items: what a data set gives, in words, and why no batch can be made of it."""

import traceback
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

_MOST_PARTS = 4  # that are described of a tuple or mapping


def describe(value: Any) -> str:
    """Say what a value is, for an error.

    Examples
    --------
    >>> describe((torch.zeros(3, 8, 8), 1))
    '(float32 of shape (3, 8, 8), int)'
    """
    if isinstance(value, torch.Tensor):
        kind = "" if value.layout == torch.strided else f"{str(value.layout).removeprefix('torch.')} "
        shape = "a nested shape" if value.is_nested else f"shape {tuple(value.shape)}"
        return f"{kind}{str(value.dtype).removeprefix('torch.')} of {shape}"
    if isinstance(value, np.ndarray):
        return f"ndarray of {value.dtype} and shape {value.shape}"
    if isinstance(value, Mapping):
        parts = [f"{key!r}: {describe(each)}" for key, each in list(value.items())[:_MOST_PARTS]]
        return "{" + ", ".join(parts) + (", ..." if len(value) > _MOST_PARTS else "") + "}"
    if isinstance(value, tuple | list):
        start, end = "()" if isinstance(value, tuple) else "[]"
        parts = [describe(each) for each in value[:_MOST_PARTS]]
        return start + ", ".join(parts) + (", ..." if len(value) > _MOST_PARTS else "") + end
    return type(value).__name__


def why_no_batch(error: Exception, dataset: Any) -> str:
    """Say why the items of a data set could not be put together; empty where it was not that which failed.

    Parameters
    ----------
    error : Exception
        What the loader raised.
    dataset : Dataset
        The data set, whose first items are looked at.
    """
    text = str(error)  # of a worker process, with its traceback
    frames = [frame.filename for frame in traceback.extract_tb(error.__traceback__)]
    if not any(name.endswith("collate.py") for name in frames) and "collate.py" not in text:
        return ""
    if "PIL" in text:
        return "are PIL images; expected tensors: give the data set a transform that ends with ToTensor()"
    if "NoneType" in text:
        return (
            "hold None, of which no batch can be made; leave it out of the items, or pass a DataLoader with a "
            "collate_fn"
        )
    if "stack expects each tensor to be equal size" in text:
        sizes = next(line for line in text.splitlines() if "stack expects" in line).partition("stack expects")[2]
        return (
            f"have different shapes, so that they make no batch (stack expects{sizes}); resize or crop them to one "
            f"size, or pass a DataLoader with a collate_fn"
        )
    first, second = ([describe(dataset[number])] if number < len(dataset) else [] for number in (0, 1))
    of_others = f", and the second {second[0]}" if second and second != first else ""
    return (
        f"make no batch: the first is {first[0]}{of_others}; expected tensors of one shape and dtype, or tuples and "
        f"mappings of them with the same keys. Convert them in the data set, or pass a DataLoader with a collate_fn"
    )
