"""An estimate against the run it is an estimate of; and what is said of a run that would be too large."""

import copy
import re
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import fmcluster as fm
from fmcluster.capture import estimate
from fmcluster.capture.estimating import _timed_batch as timed_batch
from fmcluster.capture.estimating._estimate import check_size
from fmcluster.capture.forward._hooks import Firing
from fmcluster.capture.layers._axis_tracker import ChannelAxis
from fmcluster.capture.layers._first_output import FirstOutput
from fmcluster.capture.layers._layers import plan_layer
from fmcluster.capture.options._options import Keep
from fmcluster.store import LayerSpec, Run


def stored_bytes(run: Run) -> dict[str, int]:
    """Bytes of the files of each layer's activations."""
    return {
        name: sum(f.stat().st_size for f in (Path(run.path) / run.layer_path(name) / "activation").glob("c.*"))
        for name in run.layers
    }


def batch_of(data: list) -> torch.Tensor:
    return torch.stack([image for image, _ in data])


@pytest.mark.slow
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


@pytest.mark.slow
def test_bytes_of_each_size_are_those_of_a_run_of_that_size(net: nn.Module, take: Callable) -> None:
    data = [(torch.rand(3, 40, 40, generator=torch.Generator().manual_seed(n)), 0) for n in range(4)]
    options: dict[str, Any] = {"layers": ["conv1", "fc"], "record": ("activation", "weight")}
    told = estimate(net, batch_of(data), n_samples=4, n_snapshots=2, **options)
    assert told.averaged["max_size"].tolist() == [14, 7]  # of 20 x 20
    for row in told.averaged.to_dict("records"):
        run = take(net, data, name=f"{row['max_size']}.zarr", snapshots=2, **options, max_size=row["max_size"])
        assert row["bytes"] - told.nbytes_weights == run.nbytes
        assert row["bytes_stored"] - told.nbytes_weights == sum(stored_bytes(run).values())


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


def test_the_disk_is_that_of_the_run_and_is_left_as_it_was(
    net: nn.Module, data: list, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    near, really = [], timed_batch.disk_rate
    monkeypatch.setattr(timed_batch, "disk_rate", lambda folder, **more: near.append(folder) or really(folder, **more))
    (tmp_path / "runs").mkdir()
    fm.Recorder(net, tmp_path / "runs" / "not" / "yet" / "run.zarr", probe=data).estimate()
    fm.Recorder(net, tmp_path / "runs", probe=data, mode="w").estimate()  # beside a run, not in it
    estimate(net, batch_of(data), n_samples=1, n_snapshots=1)
    assert near == [(tmp_path / "runs").resolve(), tmp_path.resolve(), Path(tempfile.gettempdir()).resolve()]
    assert list((tmp_path / "runs").iterdir()) == []


def test_a_disk_that_takes_nothing_is_one_sentence(
    net: nn.Module, data: list, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_folder: Path, **_: object) -> float:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(timed_batch, "disk_rate", refuse)
    with pytest.raises(fm.StoreError, match=r"nothing can be written to .*Permission denied.* name another path"):
        fm.Recorder(net, tmp_path / "run.zarr", probe=data).estimate()


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
    assert shown == [10, 9]  # to find the layers, and the axis of the samples; not to measure


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


CONV = LayerSpec("conv1", (64, 112, 112), "float16", "Conv2d")
BLOCK = LayerSpec("layer4", (512, 7, 7), "float32", "Sequential")
HEAD = LayerSpec("fc", (1000,), "float16", "Linear")
BYTES = {"conv1": 64 * 112 * 112 * 2, "layer4": 512 * 49 * 4, "fc": 2000}
TOTAL = sum(BYTES.values())


def refusal(specs: list[LayerSpec], max_bytes: int, *, n_samples: int = 10, n_snapshots: int = 5) -> str:
    with pytest.raises(ValueError, match="max_bytes allows") as raised:
        check_size(specs, max_bytes=max_bytes, n_samples=n_samples, n_snapshots=n_snapshots)
    return str(raised.value)


def test_what_just_fits_passes_and_one_byte_less_does_not() -> None:
    check_size([CONV, BLOCK, HEAD], max_bytes=50 * TOTAL, n_samples=10, n_snapshots=5)
    refusal([CONV, BLOCK, HEAD], 50 * TOTAL - 1)


def test_the_refusal_says_how_much_and_which_layers_are_the_largest() -> None:
    small = [LayerSpec(f"small{n}", (n,), "float16", "Linear") for n in range(1, 5)]
    said = refusal([HEAD, *small, BLOCK, CONV], 10**6)
    assert said.startswith("5 snapshots of 10 samples would take 85.4 MB before compression; max_bytes allows 1.0 MB.")
    assert "The largest layers are conv1 (80.3 MB), layer4 (5.0 MB), fc (100.0 kB)." in said
    assert "small" not in said


def test_the_refusal_says_how_large_maps_may_be() -> None:
    half = 50 * (TOTAL - BYTES["conv1"] + 64 * 56 * 56 * 2)
    assert "Averaged down with max_size=56 they would take 25.2 MB." in refusal([CONV, BLOCK, HEAD], half)
    assert "Averaged down with max_size=28 they would take" in refusal([CONV, BLOCK, HEAD], half - 1)
    least = 50 * (TOTAL - BYTES["conv1"] + 64 * 49 * 2)
    assert "max_size=7 they would take 5.4 MB." in refusal([CONV, BLOCK, HEAD], least)
    said = refusal([CONV, BLOCK, HEAD], least - 1)
    assert "max_size=7 they would take 5.4 MB; choose fewer layers, samples or channels besides." in said


def test_averaging_is_not_advised_where_it_does_not_help() -> None:
    for specs in ([HEAD], [BLOCK], [LayerSpec("encoder", (197, 768), "float16", "Encoder")]):
        said = refusal(specs, 1)
        assert "max_size=" not in said
        assert said.endswith("Choose fewer layers, samples or channels.")


def test_one_snapshot_is_not_many() -> None:
    assert refusal([HEAD], 1, n_snapshots=1).startswith("1 snapshot of 10 samples")


def test_gradients_count_as_float32() -> None:
    both = LayerSpec("fc", (1000,), "float16", "Linear", gradient=True)
    check_size([both], max_bytes=6000, n_samples=1, n_snapshots=1)
    assert "6.0 kB" in refusal([both], 5999, n_samples=1, n_snapshots=1)


layer = st.tuples(
    st.sampled_from([(3, 112, 60), (4, 56, 56), (5, 30, 9), (6, 7, 7), (7, 3, 20), (50,), (10, 12)]),
    st.sampled_from([None, slice(0, 2)]),
    st.sampled_from([None, (slice(0, 40), slice(0, 8))]),
)


@pytest.mark.slow
@settings(max_examples=100, deadline=None)
@given(layers=st.lists(layer, min_size=1, max_size=5), share=st.floats(0.001, 0.999), gradient=st.booleans())
def test_what_is_advised_is_what_it_would_take(layers: list, share: float, gradient: bool) -> None:
    """As the recorder itself would lay the run out with that `max_size`."""

    def specs(max_size: int | None) -> list[LayerSpec]:
        out = []
        for number, (shape, channels, crop) in enumerate(layers):
            rows = crop if len(shape) == 3 and shape[1] > 7 else None
            record = ("activation", "gradient") if gradient else ("activation",)
            keep = Keep("float16", channels, rows, max_size, record=record)
            name = f"layer{number}"
            first = FirstOutput(shape, "Module", ChannelAxis(1 if len(shape) >= 3 else len(shape), "module"))
            out.append(plan_layer(Firing(name, 0, ""), first, keep=keep, name=name).spec)
        return out

    def total(max_size: int | None) -> int:
        return 100 * sum(spec.sample_bytes for spec in specs(max_size))

    max_bytes = int(share * total(None))
    said = refusal(specs(None), max_bytes, n_samples=20)
    if found := re.search(r"max_size=(\d+)", said):
        size = int(found[1])
        assert total(size) < total(None)
        assert ("besides" in said) == (total(size) > max_bytes)
        for larger in (56, 28, 14, 7):
            assert larger <= size or total(larger) > max_bytes
    else:
        assert total(7) == total(None)
