"""Weights in the run: bit for bit, whole snapshots only, and nothing of the model changes."""

import copy
import gc
import os
import random
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

import fmcluster as fm
from fmcluster.capture.weights._weights import ModelWeights, weight_specs
from fmcluster.store import verify
from fmcluster.store.format import _weight_spec as parts

RECORD = ("activation", "weight")


def tensors(model: nn.Module) -> dict[str, torch.Tensor]:
    return {**dict(model.named_parameters(remove_duplicate=False)), **dict(model.named_buffers(remove_duplicate=False))}


def as_numpy(tensor: torch.Tensor) -> np.ndarray:
    return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).detach().numpy().copy()


def assert_same(found: dict[str, np.ndarray], model: nn.Module) -> None:
    own = {name: as_numpy(tensor) for name, tensor in tensors(model).items()}
    assert list(found) == list(own)
    for name, values in own.items():
        assert (found[name].dtype, found[name].shape) == (values.dtype, values.shape), name
        assert found[name].tobytes() == values.tobytes(), name


def train(model: nn.Module, data: list, *, steps: int = 2) -> None:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    images, labels = torch.stack([image for image, _ in data]), torch.tensor([label for _, label in data])
    model.train()
    for _ in range(steps):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(images), labels).backward()
        optimizer.step()


@pytest.mark.slow
def test_a_round_trip(net: nn.Module, data: list, tmp_path: Path) -> None:
    states = []
    with fm.Recorder(net, tmp_path / "run.zarr", probe=data, record=RECORD, batch_size=4) as recorder:
        for epoch in range(3):
            states.append(copy.deepcopy(net))
            recorder.snapshot(epoch=epoch)
            train(net, data)  # in place, while the weights are on their way
    run = fm.open_run(tmp_path / "run.zarr")
    assert verify(run) == []
    assert run.provenance[0]["record"] == ["activation", "weight"]
    for epoch, state in enumerate(states):
        assert_same(run.read_weights(epoch=epoch), state)
    other = type(net)()
    run.load_weights(other, snapshot=1)
    assert_same(run.read_weights(snapshot=1), other)
    with torch.no_grad():
        image = data[0][0][None]
        assert torch.equal(other.eval()(image), states[1].eval()(image))


@pytest.mark.slow
def test_norms_of_weights_gradients_and_updates(net: nn.Module, data: list, tmp_path: Path) -> None:
    states, gradients = [], []
    net.fc.bias.requires_grad_(False)
    with fm.Recorder(net, tmp_path / "run.zarr", probe=data, record=RECORD) as recorder:
        for epoch in range(3):
            states.append({name: as_numpy(tensor).astype(float) for name, tensor in tensors(net).items()})
            gradients.append({name: p.grad.clone() for name, p in net.named_parameters() if p.grad is not None})
            recorder.snapshot(epoch=epoch)
            train(net, data)
    table = fm.open_run(tmp_path / "run.zarr").weights.set_index(["snapshot", "name"])
    assert table.loc[0, "gradient_norm"].isna().all()
    assert table.loc[0, "update_norm"].isna().all()
    for snapshot, state in enumerate(states):
        for name, values in state.items():
            row = table.loc[(snapshot, name)]
            assert row["norm"] == pytest.approx(np.sqrt((values**2).sum()), rel=1e-12, abs=0)
            if snapshot:
                update = np.sqrt(((values - states[snapshot - 1][name]) ** 2).sum())
                assert row["update_norm"] == pytest.approx(update, rel=1e-12, abs=0)
            if name in gradients[snapshot]:
                expected = float(gradients[snapshot][name].double().norm())
                assert row["gradient_norm"] == pytest.approx(expected, rel=1e-12)
            else:
                assert np.isnan(row["gradient_norm"])
    assert table.loc[(2, "fc.bias"), "update_norm"] == 0
    assert table.loc[(2, "bn1.num_batches_tracked"), "update_norm"] == 2


class Odd(nn.Module):
    """Parameters and buffers of many dtypes, tied ones, and one number alone."""

    def __init__(self) -> None:
        super().__init__()
        self.fc, self.tied = nn.Linear(4, 4), nn.Linear(4, 4)
        self.tied.weight = self.fc.weight
        self.brain = nn.Parameter(torch.randn(3, 2).bfloat16())
        self.scale = nn.Parameter(torch.tensor(0.5, dtype=torch.float64))
        self.wide = nn.Parameter(torch.randn(5, 6).t())  # not contiguous
        self.register_buffer("phase", torch.randn(3, dtype=torch.complex64).conj())
        self.register_buffer("mask", torch.tensor([False, False]), persistent=False)
        self.register_buffer("small", torch.arange(5, dtype=torch.uint8))
        self.register_buffer("minus", torch.full((3,), -1))
        self.register_buffer("nothing", torch.empty(0, 3))
        self.register_buffer("absent", None)
        self.register_buffer("UPPER", torch.ones(2))
        self.register_buffer("upper", torch.zeros(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.tied(self.fc(x))


@pytest.mark.parametrize("part_bytes", [32 << 20, 16])
def test_tensors_of_every_kind(part_bytes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "PART_BYTES", part_bytes)
    torch.manual_seed(0)
    model = Odd()
    with fm.Recorder(model, tmp_path / "run.zarr", probe=[torch.ones(4), torch.zeros(4)], record=RECORD) as recorder:
        for epoch in range(2):
            model.phase *= 1 + epoch
            recorder.snapshot(epoch=epoch)
    run = fm.open_run(tmp_path / "run.zarr")
    assert verify(run) == []
    expected = {name: as_numpy(tensor.resolve_conj()) for name, tensor in tensors(model).items()}
    found = run.read_weights(epoch=1)
    assert list(found) == list(expected)
    for name, values in expected.items():
        np.testing.assert_array_equal(found[name], values)
        assert found[name].dtype == values.dtype
    table = run.weights[run.weights["snapshot"] == 1].set_index("name")
    assert table.loc["brain", "dtype"] == "bfloat16"
    assert table.loc["phase", "norm"] == pytest.approx(np.linalg.norm(expected["phase"]), rel=1e-6)
    assert table.loc["phase", "update_norm"] == pytest.approx(np.linalg.norm(expected["phase"]) / 2, rel=1e-6)
    other = Odd()
    run.load_weights(other, epoch=1)
    for name, tensor in tensors(other).items():
        np.testing.assert_array_equal(as_numpy(tensor.resolve_conj()), expected[name])


class Sparse(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 2)
        self.register_buffer("table", torch.eye(4).to_sparse())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(x)


def refused(what: str) -> tuple[nn.Module, str]:
    model = nn.Sequential(nn.Linear(4, 2), nn.Linear(2, 2))
    if what == "sparse":
        return Sparse(), "buffer 'table' is sparse"
    if what == "lazy":
        return nn.Sequential(nn.LazyLinear(2)), "parameter '0.weight' is lazy"
    if what == "float8":
        model.register_buffer("scaled", torch.zeros(3).to(torch.float8_e4m3fn))
        return model, "buffer 'scaled' is of float8_e4m3fn"
    if what == "quantized":
        model.register_buffer("q", torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8))
        return model, r"buffer 'q' is quantized \(qint8\)"
    model[1].register_buffer("far", torch.empty(2, device="meta"))
    return model, "buffer '1.far' is on the meta device"


@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor", "ignore:Lazy modules")
@pytest.mark.parametrize("what", ["sparse", "float8", "quantized", "meta", "lazy"])
def test_what_cannot_be_stored_is_refused_by_name_before_anything_is_written(what: str, tmp_path: Path) -> None:
    model, message = refused(what)
    probe = [torch.ones(4), torch.zeros(4)]
    for recorder in (
        fm.Recorder(model, tmp_path / "run.zarr", probe=probe, record=RECORD),
        fm.BatchRecorder(model, tmp_path / "run.zarr", n_samples=2, record=RECORD),
    ):
        with pytest.raises(ValueError, match=rf"the {message}.*leave 'weight' out of"), recorder:
            pass
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_nothing_of_the_model_changes(net: nn.Module, data: list, tmp_path: Path) -> None:
    train(net, data)
    net.bn1.eval()
    net.conv1.weight.requires_grad_(False)

    def state() -> dict[str, object]:
        own = tensors(net)
        return {
            "values": {name: as_numpy(tensor).tobytes() for name, tensor in own.items()},
            "gradients": {
                name: None if t.grad is None else t.grad.numpy().tobytes() for name, t in net.named_parameters()
            },
            "objects": {name: (id(tensor), tensor.data_ptr(), tensor._version) for name, tensor in own.items()},
            "requires_grad": [tensor.requires_grad for tensor in own.values()],
            "training": [module.training for module in net.modules()],
            "hooks": sum(len(m._forward_pre_hooks) + len(m._forward_hooks) for m in net.modules()),
            "random": (torch.get_rng_state().tolist(), random.getstate(), np.random.get_state()[1].tolist()),  # noqa: NPY002
        }

    with fm.Recorder(net, tmp_path / "run.zarr", probe=data, record=("activation", "gradient", "weight")) as recorder:
        before = state()
        recorder.snapshot(epoch=0, loss=nn.functional.cross_entropy)
        assert state() == before
    assert state() == before


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_models_of_another_dtype(dtype: torch.dtype, net: nn.Module, data: list, tmp_path: Path) -> None:
    net.to(dtype)
    probe = [(image.to(dtype), label) for image, label in data]
    with fm.Recorder(net, tmp_path / "run.zarr", probe=probe, record=RECORD, overflow="clip") as recorder:
        recorder.snapshot(epoch=0)
    run = fm.open_run(tmp_path / "run.zarr")
    assert_same(run.read_weights(epoch=0), net)
    again = type(net)().to(dtype)
    run.load_weights(again, epoch=0)
    assert_same(run.read_weights(epoch=0), again)
    assert set(run.weights["dtype"]) == {str(dtype).removeprefix("torch."), "int64"}
    wide = type(net)().double()
    run.load_weights(wide, epoch=0)
    assert torch.equal(wide.conv1.weight, net.conv1.weight.double())


@pytest.mark.slow
def test_training_batches(net: nn.Module, data: list, tmp_path: Path) -> None:
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    indexed = fm.with_index(data)
    states = []
    record = ("activation", "gradient", "weight")
    with fm.BatchRecorder(net, tmp_path / "run.zarr", dataset=data, record=record) as recorder:
        for epoch in range(2):
            with recorder.epoch(epoch):
                for indices, images, labels in DataLoader(indexed, batch_size=5):
                    optimizer.zero_grad()
                    with recorder.batch(indices):
                        nn.functional.cross_entropy(net(images), labels).backward()
                    optimizer.step()
            states.append(copy.deepcopy(net))
    run = fm.open_run(tmp_path / "run.zarr")
    assert verify(run) == []
    for epoch, state in enumerate(states):
        assert_same(run.read_weights(epoch=epoch), state)
    table = run.weights.set_index(["snapshot", "name"])
    assert table.loc[(1, "conv1.weight"), "gradient_norm"] == pytest.approx(
        float(net.conv1.weight.grad.double().norm())
    )
    assert table.loc[1, "update_norm"].notna().all()


@pytest.mark.slow
def test_replayed_checkpoints_are_the_same(net: nn.Module, data: list, tmp_path: Path) -> None:
    states = {}
    with fm.Recorder(net, tmp_path / "one.zarr", probe=data, record=RECORD) as recorder:
        for epoch in range(2):
            states[epoch, recorder.step] = copy.deepcopy(net.state_dict())
            recorder.snapshot(epoch=epoch)
            train(net, data)
    fm.replay(net, tmp_path / "again.zarr", checkpoints=states, probe=data, record=RECORD)
    one, again = fm.open_run(tmp_path / "one.zarr"), fm.open_run(tmp_path / "again.zarr")
    for epoch in range(2):
        found, expected = again.read_weights(epoch=epoch), one.read_weights(epoch=epoch)
        assert {name: value.tobytes() for name, value in found.items()} == {
            name: value.tobytes() for name, value in expected.items()
        }
    assert one.weights["update_norm"].equals(again.weights["update_norm"])


class TestResuming:
    def record(self, model: nn.Module, path: Path, data: list, epochs: range, **options: object) -> None:
        with fm.Recorder(model, path, probe=data, **{"mode": "a", "record": RECORD, **options}) as recorder:
            for epoch in epochs:
                recorder.snapshot(epoch=epoch)
                train(model, data)

    @pytest.mark.slow
    def test_updates_are_counted_from_the_snapshot_before(self, net: nn.Module, data: list, tmp_path: Path) -> None:
        self.record(net, tmp_path / "run.zarr", data, range(1))
        self.record(net, tmp_path / "run.zarr", data, range(1, 3))
        run = fm.open_run(tmp_path / "run.zarr")
        states = [run.read_weights(epoch=epoch) for epoch in range(3)]
        table = run.weights.set_index(["snapshot", "name"])["update_norm"]
        for snapshot in (1, 2):
            for name, values in states[snapshot].items():
                expected = np.linalg.norm(values.astype(float) - states[snapshot - 1][name])
                assert table[snapshot, name] == pytest.approx(expected, rel=1e-12)
        assert verify(run) == []

    @pytest.mark.slow
    def test_another_model_is_refused_by_name(self, net: nn.Module, data: list, tmp_path: Path) -> None:
        path = tmp_path / "run.zarr"
        self.record(net, path, data, range(1))

        class Renamed(nn.Module):
            def __init__(self, inner: nn.Module) -> None:
                super().__init__()
                for name, module in inner.named_children():
                    self.add_module(name, module)
                self.layer1[1].last, self.layer1[1].bn = self.layer1[1].bn, nn.Identity()

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                return type(net).forward(self, x)

        def widened(model: nn.Module) -> nn.Module:
            model.extra = nn.Parameter(torch.zeros(2))
            return model

        def doubled(model: nn.Module) -> nn.Module:
            model.fc.bias = nn.Parameter(model.fc.bias.double().float())
            model.register_buffer("bias", torch.zeros(3))
            return model

        for change, message in (
            (
                Renamed,
                r"holds the parameter 'layer1.1.bn.weight' of shape \(6,\) in float32, and this recorder has the",
            ),
            (widened, r"holds the .*, and this recorder has the parameter 'extra' of shape \(2,\)|holds .*'extra'"),
            (doubled, r"has the buffer 'bias'"),
        ):
            with pytest.raises(fm.StoreError, match=message):
                self.record(change(copy.deepcopy(net)), path, data, range(1, 2))
        assert len(fm.open_run(path)) == 1

    @pytest.mark.slow
    def test_with_and_without_weights_do_not_mix(self, net: nn.Module, data: list, tmp_path: Path) -> None:
        self.record(net, tmp_path / "with", data, range(1))
        with pytest.raises(fm.StoreError, match="holds 20 weights, and this recorder has no weights"):
            self.record(net, tmp_path / "with", data, range(1, 2), record=("activation",))
        self.record(net, tmp_path / "without", data, range(1), record=("activation",))
        with pytest.raises(fm.StoreError, match="holds no weights, and this recorder has 20 weights"):
            self.record(net, tmp_path / "without", data, range(1, 2))


@pytest.mark.slow
def test_weights_that_change_their_shape_fail_the_snapshot(net: nn.Module, data: list, tmp_path: Path) -> None:
    with fm.Recorder(net, tmp_path / "run.zarr", layers=["conv1"], probe=data, record=RECORD) as recorder:
        recorder.snapshot(epoch=0)
        net.register_buffer("late", torch.zeros(2))
        with pytest.raises(fm.CaptureError, match="the buffer 'late' is new since the recording began"):
            recorder.snapshot(epoch=1)
        del net.late
        net.fc.bias = nn.Parameter(torch.zeros(4, dtype=torch.float64))
        with pytest.raises(
            fm.CaptureError, match=r"parameter 'fc.bias' changed .* float64, and was of shape .* float32"
        ):
            recorder.snapshot(epoch=1)
        net.fc.bias = nn.Parameter(torch.zeros(4))
        recorder.snapshot(epoch=1)
    assert fm.open_run(tmp_path / "run.zarr").epochs == [0, 1]


def take_snapshots(recorder: fm.Recorder, epochs: range) -> None:
    with recorder:
        for epoch in epochs:
            recorder.snapshot(epoch=epoch)


@pytest.mark.slow
def test_training_goes_on_where_weights_cannot_be_written(
    net: nn.Module, data: list, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fmcluster.store.writing import _pending_weights as pending

    write = pending.write_chunk

    def full(path: Path, *args: object, **how: object) -> str:
        if "fc.bias" in str(path) and ".1" in path.name:
            raise OSError(28, "No space left on device")
        return write(path, *args, **how)

    monkeypatch.setattr(pending, "write_chunk", full)
    recorder = fm.Recorder(net, tmp_path / "run.zarr", probe=data, record=RECORD, on_error="warn")
    with pytest.warns(UserWarning, match=r"weight 'fc.bias' of epoch 1.*No space left"):
        take_snapshots(recorder, range(2))
    run = fm.open_run(tmp_path / "run.zarr")
    assert run.epochs == [0]
    assert verify(run) == []
    monkeypatch.undo()
    with fm.Recorder(net, tmp_path / "run.zarr", probe=data, record=RECORD, mode="a") as recorder:
        recorder.snapshot(epoch=1)
    assert verify(fm.open_run(tmp_path / "run.zarr")) == []


KILLED = """
import os, signal, sys, torch
import fmcluster as fm
from fmcluster.store.writing import _pending_weights as pending
from tests.capture.small_net import SmallNet
torch.manual_seed(0)
net, count, write = SmallNet(), 0, pending.write_chunk
def watched(*args, **how):
    global count
    count += 1
    if count == int(sys.argv[2]):
        os.kill(os.getpid(), signal.SIGKILL)
    return write(*args, **how)
pending.write_chunk = watched
probe = [(torch.rand(3, 12, 12, generator=torch.Generator().manual_seed(k)), 0) for k in range(4)]
with fm.Recorder(net, sys.argv[1], probe=probe, record=("activation", "weight"), mode="a") as recorder:
    for epoch in range(recorder.last_epoch + 1, 3):
        torch.nn.init.constant_(net.fc.bias, epoch)
        recorder.snapshot(epoch=epoch)
"""


@pytest.mark.slow
def test_a_killed_recorder_is_gone_on_with(tmp_path: Path) -> None:
    path = tmp_path / "run.zarr"
    for at in (30, 15, 10**6):
        command = [sys.executable, "-c", KILLED, str(path), str(at)]
        done = subprocess.run(command, check=False, env=os.environ | {"PYTHONPATH": os.getcwd()})  # noqa: PTH109
        assert done.returncode == (0 if at > 1000 else -9)
        assert not path.exists() or verify(fm.open_run(path)) == []
    run = fm.open_run(path)
    assert run.epochs == [0, 1, 2]
    assert [run.read_weights(epoch=epoch)["fc.bias"].tolist() for epoch in run.epochs] == [[e] * 4 for e in range(3)]


@pytest.mark.slow
def test_memory_is_bounded(tmp_path: Path) -> None:
    """Of 64 MB of weights, no more than the bound waits to be written, and none stays."""
    model = nn.Sequential(*(nn.Linear(1024, 1024) for _ in range(16)))
    probe = [torch.zeros(1024), torch.ones(1024)]
    with fm.Recorder(
        model, tmp_path / "run.zarr", layers=["15"], probe=probe, record=RECORD, max_pending_bytes=9 << 20
    ) as recorder:
        recorder.snapshot(epoch=0)
        recorder.flush()
        gc.collect()
        tracemalloc.start()
        recorder.snapshot(epoch=1)
        recorder.flush()
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert recorder.peak_pending_bytes <= 9 << 20
        assert most < 48 << 20  # two threads: what they compress, what was before, and blocks of float64


@pytest.mark.slow
def test_sizes_are_said_and_refused(net: nn.Module, data: list, tmp_path: Path) -> None:
    own = sum(tensor.numel() * tensor.element_size() for tensor in tensors(net).values())
    recorder = fm.Recorder(net, tmp_path / "run.zarr", probe=data, record=RECORD)
    estimate = recorder.estimate(n_snapshots=3)
    assert estimate.nbytes_weights == 3 * own
    assert estimate.nbytes == estimate.layers["bytes"].sum() + 3 * own
    plain = fm.Recorder(net, tmp_path / "run.zarr", probe=data).estimate(n_snapshots=3)
    assert plain.nbytes_weights == 0
    maps = plain.nbytes // 3
    with pytest.raises(ValueError, match="of them weights; max_bytes allows"):
        recorder.estimate(n_snapshots=3, max_bytes=3 * maps + own)
    recorder = fm.Recorder(net, tmp_path / "run.zarr", probe=data, record=RECORD, max_bytes=maps + own)
    with recorder:
        recorder.snapshot(epoch=0)
        with pytest.raises(ValueError, match="2 snapshots of 10 samples would take"):
            recorder.snapshot(epoch=1)
    assert fm.open_run(tmp_path / "run.zarr").nbytes_weights == own


@pytest.mark.slow
def test_wrapped_models_are_recorded_under_their_own_names(net: nn.Module, data: list, tmp_path: Path) -> None:
    with fm.Recorder(torch.compile(net), tmp_path / "run.zarr", probe=data, record=RECORD) as recorder:
        recorder.snapshot(epoch=0)
    run = fm.open_run(tmp_path / "run.zarr")
    assert run.weight_names[0] == "conv1.weight"
    target = torch.compile(type(net)())
    run.load_weights(target, epoch=0)
    assert_same(run.read_weights(epoch=0), target._orig_mod)


@pytest.mark.parametrize(
    ("module", "name", "axes"),
    [
        (nn.Conv2d(2, 3, 1), "weight", ("out_channel", "in_channel", "height", "width")),
        (nn.Conv2d(2, 3, 1), "bias", ("out_channel",)),
        (nn.Conv1d(2, 3, 1), "weight", ("out_channel", "in_channel", "time")),
        (nn.Conv3d(2, 3, 1), "weight", ("out_channel", "in_channel", "frame", "height", "width")),
        (nn.ConvTranspose2d(2, 3, 1), "weight", ("in_channel", "out_channel", "height", "width")),
        (nn.Linear(2, 3), "weight", ("out_channel", "in_channel")),
        (nn.Embedding(2, 3), "weight", ("token", "channel")),
        (nn.BatchNorm1d(2), "running_var", ("channel",)),
        (nn.BatchNorm1d(2), "num_batches_tracked", ()),
        (nn.GroupNorm(1, 2), "weight", ("channel",)),
        (nn.LayerNorm(2), "bias", ("channel",)),
        (nn.LayerNorm((2, 3)), "bias", ("axis_0", "axis_1")),
        (nn.LSTM(2, 3), "weight_ih_l0", ("axis_0", "axis_1")),
    ],
)
def test_axes_have_names(module: nn.Module, name: str, axes: tuple[str, ...]) -> None:
    found = {spec.name: spec for spec in weight_specs(module)}
    assert found[name].dimensions == axes
    assert found[name].kind == ("parameter" if name in dict(module.named_parameters()) else "buffer")


def test_sparse_gradients_have_norms(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Embedding(6, 3, sparse=True), nn.Flatten(), nn.Linear(6, 2))
    model(torch.tensor([[1, 1], [2, 5]])).sum().backward()
    probe = [torch.tensor([0, 1]), torch.tensor([2, 3])]
    with fm.Recorder(model, tmp_path / "run.zarr", layers=["2"], probe=probe, record=RECORD) as recorder:
        recorder.snapshot(epoch=0)
    table = fm.open_run(tmp_path / "run.zarr").weights.set_index("name")
    expected = float(model[0].weight.grad.to_dense().double().norm())
    assert table.loc["0.weight", "gradient_norm"] == pytest.approx(expected, rel=1e-6)


def test_without_weights_there_is_nothing_to_do(net: nn.Module, data: list, take: Callable) -> None:
    assert ModelWeights().nbytes == 0
    run = take(net, data)
    assert run.weight_names == []
    assert not (Path(run.path) / "weights").exists()
