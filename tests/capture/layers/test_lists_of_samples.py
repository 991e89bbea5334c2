"""Detectors' outputs: lists with a tensor of each sample, and rows of which the images decide how many there are."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import fmcluster as fm
from fmcluster.capture.forward._hooks import Firing
from fmcluster.capture.layers._lists_of_samples import NO_BATCH, in_lists_of_samples, lists_with
from fmcluster.store import Run


class Detector(nn.Module):
    """Takes of each image as many rows as its first pixel says."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.roi_heads, self.split = nn.Conv2d(1, 4, 3), nn.Linear(4, 2), nn.Identity()

    def forward(self, x: torch.Tensor) -> Any:
        counts = x[:, 0, 0, 0].int().tolist()
        of_each = [(row + torch.arange(n)[:, None]) for row, n in zip(self.conv(x).mean((2, 3)), counts, strict=True)]
        return self.roi_heads(torch.cat(of_each)), self.split(of_each)


def images(counts: list[int]) -> torch.Tensor:
    made = torch.rand(len(counts), 1, 6, 6)
    made[:, 0, 0, 0] = torch.tensor(counts)
    return made


def record(counts: list[int], path: Path, *, live: bool = False, **options: Any) -> Run:
    shown = images(counts)
    if live:
        with fm.BatchRecorder(Detector(), path, n_samples=len(counts), **options) as recorder, recorder.epoch(0):
            for start in range(0, len(counts), 4):
                batch = shown[start : start + 4]
                with recorder.batch(range(start, start + len(batch))):
                    recorder.model(batch)
    else:
        with fm.Recorder(Detector(), path, probe=list(shown), batch_size=4, **options) as recorder:
            recorder.snapshot(epoch=0)
    return fm.open_run(path)


@pytest.mark.parametrize("live", [False, True], ids=["probe", "live"])
def test_an_entry_with_as_many_rows_as_samples_is_no_batch(live: bool, tmp_path: Path) -> None:
    run = record([2, 3, 4, 5], tmp_path / "run.zarr", live=live)
    assert run.layers == ["conv"]
    left_out = run.provenance[-1]["left_out"]
    assert "shape (14, 2) for a batch of 4" in left_out["roi_heads"]
    assert {name for name in left_out if name.startswith("split")} == {f"split[{k}]" for k in range(4)}
    assert live or set(left_out.values()) == {left_out["roi_heads"], NO_BATCH}


@pytest.mark.parametrize(
    ("live", "counts"), [(False, [3, 3, 3, 3, 2, 5]), (False, [1, 1, 1, 1, 0, 1]), (True, [1, 1, 1, 1, 2, 1])]
)
def test_where_images_decide_how_many_rows_there_are_it_is_said_how_to_leave_the_layer_out(
    live: bool, counts: list[int], tmp_path: Path
) -> None:
    with pytest.raises(fm.CaptureError, match=r"layer 'roi_heads' changed.*leave it out.*'!roi_heads'"):
        record(counts, tmp_path / "run.zarr", live=live)
    assert record(counts, tmp_path / "again.zarr", live=live, layers=["children", "!roi_heads"]).layers == ["conv"]


def test_a_module_asked_for_by_name_that_returns_such_a_list_is_refused(tmp_path: Path) -> None:
    with pytest.raises(fm.CaptureError, match=r"'split' returned no batch \(split\[0\]: it lies in a list"):
        record([2, 3, 4, 5], tmp_path / "run.zarr", layers=["conv", "split"])


def test_levels_of_a_pyramid_are_no_samples() -> None:
    levels = [Firing("fpn", 0, f"[{k}]") for k in range(4)]
    boxes = [Firing("head", 0, f"[{k}][boxes]") for k in range(4)]
    assert in_lists_of_samples([*levels, *boxes], [*levels, *boxes[:3]], n_samples=4) == set(boxes)
    assert lists_with(4, levels) == {("fpn", 0, ""): set(levels)}
    assert lists_with(3, levels) == {}
