"""Directions: what is projected out is gone, and nothing else."""

import numpy as np
import pytest
import torch

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
