"""Indices of a batch, whatever they come as, and how many samples an epoch may show."""

from typing import Any

import numpy as np
import pytest
import torch

from fmcluster.capture.inputs._indices import as_indices, check_in, count_slots


@pytest.mark.parametrize(
    "given",
    [[3, 0, 3], (3, 0, 3), np.array([3, 0, 3], np.uint8), torch.tensor([3, 0, 3]), torch.tensor([3, 0, 3]).short()],
    ids=lambda given: type(given).__name__,
)
def test_indices_come_as_what_a_loader_gives(given: Any) -> None:
    found = as_indices(given)
    assert found.dtype == np.int64
    assert found.tolist() == [3, 0, 3]


@pytest.mark.parametrize("given", [[], [1.5], [[1, 2]], ["a"], 3, [True, False], None], ids=str)
def test_what_are_no_indices_is_refused(given: Any) -> None:
    with pytest.raises(TypeError, match=r"indices is of dtype .* and shape .*; expected the batch's dataset indices"):
        as_indices(given)


def test_indices_below_zero_or_of_no_item_are_refused() -> None:
    with pytest.raises(ValueError, match="indices holds -2; expected dataset indices, from 0 on"):
        as_indices([4, -2])
    check_in(["a", "b", "c"], np.array([2, 0]))
    with pytest.raises(ValueError, match="indices holds 3, and dataset has 3 items; pass as dataset what with_index"):
        check_in(["a", "b", "c"], np.array([1, 3]))


def test_slots_are_counted_or_given() -> None:
    assert count_slots(None, dataset=["a", "b"]) == 2
    assert count_slots(7, dataset=["a", "b"]) == 7
    assert count_slots(7, dataset=None) == 7
    for n_samples, dataset, message in (
        (None, None, "n_samples is None and there is no dataset; pass dataset="),
        (0, None, "n_samples is 0; expected the most samples that an epoch shows"),
        (-1, ["a"], "n_samples is -1; expected"),
        (None, [], "dataset has no items; expected one at least"),
    ):
        with pytest.raises(ValueError, match=message):
            count_slots(n_samples, dataset=dataset)
    with pytest.raises(TypeError, match="dataset is a generator without a length"):
        count_slots(3, dataset=(item for item in "ab"))
