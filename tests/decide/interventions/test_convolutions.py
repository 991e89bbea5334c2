"""Convolutions: what is refitted is the least-squares solution, and what cannot be is named."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import TensorDataset

import fmcluster as fm
from fmcluster.capture import ModelInputs
from fmcluster.decide import Groups, KernelSize, Network, Resolution, Separable


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
    assert change.unknowns == 6 // conv.groups
    weight = change.fit(of).weights["0.weight"]
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


def test_kernels_that_cannot_be_replaced_are_named(plain, probe) -> None:
    nn.utils.parametrizations.weight_norm(plain.conv2)
    plain.conv1.padding_mode = "reflect"
    damage = fm.ablate(plain, probe, interventions=[KernelSize()])
    assert len(damage.frame) == 0
    reasons = damage.skipped.set_index("layer")["reason"]
    assert "pads with other values than zeros" in reasons["conv1"]
    assert "parametrization" in reasons["conv2"]


def test_a_weight_that_two_convolutions_share_is_not_replaced_for_one_of_them(probe) -> None:
    model = nn.Sequential(*(nn.Conv2d(3, 3, 3, padding=1) for _ in range(3)), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    model[2].weight = model[0].weight
    damage = fm.ablate(model, TensorDataset(probe.tensors[0]), interventions=[KernelSize()], n_null=0)
    assert damage.frame["layer"].tolist() == ["1"]
    assert damage.skipped.set_index("layer")["reason"].to_dict() == {
        "0": "its weight is that of 2, too",
        "2": "its weight is that of 0, too",
    }


def test_convolutions_of_other_than_two_dimensions_are_named() -> None:
    model = nn.Sequential(nn.Conv1d(3, 8, 5), nn.Linear(8, 4)).eval()
    of = Network(model, [ModelInputs((torch.randn(4, 3, 12),))], loss=None)
    for asked in (KernelSize(), Separable(), Groups(), Resolution()):
        (skipped,) = asked.changes(of, None)
        assert skipped.layer == "0"
        assert skipped.reason.startswith("it is a Conv1d: only ")
