"""Directions: what is projected out is gone, and nothing else."""

import numpy as np
import pytest
import torch
from torch import nn

import fmcluster as fm
from fmcluster.capture import ModelInputs
from fmcluster.decide import Direction, Network


def test_the_directions_are_gone_and_the_rest_is_as_it_was(plain, probe) -> None:
    vectors = np.random.default_rng(0).normal(size=(2, 8))
    of = Network(plain.eval(), [ModelInputs((probe.tensors[0],))], loss=None)
    (change,) = Direction({"conv2": vectors}).changes(of, None)
    with torch.no_grad():
        output = plain.conv2(plain.relu1(plain.bn1(plain.conv1(probe.tensors[0])))).double()
    made = change.outputs["conv2"](output, output).movedim(1, -1).reshape(-1, 8).numpy()
    rows = output.movedim(1, -1).reshape(-1, 8).numpy()
    away = rows - rows.mean(0)
    basis = np.linalg.qr(vectors.T)[0]
    np.testing.assert_allclose(made, rows.mean(0) + away - away @ basis @ basis.T, atol=1e-6)


def test_the_mean_is_that_of_the_probe_whatever_the_size_of_the_batches(plain, probe) -> None:
    asked = [Direction({"fc": np.eye(4)[:2]})]
    one, whole = (
        fm.ablate(plain, probe, interventions=asked, n_null=0, batch_size=size).frame["kl"].item() for size in (1, 100)
    )
    with torch.no_grad():
        scores = plain.eval()(probe.tensors[0]).double()
        changed = torch.cat([scores[:, :2].mean(0).expand(len(scores), 2), scores[:, 2:]], dim=1)
        before, after = scores.log_softmax(1), changed.log_softmax(1)
        expected = float((before.exp() * (before - after)).sum(1).mean())
    assert whole == pytest.approx(expected, rel=1e-4)
    assert one == pytest.approx(expected, rel=1e-4)


def test_a_direction_that_nothing_lies_in_costs_nothing(plain, probe) -> None:
    with torch.no_grad():
        plain.conv2.weight[5] = 0
    frame = fm.ablate(plain, probe, interventions=[Direction({"conv2": np.eye(8)[5]})]).frame
    assert frame["what"].tolist() == ["1 of 8 directions projected out"]
    assert frame["kl"].item() < 1e-10 < frame["null_kl"].item()


class Tokens(nn.Module):
    """Makes tokens of images: 16 of 6 features, and scores of their mean."""

    def __init__(self, *, channels_last: bool) -> None:
        super().__init__()
        self.patches, self.mix, self.head = nn.Conv2d(3, 6, 2, 2), nn.Linear(6, 6), nn.Linear(6, 4)
        self.norm, self.channels_last = nn.LayerNorm(6), channels_last

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the scores of four classes."""
        tokens = self.patches(images).movedim(1, -1)
        tokens = tokens if self.channels_last else tokens.flatten(1, 2)
        return self.head(self.norm(self.mix(tokens)).flatten(1, -2).mean(1))


@pytest.mark.parametrize("channels_last", [False, True])
def test_channels_of_tokens_are_their_features(channels_last, probe) -> None:
    torch.manual_seed(0)
    model = Tokens(channels_last=channels_last).eval()
    vectors = np.random.default_rng(1).normal(size=(2, 6))
    of = Network(model, [ModelInputs((probe.tensors[0],))], loss=None)
    changes = {change.layer: change for change in Direction({"mix": vectors, "norm": vectors}).changes(of, None)}
    kept = {}
    for name in changes:
        model.get_submodule(name).register_forward_hook(lambda _m, _i, out, name=name: kept.update({name: out}))
    with torch.no_grad():
        model(probe.tensors[0])
    basis = np.linalg.qr(vectors.T)[0]
    for name, change in changes.items():
        assert change.what == "2 of 6 directions projected out"
        rows = kept[name].double().reshape(-1, 6).numpy()
        made = change.outputs[name](kept[name], kept[name])
        assert made.shape == kept[name].shape
        away = rows - rows.mean(0)
        expected = rows.mean(0) + away - away @ basis @ basis.T
        np.testing.assert_allclose(made.reshape(-1, 6).numpy(), expected, atol=1e-6)
        drawn = change.null(torch.Generator().manual_seed(0)).outputs[name](kept[name], kept[name])
        assert np.linalg.matrix_rank((drawn - kept[name]).reshape(-1, 6).numpy(), tol=1e-3) == 2


def test_vectors_that_do_not_fit_are_named(plain, probe) -> None:
    damage = fm.ablate(plain, probe, interventions=[Direction({"conv2": np.eye(7), "conv9": np.eye(8)})])
    assert "it has 8 channels" in damage.skipped["reason"].iloc[0]
    assert "no such module" in damage.skipped["reason"].iloc[1]


@pytest.mark.parametrize("vectors", [np.zeros((1, 8)), np.zeros((0, 8)), np.full((1, 8), np.nan)])
def test_vectors_that_are_no_directions_are_named(vectors, plain, probe) -> None:
    damage = fm.ablate(plain, probe, interventions=[Direction({"conv2": vectors})])
    assert damage.skipped["reason"].tolist() == ["its vectors are zero, or hold values that are NaN or infinite"]


def test_layers_that_are_not_asked_for_are_left_alone(plain, probe) -> None:
    asked = [Direction({"conv1": np.eye(6)[:1], "conv2": np.eye(8)[:1]})]
    assert fm.ablate(plain, probe, interventions=asked, layers=["conv2"]).frame["layer"].tolist() == ["conv2"]
