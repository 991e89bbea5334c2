"""Text labels: labels that are names of classes, numbered; and what is said of labels that are none."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch


def as_texts(listed: Any, *, count: int) -> tuple[str, ...] | None:
    """Return labels of so many samples where all of them are text; else None.

    Examples
    --------
    >>> as_texts(["bee", "ant"], count=2)
    ('bee', 'ant')
    """
    if not isinstance(listed, torch.Tensor) and hasattr(listed, "tolist"):  # of NumPy, or a column of pandas
        listed = listed.tolist()
    if isinstance(listed, str) or not isinstance(listed, Sequence) or len(listed) != count:
        return None  # a Hugging Face data set's columns are sequences of their own
    return tuple(map(str, listed)) if all(isinstance(each, str) for each in listed) else None


def numbered(texts: Sequence[str], *, classes: Sequence[str] = ()) -> tuple[npt.NDArray[np.int64], tuple[str, ...]]:
    """Return the number of each text, ndarray of shape (n,), and what the numbers stand for.

    They count `classes` where all texts are among these; else the texts in their order.

    Examples
    --------
    >>> numbered(["bee", "ant", "bee"])
    (array([1, 0, 1]), ('ant', 'bee'))
    """
    names = tuple(classes) if set(texts) <= set(classes) else tuple(sorted(set(texts)))
    of_each = {name: number for number, name in reversed(list(enumerate(names)))}
    return np.array([of_each[text] for text in texts], np.int64), names


def look_like_labels(targets: Any) -> bool:
    """Whether targets of several samples may be meant as classes: numbers or text of each, or a row of numbers.

    Those of detectors (mappings), and images and masks, are not.
    """
    if isinstance(targets, list | tuple) and targets and not isinstance(targets[0], np.ndarray | torch.Tensor):
        return isinstance(targets[0], str | int | float | list | tuple)
    first = targets[0] if isinstance(targets, list | tuple) and targets else targets
    of_one = isinstance(targets, list | tuple)
    return isinstance(first, np.ndarray | torch.Tensor) and first.ndim + of_one in (1, 2)


def why_no_labels(described: str, *, what: str) -> str:
    """Say of labels that cannot be stored what they are, and what to do."""
    return (
        f"the labels of {what} are {described}, and not one class for each sample: none are stored, and "
        f"nothing will be told apart by class. Expected whole numbers, text, or rows with a single 1; where there is "
        f"such a class, put it second in each item, or under 'label'"
    )
