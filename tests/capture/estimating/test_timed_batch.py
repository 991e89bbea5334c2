"""A timed batch under a clock that is told what passes: each second is counted where it belongs."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

import fmcluster as fm
from fmcluster.capture import estimate
from fmcluster.capture.estimating import _timed_batch as timed_batch
from fmcluster.capture.transfer import Copier, Copy


class Clock:
    """Seconds that pass only where they are told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Slow(nn.Module):
    """A convolution that takes so many seconds an image."""

    def __init__(self, clock: Clock, seconds: float) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 2, 3, padding=1)
        self.clock, self.seconds = clock, seconds

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = self.conv1(x)
        self.clock.now += self.seconds * len(x)
        return out


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., fm.capture.Estimate]:
    """A function that estimates 3 snapshots of 10 samples from 5, where parts take seconds an image and disk a byte."""

    def estimated(
        forward: float, copy: float, encode: float, disk: float, *, n_cores: int = 2, n_threads: int = 2, **more: Any
    ) -> fm.capture.Estimate:
        clock = Clock()
        really = Copier.copy

        def slow_copy(self: Copier, output: torch.Tensor, reduction: Any, **options: Any) -> Copy:
            clock.now += copy * len(output)
            return really(self, output, reduction, **options)

        def slow_trial(_spec: object, values: np.ndarray, *, folder: Path) -> tuple[int, float]:
            clock.now += 100  # which is nobody's
            return values.nbytes, encode * len(values)

        monkeypatch.setattr(Copier, "copy", slow_copy)
        monkeypatch.setattr(timed_batch, "perf_counter", clock)
        monkeypatch.setattr(timed_batch, "write_trial", slow_trial)
        monkeypatch.setattr(timed_batch, "disk_rate", lambda near, **_: 1 / disk)
        monkeypatch.setattr(timed_batch, "n_writer_threads", lambda: 2)
        monkeypatch.setattr(timed_batch.os, "sched_getaffinity", lambda _: set(range(n_cores)), raising=False)
        monkeypatch.setattr(torch, "get_num_threads", lambda: n_threads)
        return estimate(Slow(clock, forward), torch.rand(5, 3, 16, 16), n_samples=10, n_snapshots=3, **more)

    return estimated


NBYTES = 30 * 2 * 256 * 2  # of 30 images


@pytest.mark.parametrize(
    ("parts", "bound"),
    [
        ((4, 1, 2, 1e-5), "forward"),
        ((1, 4, 2, 1e-5), "copy"),
        ((1, 2, 16, 1e-5), "encode"),
        ((1, 1, 1, 1), "disk"),
    ],
)
def test_each_part_can_be_the_bound(parts: tuple[float, ...], bound: str, told: Callable) -> None:
    found = told(*parts)
    forward, copy, encode, disk = parts
    expected = (30 * forward, 30 * copy, 30 * encode / 2, NBYTES * disk)  # both cores encode
    seconds = found.parts
    assert (seconds.forward, seconds.copy, seconds.encode, seconds.disk) == pytest.approx(expected)
    assert seconds.in_turn == ("forward", "copy", "encode")
    assert found.seconds == pytest.approx(max(sum(expected[:3]), expected[3]))
    assert seconds.bound == bound
    assert str(seconds) in repr(found)


def test_encoders_with_cores_of_their_own_go_on_beside_the_forward_pass(told: Callable) -> None:
    seconds = told(1, 2, 8, 1e-5, n_cores=3, n_threads=2).parts
    assert seconds.in_turn == ("forward", "copy")
    assert seconds.encode == pytest.approx(30 * 8)  # one core is left
    assert (seconds.total, seconds.bound) == (pytest.approx(240), "encode")
    assert told(1, 2, 8, 1e-5, n_cores=16, n_threads=8).parts.encode == pytest.approx(120)  # two writers, no more


def test_what_max_size_would_change(told: Callable) -> None:
    found = told(1, 1, 1, 1)
    frame = found.averaged
    assert frame["max_size"].tolist() == [14, 7]  # the larger ones leave 16 x 16 as it is
    nbytes = [30 * 2 * 14 * 14 * 2, 30 * 2 * 7 * 7 * 2]
    assert frame["bytes"].tolist() == frame["bytes_stored"].tolist() == nbytes
    assert frame["disk"].tolist() == pytest.approx(nbytes)
    assert frame["forward"].tolist() == frame["copy"].tolist() == pytest.approx([30, 30])
    assert frame["seconds"].tolist() == pytest.approx(nbytes)
    assert frame["bound"].tolist() == ["disk", "disk"]
    assert "max_size=7: 5.9 kB" in repr(found)
    assert told(1, 1, 1, 1, max_size=14).averaged["max_size"].tolist() == [7]
    nothing = told(1, 1, 1, 1, max_size=7).averaged
    assert isinstance(nothing, pd.DataFrame)
    assert len(nothing) == 0


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_gpu_all_parts_are_measured_and_go_on_side_by_side(net: nn.Module, data: list) -> None:
    images = torch.stack([image for image, _ in data])
    there = estimate(net.cuda(), images, n_samples=10, n_snapshots=2)
    here = estimate(net.cpu(), images, n_samples=10, n_snapshots=2)
    assert there.parts.in_turn == ()
    assert min(there.parts.forward, there.parts.copy, there.parts.encode, there.parts.disk) > 0
    assert there.nbytes == here.nbytes
    assert there.nbytes_stored == pytest.approx(here.nbytes_stored, rel=0.01)
