"""What modules may return, and how often they may fire."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import fmcluster as fm

IMAGES = list(torch.rand(7, 3, 8, 8, generator=torch.Generator().manual_seed(0)))


class Odd(nn.Module):
    """Returns what it is told to; is told otherwise after some calls."""

    def __init__(self, first: Callable, later: Callable | None = None, *, after: int = 10**9) -> None:
        super().__init__()
        self.first, self.later, self.left = first, later, after

    def forward(self, x: torch.Tensor) -> object:
        self.left -= 1
        return self.first(x) if self.left >= 0 or self.later is None else self.later(x)


class Around(nn.Module):
    """Shows an input to a module as often as it is told to, and lets it pass."""

    def __init__(self, inner: nn.Module, times: int = 1) -> None:
        super().__init__()
        self.inner, self.times = inner, times
        self.conv = nn.Conv2d(3, 2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for _ in range(self.times):
            self.inner(x)
        return self.conv(x)


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        (lambda x: (x.shape, None), r"layer 'inner' \(Odd\) returned a tuple without tensors"),
        (lambda x: {"out": x > 0}, "returned a dict without tensors"),
        (lambda x: None, "returned a NoneType"),
        (lambda x: x.mean(), r"returned float32 of shape \(\) for a batch of 7"),
        (lambda x: x.flatten(), r"shape \(1344,\)"),
        (lambda x: x[..., None], r"shape \(7, 3, 8, 8, 1\)"),
        (lambda x: x.repeat(2, 1, 1, 1), r"shape \(14, 3, 8, 8\)"),
        (lambda x: x > 0, "returned bool"),
        (lambda x: x.long(), "returned int64"),
        (lambda x: x.to(torch.complex64), "returned complex64"),
    ],
)
def test_what_is_no_map_is_refused_on_entry(returned: Callable, message: str, tmp_path: Path) -> None:
    with pytest.raises(fm.CaptureError, match=message):
        fm.Recorder(Around(Odd(returned)), tmp_path / "run.zarr", probe=IMAGES, layers=["inner", "conv"]).__enter__()
    assert not (tmp_path / "run.zarr").exists()


def test_a_module_that_does_not_fire_is_refused_on_entry(tmp_path: Path, no_hooks_left: Callable) -> None:
    model = Around(nn.ReLU(), times=0)
    with no_hooks_left(model), pytest.raises(fm.CaptureError, match="layer 'inner' did not fire"):
        fm.Recorder(model, tmp_path / "run.zarr", probe=IMAGES, layers=["inner", "conv"]).__enter__()
    model.many = nn.ModuleList(nn.ReLU() for _ in range(9))
    with pytest.raises(fm.CaptureError, match=r"'inner'.*nor did many\.0, many\.1, many\.2 and others"):
        fm.Recorder(model, tmp_path / "run.zarr", probe=IMAGES, layers=["inner", "many.*", "conv"]).__enter__()


def test_a_module_that_fires_several_times_is_a_layer_per_call(take: Callable) -> None:
    class Growing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.relu = nn.ReLU(inplace=True)
            self.pool = nn.MaxPool2d(2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.relu(x - 0.5)
            x = self.pool(x)
            x = self.relu(x - 0.25)
            return self.pool(x)

    run = take(Growing(), IMAGES)
    assert run.layers == ["relu.call0", "pool.call0", "relu.call1", "pool.call1"]
    assert [run[name].shape[2:] for name in run.layers] == [(3, 8, 8), (3, 4, 4), (3, 4, 4), (3, 2, 2)]
    first = np.maximum(torch.stack(IMAGES).numpy() - np.float32(0.5), 0)
    np.testing.assert_array_equal(run["relu.call0"].read(epoch=0), first.astype(np.float16))


def test_a_shared_module_is_told_apart_by_call(take: Callable) -> None:
    relu = nn.ReLU(inplace=True)
    run = take(nn.Sequential(nn.Conv2d(3, 2, 1), relu, nn.Conv2d(2, 2, 1), relu), IMAGES)
    assert run.layers == ["0", "1.call0", "2", "1.call1"]
    assert run["0"].read(epoch=0).min() < 0


@pytest.mark.parametrize(
    ("times", "message"),
    [(2, r"layer 'inner' changed in epoch 1: call 2 .*no such call"), (0, "layer 'inner' did not fire for every")],
)
def test_another_number_of_calls_is_an_error(times: int, message: str, tmp_path: Path, no_hooks_left: Callable) -> None:
    model = Around(nn.ReLU())
    with fm.Recorder(model, tmp_path / "run.zarr", probe=IMAGES, batch_size=3) as recorder:
        recorder.snapshot(epoch=0)
        model.times = times
        with no_hooks_left(model), pytest.raises(fm.CaptureError, match=message):
            recorder.snapshot(epoch=1)
        model.times = 1
        recorder.snapshot(epoch=2)
    assert fm.open_run(tmp_path / "run.zarr").epochs == [0, 2]


@pytest.mark.parametrize(
    ("later", "message"),
    [
        (lambda x: x[:, :, ::2], r"call 1 returned \(3, 3, 4, 8\), expected \(3, 3, 8, 8\)"),
        (lambda x: x[:1], r"returned \(1, 3, 8, 8\), expected \(3, 3, 8, 8\)"),
        (lambda x: (x,), r"layer 'inner\[0\]' changed in epoch 0"),
        (lambda x: [], "returned a list without tensors"),
    ],
)
def test_a_change_between_batches_is_an_error(later: Callable, message: str, tmp_path: Path) -> None:
    model = Around(Odd(lambda x: x * 1, later, after=2))  # discovery, then one batch
    with (
        fm.Recorder(model, tmp_path / "run.zarr", probe=IMAGES, batch_size=3) as recorder,
        pytest.raises(fm.CaptureError, match=message),
    ):
        recorder.snapshot(epoch=0)
    assert len(fm.open_run(tmp_path / "run.zarr")) == 0


def test_tokens_and_vectors(take: Callable) -> None:
    class Tokens(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.patches = nn.Conv2d(3, 5, 4, stride=4)
            self.norm = nn.LayerNorm(5)
            self.head = nn.Linear(5, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(self.norm(self.patches(x).flatten(2).transpose(1, 2)).mean(1))

    torch.manual_seed(0)
    model = Tokens().eval()
    run = take(model, IMAGES, batch_size=7)
    assert run["norm"].dimensions == ("snapshot", "sample", "token", "channel")
    assert run["norm"].shape == (1, 7, 4, 5)
    with torch.no_grad():
        tokens = model.norm(model.patches(torch.stack(IMAGES)).flatten(2).transpose(1, 2)).numpy()
    np.testing.assert_array_equal(run["norm"].read(epoch=0), tokens.astype(np.float16))
    np.testing.assert_allclose(run["norm"].statistics["mean"], tokens.astype(float).mean((0, 1)), atol=1e-12)
    np.testing.assert_allclose(run["norm"].statistics["std"], tokens.astype(float).std((0, 1)))
    assert run["head"].shape == (1, 7, 2)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16], ids=str)
def test_models_of_other_precision(dtype: torch.dtype, take: Callable) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()).to(dtype)
    run = take(model, [image.to(dtype) for image in IMAGES], batch_size=7)
    with torch.no_grad():
        exact = model[0](torch.stack(IMAGES).to(dtype)).double().numpy()
    np.testing.assert_array_equal(run["0"].read(epoch=0), exact.astype(np.float16))


def test_an_output_of_several_tensors_is_a_layer_per_tensor(take: Callable) -> None:
    class Heads(nn.Module):
        def forward(self, x: torch.Tensor) -> dict[str, object]:
            return {"maps": x - 0.5, "deep": [x.mean((2, 3)), None], "count": torch.tensor(3), "shape": x.shape}

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.heads = Heads()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.heads(x)["maps"]

    run = take(Model(), IMAGES, batch_size=3)
    assert run.layers == ["heads[maps]", "heads[deep][0]"]
    images = torch.stack(IMAGES)
    np.testing.assert_array_equal(run["heads[maps]"].read(epoch=0), (images - 0.5).half().numpy())
    np.testing.assert_array_equal(run["heads[deep][0]"].read(epoch=0), images.mean((2, 3)).half().numpy())
