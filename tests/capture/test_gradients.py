"""Gradients with respect to what the layers return: in training, and of a probe."""

import copy
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from live_reference import Reference
from torch import nn
from torch.utils.checkpoint import checkpoint
from torch.utils.data import TensorDataset

import fmcluster as fm
from fmcluster.store import Run, verify

BOTH = ("activation", "gradient")
cross_entropy = nn.functional.cross_entropy


@pytest.fixture
def pictures() -> torch.Tensor:
    return torch.rand(10, 3, 12, 12, generator=torch.Generator().manual_seed(3))


@pytest.fixture
def labels() -> torch.Tensor:
    return torch.arange(10) % 4


def live(model: nn.Module, path: Path, step: Callable[[slice], None], **options: object) -> Run:
    """Record an epoch of two batches of five."""
    with fm.Recorder(model, path, **{"n_samples": 10, "record": BOTH, **options}) as recorder, recorder.epoch(0):
        for part in (slice(0, 5), slice(5, 10)):
            with recorder.batch(range(part.start, part.stop)):
                step(part)
    run = fm.open_run(path)
    assert verify(run) == []
    return run


def equal(run: Run, references: list[Reference]) -> None:
    for name in run.layers:
        gradients = [reference.gradient(name) for reference in references]
        np.testing.assert_array_equal(run[name].gradient.read(epoch=0), torch.cat(gradients).numpy(), name)


class TestOfAProbe:
    """``snapshot(loss=...)``."""

    def take(self, net: nn.Module, data: object, path: Path, **options: object) -> Run:
        with fm.Recorder(net, path, probe=data, record=BOTH, batch_size=4, **options) as recorder:
            recorder.snapshot(epoch=0, loss=cross_entropy)
        return fm.open_run(path)

    def references(self, net: nn.Module, data: list) -> list[Reference]:
        out = []
        for at in range(0, len(data), 4):
            reference = Reference(net.eval())
            for parameter in reference.model.parameters():
                parameter.requires_grad_(True)
            images, labels = zip(*data[at : at + 4], strict=True)
            shown = torch.stack(images).requires_grad_()
            cross_entropy(reference.model(shown.clone()), torch.tensor(labels)).backward()
            out.append(reference)
        return out

    def test_is_that_of_clones(self, net: nn.Module, data: list, tmp_path: Path) -> None:
        expected = self.references(copy.deepcopy(net), data)
        run = self.take(net, data, tmp_path / "run.zarr", layers=lambda *_: True)
        assert sum(".call" in name for name in run.layers) == 12
        equal(run, expected)
        assert run["conv1"].gradient.dtype == np.float32
        assert np.abs(run["conv1"].gradient.read(epoch=0)).max() > 0

    def test_leaves_no_trace(self, net: nn.Module, data: list, tmp_path: Path, no_hooks_left: Callable) -> None:
        net.fc.bias.requires_grad_(False)
        kept = torch.ones_like(net.conv1.weight)
        net.conv1.weight.grad = kept
        state = copy.deepcopy(net.state_dict())
        generator = torch.get_rng_state()
        with no_hooks_left(net):
            self.take(net, data, tmp_path / "run.zarr")
        assert net.conv1.weight.grad is kept
        assert torch.equal(kept, torch.ones_like(kept))
        assert all(p.grad is None for name, p in net.named_parameters() if name != "conv1.weight")
        assert [p.requires_grad for p in net.parameters()] == [name != "fc.bias" for name, _ in net.named_parameters()]
        assert all(torch.equal(state[name], value) for name, value in net.state_dict().items())
        assert torch.equal(torch.get_rng_state(), generator)
        assert net.training
        assert torch.is_grad_enabled()

    def test_frozen_layers_have_one_too(self, net: nn.Module, data: list, tmp_path: Path) -> None:
        expected = self.references(copy.deepcopy(net), data)
        for parameter in net.parameters():
            parameter.requires_grad_(False)
        equal(self.take(net, data, tmp_path / "run.zarr"), expected)

    def test_of_a_model_that_changes_its_input(self, data: list, tmp_path: Path) -> None:
        net = nn.Sequential(nn.ReLU(inplace=True), nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(400, 4))
        equal(self.take(net, data, tmp_path / "run.zarr"), self.references(net, data))

    def test_of_words(self, tmp_path: Path) -> None:
        torch.manual_seed(0)
        words = TensorDataset(torch.randint(0, 9, (6, 5)), torch.arange(6) % 2)
        net = nn.Sequential(nn.Embedding(9, 8), nn.Linear(8, 3), nn.Flatten(), nn.Linear(15, 2))
        run = self.take(net, words, tmp_path / "run.zarr", layers=["0", "1"])
        assert run["0"].dimensions == ("snapshot", "sample", "token", "channel")
        reference = Reference(net.eval())
        first = words.tensors[0][:4], words.tensors[1][:4]
        cross_entropy(reference.model(first[0]), first[1]).backward()
        for name in ("0", "1"):
            np.testing.assert_array_equal(run[name].gradient.read(epoch=0)[:4], reference.gradient(name).numpy(), name)
        assert all(p.grad is None for p in net.parameters())

    def test_a_loss_and_gradients_need_one_another(self, net: nn.Module, data: list, tmp_path: Path) -> None:
        for record, loss in ((BOTH, None), (("activation",), cross_entropy)):
            with (
                pytest.raises(ValueError, match="one of them is missing"),
                fm.Recorder(net, tmp_path / "run.zarr", probe=data, record=record, mode="w") as recorder,
            ):
                recorder.snapshot(epoch=0, loss=loss)
        for record in ("gradient", ("gradient",), ("activation", "weight"), ()):
            with pytest.raises(ValueError, match="record is"):
                fm.Recorder(net, tmp_path / "run.zarr", probe=data, record=record)

    @pytest.mark.parametrize(
        ("loss", "told"),
        [
            (lambda out, _: out, r"a tensor of shape \(4, 4\)"),
            (lambda *_: 3.0, "3.0"),
            (lambda *_: torch.zeros(()), r"a tensor of shape \(\)"),
        ],
    )
    def test_a_loss_that_is_none(self, loss: Callable, told: str, net: nn.Module, data: list, tmp_path: Path) -> None:
        with fm.Recorder(net, tmp_path / "run.zarr", probe=data, record=BOTH, batch_size=4) as recorder:
            with pytest.raises(fm.CaptureError, match=f"loss returned {told}; expected a tensor of one number"):
                recorder.snapshot(epoch=0, loss=loss)
            recorder.snapshot(epoch=0, loss=cross_entropy)
        assert len(fm.open_run(tmp_path / "run.zarr")) == 1

    def test_replayed_from_a_checkpoint(self, net: nn.Module, data: list, tmp_path: Path) -> None:
        run = self.take(net, data, tmp_path / "run.zarr")
        fm.replay(
            net,
            tmp_path / "again.zarr",
            checkpoints={0: copy.deepcopy(net.state_dict())},
            probe=data,
            batch_size=4,
            record=BOTH,
            loss=cross_entropy,
        )
        again = fm.open_run(tmp_path / "again.zarr")
        for name in run.layers:
            np.testing.assert_array_equal(run[name].gradient.read(epoch=0), again[name].gradient.read(epoch=0))


class Auxiliary(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body, self.head, self.spare = nn.Conv2d(3, 4, 3), nn.Linear(4, 2), nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x = self.body(x).mean((2, 3))
        return self.head(x), self.spare(x)


def test_a_layer_that_the_loss_does_not_depend_on_has_none(pictures: torch.Tensor, tmp_path: Path) -> None:
    net = Auxiliary()
    run = live(net, tmp_path / "live.zarr", lambda part: net(pictures[part])[0].sum().backward())
    assert np.isnan(run["spare"].gradient.read(epoch=0)).all()
    assert np.isfinite(run["head"].gradient.read(epoch=0)).all()
    assert run["spare"].gradient.statistics[["mean", "min"]].isna().all(axis=None)
    data = TensorDataset(pictures, torch.zeros(10))
    with fm.Recorder(net, tmp_path / "probe.zarr", probe=data, record=BOTH) as recorder:
        recorder.snapshot(epoch=0, loss=lambda outputs, _: outputs[0].sum())
    assert np.isnan(fm.open_run(tmp_path / "probe.zarr")["spare"].gradient.read(epoch=0)).all()


def test_frozen_layers_have_none_until_they_are_thawed(
    net: nn.Module, pictures: torch.Tensor, labels: torch.Tensor, tmp_path: Path
) -> None:
    early = ["conv1", "bn1", "relu"]
    for name in early:
        getattr(net, name).requires_grad_(False)
    net.eval()
    with fm.Recorder(net, tmp_path / "run.zarr", n_samples=10, record=BOTH) as recorder:
        for epoch in range(2):
            net.conv1.requires_grad_(epoch == 1)
            reference = Reference(net)
            cross_entropy(reference.model(pictures[:6]), labels[:6]).backward()
            with recorder.epoch(epoch), recorder.batch(range(6)):
                cross_entropy(net(pictures[:6]), labels[:6]).backward()
            with torch.no_grad():
                torch.optim.SGD(net.parameters(), lr=0.0).step()
    run = fm.open_run(tmp_path / "run.zarr")
    for name in early:
        assert np.isnan(run[name].gradient.read(epoch=0)).all()
        np.testing.assert_array_equal(run[name].gradient.read(epoch=1), reference.gradient(name).numpy())
        np.testing.assert_array_equal(run[name].read(epoch=0), run[name].read(epoch=1))
    assert np.isfinite(run["layer1"].gradient.read(epoch=0)).all()


def test_backward_after_the_block(net: nn.Module, pictures: torch.Tensor, tmp_path: Path) -> None:
    with fm.Recorder(net, tmp_path / "run.zarr", n_samples=10, record=BOTH) as recorder, recorder.epoch(0):
        for _ in range(2):
            with pytest.raises(fm.CaptureError, match=r"call backward\(\) inside"), recorder.batch(range(4)):
                loss = net(pictures[:4]).sum()
            loss.backward()  # finds no hook
            with recorder.batch(range(4)):
                net(pictures[:4]).sum().backward()


def test_two_backward_passes(net: nn.Module, pictures: torch.Tensor, tmp_path: Path) -> None:
    with fm.Recorder(net, tmp_path / "run.zarr", n_samples=10, record=BOTH) as recorder, recorder.epoch(0):
        with pytest.raises(fm.CaptureError, match="the sum of the losses"), recorder.batch(range(4)):
            loss = net(pictures[:4]).sum()
            loss.backward(retain_graph=True)
            loss.backward()
        with recorder.batch(range(4)):
            net(pictures[:4]).sum().backward()


class Checkpointed(nn.Module):
    def __init__(self, net: nn.Module, *, reentrant: bool) -> None:
        super().__init__()
        self.net, self.reentrant = net, reentrant

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.net.relu(self.net.bn1(self.net.conv1(x)))
        for block in self.net.layer1:
            x = checkpoint(block, x, use_reentrant=self.reentrant)
        return self.net.fc(self.net.pool(x).flatten(1))


@pytest.mark.parametrize("reentrant", [False, True])
def test_what_checkpointing_recomputes_is_not_recorded_twice(
    reentrant: bool, net: nn.Module, pictures: torch.Tensor, labels: torch.Tensor, tmp_path: Path
) -> None:
    net.eval()
    layers = ["net.conv1", "net.layer1.?", "net.layer1.?.conv", "net.fc"]
    if reentrant:
        layers.remove("net.layer1.?.conv")  # they fire twice
    plain = copy.deepcopy(net)
    model = Checkpointed(net, reentrant=reentrant)
    references = []

    def step(part: slice) -> None:
        reference = Reference(plain)
        cross_entropy(reference.model(pictures[part]), labels[part]).backward()
        references.append(reference)
        cross_entropy(model(pictures[part]), labels[part]).backward()

    run = live(model, tmp_path / "run.zarr", step, layers=layers)
    assert len(run.layers) == (4 if reentrant else 8)
    for name in run.layers:
        inner = name.removeprefix("net.")
        activations = torch.cat([r.activation(inner) for r in references])
        gradients = torch.cat([r.gradient(inner) for r in references])
        np.testing.assert_array_equal(run[name].read(epoch=0), activations.half().numpy(), name)
        np.testing.assert_array_equal(run[name].gradient.read(epoch=0), gradients.numpy(), name)
    if reentrant:
        with pytest.raises(fm.CaptureError, match="use_reentrant=False"):
            live(model, tmp_path / "other.zarr", step, layers=["net.layer1.?.conv"])


def test_reduced_like_the_activations(net: nn.Module, pictures: torch.Tensor, labels: torch.Tensor, tmp_path) -> None:
    references = []
    net.eval()
    plain = copy.deepcopy(net)

    def step(part: slice) -> None:
        reference = Reference(plain)
        cross_entropy(reference.model(pictures[part]), labels[part]).backward()
        references.append(reference)
        cross_entropy(net(pictures[part]), labels[part]).backward()

    run = live(
        net,
        tmp_path / "run.zarr",
        step,
        layers=["conv1", "fc"],
        channels={"conv1": [4, 1]},
        crop={"conv1": (slice(1, 6), slice(0, 6))},
        max_size=2,
        dtype={"fc": "float32"},
    )
    full = torch.cat([reference.gradient("conv1") for reference in references])
    pooled = nn.functional.adaptive_avg_pool2d(full[:, [4, 1], 1:6, 0:6], 2)
    np.testing.assert_array_equal(run["conv1"].gradient.read(epoch=0), pooled.numpy())
    assert run["conv1"].gradient.channels.tolist() == [4, 1]
    whole = full[:, [4, 1]].double().movedim(1, 0).flatten(1).numpy()
    np.testing.assert_allclose(run["conv1"].gradient.statistics["mean"], whole.mean(1), rtol=1e-9, atol=1e-15)
    np.testing.assert_array_equal(run["conv1"].gradient.statistics["max"], whole.max(1))
    exact = torch.cat([reference.activation("fc") for reference in references])
    np.testing.assert_array_equal(run["fc"].read(epoch=0), exact.numpy())
