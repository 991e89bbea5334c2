"""Directions: what is projected out is gone, and nothing else."""

import numpy as np
import torch

import fmcluster as fm
from fmcluster.capture import ModelInputs
from fmcluster.decide import Direction, Network


def test_the_directions_are_gone_and_the_rest_is_as_it_was(plain, probe) -> None:
    vectors = np.random.default_rng(0).normal(size=(2, 8))
    of = Network(plain, [ModelInputs((probe.tensors[0],))], loss=None)
    (change,) = Direction({"conv2": vectors}).changes(of, None)
    output = torch.randn(5, 8, 4, 4, dtype=torch.float64)
    made = change.outputs["conv2"](output, output).movedim(1, -1).reshape(-1, 8).numpy()
    rows = output.movedim(1, -1).reshape(-1, 8).numpy()
    away = rows - rows.mean(0)
    basis = np.linalg.qr(vectors.T)[0]
    np.testing.assert_allclose(made, rows.mean(0) + away - away @ basis @ basis.T, atol=1e-10)


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
