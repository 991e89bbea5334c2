"""Prices: a step that is timed, and one that cannot be."""

import pytest
import torch
from torch import nn

from fmcluster.capture import ModelInputs
from fmcluster.decide._price import measure_seconds


def test_a_step_draws_no_random_numbers_of_the_caller() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Dropout(), nn.Linear(12, 2))
    state = torch.get_rng_state()
    found = measure_seconds([model, model], ModelInputs((torch.ones(2, 3, 2, 2),)), rounds=2)
    assert torch.equal(torch.get_rng_state(), state)
    assert found is not None
    assert all(0 < each.shortest <= each.median <= each.longest for each in found)


def test_a_batch_that_is_too_small_for_a_normalization_has_no_seconds() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 2), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 2))
    assert measure_seconds([model], ModelInputs((torch.ones(1, 3, 2, 2),))) is None
    assert measure_seconds([model], ModelInputs((torch.ones(2, 3, 2, 2),))) is not None


def test_what_else_a_step_raises_is_handed_on() -> None:
    with pytest.raises(RuntimeError):
        measure_seconds([nn.Linear(3, 2)], ModelInputs((torch.ones(1, 4),)))
