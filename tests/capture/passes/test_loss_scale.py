"""Loss scales: numbers and scalers, and what is none."""

import numpy as np
import pytest
import torch

from fmcluster.capture.passes._loss_scale import as_scale


def test_numbers_tensors_and_scalers_are_scales() -> None:
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    assert [as_scale(each) for each in (2, np.float32(0.5), torch.tensor([8.0]), scaler)] == [2, 0.5, 8, 1024]


@pytest.mark.parametrize("scale", [0, -1.0, float("nan"), float("inf")])
def test_only_positive_numbers_are(scale: float) -> None:
    with pytest.raises(ValueError, match="expected a positive number"):
        as_scale(scale)


@pytest.mark.parametrize("scale", [None, "much", torch.ones(2)])
def test_what_is_no_number_is_refused(scale: object) -> None:
    with pytest.raises(TypeError, match="expected a number, or a gradient scaler"):
        as_scale(scale)  # type: ignore[arg-type]
