"""Width: channels that the others predict cost nothing to remove; who reads whom is known, not guessed."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

import fmcluster as fm
from fmcluster.capture import ModelInputs
from fmcluster.decide import Network, Width


def network(model: nn.Module, probe: TensorDataset) -> Network:
    return Network(model.eval(), [ModelInputs((probe.tensors[0],))], loss=None)


def test_the_one_reader_of_a_layer_is_found_through_what_keeps_channels_apart(residual, plain, probe) -> None:
    of = network(plain, probe)
    assert of.consumer("conv1").module == "conv2"
    assert of.consumer("conv1").between == ("bn1",)
    assert of.consumer("conv2").module == "fc"
    assert of.consumer("fc") is None
    of = network(residual, probe)
    assert of.consumer("block1.conv1").module == "block1.conv2"
    assert of.consumer("block2.conv1").between == ("block2.bn1",)
    for tied in ("stem", "block1.conv2", "block2.conv2", "block2.shortcut", "head"):
        assert of.consumer(tied) is None, tied


@pytest.mark.parametrize("inplace", [True, False])
def test_a_duplicate_that_is_folded_costs_nothing_and_is_the_first_to_go(inplace: bool, plain, probe) -> None:
    plain.relu1.inplace = inplace
    with torch.no_grad():
        for tensor in (plain.conv1.weight, plain.conv1.bias, plain.bn1.weight, plain.bn1.bias):
            tensor[4] = tensor[1]
        for tensor in (plain.bn1.running_mean, plain.bn1.running_var):
            tensor[4] = tensor[1]
    frame = fm.ablate(plain, probe, layers=["conv1"], interventions=[Width(shares=(1 / 6,))]).frame
    (row,) = frame.to_dict("records")
    assert row["what"] == "1 of 6 channels removed"
    assert row["kl"] < 1e-6 < row["null_kl"]
    assert row["channels"] in ((1,), (4,))  # either is as good
    (row,) = fm.ablate(
        plain, probe, layers=["conv1"], interventions=[Width(shares=(1 / 6,), fold=False)]
    ).frame.to_dict("records")
    assert row["kl"] > 1e-6


def test_what_is_folded_is_the_least_squares_prediction(plain, probe) -> None:
    of = network(plain, probe)
    (described,) = Width(shares=(0.5,)).changes(of, ["conv1"])
    change = described.fit(of)
    with torch.no_grad():
        given = plain.relu1(plain.bn1(plain.conv1(probe.tensors[0])))
    out = change.inputs["conv2"](given)
    rows, made = (each.movedim(1, -1).reshape(-1, 6).double().numpy() for each in (given, out))
    removed = np.flatnonzero((rows != made).any(axis=0))
    assert len(removed) == 3
    assert change.channels == tuple(removed)
    kept = np.setdiff1d(range(6), removed)
    design = np.column_stack([rows[:, kept], np.ones(len(rows))])
    expected = design @ np.linalg.lstsq(design, rows[:, removed], rcond=None)[0]
    np.testing.assert_allclose(made[:, removed], expected, atol=1e-4)


def test_rankings_are_those_of_their_definitions(plain, probe) -> None:
    images, labels = probe.tensors
    inputs = [ModelInputs((images[:10],)), ModelInputs((images[10:],))]

    def loss(output, number):
        of = labels[:10] if number == 0 else labels[10:]
        return nn.functional.cross_entropy(output, of, reduction="sum")

    of = Network(plain.eval(), inputs, loss=loss)
    given = []
    handle = plain.conv2.register_forward_pre_hook(lambda _m, args: given.append(args[0]) or args[0].retain_grad())
    nn.functional.cross_entropy(plain(images), labels, reduction="sum").backward()
    handle.remove()
    terms = (given[0].grad * given[0]).flatten(2).sum(2).detach()
    torch.testing.assert_close(of.gradient_terms("conv2"), terms, rtol=1e-4, atol=1e-6)
    (change,) = Width(shares=(0.5,), rankings=("taylor",), fold=False).changes(of, ["conv1"])
    least = terms.square().mean(0).argsort()[:3]
    assert sorted(change.inputs["conv2"]._removed.tolist()) == sorted(least.tolist())
    (change,) = Width(shares=(0.5,), rankings=("l1",), fold=False).changes(of, ["conv1"])
    least = plain.conv1.weight.abs().sum((1, 2, 3)).argsort()[:3]
    assert sorted(change.inputs["conv2"]._removed.tolist()) == sorted(least.tolist())


def test_tied_layers_are_named_with_the_reason(residual, probe) -> None:
    damage = fm.ablate(residual, probe, interventions=[Width()], n_null=0)
    assert set(damage.frame["layer"]) == {"block1.conv1", "block2.conv1"}
    skipped = damage.skipped.set_index("layer")["reason"]
    assert "tied to those of other layers" in skipped["stem"]


class Subsampled(nn.Module):
    """A residual block whose shortcut takes every second position and adds channels of zeros."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, padding=1)
        self.inner = nn.Conv2d(6, 5, 3, stride=2, padding=1)
        self.outer = nn.Conv2d(5, 8, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x).relu()
        out = self.outer(self.inner(x).relu()) + nn.functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 1, 1))
        return out.mean((2, 3))


def test_a_shortcut_that_takes_every_second_position_ties_the_layer_before_it(probe) -> None:
    found = network(Subsampled().eval(), probe)
    assert found.consumer("stem") is None
    assert found.consumer("inner").module == "outer"


def test_channels_of_a_weight_that_two_layers_share_stay() -> None:
    model = nn.Sequential(*(nn.Conv2d(3, 3, 3, padding=1) for _ in range(4)), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    model[2].weight = model[0].weight
    damage = fm.ablate(model, TensorDataset(torch.randn(8, 3, 6, 6)), interventions=[Width()], n_null=0)
    reasons = damage.skipped.set_index("layer")["reason"]
    assert "tied to those of other layers" in reasons["0"]
    assert reasons["1"] == "the weight of 2 is that of 0, too"
    assert "it is the last" in reasons["3"]
    assert len(damage.frame) == 0
