"""Snapshots with a loss: gradients of a probe set, which leave no trace."""

import copy
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

import fmcluster as fm
from fmcluster.store import Run
from tests.capture.live_reference import Reference
from tests.capture.small_net import Checkpointed

BOTH = ("activation", "gradient")
cross_entropy = nn.functional.cross_entropy


@pytest.fixture
def pictures() -> torch.Tensor:
    return torch.rand(10, 3, 12, 12, generator=torch.Generator().manual_seed(3))


@pytest.fixture
def labels() -> torch.Tensor:
    return torch.arange(10) % 4


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

    @pytest.mark.slow
    def test_is_that_of_clones(self, net: nn.Module, data: list, tmp_path: Path) -> None:
        expected = self.references(copy.deepcopy(net), data)
        run = self.take(net, data, tmp_path / "run.zarr", layers=lambda *_: True)
        assert sum(".call" in name for name in run.layers) == 12
        equal(run, expected)
        assert run["conv1"].gradient.dtype == np.float32
        assert np.abs(run["conv1"].gradient.read(epoch=0)).max() > 0

    @pytest.mark.slow
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

    @pytest.mark.slow
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
        for record in ("gradient", ("gradient",), ("weight",), ("activation", "weights"), ()):
            with pytest.raises(ValueError, match="record is"):
                fm.Recorder(net, tmp_path / "run.zarr", probe=data, record=record)

    @pytest.mark.slow
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

    @pytest.mark.slow
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


@pytest.mark.parametrize("words", [False, True])
def test_no_hook_of_a_parameter_fires_in_a_snapshot(words: bool, tmp_path: Path) -> None:
    """One that clips, counts or steps would disturb the training."""
    net = nn.Sequential(nn.Embedding(9, 8) if words else nn.Linear(5, 8), nn.Flatten(), nn.LazyLinear(2))
    shown = torch.randint(0, 9, (6, 5)) if words else torch.rand(6, 5)
    net(shown)
    fired = []
    for parameter in net.parameters():
        parameter.register_hook(lambda _gradient: fired.append("gradient"))
        parameter.register_post_accumulate_grad_hook(lambda _parameter: fired.append("accumulated"))
    with fm.Recorder(
        net, tmp_path / "run.zarr", layers=["0"], probe=TensorDataset(shown, torch.zeros(6)), record=BOTH
    ) as recorder:
        recorder.snapshot(epoch=0, loss=lambda outputs, _: outputs.square().sum())
    assert fired == []
    assert np.abs(fm.open_run(tmp_path / "run.zarr")["0"].gradient.read(epoch=0)).max() > 0


@pytest.mark.slow
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_a_snapshot_within_an_evaluation(mode: Callable, net: nn.Module, data: list, tmp_path: Path) -> None:
    kept = {}
    for inside in (False, True):
        path = tmp_path / f"{inside}.zarr"
        with mode(inside) if mode is torch.inference_mode else torch.set_grad_enabled(not inside):
            before = torch.is_grad_enabled(), torch.is_inference_mode_enabled()
            with fm.Recorder(net, path, probe=data, record=BOTH, batch_size=4) as recorder:
                recorder.snapshot(epoch=0, loss=cross_entropy)
            assert (torch.is_grad_enabled(), torch.is_inference_mode_enabled()) == before
        kept[inside] = fm.open_run(path)["conv1"].gradient.read(epoch=0)
    np.testing.assert_array_equal(kept[True], kept[False])
    assert np.abs(kept[True]).max() > 0


@pytest.mark.parametrize("fails", [False, True])
def test_no_hook_is_left_on_what_a_model_keeps_of_a_snapshot(fails: bool, data: list, tmp_path: Path) -> None:
    class Keeping(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.maps = self.conv(x)
            return self.maps.mean((2, 3))

    def loss(outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        if fails:
            raise KeyboardInterrupt
        return cross_entropy(outputs, labels)

    net = Keeping()
    with fm.Recorder(net, tmp_path / "run.zarr", probe=data, record=BOTH) as recorder:
        try:
            recorder.snapshot(epoch=0, loss=loss)
        except KeyboardInterrupt:
            assert fails
    assert net.maps.requires_grad
    assert not net.maps._backward_hooks


@pytest.mark.slow
def test_a_snapshot_of_a_model_with_checkpoints(
    net: nn.Module, pictures: torch.Tensor, labels: torch.Tensor, tmp_path: Path
) -> None:
    data, layers = TensorDataset(pictures, labels), ["net.conv1", "net.layer1.?", "net.layer1.?.conv", "net.fc"]
    reference = Reference(net.eval())
    cross_entropy(reference.model(pictures), labels).backward()
    with fm.Recorder(
        Checkpointed(net, reentrant=False), tmp_path / "run.zarr", probe=data, record=BOTH, layers=layers
    ) as recorder:
        recorder.snapshot(epoch=0, loss=cross_entropy)
    run = fm.open_run(tmp_path / "run.zarr")
    assert len(run.layers) == 8
    for name in run.layers:
        inner = name.removeprefix("net.")
        np.testing.assert_array_equal(run[name].read(epoch=0), reference.activation(inner).half().numpy(), name)
        np.testing.assert_array_equal(run[name].gradient.read(epoch=0), reference.gradient(inner).numpy(), name)


@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad")
def test_a_snapshot_with_a_loss_of_a_model_with_reentrant_checkpoints(
    net: nn.Module, pictures: torch.Tensor, labels: torch.Tensor, tmp_path: Path
) -> None:
    """Torch refuses to compute such gradients without those of the parameters, and says what to do."""
    model = Checkpointed(net, reentrant=True)
    data = TensorDataset(pictures, labels)
    with fm.Recorder(model, tmp_path / "run.zarr", probe=data, record=BOTH, layers=["net.conv1"]) as recorder:
        with pytest.raises(RuntimeError, match="set use_reentrant=False"):
            recorder.snapshot(epoch=0, loss=cross_entropy)
        model.reentrant = False
        recorder.snapshot(epoch=0, loss=cross_entropy)
    assert len(fm.open_run(tmp_path / "run.zarr")) == 1
    assert all(p.grad is None for p in net.parameters())
