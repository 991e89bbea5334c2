"""An estimate against the run it is an estimate of."""

import copy
from pathlib import Path

import pytest
import torch

import fmcluster as fm
from fmcluster.capture import estimate


def test_bytes_are_those_of_the_run(net, data, tmp_path: Path):
    images = torch.stack([image for image, _ in data])
    told = estimate(net, images, n_samples=10, n_snapshots=3)
    with fm.Recorder(net, tmp_path / "run.zarr", probe=data, batch_size=10) as recorder:
        for epoch in range(3):
            recorder.snapshot(epoch=epoch)
    run = fm.open_run(tmp_path / "run.zarr")
    assert told.nbytes == run.nbytes
    assert told.layers["layer"].tolist() == run.layers
    assert told.layers["shape"].tolist() == [run[name].shape[2:] for name in run.layers]
    stored = {
        name: sum(f.stat().st_size for f in (Path(run.path) / run.layer_path(name) / "activation").glob("c.*"))
        for name in run.layers
    }
    assert dict(zip(told.layers["layer"], told.layers["bytes_stored"], strict=True)) == stored
    assert told.seconds > 0


def test_it_extrapolates_and_leaves_the_model_alone(net, data):
    images = torch.stack([image for image, _ in data])
    before = copy.deepcopy(net.state_dict())
    one = estimate(net, images, n_samples=10, n_snapshots=1, dtype="float32")
    many = estimate(net, images, n_samples=244, n_snapshots=25, dtype="float32")
    assert many.nbytes == one.nbytes * 25 * 244 // 10
    assert many.nbytes_stored == pytest.approx(one.nbytes_stored * 25 * 24.4, abs=len(one.layers))
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())
    assert net.training


def test_bad_counts_and_layers_are_refused(net, data):
    with pytest.raises(ValueError, match="n_snapshots=0"):
        estimate(net, data[0][0][None], n_samples=1, n_snapshots=0)
    with pytest.raises(ValueError, match="no layer 'conv9'"):
        estimate(net, data[0][0][None], n_samples=1, n_snapshots=1, layers="conv9")


def test_a_recorder_estimates_its_own_run(net, data, tmp_path: Path):
    recorder = fm.Recorder(net, tmp_path / "run.zarr", probe=data, layers=["conv1", "fc"], batch_size=10)
    state = torch.get_rng_state()
    told = recorder.estimate(n_snapshots=2)
    assert torch.equal(torch.get_rng_state(), state)
    assert not (tmp_path / "run.zarr").exists()
    with recorder:
        recorder.snapshot(epoch=0)
        recorder.snapshot(epoch=1)
    run = fm.open_run(tmp_path / "run.zarr")
    assert told.nbytes == run.nbytes
    assert told.layers["layer"].tolist() == ["conv1", "fc"]
