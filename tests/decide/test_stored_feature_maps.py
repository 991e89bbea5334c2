"""Stored feature maps in the network's place: against the network itself, and what is refused."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader

import fmcluster as fm
from fmcluster.decide import StoredFeatureMaps


def record(model: nn.Module, probe: object, path: Path, **options: object) -> fm.store.Run:
    with fm.Recorder(model, path, probe=probe, **{"layers": "children", "dtype": "float32"} | options) as recorder:
        recorder.snapshot(epoch=0)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter += 0.1
        recorder.snapshot(epoch=1)
    return fm.open_run(path)


class Tail(nn.Module):
    """What comes after the first block."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.block2, self.head = model.block2, model.head

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.block2(x).mean((2, 3)))


def train(network: nn.Module, batches: object, parameters: list[nn.Parameter]) -> list[float]:
    optimizer = torch.optim.SGD(parameters, lr=0.001)
    losses = []
    for inputs, labels in batches:
        optimizer.zero_grad()
        loss = functional.cross_entropy(network(inputs), labels)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def test_a_tail_is_trained_as_if_the_frozen_prefix_were_there(residual, probe, tmp_path):
    run = record(residual.eval(), probe, tmp_path / "run.zarr")
    stored = StoredFeatureMaps(run, run["block1"], epoch=1)
    order = torch.randperm(len(probe), generator=torch.Generator().manual_seed(0)).tolist()
    start = {name: value.clone() for name, value in residual.state_dict().items()}
    tail = Tail(residual)
    expected = train(residual, DataLoader(probe, batch_size=7, sampler=order), list(tail.parameters()))
    residual.load_state_dict(start)
    found = train(tail, DataLoader(stored, batch_size=7, sampler=order), list(tail.parameters()))
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    assert found[-1] != pytest.approx(found[0])


@pytest.mark.slow
def test_items_are_those_of_the_snapshot_in_any_order_and_by_workers(residual, probe, tmp_path):
    run = record(residual.eval(), probe, tmp_path / "run.zarr")
    stored = StoredFeatureMaps(run, "block2", snapshot=0, samples=[5, 2, 11])
    assert stored.samples == [5, 2, 11]
    assert stored.targets == [5 % 4, 2, 11 % 4]
    assert len(stored) == 3
    for index, sample in enumerate(stored.samples):
        values, label = stored[index]
        assert torch.equal(values, torch.from_numpy(run["block2"].read(epoch=0, samples=[sample])[0]))
        assert label == sample % 4
    assert torch.equal(stored[-1][0], stored[2][0])
    with pytest.raises(IndexError):
        stored[3]
    values, labels = next(iter(DataLoader(stored, batch_size=3, num_workers=1)))
    assert values.shape == (3, *run["block2"].shape[2:])
    assert labels.tolist() == stored.targets
    assert torch.equal(StoredFeatureMaps(run, "block2")[0][0], torch.from_numpy(run["block2"].read(epoch=1)[0]))


def test_axes_are_those_that_the_module_returned(probe, tmp_path):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(2), nn.Linear(64, 10), nn.Flatten(), nn.Linear(30, 4)).eval()
    with torch.no_grad():
        expected = model[1](model[0](probe.tensors[0]))
    with fm.Recorder(model, tmp_path / "run.zarr", layers=["1"], probe=probe, dtype="float32") as recorder:
        recorder.snapshot(epoch=0)
    (values, _) = next(iter(DataLoader(StoredFeatureMaps(fm.open_run(tmp_path / "run.zarr"), "1"), batch_size=24)))
    torch.testing.assert_close(values, expected)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"max_size": 4}, "its feature maps were averaged down"),
        ({"crop": (slice(0, 4), slice(2, 6))}, "a part of its positions was kept"),
        ({"channels": [0, 1]}, "a part of its channels was kept"),
    ],
)
def test_a_part_of_the_maps_is_refused(residual, probe, tmp_path, options, reason):
    run = record(residual.eval(), probe, tmp_path / "run.zarr", layers=["stem"], **options)
    with pytest.raises(ValueError, match=f"'stem' cannot stand in for the network: {reason}.*without crop="):
        StoredFeatureMaps(run, "stem")


@pytest.mark.slow
def test_what_has_no_labels_and_what_was_augmented_is_refused(residual, probe, tmp_path):
    run = record(residual.eval(), list(probe.tensors[0]), tmp_path / "run.zarr")
    with pytest.raises(ValueError, match=r"the labels of 24 of 24 samples of .* are not known; record a probe whose"):
        StoredFeatureMaps(run, "block1")
    live = tmp_path / "live.zarr"
    with fm.BatchRecorder(residual, live, layers=["block1"], dataset=probe) as recorder, recorder.epoch(0):
        for indices, images, _ in DataLoader(fm.with_index(probe), batch_size=8):
            with recorder.batch(indices):
                residual(images)
    with pytest.raises(
        ValueError, match="is a live run: its feature maps are of training batches as they were augmented"
    ):
        StoredFeatureMaps(fm.open_run(live), "block1")
    with pytest.raises(TypeError, match="expected Run, made by open_run"):
        StoredFeatureMaps(str(live), "block1")
    with pytest.raises(KeyError):
        StoredFeatureMaps(run, "block7")
