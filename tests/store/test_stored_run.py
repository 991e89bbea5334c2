"""A run that an earlier version wrote, kept as it was: it is read, verified and resumed."""

import zipfile
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import xarray as xr

from fmcluster.store import open_run, verify

STORED = Path(__file__).parents[1] / "data" / "run-v1.zip"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    with zipfile.ZipFile(STORED) as file:
        file.extractall(tmp_path)
    return tmp_path / "run.zarr"


def test_it_is_read_as_it_was_recorded(path: Path, contents: ModuleType) -> None:
    run = open_run(path)
    assert verify(run) == []
    assert run.snapshots["step"].tolist() == list(contents.STEPS)
    np.testing.assert_array_equal(run.display(1), contents.pictures()[1])
    for spec in contents.SPECS:
        for snapshot in range(contents.N_SNAPSHOTS):
            np.testing.assert_array_equal(run[spec.name].read(snapshot=snapshot), contents.activation(spec, snapshot))
    np.testing.assert_array_equal(run["conv1"].gradient.read(snapshot=2), contents.gradient(contents.SPECS[0], 2))
    with xr.open_datatree(path, engine="zarr") as tree:
        np.testing.assert_array_equal(tree["layers/conv1/activation"][2], contents.activation(contents.SPECS[0], 2))


def test_it_is_gone_on_with(path: Path, contents: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contents, "EPOCHS", (*contents.EPOCHS, 2))
    monkeypatch.setattr(contents, "STEPS", (*contents.STEPS, 9))
    contents.record(path, mode="a", n_snapshots=4)
    run = open_run(path)
    assert len(run) == 4
    assert verify(run) == []
    for snapshot in range(4):
        found = run["blocks.0"].read(snapshot=snapshot)
        np.testing.assert_array_equal(found, contents.activation(contents.SPECS[2], snapshot))
