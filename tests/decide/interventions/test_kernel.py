"""Kernels: what is of the smaller kind already costs nothing, and what is refitted is the least-squares solution."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

import fmcluster as fm
from fmcluster.capture import ModelInputs
from fmcluster.decide import Groups, KernelSize, Network, Separable
from fmcluster.decide.interventions._kernel import _assign


def one_row(model, probe, intervention, layer: str, what: str) -> dict:
    frame = fm.ablate(model, probe, layers=[layer], interventions=[intervention]).frame
    (row,) = frame[frame["what"] == what].to_dict("records")
    return row


def test_a_kernel_whose_rings_are_zero_may_lose_them(plain, probe) -> None:
    with torch.no_grad():
        plain.conv2.weight[:, :, [0, 4], :] = 0
        plain.conv2.weight[:, :, :, [0, 4]] = 0
    row = one_row(plain, probe, KernelSize(), "conv2", "5 x 5 to 3 x 3")
    assert row["kl"] < 1e-6
    assert row["amount"] == pytest.approx(1 - 9 / 25)
    row = one_row(plain, probe, KernelSize(), "conv2", "5 x 5 to 1 x 1")
    assert row["kl"] > 1e-5


@pytest.mark.parametrize(
    "how",
    [
        {"padding": 1},
        {"padding": 1, "stride": 2},
        {"padding": 2, "dilation": 2},
        {"padding": "same"},
        {"padding": 0},
        {"padding": 1, "groups": 3},
        {"padding": (0, 1), "kernel_size": (1, 3)},
    ],
    ids=str,
)
def test_the_refit_is_the_least_squares_solution(how: dict) -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(6, 9, **{"kernel_size": 3, "bias": False, **how})
    images = torch.randn(5, 6, 9, 7)
    of = Network(nn.Sequential(conv), [ModelInputs((images[:3],)), ModelInputs((images[3:],))], loss=None)
    (change,) = KernelSize(sizes=(1,)).changes(of, None)
    weight = change.weights["0.weight"]
    middle = (slice(None), slice(None), weight.shape[2] // 2, weight.shape[3] // 2)
    outside = weight.clone()
    outside[middle] = 0
    assert not outside.any()
    with torch.no_grad():
        target = conv(images).double()
        inner = functional.conv2d(
            images.double(), torch.eye(6, dtype=torch.float64)[:, :, None, None], stride=conv.stride
        )
        crop = [(n - m) // 2 for n, m in zip(inner.shape[2:], target.shape[2:], strict=True)]
        inner = inner[:, :, crop[0] : crop[0] + target.shape[2], crop[1] : crop[1] + target.shape[3]]
    for group in range(conv.groups):
        ins, outs = (
            slice(group * 6 // conv.groups, (group + 1) * 6 // conv.groups),
            slice(group * 9 // conv.groups, (group + 1) * 9 // conv.groups),
        )
        rows = inner[:, ins].movedim(1, -1).flatten(0, 2).numpy()
        wanted = target[:, outs].movedim(1, -1).flatten(0, 2).numpy()
        expected = np.linalg.lstsq(rows, wanted, rcond=None)[0].T
        np.testing.assert_allclose(weight[middle][outs].numpy(), expected, atol=1e-5)


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


def test_kernels_that_cannot_be_replaced_are_named(plain, probe) -> None:
    nn.utils.parametrizations.weight_norm(plain.conv2)
    plain.conv1.padding_mode = "reflect"
    damage = fm.ablate(plain, probe, interventions=[KernelSize()])
    assert len(damage.frame) == 0
    reasons = damage.skipped.set_index("layer")["reason"]
    assert "pads with other values than zeros" in reasons["conv1"]
    assert "parametrization" in reasons["conv2"]
