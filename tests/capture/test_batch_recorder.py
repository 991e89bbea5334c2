"""Training batches, recorded as they come: what is stored of them, and in which slots."""

import copy
import gc
import pickle
from collections.abc import Callable
from inspect import signature
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel
from torch.utils.data import DataLoader, Subset, TensorDataset
from torchvision.models import resnet18

import fmcluster as fm
from fmcluster.store import Run, RunWriter, verify
from tests.capture.live_reference import Reference

BOTH = ("activation", "gradient")


@pytest.fixture
def images() -> TensorDataset:
    generator = torch.Generator().manual_seed(2)
    return TensorDataset(torch.rand(22, 3, 12, 12, generator=generator), torch.arange(22) % 4)


def train(
    model: nn.Module,
    recorder: fm.Recorder,
    images: TensorDataset,
    *,
    epochs: range = range(2),
    batch_size: int = 8,
    drop_last: bool = False,
    backward: bool = True,
) -> list[dict[int, Reference]]:
    """Train with recording; return what a reference saw of each sample, the last time, in each epoch."""
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.05)
    loader = DataLoader(
        fm.with_index(images), batch_size=batch_size, shuffle=True, drop_last=drop_last, generator=torch.Generator()
    )
    seen = []
    for epoch in epochs:
        where = {}
        with recorder.epoch(epoch):
            for indices, pictures, labels in loader:
                state = torch.get_rng_state()
                reference = Reference(model)
                nn.functional.cross_entropy(reference.model(pictures.clone()), labels).backward()
                torch.set_rng_state(state)
                with recorder.batch(indices):
                    loss = nn.functional.cross_entropy(model(pictures), labels)
                    if backward:
                        loss.backward()
                optimizer.step()
                optimizer.zero_grad()
                for row, index in enumerate(indices.tolist()):
                    where[index] = (reference, row)
        seen.append(where)
    return seen


def check(run: Run, seen: list[dict[int, Reference]], *, kinds: tuple[str, ...] = BOTH) -> None:
    assert verify(run) == []
    for snapshot, where in enumerate(seen):
        samples = sorted(where)
        assert sorted(run.sample_ids(snapshot).tolist()) == samples
        for name in run.layers:
            activations = [where[i][0].activation(name)[where[i][1]] for i in samples]
            np.testing.assert_array_equal(
                run[name].read(snapshot=snapshot, samples=samples), torch.stack(activations).half().numpy(), name
            )
            if "gradient" in kinds:
                gradients = [where[i][0].gradient(name)[where[i][1]] for i in samples]
                np.testing.assert_array_equal(
                    run[name].gradient.read(snapshot=snapshot, samples=samples), torch.stack(gradients).numpy(), name
                )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("batch_size", "drop_last", "written"),
    [(8, False, 1), (5, True, 1), (5, False, 10), (22, False, 32), (1, False, 4)],
)
def test_every_layer_of_every_batch_is_what_clones_saw(
    batch_size: int,
    drop_last: bool,
    written: int,
    net: nn.Module,
    images: TensorDataset,
    tmp_path: Path,
    no_hooks_left: Callable,
) -> None:
    with (
        no_hooks_left(net),
        fm.BatchRecorder(
            net, tmp_path / "run.zarr", layers=lambda *_: True, n_samples=22, record=BOTH, samples_per_shard=written
        ) as recorder,
    ):
        seen = train(net, recorder, images, batch_size=batch_size, drop_last=drop_last)
    run = fm.open_run(tmp_path / "run.zarr")
    assert run.kind == "live"
    assert run.snapshots["step"].tolist() == [-(-22 // batch_size), 2 * -(-22 // batch_size)] or drop_last
    assert sum(".call" in name for name in run.layers) == 2 * 2 * 3
    check(run, seen)


@pytest.mark.slow
def test_all_sixty_leaf_calls_of_a_resnet18_in_train_mode(images: TensorDataset, tmp_path: Path) -> None:
    model = resnet18(num_classes=4)
    big = TensorDataset(nn.functional.interpolate(images.tensors[0][:12], size=64), images.tensors[1][:12])
    with fm.BatchRecorder(model, tmp_path / "run.zarr", layers="leaves", dataset=big, record=BOTH) as recorder:
        seen = train(model, recorder, big, epochs=range(1), batch_size=6)
    run = fm.open_run(tmp_path / "run.zarr")
    assert len(run.layers) == 60
    check(run, seen)


def test_statistics_are_of_all_samples_of_the_epoch(net: nn.Module, images: TensorDataset, tmp_path: Path) -> None:
    with fm.BatchRecorder(net, tmp_path / "run.zarr", layers=["bn1"], n_samples=30, record=BOTH) as recorder:
        seen = train(net, recorder, images, batch_size=5)
    run = fm.open_run(tmp_path / "run.zarr")
    for snapshot, where in enumerate(seen):
        for kind, frame in (("activation", run["bn1"].statistics), ("gradient", run["bn1"].gradient.statistics)):
            rows = [getattr(reference, kind)("bn1")[row] for reference, row in where.values()]
            values = torch.stack(rows).double().movedim(1, 0).flatten(1).numpy()
            told = frame[frame["snapshot"] == snapshot]
            np.testing.assert_allclose(told["mean"], values.mean(1), rtol=1e-9, atol=1e-12)
            np.testing.assert_allclose(told["std"], values.std(1), rtol=1e-6)
            np.testing.assert_array_equal(told["min"], values.min(1))
            np.testing.assert_array_equal(told["max"], values.max(1))


@pytest.mark.slow
@pytest.mark.parametrize("record", [("activation",), BOTH])
def test_recording_changes_nothing_of_the_training(
    record: tuple, net: nn.Module, images: TensorDataset, tmp_path: Path
) -> None:
    def run(model: nn.Module, recorder: fm.Recorder | None) -> list:
        torch.manual_seed(5)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        told = []
        for epoch in range(2):
            for at in range(0, 22, 8):
                pictures, labels = images[at : at + 8]
                if recorder is None:
                    loss = nn.functional.cross_entropy(model(pictures), labels)
                    loss.backward()
                else:
                    context = recorder.epoch(epoch * 100 + at)
                    with context, recorder.batch(range(at, at + len(labels))):
                        loss = nn.functional.cross_entropy(model(pictures), labels)
                        loss.backward()
                told += [loss.detach().clone(), *(p.grad.clone() for p in model.parameters())]
                optimizer.step()
                optimizer.zero_grad()
        return [*told, *model.state_dict().values(), torch.get_rng_state()]

    other = copy.deepcopy(net)
    plain = run(net, None)
    with fm.BatchRecorder(
        other, tmp_path / "run.zarr", layers=lambda *_: True, n_samples=22, record=record
    ) as recorder:
        recorded = run(other, recorder)
    assert len(plain) == len(recorded)
    assert all(torch.equal(one, another) for one, another in zip(plain, recorded, strict=True))


def test_gradient_accumulation_counts_steps_not_batches(net: nn.Module, images: TensorDataset, tmp_path: Path) -> None:
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    with (
        fm.BatchRecorder(net, tmp_path / "run.zarr", layers=["conv1"], n_samples=22, record=BOTH) as recorder,
        recorder.epoch(1),
    ):
        for number, at in enumerate(range(0, 20, 4), start=1):
            with recorder.batch(range(at, at + 4)):
                net(images.tensors[0][at : at + 4]).sum().backward()
            if number % 2 == 0:
                optimizer.step()
                optimizer.zero_grad()
    run = fm.open_run(tmp_path / "run.zarr")
    assert run.snapshots["step"].tolist() == [2]
    assert run.sample_ids(0).tolist() == list(range(20))


@pytest.mark.slow
def test_a_batch_may_be_shown_in_parts(net: nn.Module, images: TensorDataset, tmp_path: Path) -> None:
    whole = copy.deepcopy(net).eval()
    net.eval()
    for name, model, parts in (("whole", whole, [12]), ("parts", net, [4, 5, 3])):
        with (
            fm.BatchRecorder(model, tmp_path / name, layers=lambda *_: True, n_samples=24, record=BOTH) as recorder,
            recorder.epoch(0),
        ):
            for first in (0, 10):
                with recorder.batch(range(first, first + 12)):
                    at = first
                    for count in parts:
                        model(images.tensors[0][at : at + count]).square().sum().backward()
                        at += count
    one, other = fm.open_run(tmp_path / "whole"), fm.open_run(tmp_path / "parts")
    assert one.layers == other.layers
    assert one.sample_ids(0).tolist() == other.sample_ids(0).tolist()
    for name in one.layers:
        np.testing.assert_allclose(one[name].read(snapshot=0), other[name].read(snapshot=0), rtol=2e-3, atol=1e-6)
        np.testing.assert_allclose(
            one[name].gradient.read(snapshot=0), other[name].gradient.read(snapshot=0), rtol=1e-4, atol=1e-7
        )


def test_several_passes_are_layers_of_their_own(net: nn.Module, images: TensorDataset, tmp_path: Path) -> None:
    net.eval()
    first, second = images.tensors[0][:6], images.tensors[0][6:12]
    with (
        fm.BatchRecorder(net, tmp_path / "run.zarr", layers=["conv1", "layer1.0.relu"], n_samples=6) as recorder,
        recorder.epoch(0),
        recorder.batch(range(6)),
    ):
        net(first)
        net(second)
    run = fm.open_run(tmp_path / "run.zarr")
    assert run.layers == ["conv1.call0", *(f"layer1.0.relu.call{k}" for k in (0, 1)), "conv1.call1"] + [
        f"layer1.0.relu.call{k}" for k in (2, 3)
    ]
    with torch.no_grad():
        for call, shown in ((0, first), (1, second)):
            np.testing.assert_array_equal(run[f"conv1.call{call}"].read(snapshot=0), net.conv1(shown).half().numpy())


def test_an_index_that_comes_twice_and_indices_from_anywhere(net: nn.Module, images: TensorDataset, tmp_path) -> None:
    net.eval()
    with fm.BatchRecorder(net, tmp_path / "run.zarr", layers=["conv1"], n_samples=10) as recorder, recorder.epoch(3):
        for at, indices in ((0, [70, 5, 70]), (3, torch.tensor([900, 70]))):
            with recorder.batch(indices):
                net(images.tensors[0][at : at + len(indices)])
    run = fm.open_run(tmp_path / "run.zarr")
    maps = net.conv1(images.tensors[0][:5]).detach().half().numpy()
    conv1 = run["conv1"]
    np.testing.assert_array_equal(conv1.read(epoch=3), maps)
    np.testing.assert_array_equal(conv1.read(epoch=3, samples=[70, 5, 900]), maps[[4, 1, 3]])
    assert run.samples.index.tolist() == [5, 70, 900]


def test_an_epoch_left_early_is_stored_as_far_as_it_came(
    net: nn.Module, images: TensorDataset, tmp_path, no_hooks_left
):
    with no_hooks_left(net), fm.BatchRecorder(net, tmp_path / "run.zarr", layers=["conv1"], n_samples=22) as recorder:
        for epoch in range(2):
            with recorder.epoch(epoch):
                for at in range(0, 22, 8):
                    with recorder.batch(range(at, min(at + 8, 22))):
                        net(images.tensors[0][at : at + 8])
                    if epoch == 0 and at == 8:
                        break
            torch.optim.SGD(net.parameters(), lr=0.1).step()
    run = fm.open_run(tmp_path / "run.zarr")
    assert [len(run.sample_ids(k)) for k in (0, 1)] == [16, 22]
    assert verify(run) == []
    assert run["conv1"].vectors("sample").shape[0] == 2 * 16


@pytest.mark.parametrize("when", ["before", "midway", "after"])
def test_a_batch_that_raises_is_left_out_and_its_slots_are_used_again(
    when: str, net: nn.Module, images: TensorDataset, tmp_path: Path, no_hooks_left: Callable
) -> None:
    net.eval()

    class OutOfMemory(Exception):
        pass

    def fail(*_: object) -> None:
        raise OutOfMemory

    def shown(recorder: fm.Recorder, at: int, stop: int) -> None:
        with recorder.batch(range(at, stop)):
            net(pictures[at:stop])

    pictures = images.tensors[0]
    with (
        no_hooks_left(net),
        fm.BatchRecorder(
            net, tmp_path / "run.zarr", layers=["conv1", "fc"], n_samples=22, samples_per_shard=1
        ) as recorder,
        recorder.epoch(0),
    ):
        shown(recorder, 0, 6)
        handle = net.layer1.register_forward_hook(fail) if when == "midway" else None
        with pytest.raises(OutOfMemory), recorder.batch(range(6, 12)):
            if when == "before":
                fail()
            net(pictures[6:12] + 1)
            fail()
        if handle:
            handle.remove()
        for at, stop in ((6, 9), (9, 12), (12, 18), (18, 22)):  # retried in halves
            shown(recorder, at, stop)
    run = fm.open_run(tmp_path / "run.zarr")
    assert run.sample_ids(0).tolist() == list(range(22))
    assert verify(run) == []
    maps = net.conv1(pictures).detach()
    np.testing.assert_array_equal(run["conv1"].read(epoch=0), maps.half().numpy())
    wide = maps.double().movedim(1, 0).flatten(1)
    np.testing.assert_allclose(run["conv1"].statistics["mean"], wide.mean(1), rtol=1e-9)
    np.testing.assert_array_equal(run["conv1"].statistics["max"], wide.amax(1))


def test_the_last_batch_raises_and_nothing_of_it_stays(net: nn.Module, images: TensorDataset, tmp_path: Path) -> None:
    net.eval()
    with fm.BatchRecorder(net, tmp_path / "run.zarr", layers=["conv1"], n_samples=22, samples_per_shard=1) as recorder:
        for epoch in range(2):
            with recorder.epoch(epoch):
                with recorder.batch(range(8)):
                    net(images.tensors[0][:8])
                for _ in range(2):
                    with pytest.raises(KeyError), recorder.batch(range(8, 22)):
                        net(images.tensors[0][8:])
                        raise KeyError
            torch.optim.SGD(net.parameters(), lr=0.1).step()
    run = fm.open_run(tmp_path / "run.zarr")
    assert run.sample_ids(0).tolist() == list(range(8))
    assert verify(run) == []
    assert run["conv1"].read(epoch=0).shape[0] == 8


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
@pytest.mark.parametrize("first", [True, False])
def test_an_epoch_that_raises_is_left_out(
    error: type[BaseException], first: bool, net: nn.Module, images: TensorDataset, tmp_path, no_hooks_left: Callable
) -> None:
    def epoch(recorder: fm.Recorder, number: int, *, fails: bool) -> None:
        with recorder.epoch(number):
            for at in (0, 8):
                with recorder.batch(range(at, at + 8)):
                    net(images.tensors[0][at : at + 8])
                    if fails and (first or at):
                        raise error

    with no_hooks_left(net):
        with (
            pytest.raises(error),
            fm.BatchRecorder(net, tmp_path / "run.zarr", layers=["conv1"], n_samples=16) as recorder,
        ):
            if not first:
                epoch(recorder, 1, fails=False)
            epoch(recorder, 2, fails=True)
        with fm.BatchRecorder(net, tmp_path / "run.zarr", layers=["conv1"], n_samples=16, mode="a") as recorder:
            assert recorder.last_epoch == (-1 if first else 1)
            epoch(recorder, 10, fails=False)
            epoch(recorder, 100, fails=False)
    run = fm.open_run(tmp_path / "run.zarr")
    assert run.epochs == ([10, 100] if first else [1, 10, 100])
    assert verify(run) == []


@pytest.mark.slow
def test_going_on_with_a_run_takes_its_shards_and_checks_its_layers(net, images: TensorDataset, tmp_path: Path) -> None:
    def record(n: int, epoch: int, **options: object) -> None:
        options = {"layers": ["conv1"], "n_samples": 22, "mode": "a", "samples_per_shard": 1, **options}
        with fm.BatchRecorder(net, tmp_path / "run.zarr", **options) as recorder, recorder.epoch(epoch):
            for at in range(0, 20, n):
                with recorder.batch(range(at, at + n)):
                    net(images.tensors[0][at : at + n]).sum().backward()

    record(4, 0)
    record(10, 1)
    run = fm.open_run(tmp_path / "run.zarr")
    assert run.shard_samples == 4
    assert verify(run) == []
    np.testing.assert_array_equal(run["conv1"].read(epoch=0), run["conv1"].read(epoch=1))
    for options, told in (
        ({"layers": ["bn1"]}, "holds layer conv1"),
        ({"n_samples": 23}, "holds 22 samples"),
        ({"record": BOTH}, "layer conv1"),
        ({"dtype": "float32"}, "in float16"),
        ({"max_size": 3}, r"\(6, 3, 3\)"),
        ({"channels": [1, 2, 3, 4, 5, 0]}, "channels"),
    ):
        with pytest.raises(fm.StoreError, match=told):
            record(4, 2, **options)
    with pytest.raises(fm.StoreError, match="a live run, and this recorder has a probe run"):
        fm.Recorder(net, tmp_path / "run.zarr", layers=["conv1"], probe=images, mode="a").__enter__()
    assert len(fm.open_run(tmp_path / "run.zarr")) == 2


class TestMistakes:
    """Each is an error that says what to do."""

    @pytest.fixture
    def recorder(self, net: nn.Module, tmp_path: Path):
        with fm.BatchRecorder(net, tmp_path / "run.zarr", layers=["conv1", "fc"], n_samples=16) as recorder:
            yield recorder

    def test_too_many_samples(self, recorder: fm.Recorder, net: nn.Module, images: TensorDataset) -> None:
        with recorder.epoch(0):
            with recorder.batch(range(10)):
                net(images.tensors[0][:10])
            with pytest.raises(ValueError, match=r"batch of 10 .* n_samples=16, and 10"), recorder.batch(range(10)):
                net(images.tensors[0][:10])

    @pytest.mark.parametrize("indices", [[], [1.5], [[1, 2]], ["a"], 3, [True, False]])
    def test_indices_that_are_none(self, indices: object, recorder: fm.Recorder, net, images: TensorDataset) -> None:
        with recorder.epoch(0):
            with pytest.raises(TypeError, match="dataset indices"), recorder.batch(indices):
                net(images.tensors[0][:2])
            with pytest.raises(ValueError, match="holds -1"), recorder.batch([-1, 2]):
                net(images.tensors[0][:2])
            with recorder.batch([0]):
                net(images.tensors[0][:1])

    def test_a_batch_without_an_epoch(self, recorder: fm.Recorder) -> None:
        with pytest.raises(RuntimeError, match=r"recorder\.epoch"):
            recorder.batch([1])

    def test_an_epoch_inside_another(self, recorder: fm.Recorder, net: nn.Module, images: TensorDataset) -> None:
        with recorder.epoch(0):
            with pytest.raises(RuntimeError, match="being recorded already"), recorder.epoch(1):
                pass
            with recorder.batch([0]):
                net(images.tensors[0][:1])

    def test_a_batch_inside_another(self, recorder: fm.Recorder, net: nn.Module, images: TensorDataset) -> None:
        with recorder.epoch(0), recorder.batch([0]):
            net(images.tensors[0][:1])
            with pytest.raises(RuntimeError, match="inside another"), recorder.batch([1]):
                pass

    def test_an_epoch_without_a_batch(self, recorder: fm.Recorder) -> None:
        with pytest.raises(fm.CaptureError, match="epoch 4 ended without a batch"), recorder.epoch(4):
            pass

    def test_a_model_that_is_not_called(self, recorder: fm.Recorder, net: nn.Module, images: TensorDataset) -> None:
        with recorder.epoch(0):
            with pytest.raises(fm.CaptureError, match="no layer fired"), recorder.batch([0]):
                pass
            with recorder.batch([0]):
                net(images.tensors[0][:1])

    def test_fewer_images_than_indices(self, recorder: fm.Recorder, net: nn.Module, images: TensorDataset) -> None:
        with recorder.epoch(0):
            for _ in range(2):
                with pytest.raises(fm.CaptureError, match=r"returned 3 rows .* expected 4"), recorder.batch(range(4)):
                    net(images.tensors[0][:3])
                with recorder.batch(range(4)):
                    net(images.tensors[0][:4])

    def test_more_images_than_indices(self, recorder: fm.Recorder, net: nn.Module, images: TensorDataset) -> None:
        with recorder.epoch(0):
            for _ in range(2):
                with pytest.raises(fm.CaptureError, match="for a batch of 4"), recorder.batch(range(4)):
                    net(images.tensors[0][:5])
                with recorder.batch(range(4)):
                    net(images.tensors[0][:4])

    def test_images_of_another_size(self, recorder: fm.Recorder, net: nn.Module, images: TensorDataset) -> None:
        with recorder.epoch(0):
            with recorder.batch(range(4)):
                net(images.tensors[0][:4])
            with pytest.raises(fm.CaptureError, match=r"'conv1' changed.*7, 7"), recorder.batch(range(4)):
                net(torch.rand(4, 3, 14, 14))

    def test_a_layer_that_no_longer_fires(self, recorder: fm.Recorder, net: nn.Module, images: TensorDataset) -> None:
        with recorder.epoch(0):
            with recorder.batch(range(4)):
                net(images.tensors[0][:4])
            with pytest.raises(fm.CaptureError, match="'fc' returned 0 rows"), recorder.batch(range(4)):
                net.conv1(images.tensors[0][:4])

    def test_an_evaluation_inside_the_batch(self, recorder: fm.Recorder, net: nn.Module, images: TensorDataset) -> None:
        with recorder.epoch(0):
            with recorder.batch(range(4)):
                net(images.tensors[0][:4])
            with pytest.raises(fm.CaptureError, match=r"fired 2 times .* belongs outside"), recorder.batch(range(4)):
                net(images.tensors[0][:4])
                net(images.tensors[0][:4])

    def test_nothing_of_one_recorder_is_an_option_of_the_other(self, net: nn.Module, images: TensorDataset) -> None:
        methods = {"snapshot", "estimate", "epoch", "batch"}
        assert {name for name in methods if hasattr(fm.Recorder, name)} == {"snapshot", "estimate"}
        assert {name for name in methods if hasattr(fm.BatchRecorder, name)} == {"epoch", "batch"}
        probe, batches = (set(signature(each).parameters) for each in (fm.Recorder, fm.BatchRecorder))
        assert probe - batches == {"probe", "batch_size", "to_inputs"}
        assert batches - probe == {"dataset", "n_samples", "samples_per_shard", "ranks", "rank_timeout"}
        with pytest.raises(ValueError, match="pass dataset=, or as n_samples the most that an epoch"):
            fm.BatchRecorder(net, "other.zarr")

    def test_a_run_that_would_be_too_large(self, net: nn.Module, images: TensorDataset, tmp_path: Path) -> None:
        path = tmp_path / "large.zarr"
        with (
            pytest.raises(ValueError, match=r"max_bytes allows 100 bytes.*conv1"),
            fm.BatchRecorder(net, path, layers=["conv1", "fc"], n_samples=22, max_bytes=100) as recorder,
            recorder.epoch(0),
            recorder.batch(range(4)),
        ):
            net(images.tensors[0][:4])
        with (
            fm.BatchRecorder(net, path, layers=["conv1", "fc"], n_samples=22) as recorder,
            recorder.epoch(0),
            recorder.batch(range(4)),
        ):
            net(images.tensors[0][:4])
        assert len(fm.open_run(path)) == 1


def test_a_data_set_gives_labels_and_classes(net: nn.Module, images: TensorDataset, tmp_path: Path) -> None:
    images.classes = ["ant", "bee", "cat", "dog"]
    part = Subset(images, [3, 9, 14, 1])
    with fm.BatchRecorder(net, tmp_path / "run.zarr", layers=["conv1"], dataset=part) as recorder, recorder.epoch(0):
        for indices, pictures, _ in DataLoader(fm.with_index(part), batch_size=3, num_workers=2):
            with recorder.batch(indices):
                net(pictures)
    run = fm.open_run(tmp_path / "run.zarr")
    assert run.samples["label"].tolist() == [3, 1, 2, 1]
    assert run.samples["class_name"].tolist() == ["dog", "bee", "cat", "bee"]
    assert "digest" not in run.samples


def test_metrics_of_an_epoch(net: nn.Module, images: TensorDataset, tmp_path: Path) -> None:
    with fm.BatchRecorder(net, tmp_path / "run.zarr", layers=["fc"], n_samples=4) as recorder:
        for epoch in range(2):
            with recorder.epoch(epoch) as metrics, recorder.batch(range(4)):
                metrics["loss"] = net(images.tensors[0][:4]).sum()  # of a graph, as one forgets to detach
            torch.optim.SGD(net.parameters(), lr=0.1).step()
    assert fm.open_run(tmp_path / "run.zarr").metrics["loss"].notna().all()


def test_what_a_full_disk_says_and_leaves(
    net: nn.Module, images: TensorDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, full = RunWriter.write, []

    def attempt(*arguments: object, **named: object) -> None:
        if full:
            raise OSError(28, "No space left on device")
        write(*arguments, **named)

    def epoch(recorder: fm.Recorder, number: int) -> None:
        with recorder.epoch(number):
            for at in range(0, 20, 4):
                with recorder.batch(range(at, at + 4)):
                    net(images.tensors[0][at : at + 4])
        torch.optim.SGD(net.parameters(), lr=0.1).step()

    monkeypatch.setattr(RunWriter, "write", attempt)
    with fm.BatchRecorder(
        net, tmp_path / "run.zarr", layers=["conv1"], dataset=images, samples_per_shard=4
    ) as recorder:
        epoch(recorder, 0)
        recorder.flush()
        full.append(True)
        with pytest.raises(fm.StoreError, match=r"layer 'conv1' of epoch 1.*No space left"):
            epoch(recorder, 1)
            recorder.flush()
        assert fm.open_run(tmp_path / "run.zarr").epochs == [0]
        full.clear()
        epoch(recorder, 2)
    run = fm.open_run(tmp_path / "run.zarr")
    assert run.epochs == [0, 2]
    assert verify(run) == []


def test_values_beyond_float16_in_training(net: nn.Module, images: TensorDataset, tmp_path: Path) -> None:
    def record(overflow: str) -> None:
        with (
            fm.BatchRecorder(net, tmp_path / overflow, layers=["conv1"], n_samples=8, overflow=overflow) as recorder,
            recorder.epoch(7),
            recorder.batch(range(8)),
        ):
            net(images.tensors[0][:8] * 1e6)

    with pytest.raises(fm.CaptureError, match=r"'conv1', epoch 7.*float16 can hold"):
        record("error")
    assert fm.open_run(tmp_path / "error").epochs == []
    record("clip")
    assert fm.open_run(tmp_path / "clip").epochs == [7]
    assert np.isfinite(fm.open_run(tmp_path / "clip")["conv1"].read(epoch=7)).all()


@pytest.mark.slow
def test_no_graph_stays_alive(net: nn.Module, images: TensorDataset, tmp_path: Path) -> None:
    def tensors() -> int:
        gc.collect()
        return sum(issubclass(type(thing), torch.Tensor) for thing in gc.get_objects())

    counts = []
    with (
        fm.BatchRecorder(
            net, tmp_path / "run.zarr", layers=["conv1", "layer1.0.relu"], n_samples=250, record=BOTH
        ) as recorder,
        recorder.epoch(0),
    ):
        for step in range(50):
            with recorder.batch(range(step * 4, step * 4 + 4)):
                net(images.tensors[0][:4]).sum().backward()
            net.zero_grad()
            if step in (4, 49):
                recorder.flush()
                counts.append(tensors())
    assert counts[0] == counts[1]


@pytest.mark.slow
def test_the_model_is_the_callers_own_between_batches(net: nn.Module, images: TensorDataset, tmp_path: Path) -> None:
    with (
        fm.BatchRecorder(net, tmp_path / "live.zarr", layers=["conv1"], n_samples=22, record=BOTH) as live,
        fm.Recorder(net, tmp_path / "probe.zarr", layers=["conv1"], probe=images) as probe,
        live.epoch(0),
    ):
        for at in (0, 4):
            with live.batch(range(at, at + 4)):
                net(images.tensors[0][at : at + 4]).sum().backward()
            probe.snapshot(epoch=0, step=at)
            for other in (pickle.loads(pickle.dumps(net)), copy.deepcopy(net), AveragedModel(net)):
                other(images.tensors[0])
    assert fm.open_run(tmp_path / "live.zarr").sample_ids(0).tolist() == list(range(8))
    assert len(fm.open_run(tmp_path / "probe.zarr")) == 2


class TestALossThatIsScaled:
    """Gradients are stored as they come, and read without the scale on request."""

    def record(self, net: nn.Module, images: TensorDataset, path: Path, scales: list, **options: object) -> Run:
        """Batches of four, each with a loss that is multiplied by hand."""
        options = {"record": BOTH, "n_samples": 12, **options}
        with fm.BatchRecorder(net, path, layers=["conv1", "layer1", "fc"], **options) as recorder, recorder.epoch(0):
            for number, scale in enumerate(scales):
                rows = slice(4 * number, 4 * number + 4)
                factor = scale.get_scale() if hasattr(scale, "get_scale") else float(scale)
                with recorder.batch(range(rows.start, rows.stop), loss_scale=scale):
                    loss = nn.functional.cross_entropy(net(images.tensors[0][rows]), images.tensors[1][rows])
                    (factor * loss).backward()
        run = fm.open_run(path)
        assert verify(run) == []
        return run

    @pytest.mark.slow
    def test_is_kept_and_divided_by(self, net: nn.Module, images: TensorDataset, tmp_path: Path) -> None:
        """By powers of two, as a scaler's are: no bit is lost on the way there and back."""
        net.eval()
        scales = [1024.0, 2, torch.tensor(0.5)]
        plain = self.record(net, images, tmp_path / "plain.zarr", [1.0, 1.0, 1.0])
        run = self.record(net, images, tmp_path / "scaled.zarr", scales)
        each = np.repeat([1024, 2, 0.5], 4)
        assert run.loss_scale(0).tolist() == each.tolist()
        assert plain.loss_scale(0).tolist() == [1.0] * 12
        for name in run.layers:
            expected = plain[name].gradient.read(epoch=0)
            assert np.abs(expected).max() > 0
            stored = run[name].gradient.read(epoch=0)
            np.testing.assert_array_equal(stored, expected * each.reshape(-1, *(1,) * (expected.ndim - 1)))
            found = run[name].gradient.read(epoch=0, unscaled=True)
            assert found.dtype == np.float32
            np.testing.assert_array_equal(found, expected)
            np.testing.assert_array_equal(
                run[name].gradient.read(epoch=0, samples=[9, 1], channels=[2, 0], unscaled=True),
                plain[name].gradient.read(epoch=0, samples=[9, 1], channels=[2, 0]),
            )
            np.testing.assert_array_equal(plain[name].gradient.read(epoch=0, unscaled=True), expected)
            np.testing.assert_array_equal(run[name].read(epoch=0), plain[name].read(epoch=0))

    def test_a_scaler_is_asked_when_the_block_begins(
        self, net: nn.Module, images: TensorDataset, tmp_path: Path
    ) -> None:
        scaler = torch.amp.GradScaler("cpu", init_scale=256.0, growth_interval=1)
        optimizer = torch.optim.SGD(net.parameters(), lr=0.01)
        with (
            fm.BatchRecorder(net, tmp_path / "run.zarr", layers=["fc"], n_samples=12, record=BOTH) as recorder,
            recorder.epoch(0),
        ):
            for at in (0, 4, 8):
                with recorder.batch(range(at, at + 4), loss_scale=scaler):
                    scaler.scale(net(images.tensors[0][at : at + 4]).sum()).backward()
                    scaler.step(optimizer)
                    scaler.update()  # doubles it, for the next batch
                optimizer.zero_grad()
        run = fm.open_run(tmp_path / "run.zarr")
        assert run.loss_scale(0).tolist() == [256.0] * 4 + [512.0] * 4 + [1024.0] * 4
        np.testing.assert_array_equal(run["fc"].gradient.read(epoch=0, unscaled=True), np.ones((12, 4)))

    def test_of_a_batch_that_is_left_out_nothing_is_kept(
        self, net: nn.Module, images: TensorDataset, tmp_path: Path
    ) -> None:
        with (
            fm.BatchRecorder(net, tmp_path / "run.zarr", layers=["fc"], n_samples=12, record=BOTH) as recorder,
            recorder.epoch(0),
        ):
            for at, scale in ((0, 2.0), (4, 64.0), (4, 8.0)):
                try:
                    with recorder.batch(range(at, at + 4), loss_scale=scale):
                        (scale * net(images.tensors[0][at : at + 4]).sum()).backward()
                        if scale == 64:
                            raise KeyError
                except KeyError:
                    pass
        run = fm.open_run(tmp_path / "run.zarr")
        np.testing.assert_array_equal(run.loss_scale(0), [2.0] * 4 + [8.0] * 4 + [np.nan] * 4)
        np.testing.assert_array_equal(run["fc"].gradient.read(epoch=0, unscaled=True), np.ones((8, 4)))

    def test_without_gradients_it_does_not_matter(self, net: nn.Module, images: TensorDataset, tmp_path: Path) -> None:
        run = self.record(net, images, tmp_path / "run.zarr", [2.0, 4.0], record=("activation",))
        with pytest.raises(ValueError, match="only gradients have a loss scale"):
            run["fc"].read(epoch=0, unscaled=True)

    @pytest.mark.parametrize(
        ("scale", "error"),
        [
            *((scale, ValueError) for scale in (0.0, -2.0, float("inf"), float("nan"))),
            *((scale, TypeError) for scale in ("much", None, torch.ones(2))),
        ],
        ids=str,
    )
    def test_that_is_none_is_refused(
        self, scale: object, error: type, net: nn.Module, images: TensorDataset, tmp_path: Path
    ) -> None:
        with (
            fm.BatchRecorder(net, tmp_path / "run.zarr", layers=["fc"], n_samples=4, record=BOTH) as recorder,
            recorder.epoch(0),
        ):
            with pytest.raises(error, match=r"loss_scale is .*expected a .*number"):
                recorder.batch(range(4), loss_scale=scale)
            with recorder.batch(range(4)):
                net(images.tensors[0][:4]).sum().backward()
        assert fm.open_run(tmp_path / "run.zarr").loss_scale(0).tolist() == [1.0] * 4


def test_the_epoch_that_would_be_too_large_is_refused_before_it_begins(
    net: nn.Module, images: TensorDataset, tmp_path: Path
) -> None:
    nbytes = 4 * 6 * 6 * 6 * 2

    def epoch(recorder: fm.BatchRecorder, number: int) -> None:
        with recorder.epoch(number), recorder.batch(range(4)):
            net(images.tensors[0][:4])

    options = {"layers": ["conv1"], "n_samples": 4, "max_bytes": 2 * nbytes}
    with fm.BatchRecorder(net, tmp_path / "run.zarr", **options) as recorder:
        epoch(recorder, 0)
        epoch(recorder, 1)
        with pytest.raises(ValueError, match=r"3 snapshots of 4 samples .* The largest layers are conv1 "):
            epoch(recorder, 2)
    with (
        fm.BatchRecorder(net, tmp_path / "run.zarr", mode="a", **options) as recorder,
        pytest.raises(ValueError, match="3 snapshots of 4 samples"),
    ):
        epoch(recorder, 2)
    run = fm.open_run(tmp_path / "run.zarr")
    assert run.epochs == [0, 1]
    assert run.nbytes == 2 * nbytes
    assert verify(run) == []
