"""Kernel size: rings that are zero already cost nothing."""

import pytest
import torch

from fmcluster.decide import KernelSize
from tests.decide.interventions.one_row import one_row


def test_a_kernel_whose_rings_are_zero_may_lose_them(plain, probe) -> None:
    with torch.no_grad():
        plain.conv2.weight[:, :, [0, 4], :] = 0
        plain.conv2.weight[:, :, :, [0, 4]] = 0
    row = one_row(plain, probe, KernelSize(), "conv2", "5 x 5 to 3 x 3")
    assert row["kl"] < 1e-6
    assert row["amount"] == pytest.approx(1 - 9 / 25)
    row = one_row(plain, probe, KernelSize(), "conv2", "5 x 5 to 1 x 1")
    assert row["kl"] > 1e-5
