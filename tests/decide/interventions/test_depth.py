"""Depth: what the identity or the shortcut stands for, one module at a time and together."""

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import TensorDataset

import fmcluster as fm
from fmcluster.decide import Depth

from ..conftest import Block


def changed(model: nn.Module, images: torch.Tensor, damage, layer: str) -> float:
    return float(damage.frame.set_index("layer").loc[layer, "kl"])


def divergence(before: torch.Tensor, after: torch.Tensor) -> float:
    p, q = before.double().log_softmax(1), after.double().log_softmax(1)
    return float((p.exp() * (p - q)).sum(1).mean())


def test_a_block_is_replaced_by_the_identity_and_a_branch_set_to_zero(residual, probe) -> None:
    damage = fm.ablate(residual, probe, interventions=[Depth(single=False)], n_null=0)
    frame = damage.frame.set_index("layer")
    assert frame["what"].to_dict() == {
        "block1": "replaced by the identity",
        "block2": "its residual branch set to zero",
        **{name: "2 modules left out together" for name in frame.index if "," in name},
    }
    residual.eval()
    images = probe.tensors[0]
    with torch.no_grad():
        stem = functional.relu(residual.bn(residual.stem(images)))
        before = residual(images)
        without_one = residual.head(residual.block2(stem).mean((2, 3)))
        shortcut = functional.relu(residual.block2.shortcut(residual.block1(stem)))
        both = functional.relu(residual.block2.shortcut(stem))
        without_two, without_any = (residual.head(each.mean((2, 3))) for each in (shortcut, both))
    assert frame.loc["block1", "kl"] == pytest.approx(divergence(before, without_one), rel=1e-4)
    assert frame.loc["block2", "kl"] == pytest.approx(divergence(before, without_two), rel=1e-4)
    (together,) = [name for name in frame.index if "," in name]
    assert frame.loc[together, "kl"] == pytest.approx(divergence(before, without_any), rel=1e-4)
    least = frame.loc[["block1", "block2"], "kl"].idxmin()
    assert together.split(", ")[0] == least


def test_a_branch_that_adds_nothing_costs_nothing(residual, probe) -> None:
    with torch.no_grad():
        residual.block1.bn2.weight.zero_()
        residual.block1.bn2.bias.zero_()
    frame = fm.ablate(residual, probe, interventions=[Depth()], n_null=0).frame
    assert frame.set_index("layer").loc["block1", "kl"] == 0


def test_what_is_saved_is_what_the_block_costs(residual, probe) -> None:
    damage = fm.ablate(residual, probe, layers=["block1"], interventions=[Depth()], n_null=0)
    (row,) = damage.frame.to_dict("records")
    block = 2 * 8 * 8 * 9 * 64  # two convolutions of 8 channels at 8 x 8 positions
    whole = 8 * 3 * 9 * 64 + block + (16 * 8 * 9 + 16 * 16 * 9 + 16 * 8) * 16 + 16 * 5
    assert damage.costs["forward"] == whole
    assert row["forward_share"] == pytest.approx(block / whole)
    weights = sum(each.numel() for each in residual.block1.parameters())
    assert row["parameters_share"] == pytest.approx(weights / sum(each.numel() for each in residual.parameters()))


def test_what_nothing_can_stand_for_is_named(plain, probe) -> None:
    damage = fm.ablate(plain, probe, layers=["conv1"], interventions=[Depth()])
    assert "nothing can stand for it" in damage.skipped["reason"].item()


class Both(nn.Module):
    """Joins a list of two feature maps, and convolves them."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.other = nn.Conv2d(6, 4, 1), nn.Conv2d(4, 3, 1)

    def forward(self, maps: list[torch.Tensor]) -> torch.Tensor:
        """Return three channels."""
        return self.other(self.one(torch.cat(maps, dim=1)))


class GivesAList(nn.Module):
    """Gives one of its modules a list of tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.both, self.head = Both(), nn.Linear(3, 4)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return scores."""
        return self.head(self.both([images, images]).mean((2, 3)))


def test_a_module_that_is_given_a_list_is_named_as_such(probe) -> None:
    damage = fm.ablate(GivesAList(), probe, layers=["both"], interventions=[Depth()])
    assert damage.skipped["reason"].tolist() == [
        "it was given something else than one tensor: nothing can stand for it"
    ]


def test_a_convolution_that_is_all_of_a_container_is_tried(probe) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Sequential(nn.Sequential(nn.Conv2d(3, 3, 3, padding=1))), nn.AdaptiveAvgPool2d(1))
    model.append(nn.Flatten())
    images = TensorDataset(probe.tensors[0])
    frame = fm.ablate(model, images, interventions=[Depth()], n_null=0).frame
    with torch.no_grad():
        expected = divergence(model(probe.tensors[0]), probe.tensors[0].mean((2, 3)))
    assert frame["layer"].tolist() == ["0.0.0"]
    assert frame["kl"].item() == pytest.approx(expected, rel=1e-3)


def test_a_block_that_is_all_of_a_container_is_tried_once_and_alone_where_it_is_named(residual, probe) -> None:
    residual.block2 = nn.Sequential(residual.block2)
    asked = {"interventions": [Depth(single=False)], "n_null": 0}
    frame = fm.ablate(residual, probe, **asked).frame
    assert frame["layer"][~frame["layer"].str.contains(",")].tolist() == ["block1", "block2"]
    assert fm.ablate(residual, probe, layers=["block2.0"], **asked).frame["layer"].tolist() == ["block2.0"]


def test_the_branch_of_a_block_is_not_taken_for_that_of_the_stage_that_holds_it(residual, probe) -> None:
    residual.block2 = nn.Sequential(nn.Conv2d(8, 16, 3, stride=2, padding=1), Block(16, 16))
    frame = fm.ablate(residual, probe, interventions=[Depth(single=False)], n_null=0).frame
    assert frame["layer"][~frame["layer"].str.contains(",")].tolist() == ["block1", "block2.1"]


def test_a_block_in_a_list_is_tried_though_the_list_is_never_called(probe) -> None:
    class Listed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.blocks = nn.Conv2d(3, 8, 3), nn.ModuleList([Block(8, 8)])

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.blocks[0](self.stem(x)).mean((2, 3))

    images = TensorDataset(probe.tensors[0])
    frame = fm.ablate(Listed(), images, interventions=[Depth(single=False)], n_null=0).frame
    assert frame["layer"].tolist() == ["blocks.0"]
