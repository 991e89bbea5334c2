"""Finite gradients: the last snapshot that has some, without the layers and samples that have none there."""

from pathlib import Path

import numpy as np
import pytest

from fmcluster.decide._finite_gradients import find_finite_gradients
from tests.test_diverged import N_SAMPLES, put, write

EVERY = np.arange(N_SAMPLES)


def test_the_last_snapshot_with_gradients_is_taken_without_what_is_not_finite_there(tmp_path: Path) -> None:
    def broken(name: str, snapshot: int, slopes: np.ndarray) -> np.ndarray:
        if snapshot == 3:
            return slopes * np.nan
        if name == "mid":
            return put(slopes, np.s_[:7], np.inf)  # of 12
        return put(slopes, np.s_[2], np.nan) if name == "fc" else slopes

    run = write(tmp_path / "run.zarr", slopes=broken)
    found = find_finite_gradients(run, run.layers, snapshots=[0, 1, 2, 3], samples=EVERY)
    assert (found.snapshot, found.passed_over, found.layers) == (2, (3,), ("conv", "fc"))
    assert found.without.tolist() == [2]
    assert found.samples.tolist() == [each for each in EVERY if each != 2]
    assert [each.layer for each in found.skipped] == ["mid"]
    assert found.skipped[0].reason == "its gradients are NaN or infinite of most samples at snapshot 2"
    with pytest.raises(ValueError, match=r"NaN or infinite values at snapshot 3; pass another snapshot"):
        find_finite_gradients(run, run.layers, snapshots=[3], samples=EVERY)


def test_where_no_snapshot_has_any_it_is_said(tmp_path: Path) -> None:
    run = write(tmp_path / "run.zarr", slopes=lambda name, at, slopes: slopes * np.nan)
    with pytest.raises(ValueError, match=r"at snapshots 0, 1, 2, 3\. Look at the training: a lower learning rate"):
        find_finite_gradients(run, run.layers, snapshots=[0, 1, 2, 3], samples=EVERY)
