"""Shift of normalizations' inputs, against a case by hand and against data that are known to have moved."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import fmcluster as fm
from fmcluster.analysis import normalization_shift
from fmcluster.store import Run


class Two(nn.Module):
    """Two normalizations: the second sees what the first made."""

    def __init__(self) -> None:
        super().__init__()
        self.bn1, self.conv, self.bn2 = nn.BatchNorm2d(3), nn.Conv2d(3, 4, 1, bias=False), nn.BatchNorm2d(4)
        self.bn3 = nn.BatchNorm2d(4, track_running_stats=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.bn3(self.bn2(self.conv(self.bn1(x))))


@pytest.fixture(scope="module")
def model() -> Two:
    torch.manual_seed(0)
    model = Two().train()
    for _ in range(200):
        model(torch.randn(64, 3, 4, 4))
    return model.eval()


def recorded(model: nn.Module, images: torch.Tensor, path: Path) -> Run:
    with fm.Recorder(model, path, probe=list(images), layers=["conv"], record=("activation", "weight")) as recorder:
        recorder.snapshot(epoch=0)
    return fm.open_run(path)


def test_it_is_the_divergence_of_the_inputs_from_the_running_statistics(model: Two, tmp_path: Path) -> None:
    images = (
        torch.randn(40, 3, 4, 4, generator=torch.Generator().manual_seed(1)) * 1.5
        + torch.tensor([0.0, 1, 2])[:, None, None]
    )
    found = normalization_shift(recorded(model, images, tmp_path / "run.zarr")).set_index("layer")
    assert list(found.index) == ["bn1", "bn2"]  # the third keeps no statistics to compare with
    given = images.double().transpose(0, 1).flatten(1).numpy()
    mean, variance = model.bn1.running_mean.double().numpy(), model.bn1.running_var.double().numpy()
    ratio = given.var(axis=1) / variance
    expected = (ratio - 1 - np.log(ratio) + (given.mean(axis=1) - mean) ** 2 / variance) / 2
    np.testing.assert_allclose(found.loc["bn1", "shift"], expected.mean(), rtol=1e-3)
    assert found.loc["bn1", "n_channels"] == 3
    assert found[["clean_shift", "ratio"]].isna().all().all()


@pytest.mark.slow
def test_data_that_moved_stand_out_against_data_that_are_known(model: Two, tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(2)
    known = recorded(model, torch.randn(64, 3, 4, 4, generator=generator), tmp_path / "known.zarr")
    again = recorded(model, torch.randn(64, 3, 4, 4, generator=generator), tmp_path / "again.zarr")
    moved = recorded(model, torch.randn(64, 3, 4, 4, generator=generator) + 1, tmp_path / "moved.zarr")
    same, other = (normalization_shift(run, clean=known) for run in (again, moved))
    assert (other["ratio"] > 10).all()
    assert (same["ratio"] < 5).all()
    np.testing.assert_allclose(other["ratio"], other["shift"] / other["clean_shift"])


@pytest.mark.slow
def test_what_cannot_be_compared(model: Two, tmp_path: Path) -> None:
    run = recorded(model, torch.randn(4, 3, 4, 4), tmp_path / "run.zarr")
    with pytest.raises(TypeError, match="normalization_shift received a str; expected Run"):
        normalization_shift("run.zarr")
    with pytest.raises(TypeError, match="normalization_shift received a str; expected Run"):
        normalization_shift(run, clean="run.zarr")
    plain = tmp_path / "plain.zarr"
    with fm.Recorder(model, plain, probe=list(torch.randn(4, 3, 4, 4)), layers=["conv"]) as recorder:
        recorder.snapshot(epoch=0)
    with pytest.raises(ValueError, match="holds no inputs of BatchNorms with running statistics"):
        normalization_shift(fm.open_run(plain))
    smaller = nn.Sequential()
    smaller.conv, smaller.bn1 = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)
    with pytest.raises(
        ValueError, match=r"holds no inputs of a normalization 'bn2', and .* does; expected runs of one"
    ):
        normalization_shift(run, clean=recorded(smaller.eval(), torch.randn(4, 3, 4, 4), tmp_path / "smaller.zarr"))
