"""Separable convolutions: what is one already is found, and costs nothing."""

import pytest
import torch

from fmcluster.capture import ModelInputs
from fmcluster.decide import Network, Separable
from tests.decide.interventions.one_row import one_row


@pytest.mark.parametrize("rank", [1, 2])
def test_a_separable_kernel_is_found_to_be_one(rank: int, plain, probe) -> None:
    with torch.no_grad():
        kernels, points = torch.randn(6, rank, 5, 5), torch.randn(8, 6, rank)
        plain.conv2.weight.copy_(torch.einsum("oir,irhw->oihw", points, kernels) / 30)
    ends = "s" if rank > 1 else ""
    row = one_row(
        plain, probe, Separable(), "conv2", f"depthwise-separable, {rank} kernel{ends} for each input channel"
    )
    assert row["kl"] < 1e-9
    assert row["null_kl"] < 1e-9  # a change of no size
    if rank == 2:
        less = one_row(plain, probe, Separable(), "conv2", "depthwise-separable, 1 kernel for each input channel")
        assert less["kl"] > 1e-6
        assert less["null_kl"] > 1e-6
    dense, kept = 8 * 6 * 25, 6 * rank * 25 + 6 * rank * 8
    facts = Network(plain, [ModelInputs((probe.tensors[0],))], loss=None)
    share = facts.facts["conv2"].costs.forward * (1 - kept / dense) / facts.costs.forward
    assert row["forward_share"] == pytest.approx(share)
