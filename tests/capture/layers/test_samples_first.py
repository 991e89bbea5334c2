"""Outputs with sequences first, stored with samples first, and what only looks like such ones."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import fmcluster as fm
from fmcluster.capture.layers._axis_tracker import ChannelAxis
from fmcluster.capture.layers._samples_first import channels_behind_samples, fitting_axis, samples_first
from tests.zoo.cloning import clones

INNER: dict[str, Callable[[], nn.Module]] = {
    "LSTM": lambda: nn.LSTM(8, 8),
    "attention": lambda: nn.MultiheadAttention(8, 2),
    "encoder": lambda: nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0),
}


class SequenceFirst(nn.Module):
    """Turns batches of sequences into sequences of batches, for what is inside."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.embed, self.inner, self.norm, self.head = nn.Linear(5, 8), INNER[kind](), nn.LayerNorm(8), nn.Linear(8, 3)
        self.kind = kind

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.embed(x).transpose(0, 1)
        out: Any = self.inner(x, x, x) if self.kind == "attention" else self.inner(x)
        return self.head(self.norm(out[0] if isinstance(out, tuple) else out).mean(0))


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "n_tokens"), [("LSTM", 4), ("attention", 6), ("encoder", 4)])  # of 4 samples
def test_sequences_first_are_stored_with_samples_first(kind: str, n_tokens: int, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, sequences = SequenceFirst(kind).eval(), torch.rand(4, n_tokens, 5)
    options: dict[str, Any] = {"record": ("activation", "gradient"), "dtype": "float32"}
    with fm.Recorder(model, tmp_path / "probe.zarr", probe=[(each, 0) for each in sequences], **options) as recorder:
        recorder.snapshot(epoch=0, loss=lambda out, _: out.square().sum())
    with (
        fm.BatchRecorder(model, tmp_path / "live.zarr", n_samples=4, **options) as live,
        live.epoch(0),
        live.batch(range(4)),
    ):
        model(sequences).square().sum().backward()
    name = "inner" if kind == "encoder" else "inner[0]"
    expected = clones(model, (sequences,))[name].transpose(1, 0, 2)
    runs = [fm.open_run(tmp_path / f"{each}.zarr") for each in ("probe", "live")]
    for run in runs:
        assert run[name].dimensions == ("snapshot", "sample", "token", "channel")
        np.testing.assert_allclose(run[name].read(epoch=0), expected, atol=1e-6)
        np.testing.assert_allclose(run[name].statistics["mean"].to_numpy(), expected.mean((0, 1)), atol=1e-6)
        assert {"embed", "norm", "head"} <= set(run.layers)
    gradients = [run[name].gradient.read(epoch=0) for run in runs]
    assert np.abs(gradients[0]).max() > 0
    np.testing.assert_allclose(*gradients, atol=1e-5)


def test_the_only_axis_with_as_many_is_a_guess() -> None:
    assert fitting_axis(torch.rand(5, 4, 3), 4) == 1
    assert fitting_axis(torch.rand(5, 4, 4), 4) is None, "two of them"
    assert fitting_axis(torch.rand(8, 4, 3), 4) is None, "several rows for each sample"
    assert fitting_axis(torch.rand(5, 1, 3), 1) == 1
    assert fitting_axis(torch.rand(1, 1, 3), 1) is None, "the first may hold it"


def test_one_sample_is_shown_twice_to_tell_where_samples_are(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, sequences = SequenceFirst("LSTM"), torch.rand(1, 3, 5)
    with fm.Recorder(model, tmp_path / "run.zarr", probe=list(sequences), dtype="float32") as recorder:
        recorder.snapshot(epoch=0)
    run = fm.open_run(tmp_path / "run.zarr")
    assert run.layers == ["embed", "inner[0]", "norm", "head"]
    expected = clones(model, (sequences,))["inner[0]"].transpose(1, 0, 2)
    np.testing.assert_allclose(run["inner[0]"].read(epoch=0), expected, atol=1e-6)


def test_a_table_with_as_many_positions_is_no_batch(tmp_path: Path) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table, self.head = Returns(np.ones((1, 4, 5), np.float32)), nn.Linear(5, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head((x + self.table(x)).mean(1))

    with fm.Recorder(Net(), tmp_path / "run.zarr", probe=[(each, 0) for each in torch.rand(4, 4, 5)]) as recorder:
        recorder.snapshot(epoch=0)
    run = fm.open_run(tmp_path / "run.zarr")
    assert run.layers == ["head"]
    assert run.provenance[-1]["left_out"]["table"] == "it returned float32 of shape (1, 4, 5) for a batch of 4"


class Returns(nn.Module):
    """Returns an array, whatever it is given."""

    def __init__(self, values: Any) -> None:
        super().__init__()
        self.values = values

    def forward(self, _: torch.Tensor) -> torch.Tensor:
        return torch.from_numpy(self.values)


def test_channels_are_found_again_behind_samples() -> None:
    assert channels_behind_samples(ChannelAxis(2, "module"), n_axes=3, samples_axis=1) == ChannelAxis(2, "module")
    assert channels_behind_samples(ChannelAxis(0, "module"), n_axes=3, samples_axis=1) == ChannelAxis(1, "module")
    assert channels_behind_samples(ChannelAxis(1, "shape"), n_axes=4, samples_axis=1) == ChannelAxis(1, "shape")
    assert samples_first(torch.rand(5, 4, 3), 1).shape == (4, 5, 3)
    assert samples_first(torch.rand(5), 1).shape == (5,)


class Sequences(nn.Module):
    """Of sequences, by a module that takes them first; what is given may have them first, or be turned before."""

    def __init__(self, turned: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.turned, self.rnn, self.fc = turned, nn.LSTM(5, 4), nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.rnn(x.transpose(0, 1) if self.turned else x)[0][-1])


@pytest.mark.parametrize("turned", [True, False])
@pytest.mark.parametrize("sizes", [(6, 6), (4, 2), (2, 6), (7, 3)])
def test_training_batches_of_sequences_first_are_told_apart(
    sizes: tuple[int, ...], turned: bool, tmp_path: Path
) -> None:
    model, samples = Sequences(turned), torch.rand(sum(sizes), 6, 5, generator=torch.Generator().manual_seed(1))
    options: dict[str, Any] = {"n_samples": len(samples), "dtype": "float32"}
    with fm.BatchRecorder(model, tmp_path / "run.zarr", **options) as recorder, recorder.epoch(0):
        for start, size in zip((0, sizes[0]), sizes, strict=True):
            part = samples[start : start + size]
            with recorder.batch(range(start, start + size)):
                model(part if turned else part.transpose(0, 1))
    run = fm.open_run(tmp_path / "run.zarr")
    if sizes == (6, 6) and not turned:  # as many tokens as samples, and either may come first
        assert run.layers == ["fc"]
        assert "samples may come first or the tokens" in run.provenance[-1]["left_out"]["rnn[0]"]
        return
    expected = model.rnn(samples.transpose(0, 1))[0].transpose(0, 1)
    np.testing.assert_allclose(run["rnn[0]"].read(epoch=0), expected.detach(), atol=1e-6)


def test_as_many_tokens_as_samples_that_cannot_be_followed_are_no_guess(tmp_path: Path) -> None:
    class Lost(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.from_numpy(x.detach().numpy().transpose(1, 0, 2).copy())

    model = nn.Sequential(Lost(), nn.LayerNorm(5), nn.Flatten(), nn.Linear(30, 2))
    said = "the samples may come first or the tokens"
    with (
        fm.BatchRecorder(model, tmp_path / "all.zarr", n_samples=6) as recorder,
        recorder.epoch(0),
        recorder.batch(range(6)),
    ):
        model(torch.rand(6, 6, 5))
    run = fm.open_run(tmp_path / "all.zarr")
    assert run.layers == ["2", "3"]
    assert said in run.provenance[-1]["left_out"]["1"]
    with (
        pytest.raises(fm.CaptureError, match=said),
        fm.BatchRecorder(model, tmp_path / "named.zarr", n_samples=6, layers=["1"]) as recorder,
        recorder.epoch(0),
        recorder.batch(range(6)),
    ):
        model(torch.rand(6, 6, 5))
