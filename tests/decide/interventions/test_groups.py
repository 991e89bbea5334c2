"""Groups: those that are there already are found, and cost nothing."""

import numpy as np
import torch

from fmcluster.decide import Groups
from fmcluster.decide.interventions._groups import _assign
from tests.decide.interventions.one_row import one_row


def test_groups_are_found_whatever_the_order_of_the_channels(plain, probe) -> None:
    generator = np.random.default_rng(0)
    in_group, out_group = generator.permutation([0, 0, 0, 1, 1, 1]), generator.permutation([0, 0, 0, 0, 1, 1, 1, 1])
    with torch.no_grad():
        plain.conv2.weight[torch.as_tensor(out_group[:, None] != in_group[None, :])] = 0
    row = one_row(plain, probe, Groups(), "conv2", "2 groups")
    assert row["kl"] < 1e-9
    assert row["amount"] == 0.5
    found_out, found_in = _assign(generator.random((8, 6)) * (out_group[:, None] == in_group[None, :]), 2)
    assert ((found_out[:, None] == found_in[None, :]) == (out_group[:, None] == in_group[None, :])).all()
