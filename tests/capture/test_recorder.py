"""The life of a recorder, what it leaves behind, and how large a run it makes."""

import gc
import json
import weakref
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import fmcluster as fm
from fmcluster.store import verify


def files(path: Path) -> dict[str, bytes]:
    return {str(file.relative_to(path)): file.read_bytes() for file in path.rglob("*") if file.is_file()}


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory is told otherwise here")
def test_memory_does_not_grow_with_snapshots(tmp_path: Path) -> None:
    """Each snapshot holds 0.7 MB of maps: 125 MB in 180 snapshots, if they were kept."""
    images = torch.rand(16, 3, 40, 40, generator=torch.Generator().manual_seed(0))
    held = []
    with fm.Recorder(nn.Sequential(nn.Conv2d(3, 16, 3)), tmp_path / "run.zarr", probe=list(images)) as recorder:
        for epoch in range(200):
            recorder.snapshot(epoch=epoch, metrics={"loss": 1.0})
            recorder.flush()
            held.append(4096 * int(Path("/proc/self/statm").read_text().split()[1]))
    assert held[199] - held[19] < 16e6


@pytest.mark.slow
def test_two_recordings_are_the_same_bytes(tmp_path: Path) -> None:
    """So large that a file has several chunks, which could be written in any order."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 64, 3), nn.BatchNorm2d(64), nn.ReLU(inplace=True))
    images = list(torch.rand(10, 3, 64, 64))
    for name in ("one", "other", "again"):
        with fm.Recorder(model, tmp_path / name, probe=images, batch_size=8) as recorder:
            for epoch in range(2):
                recorder.snapshot(epoch=epoch, metrics={"loss": 1 / (1 + epoch)})
    one = files(tmp_path / "one")
    assert files(tmp_path / "other") == one
    assert files(tmp_path / "again") == one
    metadata = json.loads(one["layers/0/activation/zarr.json"])
    assert metadata["chunk_grid"]["configuration"]["chunk_shape"] == [1, 8, 64, 62, 62]
    assert metadata["codecs"][0]["configuration"]["chunk_shape"] == [1, 2, 64, 62, 62]


@pytest.mark.slow
def test_snapshots_of_one_model_are_the_same(net: nn.Module, data: list, take: Callable) -> None:
    run = take(net, data, snapshots=3, layers="leaves")
    for name in run.layers:
        values = run[name].read().view(np.uint16)
        assert (values == values[0]).all()
        table = run[name].statistics.drop(columns=["snapshot", "epoch"])
        assert table[table.index < run[name].n_channels].equals(table.tail(run[name].n_channels).reset_index(drop=True))


@pytest.mark.slow
def test_values_and_statistics_of_uneven_batches(net: nn.Module, data: list, cloned: Callable, take: Callable) -> None:
    run = take(net, data, layers=lambda name, module: True, batch_size=4)
    expected = cloned(net, data, batch_size=4)
    assert set(run.layers) == set(expected)
    for name in run.layers:
        values = expected[name].astype(np.float64)
        np.testing.assert_array_equal(run[name].read(epoch=0), expected[name].astype(np.float16))
        planes = np.moveaxis(values, 1, 0).reshape(values.shape[1], -1)
        table = run[name].statistics
        np.testing.assert_allclose(table["mean"], planes.mean(1), atol=1e-12)
        np.testing.assert_allclose(table["std"], planes.std(1), atol=1e-9)
        np.testing.assert_array_equal(table["min"], planes.min(1))
        np.testing.assert_array_equal(table["max"], planes.max(1))
        np.testing.assert_array_equal(table["zeros"], (planes == 0).mean(1))
        assert (table["nonfinite"] == 0).all()


def test_it_is_entered_once(net: nn.Module, data: list, tmp_path: Path) -> None:
    recorder = fm.Recorder(net, tmp_path / "run.zarr", probe=data)
    for call in (lambda: recorder.snapshot(epoch=0), recorder.flush):
        with pytest.raises(RuntimeError, match="not open; use it as: with"):
            call()
    with recorder:
        with pytest.raises(RuntimeError, match="was entered before"), recorder:
            pass
        recorder.snapshot(epoch=0)
    with pytest.raises(RuntimeError, match="not open"):
        recorder.snapshot(epoch=1)
    with pytest.raises(RuntimeError, match=r"entered before.*mode='a'"), recorder:
        pass
    assert len(fm.open_run(tmp_path / "run.zarr")) == 1


@pytest.mark.slow
def test_two_recorders_on_one_model(net: nn.Module, data: list, tmp_path: Path, cloned: Callable) -> None:
    with (
        fm.Recorder(net, tmp_path / "one.zarr", layers="leaves", probe=data, batch_size=4) as one,
        fm.Recorder(net, tmp_path / "two.zarr", layers="bn1", probe=data[:3], dtype="float32") as two,
    ):
        for epoch in range(2):
            one.snapshot(epoch=epoch)
            two.snapshot(epoch=epoch)
    expected = cloned(net, data)["bn1"]
    np.testing.assert_array_equal(fm.open_run(tmp_path / "one.zarr")["bn1"].read(epoch=1), expected.astype(np.float16))
    expected = cloned(net, data[:3], batch_size=3)["bn1"]
    np.testing.assert_array_equal(fm.open_run(tmp_path / "two.zarr")["bn1"].read(epoch=1), expected)


@pytest.mark.slow
def test_two_recorders_of_one_run_are_refused(net: nn.Module, data: list, tmp_path: Path) -> None:
    with fm.Recorder(net, tmp_path / "run.zarr", probe=data) as recorder:
        with pytest.raises(fm.StoreError, match="one writer at a time"):
            fm.Recorder(net, tmp_path / "run.zarr", probe=data, mode="a").__enter__()
        recorder.snapshot(epoch=0)
    assert len(fm.open_run(tmp_path / "run.zarr")) == 1


@pytest.mark.slow
def test_a_run_can_be_read_while_it_is_recorded(net: nn.Module, data: list, tmp_path: Path) -> None:
    with fm.Recorder(net, tmp_path / "run.zarr", probe=data) as recorder:
        for epoch in range(3):
            recorder.snapshot(epoch=epoch)
            recorder.flush()
            run = fm.open_run(tmp_path / "run.zarr")
            assert run.epochs == list(range(epoch + 1))
            assert verify(run) == []


@pytest.mark.slow
def test_outputs_are_released(data: list, tmp_path: Path) -> None:
    alive: list[weakref.ref] = []

    class Watched(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            out = x * 2
            alive.append(weakref.ref(out.untyped_storage()))
            alive.append(weakref.ref(out))
            return out

    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 2, 1), Watched())
    with fm.Recorder(model, tmp_path / "run.zarr", probe=data, batch_size=4) as recorder:
        for epoch in range(2):
            recorder.snapshot(epoch=epoch)
            gc.collect()
            assert [reference() for reference in alive if reference() is not None] == []
    assert len(alive) == 2 * (2 + 2 * 3)  # two to find the layers and axes, three batches in each snapshot
    assert model[0].weight.grad is None


def test_a_view_does_not_keep_its_storage(data: list, tmp_path: Path) -> None:
    class Slice(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.repeat(1, 50, 1, 1)[:, :1]

    with fm.Recorder(nn.Sequential(Slice()), tmp_path / "run.zarr", probe=data, batch_size=4) as recorder:
        recorder.snapshot(epoch=0)
        assert recorder.peak_pending_bytes <= 10 * (12 * 12 * 2 + 12 * 12 * 3 + 200)
    stored = fm.open_run(tmp_path / "run.zarr")["0"].read(epoch=0)
    np.testing.assert_array_equal(stored, torch.stack([d[0] for d in data])[:, :1].half().numpy())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dtype": "bfloat16"}, "dtype is 'bfloat16'; expected one of float16, float32"),
        ({"overflow": "wrap"}, "overflow is 'wrap'"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"max_pending_bytes": 0}, "max_pending_bytes is 0"),
        ({"layers": "conv2"}, "did you mean conv1"),
    ],
)
def test_options_are_checked_at_once(options: dict, message: str, net: nn.Module, data: list, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        fm.Recorder(net, tmp_path / "run.zarr", probe=data, **options)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_notes_of_numbers_that_json_has_not_are_refused(number: float, net: nn.Module, data: list) -> None:
    with pytest.raises(ValueError, match="notes holds what JSON cannot"):
        fm.Recorder(net, "run.zarr", probe=data, notes={"lr": number})


def test_notes_that_cannot_be_kept_are_refused_at_once(net: nn.Module, data: list, tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="JSON"):
        fm.Recorder(net, tmp_path / "run.zarr", probe=data, notes={"where": tmp_path})


def test_an_unknown_mode_is_refused(net: nn.Module, data: list, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="mode is 'r'; expected"):
        fm.Recorder(net, tmp_path / "run.zarr", probe=data, mode="r").__enter__()


def test_an_existing_run_is_not_replaced_by_one_that_cannot_be_recorded(
    net: nn.Module, data: list, tmp_path: Path
) -> None:
    path = tmp_path / "run.zarr"
    with fm.Recorder(net, path, probe=data) as recorder:
        recorder.snapshot(epoch=0)
    net.unused = nn.Linear(2, 2)
    again = fm.Recorder(net, path, probe=data, mode="w", layers=["conv1", "unused"])
    with pytest.raises(fm.CaptureError, match="'unused' did not fire"), again:
        pass
    assert len(fm.open_run(path)) == 1


@pytest.mark.slow
def test_the_snapshot_that_would_be_too_large_is_refused_before_it_is_taken(
    net: nn.Module, data: list, tmp_path: Path
) -> None:
    path, nbytes = tmp_path / "run.zarr", fm.Recorder(net, tmp_path / "none.zarr", probe=data).estimate().nbytes
    with fm.Recorder(net, path, probe=data, max_bytes=2 * nbytes) as recorder:
        recorder.snapshot(epoch=0)
        recorder.snapshot(epoch=1)
        recorder.flush()
        before = files(path)
        with pytest.raises(ValueError, match=r"3 snapshots of 10 samples would take .* The largest layers are \w+ \("):
            recorder.snapshot(epoch=2)
        assert files(path) == before
    with fm.Recorder(net, path, probe=data, max_bytes=3 * nbytes, mode="a") as recorder:
        recorder.snapshot(epoch=2)
        with pytest.raises(ValueError, match="4 snapshots of 10 samples"):
            recorder.snapshot(epoch=3)
    assert fm.open_run(path).epochs == [0, 1, 2]
    with pytest.raises(ValueError, match="1 snapshot of 10 samples"):
        fm.Recorder(net, path, probe=data, max_bytes=nbytes - 1, mode="w").__enter__()
    assert fm.open_run(path).epochs == [0, 1, 2]


def test_gradients_of_a_probe_have_the_scale_of_their_loss(net: nn.Module, data: list, tmp_path: Path) -> None:
    both = ("activation", "gradient")
    with fm.Recorder(net, tmp_path / "run.zarr", probe=data, layers=["conv1"], record=both) as recorder:
        recorder.snapshot(epoch=0, loss=nn.functional.cross_entropy)
    run = fm.open_run(tmp_path / "run.zarr")
    assert run.loss_scale(0).tolist() == [1.0] * 10
    gradient = run["conv1"].gradient
    np.testing.assert_array_equal(gradient.read(epoch=0, unscaled=True), gradient.read(epoch=0))
