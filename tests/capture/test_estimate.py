"""An estimate against the run it is an estimate of."""

import copy
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from torch import nn

import fmcluster as fm
from fmcluster.capture import estimate
from fmcluster.store import Run


def stored_bytes(run: Run) -> dict[str, int]:
    """Bytes of the files of each layer's activations."""
    return {
        name: sum(f.stat().st_size for f in (Path(run.path) / run.layer_path(name) / "activation").glob("c.*"))
        for name in run.layers
    }


def batch_of(data: list) -> torch.Tensor:
    return torch.stack([image for image, _ in data])


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"dtype": "float32"},
        {"layers": "leaves", "dtype": {"*": "float32", "layer1.*.*": "float16"}},
        {"layers": "leaves", "dtype": {"layer1.0.conv.call1": "float32", "layer1.1.relu": "float32"}},
        {"channels": [3, 0], "layers": ["conv1", "bn1", "relu", "layer1"]},
        {"crop": (slice(1, 5), slice(0, 3)), "layers": ["conv1", "layer1", "fc"]},
        {"max_size": {"conv1": 2, "layer1": (3, 6)}},
    ],
    ids=["all", "float32", "dtype by layer", "dtype by call", "channels", "crop", "averaged"],
)
def test_bytes_are_those_of_the_run(options: dict, net: nn.Module, data: list, take: Callable) -> None:
    told = estimate(net, batch_of(data), n_samples=10, n_snapshots=3, **options)
    run = take(net, data, batch_size=10, snapshots=3, **options)
    assert told.nbytes == run.nbytes
    assert told.layers["layer"].tolist() == run.layers
    assert told.layers["shape"].tolist() == [run[name].shape[2:] for name in run.layers]
    assert dict(zip(told.layers["layer"], told.layers["bytes_stored"], strict=True)) == stored_bytes(run)
    assert told.nbytes_stored == sum(stored_bytes(run).values())
    assert told.seconds > 0


def test_it_extrapolates(net: nn.Module, data: list) -> None:
    one = estimate(net, batch_of(data), n_samples=10, n_snapshots=1, dtype="float32")
    many = estimate(net, batch_of(data), n_samples=244, n_snapshots=25, dtype="float32")
    assert (many.n_samples, many.n_snapshots) == (244, 25)
    assert many.nbytes == one.nbytes * 25 * 244 // 10
    assert many.nbytes_stored == pytest.approx(one.nbytes_stored * 25 * 24.4, abs=len(one.layers))


def test_model_disk_and_threads_are_left_alone(
    net: nn.Module, data: list, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_hooks_left: Callable
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    model = WithUnused(net)
    before, state = copy.deepcopy(net.state_dict()), torch.get_rng_state()
    with no_hooks_left(model):
        estimate(net, batch_of(data), n_samples=10, n_snapshots=1)
        with pytest.raises(fm.CaptureError, match="'unused' did not fire"):
            estimate(model, batch_of(data), n_samples=10, n_snapshots=1, layers=["net.conv1", "unused"])
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())
    assert net.training
    assert torch.equal(torch.get_rng_state(), state)
    assert list(tmp_path.iterdir()) == []
    assert [t.name for t in threading.enumerate() if t.name.startswith("fmcluster")] == []


class WithUnused(nn.Module):
    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net
        self.unused = nn.Linear(2, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.net(x)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_snapshots": 0}, "n_snapshots=0"),
        ({"n_samples": 0}, "n_samples=0"),
        ({"images": torch.rand(0, 3, 12, 12)}, "received 0 images"),
        ({"layers": "conv9"}, "no layer 'conv9'"),
        ({"dtype": {"conv9": "float32"}}, "no recorded layer is called 'conv9'; it has: conv1, bn1, relu, layer1"),
        ({"dtype": {"conv1.call0": "float32"}}, "no recorded layer is called 'conv1.call0'"),
        ({"channels": [99]}, "channels of layer 'conv1"),
        ({"max_size": 0}, "max_size is 0"),
    ],
    ids=str,
)
def test_what_cannot_be_estimated_is_refused(options: dict, message: str, net: nn.Module, data: list) -> None:
    known: dict[str, Any] = {"images": batch_of(data), "n_samples": 1, "n_snapshots": 1, **options}
    with pytest.raises(ValueError, match=message):
        estimate(net, known.pop("images"), **known)


def test_a_run_that_would_be_too_large_is_refused_before_it_is_measured(
    net: nn.Module, data: list, monkeypatch: pytest.MonkeyPatch
) -> None:
    nbytes = estimate(net, batch_of(data), n_samples=10, n_snapshots=3).nbytes
    assert estimate(net, batch_of(data), n_samples=10, n_snapshots=3, max_bytes=nbytes).nbytes == nbytes
    shown = []
    net.register_forward_pre_hook(lambda _module, inputs: shown.append(len(inputs[0])))
    with pytest.raises(ValueError, match=r"3 snapshots of 10 samples would take .*The largest layers are"):
        estimate(net, batch_of(data), n_samples=10, n_snapshots=3, max_bytes=nbytes - 1)
    assert shown == [10]


def test_values_that_do_not_fit_are_no_reason_not_to_estimate(net: nn.Module, data: list) -> None:
    told = estimate(net, batch_of(data) * 1e9, n_samples=10, n_snapshots=1, layers="conv1")
    assert told.nbytes == 10 * 6 * 36 * 2


@pytest.mark.parametrize("gradient", [False, True])
def test_a_recorder_estimates_its_own_run(gradient: bool, net: nn.Module, data: list, tmp_path: Path) -> None:
    """Gradients count as large as they are."""
    record = ("activation", "gradient") if gradient else ("activation",)
    recorder = fm.Recorder(
        net, tmp_path / "run.zarr", probe=data, layers=["conv1", "fc"], batch_size=10, record=record, max_size=4
    )
    state = torch.get_rng_state()
    told = recorder.estimate(n_snapshots=2)
    assert torch.equal(torch.get_rng_state(), state)
    assert not (tmp_path / "run.zarr").exists()
    with recorder:
        for epoch in range(2):
            recorder.snapshot(epoch=epoch, loss=nn.functional.cross_entropy if gradient else None)
    run = fm.open_run(tmp_path / "run.zarr")
    assert told.nbytes == 2 * 10 * (6 * 4 * 4 + 4) * (2 + 4 * gradient)
    assert told.nbytes == run.nbytes
    gradients = 2 * 10 * 4 * pd.Series({"conv1": 6 * 4 * 4, "fc": 4}) * gradient
    stored = told.layers.set_index("layer")["bytes_stored"] - gradients
    assert stored.to_dict() == stored_bytes(run)


def test_a_recorder_refuses_more_snapshots_than_fit(net: nn.Module, data: list, tmp_path: Path) -> None:
    recorder = fm.Recorder(net, tmp_path / "run.zarr", probe=data)
    nbytes = recorder.estimate(n_snapshots=2).nbytes
    assert recorder.estimate(n_snapshots=2, max_bytes=nbytes).nbytes == nbytes
    with pytest.raises(ValueError, match="3 snapshots of 10 samples would take"):
        recorder.estimate(n_snapshots=3, max_bytes=nbytes)
