"""Models that give other values for the same batch: told from those that do not, and said."""

import itertools
import random
import time
import warnings
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from typer.testing import CliRunner

import fmcluster as fm
from fmcluster.cli import app
from fmcluster.report.content import missing_lines

IMAGES = torch.rand(6, 3, 8, 8, generator=torch.Generator().manual_seed(1))


class Net(nn.Module):
    """A convolution, something made of it, and a head."""

    def __init__(self, change: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.conv, self.change, self.fc = nn.Conv2d(3, 6, 3), Makes(change), nn.Linear(6, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.change(self.conv(x)).mean((2, 3)))


class Makes(nn.Module):
    def __init__(self, make: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.make = make

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.make(x)


class Counts(nn.Module):
    """Keeps a state, in a buffer or an attribute: a recorder puts both back."""

    def __init__(self, *, is_buffer: bool) -> None:
        super().__init__()
        self.is_buffer, self.count = is_buffer, 0
        self.register_buffer("n", torch.zeros(()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.count += 1
        self.n += 1
        return x * (self.n if self.is_buffer else self.count)


def record(model: nn.Module, path: Path, *, n: int = 6, **options: Any) -> fm.store.Run:
    with fm.Recorder(model, path, probe=[(image, 0) for image in IMAGES[:n]], **options) as recorder:
        recorder.snapshot(epoch=0)
        recorder.snapshot(epoch=1)
    return fm.open_run(path)


def masked(x: torch.Tensor) -> torch.Tensor:
    keep = np.random.default_rng().random(tuple(x.shape)) < 0.5  # of six channels, two masks are often the same
    return x * torch.from_numpy(keep)


@pytest.mark.parametrize(
    "make",
    [
        masked,
        lambda x: x + random.Random().random(),
        lambda x: x * torch.rand(x.shape, generator=_seeded_by_time()),
        lambda x: x * (time.perf_counter_ns() % 1_000_003 / 1e6),
        lambda x: x * torch.from_numpy(np.random.default_rng().permutation(x[0].numel())).view_as(x[0]),
    ],
    ids=["numpy", "python", "torch", "time", "permutation"],
)
@pytest.mark.parametrize("n", [1, 6])
def test_numbers_that_no_recorder_can_hold_are_warned_of_and_noted(make: Any, n: int, tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match=r"layer 'change' gave other values .* \(so did fc\)") as caught:
        run = record(Net(make), tmp_path / "run.zarr", n=n)
    assert len(caught) == 1
    assert Path(caught[0].filename) == Path(__file__)
    assert run.provenance[-1]["varying"] == ["change", "fc"]
    assert fm.store.varying_layers(run) == ["change", "fc"]
    np.testing.assert_array_equal(run["conv"].read(epoch=0), run["conv"].read(epoch=1))
    assert not np.array_equal(run["change"].read(epoch=0), run["change"].read(epoch=1))
    said = CliRunner().invoke(app, ["info", run.path]).stdout
    assert "not repeatable: change, fc: the same batch gave other values" in said


def _seeded_by_time() -> torch.Generator:
    generator = torch.Generator()
    generator.seed()
    return generator


@pytest.mark.parametrize(
    "change",
    [
        lambda x: nn.functional.dropout(x, 0.5),
        lambda x: x[torch.randperm(len(x))],
        lambda x: (x - x.mean((0, 2, 3), keepdim=True)) / x.std((0, 2, 3), keepdim=True),
        lambda x: x / x[:1],
        lambda x: torch.full_like(x, torch.nan),
        lambda x: torch.where(x > 0, torch.inf, x),
        torch.zeros_like,
        lambda x: x.bfloat16().float(),
        Counts(is_buffer=True),
        Counts(is_buffer=False),
    ],
    ids=["dropout", "shuffled", "batch", "first", "nan", "inf", "zero", "bfloat16", "buffer", "attribute"],
)
@pytest.mark.parametrize("n", [1, 6])
def test_what_a_recorder_holds_or_depends_on_the_batch_is_the_same_each_time(
    change: Any, n: int, tmp_path: Path
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run = record(Net(change), tmp_path / "run.zarr", n=n)
    assert "varying" not in run.provenance[-1]
    assert fm.store.varying_layers(run) == []
    for name in run.layers:
        np.testing.assert_array_equal(run[name].read(epoch=0), run[name].read(epoch=1))


def test_a_state_that_cannot_be_put_back_and_calls_that_come_and_go_are_said(tmp_path: Path) -> None:
    calls = itertools.count(1)
    with pytest.warns(UserWarning, match="layer 'change' gave other values"):
        record(Net(lambda x: x * next(calls)), tmp_path / "run.zarr")

    class Twice(Net):
        calls = itertools.count(1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.conv(x)
            for _ in range(1 + next(self.calls) % 2):
                x = self.change(x)
            return self.fc(x.mean((2, 3)))

    recorder = fm.Recorder(Twice(torch.sigmoid), tmp_path / "twice.zarr", probe=[(IMAGES[0], 0)])
    with ExitStack() as stack, pytest.warns(UserWarning, match=r"layer 'change.call1' gave other .*\(so did fc\)"):
        stack.enter_context(recorder)


def test_sums_in_another_order_are_the_same_and_a_small_random_part_is_not(tmp_path: Path) -> None:
    def noisy(share: float) -> Callable[[torch.Tensor], torch.Tensor]:
        return lambda x: x * (1 + share * torch.from_numpy(np.random.default_rng().standard_normal(x.shape)).float())

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        record(Net(noisy(1e-6)), tmp_path / "rounded.zarr")
    with pytest.warns(UserWarning, match="layer 'change' gave"):
        record(Net(noisy(0.02)), tmp_path / "random.zarr")


def test_a_report_lists_it(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="gave other values"):
        run = record(Net(masked), tmp_path / "run.zarr")
    assert any(line.startswith("layer change: the same batch gave other values") for line in missing_lines(run))
