"""Importance of channels, against gradients of gates and a case by hand."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import TensorDataset

import fmcluster as fm
from fmcluster.analysis import Importance, importance
from fmcluster.store import Layer, LayerSpec, RunWriter


class Gated(nn.Module):
    """Channels that are multiplied with gates of 1, whose gradients are what is asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.gate = nn.Conv2d(3, 5, 3), nn.Parameter(torch.ones(5))
        self.fc = nn.Linear(5, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.conv(x) * self.gate[:, None, None]
        return self.fc(functional.relu(x).mean((2, 3)))


def summed(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return functional.cross_entropy(outputs, targets, reduction="sum")


@pytest.fixture(scope="module")
def gated(tmp_path_factory: pytest.TempPathFactory) -> tuple[Gated, TensorDataset, Layer]:
    torch.manual_seed(0)
    model = Gated().eval()
    probe = TensorDataset(torch.randn(17, 3, 6, 6), torch.arange(17) % 4)
    path = tmp_path_factory.mktemp("gated") / "run.zarr"
    how = {"layers": ["conv"], "record": ("activation", "gradient"), "dtype": "float32", "batch_size": 5}
    with fm.Recorder(model, path, probe=probe, **how) as recorder:
        for epoch in range(2):
            recorder.snapshot(epoch=epoch, loss=summed)
    return model, probe, fm.open_run(path)["conv"]


@pytest.mark.parametrize("max_bytes", [1 << 30, 20_000])
def test_it_is_the_mean_square_of_the_gradients_of_gates(gated, max_bytes: int) -> None:
    model, probe, layer = gated
    terms = []
    for image, label in probe:
        (slope,) = torch.autograd.grad(summed(model(image[None]), label[None]), model.gate)
        terms.append(slope.double().numpy())
    found = importance(layer, max_bytes=max_bytes)
    assert isinstance(found, Importance)
    expected = np.square(terms).mean(axis=0)
    for snapshot in range(2):
        part = found.frame[found.frame["snapshot"] == snapshot]
        np.testing.assert_allclose(part["importance"], expected, rtol=1e-4)
        np.testing.assert_allclose(part["share"], expected / expected.sum(), rtol=1e-4)
        np.testing.assert_allclose(part["effect"], -np.mean(terms, axis=0), rtol=1e-3, atol=1e-6)
        error = np.square(terms).std(axis=0, ddof=1) / 17**0.5
        np.testing.assert_allclose(part["importance_se"], error, rtol=1e-3)
    assert found.least(n=1)["channel"].item() == expected.argmin()
    assert found.n_samples == 17
    assert fm.importance is importance


def stored(path: Path, maps: np.ndarray, slopes: np.ndarray, *, scale: float = 1.0) -> Layer:
    spec = LayerSpec("layer", maps.shape[1:], "float32", "Module", gradient=True)
    n = len(maps)
    with RunWriter(path) as writer:
        writer.create([spec], n_samples=n, shard_samples=n, kind="probe")
        for name, values in (("activation", maps), ("gradient", slopes * scale)):
            writer.write("layer", offset=0, values=values.astype(np.float32), quantity=name)
        statistics = {("layer", name): np.zeros((6, spec.n_channels)) for name in spec.quantities}
        writer.commit(
            epoch=3,
            step=7,
            index=np.arange(n),
            statistics=statistics,
            metrics={},
            clipped={},
            loss_scale=np.full(n, scale),
        )
    return fm.open_run(path)["layer"]


def test_tokens_and_vectors_by_hand(tmp_path: Path) -> None:
    tokens = stored(
        tmp_path / "tokens.zarr",
        np.array([[[1.0, 2], [3, 4]], [[0, 1], [0, 1]]]),  # two images, two tokens, two channels
        np.array([[[1.0, -1], [1, 2]], [[5, 1], [5, 1]]]),
    )
    frame = importance(tokens).frame
    np.testing.assert_allclose(frame["importance"], [(16 + 0) / 2, (36 + 4) / 2])
    np.testing.assert_allclose(frame["effect"], [-2, -4])
    assert frame[["snapshot", "epoch", "step"]].drop_duplicates().to_numpy().tolist() == [[0, 3, 7]]
    vectors = stored(tmp_path / "vectors.zarr", np.array([[1.0, 2], [3, 4]]), np.array([[2.0, 0], [0, 0]]))
    frame = importance(vectors).frame
    np.testing.assert_allclose(frame["importance"], [2, 0])
    np.testing.assert_allclose(frame["share"], [1, 0])


def test_a_scaled_loss_is_unscaled_on_request(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    maps, slopes = rng.normal(size=(2, 4, 3, 2, 2))
    plain = importance(stored(tmp_path / "one.zarr", maps, slopes)).frame
    scaled = stored(tmp_path / "two.zarr", maps, slopes, scale=8.0)
    np.testing.assert_allclose(importance(scaled).frame["importance"], 64 * plain["importance"], rtol=1e-5)
    np.testing.assert_allclose(importance(scaled, unscaled=True).frame["importance"], plain["importance"], rtol=1e-5)


def test_what_is_not_finite_is_left_out_and_counted(tmp_path: Path) -> None:
    maps, slopes = np.ones((3, 2, 1, 1)), np.ones((3, 2, 1, 1))
    slopes[1, 0] = np.nan
    maps[:, 1] = np.inf
    frame = importance(stored(tmp_path / "run.zarr", maps, slopes)).frame
    assert frame["nonfinite"].tolist() == [1, 3]
    assert frame["importance"].iloc[0] == 1
    assert np.isnan(frame["importance"].iloc[1])


def test_what_cannot_be_asked(gated, tmp_path: Path) -> None:
    layer = gated[2]
    with pytest.raises(TypeError, match="importance received a str; expected Layer, made by open_run"):
        importance("conv")
    with pytest.raises(ValueError, match=r"importance received the gradients of conv; pass run\['conv'\]"):
        importance(layer.gradient)
    with pytest.raises(ValueError, match="there is one image; expected at least two"):
        importance(layer, samples=[3])
    with pytest.raises(MemoryError, match="one image of conv takes"):
        importance(layer, max_bytes=100)
