"""Resolution: maps without detail lose nothing."""

import pytest
import torch
from torch.nn import functional

import fmcluster as fm
from fmcluster.decide import Resolution


def test_maps_are_averaged_and_brought_back(plain, probe) -> None:
    damage = fm.ablate(plain, probe, layers=["conv2"], interventions=[Resolution(factors=(2, 4, 8))], n_null=0)
    assert damage.frame["what"].tolist() == ["8 x 8 to 4 x 4", "8 x 8 to 2 x 2"]
    plain.eval()
    with torch.no_grad():
        before = plain(probe.tensors[0])
        handle = plain.conv2.register_forward_hook(
            lambda _m, _i, out: functional.interpolate(functional.avg_pool2d(out, 2), scale_factor=2, mode="bilinear")
        )
        after = plain(probe.tensors[0])
        handle.remove()
    p, q = before.double().log_softmax(1), after.double().log_softmax(1)
    assert damage.frame["kl"].iloc[0] == pytest.approx(float((p.exp() * (p - q)).sum(1).mean()), rel=1e-4)
    assert damage.frame["parameters_share"].tolist() == [0, 0]
    assert damage.frame["amount"].tolist() == [0.75, 0.9375]


def test_constant_maps_lose_nothing(plain, probe) -> None:
    with torch.no_grad():
        plain.conv2.weight.zero_()
    frame = fm.ablate(plain, probe, layers=["conv2"], interventions=[Resolution()]).frame
    assert (frame["kl"] < 1e-12).all()
