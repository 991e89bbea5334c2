"""What BatchNorms are given: mean and variance per channel, of all samples and positions of a snapshot."""

from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint
from torch.utils.data import DataLoader

import fmcluster as fm
from fmcluster.capture.weights._normalization_inputs import NormalizationInputs, merged, of_channels
from fmcluster.store import Run

RECORD = ("activation", "weight")


def given(model: nn.Module, batches: list[torch.Tensor], *, training: bool = False) -> dict[str, np.ndarray]:
    """What each BatchNorm is given, taken by hooks of our own: ndarray (n_channels, n_values)."""
    seen: dict[str, list[torch.Tensor]] = {}
    modules = {name: module for name, module in model.named_modules() if isinstance(module, nn.BatchNorm2d)}
    handles = [
        module.register_forward_pre_hook(lambda _m, args, name=name: seen.setdefault(name, []).append(args[0].clone()))
        for name, module in modules.items()
    ]
    model.train(training)
    with torch.no_grad():
        for batch in batches:
            model(batch)
    for handle in handles:
        handle.remove()
    return {
        name: np.concatenate([part.double().transpose(0, 1).flatten(1).numpy() for part in parts], axis=1)
        for name, parts in seen.items()
    }


def assert_describes(run: Run, expected: dict[str, np.ndarray], *, snapshot: int = 0) -> None:
    assert run.normalization_names == list(expected)
    for name, values in expected.items():
        table = run.normalization_inputs(name)
        table = table[table["snapshot"] == snapshot]
        np.testing.assert_allclose(table["mean"], values.mean(1), rtol=1e-12, atol=1e-14)
        np.testing.assert_allclose(table["variance"], values.var(1), rtol=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("batch_size", [3, 10])
def test_of_a_probe(batch_size: int, net: nn.Module, data: list, tmp_path: Path) -> None:
    with fm.Recorder(
        net, tmp_path / "run.zarr", layers=["conv1"], probe=data, record=RECORD, batch_size=batch_size
    ) as recorder:
        recorder.snapshot(epoch=0)
        nn.init.constant_(net.conv1.weight, 0.01)
        recorder.snapshot(epoch=1)
    run = fm.open_run(tmp_path / "run.zarr")
    images = torch.stack([image for image, _ in data])
    batches = list(images.split(batch_size))
    assert_describes(run, given(net, batches), snapshot=1)
    run.load_weights(net, epoch=0)
    assert_describes(run, given(net, batches))


@pytest.mark.slow
def test_of_training_batches_but_not_of_one_that_was_withdrawn(net: nn.Module, data: list, tmp_path: Path) -> None:
    images, labels = torch.stack([image for image, _ in data]), torch.tensor([label for _, label in data])
    net.train()
    with (
        fm.BatchRecorder(net, tmp_path / "run.zarr", dataset=data, layers=["conv1"], record=RECORD) as recorder,
        recorder.epoch(1),
    ):
        for part in (slice(0, 4), slice(4, 8)):
            with recorder.batch(range(part.start, part.stop)):
                nn.functional.cross_entropy(net(images[part]), labels[part]).backward()
        with pytest.raises(RuntimeError, match="on purpose"), recorder.batch([8, 9]):
            net(images[8:])
            raise RuntimeError("on purpose")
    run = fm.open_run(tmp_path / "run.zarr")
    assert_describes(run, given(net, [images[:4], images[4:8]], training=True))


def test_what_backward_computes_again_does_not_count(tmp_path: Path) -> None:
    class Checkpointed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bn, self.fc = nn.BatchNorm1d(3), nn.Linear(3, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.fc(checkpoint(self.bn, x, use_reentrant=False))

    torch.manual_seed(0)
    model, images = Checkpointed(), torch.randn(4, 3)
    with (
        fm.BatchRecorder(model, tmp_path / "run.zarr", n_samples=4, layers=["fc"], record=RECORD) as recorder,
        recorder.epoch(0),
        recorder.batch(range(4)),
    ):
        model(images.requires_grad_()).sum().backward()
    table = fm.open_run(tmp_path / "run.zarr").normalization_inputs("bn")
    np.testing.assert_allclose(table["mean"], images.detach().double().mean(0), rtol=1e-12)


def test_a_batch_norm_that_is_not_called_is_blank(data: list, tmp_path: Path) -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
    model.unused = nn.BatchNorm2d(2)
    model.forward = lambda x: model[1](input=model[0](x))
    with fm.Recorder(model, tmp_path / "run.zarr", layers=["0"], probe=data, record=RECORD) as recorder:
        recorder.snapshot(epoch=0)
    run = fm.open_run(tmp_path / "run.zarr")
    assert run.normalization_inputs("unused")[["mean", "variance"]].isna().to_numpy().all()
    assert run.normalization_inputs("1")["mean"].notna().all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_channels_of_a_batch_are_described_in_pieces(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fmcluster.capture.weights._normalization_inputs._BLOCK", 50)
    values = (torch.randn(7, 3, 4, 2, generator=torch.Generator().manual_seed(0)) + 1000).to(dtype)
    before = values.clone()
    count, sums, squares = of_channels(values)
    flat = values.double().transpose(0, 1).flatten(1).numpy()
    assert count == 56
    np.testing.assert_allclose(sums, flat.sum(1), rtol=1e-13)
    np.testing.assert_allclose(squares, (flat**2).sum(1), rtol=1e-13)
    assert torch.equal(values, before)


@pytest.mark.parametrize("shape", [(4, 3), (4, 3, 5), (4, 3, 5, 2), (4, 3, 2, 5, 2)])
def test_channels_may_have_any_number_of_positions_in_any_order(shape: tuple[int, ...]) -> None:
    values = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    kinds = [values, values.to(memory_format=torch.channels_last) if len(shape) == 4 else values.clone()]
    for given_values in kinds:
        count, sums, squares = of_channels(given_values)
        wide = values.double().transpose(0, 1).flatten(1)
        assert count == wide.shape[1]
        torch.testing.assert_close(sums, wide.sum(1))
        torch.testing.assert_close(squares, wide.square().sum(1))


def test_two_descriptions_are_one_of_both() -> None:
    values = torch.randn(9, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    count, sums, squares = merged(of_channels(values[:2]), of_channels(values[2:]))
    assert count == 9
    np.testing.assert_allclose(sums, values.sum(0), rtol=1e-13)
    np.testing.assert_allclose(squares, values.square().sum(0), rtol=1e-13)


def test_a_channel_that_does_not_vary_has_no_variance_below_zero() -> None:
    model = nn.Sequential(nn.BatchNorm1d(1))
    inputs = NormalizationInputs({"0": model[0]})
    with inputs.watched():
        model(torch.full((7, 1), 1000.1))
    inputs.keep()
    (variance,) = inputs.arrays()["normalizations/0/variance"]
    assert 0 <= variance < 1e-9


def test_an_error_goes_where_it_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(_values: torch.Tensor) -> None:
        raise MemoryError("no more")

    monkeypatch.setattr("fmcluster.capture.weights._normalization_inputs.of_channels", fails)
    model, caught = nn.Sequential(nn.BatchNorm1d(2)), []
    inputs = NormalizationInputs({"0": model[0]})
    with inputs.watched(on_error=caught.append):
        model(torch.ones(3, 2))
    assert [str(error) for error in caught] == ["no more"]
    with pytest.raises(MemoryError), inputs.watched():
        model(torch.ones(3, 2))
    assert not model[0]._forward_pre_hooks


def test_what_a_device_says_only_when_it_is_asked_does_not_end_the_training(
    net: nn.Module, data: list, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sums are fetched once a batch is whole; what went wrong on a device before is said then."""

    def fails(_: object) -> None:
        raise RuntimeError("the device failed")

    images, path = torch.stack([image for image, _ in data]), tmp_path / "run.zarr"
    options = {"layers": ["conv1"], "n_samples": 10, "record": RECORD, "on_error": "warn"}
    with fm.BatchRecorder(net, path, **options) as recorder:
        for epoch in range(3):
            with monkeypatch.context() as patch:
                if epoch == 1:
                    patch.setattr(NormalizationInputs, "keep", fails)
                expected = pytest.warns(UserWarning, match="epoch 1: .*failed") if epoch == 1 else nullcontext()
                with expected, recorder.epoch(epoch), recorder.batch(range(10)):
                    net(images)
    assert fm.open_run(path).epochs == [0, 2]


@pytest.mark.slow
def test_loaders_of_any_kind(net: nn.Module, data: list, tmp_path: Path) -> None:
    loader = DataLoader(data, batch_size=4)
    with fm.Recorder(net, tmp_path / "run.zarr", layers=["conv1"], probe=loader, record=RECORD) as recorder:
        recorder.snapshot(epoch=0)
    images = torch.stack([image for image, _ in data])
    assert_describes(fm.open_run(tmp_path / "run.zarr"), given(net, list(images.split(4))))
