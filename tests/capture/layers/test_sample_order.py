"""Rows that are as many as the samples by chance are left out, and rows of samples that cannot be followed are not."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import fmcluster as fm


class Proposals(nn.Module):
    """Each image's first pixel says how many rows the head is given of it."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.head = nn.Conv2d(1, 4, 3), nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        counts = x[:, 0, 0, 0].round().int().tolist()
        vectors = self.conv(x).mean((2, 3))
        given = [row * (k + 1) for row, count in zip(vectors, counts, strict=True) for k in range(count)]
        return self.head(torch.stack(given))


def images(counts: list[int]) -> list[torch.Tensor]:
    made = torch.rand(len(counts), 1, 6, 6, generator=torch.Generator().manual_seed(1))
    made[:, 0, 0, 0] = torch.tensor(counts).float()
    return list(made)


@pytest.mark.parametrize(
    "counts", [[1, 1, 2, 0], [1, 2, 0, 1], [1, 0, 1, 2], [2, 1, 3, 2], [2, 3, 1, 2], [1, 1, 1, 1, 0, 2]]
)
def test_as_many_proposals_as_samples_by_chance_are_left_out(counts: list[int], tmp_path: Path) -> None:
    with fm.Recorder(Proposals(), tmp_path / "run.zarr", probe=images(counts)) as recorder:
        recorder.snapshot(epoch=0)
    run = fm.open_run(tmp_path / "run.zarr")
    assert run.layers == ["conv"]
    assert "its rows are not those of the samples" in run.provenance[-1]["left_out"]["head"]
    with (
        pytest.raises(fm.CaptureError, match=r"layer 'head' \(Linear\) cannot be recorded: its rows are not those of"),
        fm.Recorder(Proposals(), tmp_path / "named.zarr", probe=images(counts), layers=["head"]),
    ):
        pass


@pytest.mark.parametrize("several", [1, 3])
def test_rows_of_samples_that_cannot_be_followed_are_recorded(several: int, tmp_path: Path) -> None:
    model, probe = Proposals(), images([several] * 4)
    with fm.Recorder(model, tmp_path / "run.zarr", probe=probe, dtype="float32") as recorder:
        recorder.snapshot(epoch=0)
    expected = model(torch.stack(probe)).detach().numpy().reshape(4, *([several] if several > 1 else []), 2)
    np.testing.assert_array_equal(fm.open_run(tmp_path / "run.zarr")["head"].read(epoch=0), expected)


def test_rows_that_are_masked_by_where_they_are_belong_to_the_samples(tmp_path: Path) -> None:
    class Masked(Proposals):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            vectors = self.conv(x).mean((2, 3))
            return self.head(torch.stack([row * torch.rand(4) for row in vectors]))

    with fm.Recorder(Masked(), tmp_path / "run.zarr", probe=images([1] * 5)) as recorder:
        recorder.snapshot(epoch=0)
        recorder.snapshot(epoch=1)
    run = fm.open_run(tmp_path / "run.zarr")
    assert run.layers == ["conv", "head"]
    np.testing.assert_array_equal(run["head"].read(epoch=0), run["head"].read(epoch=1))
