"""Indices: which item of a data set each sample of a batch is, and how many samples an epoch may show."""

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import Dataset

from ._datasets import check_numbered

Index = npt.NDArray[np.int64]


def as_indices(indices: Any) -> Index:
    """Return a batch's dataset indices, ndarray of shape (n,), int64.

    Raises
    ------
    TypeError, ValueError
        Where they are not integers from 0 on, in one row.
    """
    numbers = np.asarray(indices.cpu() if isinstance(indices, torch.Tensor) else indices)
    if numbers.ndim != 1 or numbers.dtype.kind not in "iu" or not len(numbers):
        raise TypeError(
            f"indices is of dtype {numbers.dtype} and shape {numbers.shape}; expected the batch's dataset indices, "
            f"integers in one row, such as with_index(dataset) puts first in each item"
        )
    if numbers.min() < 0:
        raise ValueError(f"indices holds {numbers.min()}; expected dataset indices, from 0 on")
    return numbers.astype(np.int64)


def check_in(dataset: Dataset[Any], numbers: Index) -> None:
    """Raise `ValueError` where an index is of none of a data set's items."""
    count = len(dataset)  # type: ignore[arg-type]
    if numbers.max() >= count:
        raise ValueError(
            f"indices holds {numbers.max()}, and dataset has {count} items; pass as dataset what with_index was given, "
            f"whose items the indices number"
        )


def count_slots(n_samples: int | None, *, dataset: Dataset[Any] | None) -> int:
    """Return how many slots an epoch has: as many as are asked for, or as the data set has items."""
    if dataset is not None:
        check_numbered(dataset, what="dataset")
        if n_samples is None and not len(dataset):  # type: ignore[arg-type]
            raise ValueError("dataset has no items; expected one at least")
        n_samples = len(dataset) if n_samples is None else n_samples  # type: ignore[arg-type]
    if n_samples is None:
        raise ValueError(
            "n_samples is None and there is no dataset; pass dataset=, or as n_samples the most that an epoch shows"
        )
    if n_samples < 1:
        raise ValueError(f"n_samples is {n_samples}; expected the most samples that an epoch shows, 1 at least")
    return n_samples
