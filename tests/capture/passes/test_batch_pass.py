"""Batches and what becomes of them: tensors beside a batch, data sets, full disks, models that are looked at."""

import copy
import errno
import gc
import io
import json
import os
import random
import tracemalloc
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel
from torch.utils.data import DataLoader, RandomSampler, Subset, TensorDataset

import fmcluster as fm
from fmcluster.store import RunWriter, verify
from tests.capture.small_net import SmallNet

BOTH = ("activation", "gradient")


class Scale(nn.Module):
    """Returns what tells which image it was shown; its gradient, as the loss is a sum of squares, is twice that."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.weight


class TwoScales(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = Scale(), Scale()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.two(self.one(x))


def pictures_of(numbers: list[int]) -> torch.Tensor:
    return (torch.tensor(numbers, dtype=torch.float32) + 1)[:, None].expand(-1, 3).clone()


@pytest.mark.parametrize("course", range(12))
def test_any_course_of_an_epoch_is_stored_as_it_went(course: int, tmp_path: Path) -> None:
    """Batches of any length, shown at once or in parts, some of which raise; shards of any length."""
    chance = random.Random(course)
    n_samples, model = 40, TwoScales()
    expected = []
    with fm.BatchRecorder(
        model, tmp_path / "run.zarr", n_samples=n_samples, record=BOTH, samples_per_shard=chance.choice([1, 7, 32])
    ) as recorder:
        for epoch in range(2):
            arrived: list[int] = []
            with recorder.epoch(epoch):
                while len(arrived) < n_samples and (not arrived or chance.random() < 0.95):
                    numbers = [chance.randrange(60) for _ in range(chance.randint(1, min(9, n_samples - len(arrived))))]
                    raises = chance.random() < 0.35
                    try:
                        with recorder.batch(numbers):
                            images, start = pictures_of(numbers) * (-1 if raises else 1), 0
                            while start < len(numbers):
                                stop = start + chance.randint(1, len(numbers) - start)
                                loss = model(images[start:stop]).square().sum()
                                if raises and chance.random() < 0.5:
                                    raise MemoryError
                                loss.backward()
                                start = stop
                            if raises:
                                raise MemoryError
                    except MemoryError:
                        continue
                    arrived += numbers
            expected.append(arrived)
            torch.optim.SGD(model.parameters(), lr=0.0).step()
    run = fm.open_run(tmp_path / "run.zarr")
    assert verify(run) == []
    for epoch, arrived in enumerate(expected):
        assert run.sample_ids(epoch).tolist() == arrived
        for name in ("one", "two"):
            maps = pictures_of(arrived).numpy()
            np.testing.assert_array_equal(run[name].read(epoch=epoch), maps)
            np.testing.assert_array_equal(run[name].gradient.read(epoch=epoch), 2 * maps)
            for layer, factor in ((run[name], 1), (run[name].gradient, 2)):
                told = layer.statistics[layer.statistics["epoch"] == epoch]
                np.testing.assert_array_equal(told["min"], factor * maps.min(0))
                np.testing.assert_array_equal(told["max"], factor * maps.max(0))
                np.testing.assert_allclose(told["mean"], factor * maps.mean(0), rtol=1e-6)


class Noisy(TensorDataset):
    """Augments: each item is another one each time."""

    def __getitem__(self, index: int) -> tuple[torch.Tensor, ...]:
        image, label = super().__getitem__(index)
        return image + torch.rand(()), label


def test_what_is_stored_is_what_a_sampler_with_replacement_and_workers_showed(net: nn.Module, tmp_path: Path) -> None:
    images = Noisy(torch.rand(12, 3, 12, 12), torch.arange(12) % 4)
    loader = DataLoader(
        fm.with_index(images),
        batch_size=7,
        sampler=RandomSampler(images, replacement=True, num_samples=20),
        num_workers=2,
    )
    shown: dict[int, torch.Tensor] = {}
    order: list[int] = []
    with (
        fm.BatchRecorder(net, tmp_path / "run.zarr", layers=["conv1"], dataset=images, n_samples=20) as recorder,
        recorder.epoch(0),
    ):
        for indices, pictures, _ in loader:
            with recorder.batch(indices):
                net(pictures)
            order += indices.tolist()
            shown |= dict(zip(indices.tolist(), pictures, strict=True))
    run = fm.open_run(tmp_path / "run.zarr")
    assert run.sample_ids(0).tolist() == order
    assert len(shown) < 20  # some came twice
    latest = torch.stack([shown[index] for index in shown])
    with torch.no_grad():
        np.testing.assert_array_equal(run["conv1"].read(epoch=0, samples=list(shown)), net.conv1(latest).half().numpy())


def n_tensor_hooks() -> int:
    gc.collect()
    tensors = [thing for thing in gc.get_objects() if issubclass(type(thing), torch.Tensor)]
    return sum(len(tensor._backward_hooks or ()) for tensor in tensors)


class Remembering(nn.Module):
    """Keeps what it returned, and raises where it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.last = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 2, 3)
        self.kept: list[torch.Tensor] = []
        self.raises: BaseException | None = None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.inner(x)
        self.kept.append(x)
        if self.raises is not None:
            raise self.raises
        return self.last(x)


@pytest.mark.slow
@pytest.mark.parametrize("when", ["nothing", "forward", "backward", "no backward", "second backward"])
def test_no_hook_is_left_on_a_tensor_that_outlives_its_batch(
    when: str, tmp_path: Path, no_hooks_left: Callable
) -> None:
    model, images = Remembering(), torch.rand(4, 3, 8, 8)

    def fail(_gradient: torch.Tensor) -> None:
        raise KeyboardInterrupt

    before = n_tensor_hooks()
    with no_hooks_left(model), fm.BatchRecorder(model, tmp_path / "run.zarr", n_samples=8, record=BOTH) as recorder:
        for epoch, first in ((0, True), (1, False)):  # of the first batch, and of a later one
            try:
                with recorder.epoch(epoch):
                    if not first:
                        with recorder.batch(range(4)):
                            model(images).sum().backward()
                    with recorder.batch(range(4)):
                        model.raises = KeyboardInterrupt() if when == "forward" else None
                        loss = model(images).sum()
                        if when == "backward":
                            handle = loss.register_hook(fail)
                        if when != "no backward":
                            loss.backward(retain_graph=True)
                        if when == "second backward":
                            loss.backward()
            except (KeyboardInterrupt, fm.CaptureError):
                assert when != "nothing"
            else:
                assert when == "nothing"
            model.raises = None
            if when == "backward":
                handle.remove()
            assert len(model.kept) == (1 if first else 3)
            assert n_tensor_hooks() == before
            torch.optim.SGD(model.parameters(), lr=0.0).step()
    assert fm.open_run(tmp_path / "run.zarr").epochs == ([0, 1] if when == "nothing" else [])


def test_an_interrupted_epoch_is_invisible_to_whoever_reads_meanwhile(net: nn.Module, tmp_path: Path) -> None:
    path, images = tmp_path / "run.zarr", torch.rand(8, 3, 12, 12)

    def lengths() -> list[int]:
        root = json.loads((path / "zarr.json").read_bytes())
        nodes = root["consolidated_metadata"]["metadata"].values()
        return sorted({n["shape"][0] for n in nodes if n.get("dimension_names", [None])[0] == "snapshot"})

    def files() -> set[Path]:
        return {file for file in path.glob("layers/*/*/c.*") if int(file.name.split(".")[1]) >= lengths()[0]}

    with fm.BatchRecorder(net, path, layers=["conv1", "fc"], n_samples=8, record=BOTH, samples_per_shard=4) as recorder:
        for epoch in range(4):
            try:
                with recorder.epoch(epoch):
                    for at in (0, 4):
                        with recorder.batch(range(at, at + 4)):
                            net(images[at : at + 4]).sum().backward()
                            if epoch in (1, 2) and at == 4:
                                raise KeyboardInterrupt if epoch == 1 else ValueError
                        recorder.flush()
                        assert lengths() == [min(epoch, 1)]
                    assert files()
            except (KeyboardInterrupt, ValueError):
                assert epoch in (1, 2)
                assert not files()
            recorder.flush()
            assert fm.open_run(path).epochs == [0, 3][: 1 + (epoch == 3)]
            torch.optim.SGD(net.parameters(), lr=0.0).step()
    run = fm.open_run(path)
    assert verify(run) == []
    assert run["conv1"].read(epoch=3).shape[0] == 8


class TestTensorsBesideABatch:
    """A module may return tensors whose rows are not samples, beside one whose are: a table of positions, experts."""

    class Aside(nn.Module):
        def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
            return {"positions": x[:1, :, 0, 0] * 1, "maps": x * 2, "crops": torch.cat([x, x])}

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.aside = nn.Conv2d(3, 4, 1), TestTensorsBesideABatch.Aside()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            out = self.aside(self.conv(x))
            return out["maps"].sum() + out["positions"].sum() + out["crops"].sum()

    @pytest.mark.parametrize("parts", [[8], [4, 4], [2, 5, 1]], ids=str)
    @pytest.mark.parametrize("passes", [1, 2])
    def test_they_are_left_out_of_training_batches(self, parts: list[int], passes: int, tmp_path: Path) -> None:
        model, images = self.Model(), torch.rand(16, 3, 5, 5)
        with (
            fm.BatchRecorder(
                model, tmp_path / "run.zarr", n_samples=16, record=BOTH, max_pending_bytes=1000
            ) as recorder,
            recorder.epoch(0),
        ):
            for first in (0, 8):
                with recorder.batch(range(first, first + 8)):
                    for _ in range(passes):
                        at = first
                        for count in parts:
                            model(images[at : at + count]).backward()
                            at += count
        run = fm.open_run(tmp_path / "run.zarr")
        calls = [f".call{k}" for k in range(passes)] if passes > 1 else [""]
        names = [f"{layer}{call}{part}" for call in calls for layer, part in (("conv", ""), ("aside", "[maps]"))]
        assert run.layers == names
        for call in calls:
            with torch.no_grad():
                np.testing.assert_array_equal(
                    run[f"aside{call}[maps]"].read(epoch=0), (2 * model.conv(images)).half().numpy()
                )
            assert (run[f"aside{call}[maps]"].gradient.read(epoch=0) == 1).all()

    def test_they_are_left_out_of_a_probe(self, tmp_path: Path) -> None:
        data = TensorDataset(torch.rand(8, 3, 5, 5), torch.zeros(8))
        with fm.Recorder(self.Model(), tmp_path / "run.zarr", probe=data, batch_size=4) as recorder:
            recorder.snapshot(epoch=0)
        assert fm.open_run(tmp_path / "run.zarr").layers == ["conv", "aside[maps]", "aside[crops]"]


class TestIndicesOfADataSet:
    """Those of a subset and those of what it is of are easily taken for one another."""

    @pytest.fixture
    def images(self) -> TensorDataset:
        return TensorDataset(torch.rand(12, 3, 12, 12), torch.arange(12) % 4)

    def test_one_that_is_no_items_is_refused(self, net: nn.Module, images: TensorDataset, tmp_path: Path) -> None:
        part = Subset(fm.with_index(images), [2, 9, 5, 11])
        with (
            fm.BatchRecorder(net, tmp_path / "run.zarr", layers=["conv1"], dataset=part) as recorder,
            recorder.epoch(0),
        ):
            for indices, pictures, _ in DataLoader(part, batch_size=4):
                with pytest.raises(ValueError, match="holds 11, and dataset has 4 items"), recorder.batch(indices):
                    net(pictures)
                with recorder.batch(range(4)):
                    net(pictures)
        assert fm.open_run(tmp_path / "run.zarr").sample_ids(0).tolist() == [0, 1, 2, 3]

    def test_an_indexed_data_set_may_be_passed_as_it_is(self, net, images: TensorDataset, tmp_path: Path) -> None:
        indexed = fm.with_index(images)
        with (
            fm.BatchRecorder(net, tmp_path / "run.zarr", layers=["conv1"], dataset=indexed) as recorder,
            recorder.epoch(0),
        ):
            for indices, pictures, _ in DataLoader(indexed, batch_size=5, shuffle=True):
                with recorder.batch(indices):
                    net(pictures)
        assert fm.open_run(tmp_path / "run.zarr").samples["label"].tolist() == images.tensors[1].tolist()


class TestADiskThatIsFullForAWhile:
    """The training loop may catch the error, and go on."""

    @pytest.fixture
    def disk(self, monkeypatch: pytest.MonkeyPatch) -> dict[str, bool]:
        state, write = {"full": False}, RunWriter.write

        def attempt(*arguments: Any, **named: Any) -> None:
            if state["full"]:
                raise OSError(errno.ENOSPC, "No space left on device")
            write(*arguments, **named)

        monkeypatch.setattr(RunWriter, "write", attempt)
        return state

    def epoch(self, recorder: fm.Recorder, net: nn.Module, number: int, disk: dict, *, full_at: int) -> list[str]:
        told = []
        with recorder.epoch(number):
            for at in range(0, 12, 3):
                disk["full"] = at == full_at
                try:
                    with recorder.batch(range(at, at + 3)):
                        net(torch.full((3, 3, 12, 12), float(number)))
                except fm.StoreError as error:
                    told.append(str(error))
                recorder._session.wait()
        return told

    @pytest.mark.parametrize("full_at", [0, 3, 6])
    @pytest.mark.parametrize("failing", [0, 1])
    def test_the_epoch_is_left_out_and_later_ones_have_their_samples(
        self, full_at: int, failing: int, net: nn.Module, disk: dict, tmp_path: Path
    ) -> None:
        net.eval()
        images = TensorDataset(torch.rand(12, 3, 12, 12), torch.arange(12) % 4)
        with fm.BatchRecorder(
            net, tmp_path / "run.zarr", layers=["conv1"], dataset=images, samples_per_shard=3
        ) as recorder:
            for number in range(3):
                told = self.epoch(recorder, net, number, disk, full_at=full_at if number == failing else -1)
                assert len(told) == (number == failing)
                for part in ("layer 'conv1'", f"epoch {failing}", "No space left"):
                    assert all(part in message for message in told)
        run = fm.open_run(tmp_path / "run.zarr")
        assert run.epochs == [number for number in range(3) if number != failing]
        assert run.samples["label"].tolist() == images.tensors[1].tolist()
        assert verify(run) == []
        for number in run.epochs:
            with torch.no_grad():
                maps = net.conv1(torch.full((12, 3, 12, 12), float(number)))
            np.testing.assert_array_equal(run["conv1"].read(epoch=number), maps.half().numpy())

    def test_the_epoch_may_be_recorded_again(self, net: nn.Module, disk: dict, tmp_path: Path) -> None:
        with fm.BatchRecorder(
            net, tmp_path / "run.zarr", layers=["conv1"], n_samples=12, samples_per_shard=3
        ) as recorder:
            self.epoch(recorder, net, 5, disk, full_at=3)
            assert recorder.last_epoch == -1
            self.epoch(recorder, net, 5, disk, full_at=-1)
        assert fm.open_run(tmp_path / "run.zarr").epochs == [5]


def test_an_option_that_fits_no_layer_leaves_nothing_in_the_way(net: nn.Module, tmp_path: Path) -> None:
    images = torch.rand(4, 3, 12, 12)
    for options in ({"channels": [0, 6]}, {"dtype": {"conv2": "float32"}}, {"crop": (slice(9, 9), slice(0, 2))}):
        with (
            pytest.raises(ValueError, match=r"channels of layer 'conv1'|'conv2'|crop of layer 'conv1'"),
            fm.BatchRecorder(net, tmp_path / "run.zarr", layers=["conv1"], n_samples=4, **options) as recorder,
            recorder.epoch(0),
            recorder.batch(range(4)),
        ):
            net(images)
        assert not (tmp_path / "run.zarr").exists()


def test_an_error_in_the_first_batch_leaves_its_memory_to_the_next(net: nn.Module, tmp_path: Path) -> None:
    images = torch.rand(16, 3, 12, 12)
    with (
        fm.BatchRecorder(
            net, tmp_path / "run.zarr", layers=["conv1"], n_samples=16, max_pending_bytes=2000
        ) as recorder,
        recorder.epoch(0),
    ):
        for _ in range(3):
            with pytest.raises(KeyError), recorder.batch(range(8)):
                net(images[:8])
                raise KeyError
        for at in (0, 8):  # would wait for ever
            with recorder.batch(range(at, at + 8)):
                net(images[at : at + 8])
        assert recorder.peak_pending_bytes < 2 * 8 * 6 * 6 * 6 * 2


@pytest.mark.slow
def test_two_recorders_of_the_same_batches(net: nn.Module, tmp_path: Path, no_hooks_left: Callable) -> None:
    net.eval()
    images = torch.rand(8, 3, 12, 12)
    with (
        no_hooks_left(net),
        fm.BatchRecorder(net, tmp_path / "one.zarr", layers="leaves", n_samples=8, record=BOTH) as one,
        fm.BatchRecorder(net, tmp_path / "two.zarr", layers=["conv1"], n_samples=20, record=BOTH) as two,
        one.epoch(0),
        two.epoch(3),
    ):
        for at in (0, 4):
            with one.batch(range(at, at + 4)), two.batch(range(at, at + 4)):
                net(images[at : at + 4]).square().sum().backward()
            with pytest.raises(KeyError), two.batch([0]):
                raise KeyError
    first, second = fm.open_run(tmp_path / "one.zarr"), fm.open_run(tmp_path / "two.zarr")
    assert len(first.layers) == 18
    for kind in ("read", "gradient"):
        a, b = (run["conv1"] if kind == "read" else run["conv1"].gradient for run in (first, second))
        np.testing.assert_array_equal(a.read(epoch=0), b.read(epoch=3))


@pytest.mark.slow
def test_a_model_copied_averaged_or_saved_within_an_epoch_has_no_hooks(net: nn.Module, tmp_path: Path) -> None:
    images, averaged = torch.rand(8, 3, 12, 12), AveragedModel(net)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    with fm.BatchRecorder(net, tmp_path / "run.zarr", layers="leaves", n_samples=8, record=BOTH) as recorder:
        for epoch in range(2):
            with recorder.epoch(epoch):
                for at in (0, 4):
                    with recorder.batch(range(at, at + 4)):
                        net(images[at : at + 4]).sum().backward()
                    optimizer.step()
                    averaged.update_parameters(net)
                    torch.save(net, file := io.BytesIO())
                    file.seek(0)
                    for other in (copy.deepcopy(net), torch.load(file, weights_only=False), averaged.module):
                        assert isinstance(other, SmallNet)
                        assert not any(m._forward_hooks or m._forward_pre_hooks for m in other.modules())
                        assert not any(p._backward_hooks for p in other.parameters())
                        other(images).sum().backward()
    assert fm.open_run(tmp_path / "run.zarr")["conv1"].read(epoch=1).shape[0] == 8


class Watched(nn.Module):
    """Notes what it returns, and through what a gradient will come to it."""

    def __init__(self) -> None:
        super().__init__()
        self.alive: list[weakref.ref] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out, saved = x * 2, x.square()
        self.alive += [weakref.ref(out), weakref.ref(out.untyped_storage()), weakref.ref(saved.untyped_storage())]
        return out * saved


@pytest.mark.slow
@pytest.mark.parametrize("raises", [False, True])
def test_nothing_of_a_batch_is_held_when_it_has_ended(raises: bool, tmp_path: Path) -> None:
    """Neither outputs nor what the graph behind them holds, whether it was the first batch, and however it ended."""
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(inplace=True), Watched(), nn.Flatten(), nn.Linear(144, 2))
    with fm.BatchRecorder(model, tmp_path / "run.zarr", n_samples=64, record=BOTH) as recorder, recorder.epoch(0):
        for backward in (True, False, True):
            try:
                with recorder.batch(range(8)):
                    loss = model(torch.rand(8, 3, 8, 8)).sum()
                    if backward:
                        loss.backward()
                    if raises:
                        raise KeyError
            except (KeyError, fm.CaptureError):
                assert raises or not backward
            del loss
            gc.collect()
            assert [reference() for reference in model[2].alive if reference() is not None] == []
        with recorder.batch(range(8)):
            model(torch.rand(8, 3, 8, 8)).sum().backward()
    assert len(model[2].alive) == 12


@pytest.mark.slow
def test_a_view_does_not_keep_its_storage_through_the_epoch(tmp_path: Path) -> None:
    class Corner(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            wide = x.repeat(1, 1, 50, 50)
            storages.append(weakref.ref(wide.untyped_storage()))
            return wide[:, :, :2, :2]

    storages: list[weakref.ref] = []
    model = nn.Sequential(nn.Conv2d(3, 4, 3), Corner())
    with fm.BatchRecorder(model, tmp_path / "run.zarr", n_samples=16, record=BOTH) as recorder, recorder.epoch(0):
        for at in (0, 8):
            with recorder.batch(range(at, at + 8)):
                model(torch.rand(8, 3, 6, 6)).sum().backward()
            gc.collect()
            assert [reference() for reference in storages if reference() is not None] == []
        assert recorder.peak_pending_bytes < 100_000
    assert len(storages) == 2
    assert (fm.open_run(tmp_path / "run.zarr")["1"].gradient.read(epoch=0) == 1).all()


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads the resident memory from /proc")
def test_resident_memory_is_flat_over_fifty_batches(tmp_path: Path) -> None:
    """Each batch's outputs take 6 MB, and as much again its gradients and what is written."""
    model = nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(inplace=True), nn.Conv2d(16, 4, 3))
    images, resident = torch.rand(8, 3, 64, 64), []
    with (
        fm.BatchRecorder(
            model, tmp_path / "run.zarr", n_samples=400, record=BOTH, max_pending_bytes=8 << 20
        ) as recorder,
        recorder.epoch(0),
    ):
        for number in range(50):
            with recorder.batch(range(number * 8, number * 8 + 8)):
                model(images).square().mean().backward()
            model.zero_grad()
            recorder.flush()
            pages = int(Path("/proc/self/statm").read_text().split()[1])
            resident.append(pages * os.sysconf("SC_PAGE_SIZE"))
    # what is kept of 25 batches would be 150 MB and more; what malloc keeps is not the same each time
    assert max(resident[25:]) - max(resident[:25]) < 32 << 20


@pytest.mark.slow
def test_the_sums_of_batches_that_have_passed_are_added_up(tmp_path: Path) -> None:
    """So that an epoch of thousands of batches holds no more than one of a few."""
    model, images = nn.Sequential(nn.ReLU()), torch.rand(2, 5000)
    tracemalloc.start()
    try:
        with fm.BatchRecorder(model, tmp_path / "run.zarr", n_samples=100) as recorder, recorder.epoch(0):
            for number in range(50):
                with recorder.batch([number, number]):
                    model(images)
                recorder.flush()
                if number == 9:
                    early = tracemalloc.get_traced_memory()[0]
            held = tracemalloc.get_traced_memory()[0] - early
    finally:
        tracemalloc.stop()
    one = 7 * 5000 * 8
    assert held < 10 * one


def test_the_recorder_lets_go_of_the_model(tmp_path: Path) -> None:
    model = TwoScales()
    with fm.BatchRecorder(model, tmp_path / "run.zarr", n_samples=4, record=BOTH) as recorder:
        with recorder.epoch(0), recorder.batch(range(4)):
            model(pictures_of([1, 2, 3, 4])).sum().backward()
        with pytest.raises(KeyError), recorder.epoch(1), recorder.batch(range(4)):
            raise KeyError
    reference = weakref.ref(model)
    del model, recorder
    gc.collect()
    assert reference() is None
