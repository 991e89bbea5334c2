"""Models and data that nobody here wrote: recorded right, or refused in one sentence before anything is changed."""

import os
import subprocess
import sys
import warnings
from collections.abc import Callable
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.func import functional_call, grad, vmap
from torch.optim.swa_utils import AveragedModel
from torch.utils.data import ConcatDataset, DataLoader, Dataset, Subset, TensorDataset
from torchvision.datasets import ImageFolder
from torchvision.transforms import Normalize, ToTensor

import fmcluster as fm


def pictures(n: int = 6, *, seed: int = 0) -> torch.Tensor:
    return torch.rand(n, 3, 12, 12, generator=torch.Generator().manual_seed(seed))


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.fc = nn.Conv2d(3, 6, 3), nn.Linear(6, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(torch.relu(self.conv(x)).mean((2, 3)))


class Items(Dataset[Any]):
    def __init__(self, n: int = 6, *, label: Callable[[int], Any] = lambda i: i % 3, **more: Any) -> None:
        self.n, self.label, self.x = n, label, pictures(n)
        self.__dict__.update(more)

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, index: int) -> tuple[torch.Tensor, Any]:
        return self.x[index], self.label(index)


def live_run(model: nn.Module, path: Path, data: Any) -> fm.store.Run:
    """Record all of a data set in one training batch."""
    recorder = fm.BatchRecorder(model, path, layers="conv", dataset=data)
    with recorder, recorder.epoch(0), recorder.batch(range(len(data))):
        model(pictures(len(data)))
    return fm.open_run(path)


@pytest.fixture
def record(tmp_path: Path) -> Callable[..., fm.store.Run]:
    def make(model: nn.Module, probe: Any, *, n_snapshots: int = 1, **options: Any) -> fm.store.Run:
        path = tmp_path / f"{len(list(tmp_path.iterdir()))}.zarr"
        with fm.Recorder(model, path, probe=probe, **options) as recorder:
            for epoch in range(n_snapshots):
                recorder.snapshot(epoch=epoch)
                torch.rand(1), np.random.rand()  # as training would draw  # noqa: NPY002
        return fm.open_run(path)

    return make


class TestNamesOfClasses:
    def folder(self, root: Path, names: range = range(12)) -> Path:
        for name in names:
            (root / str(name)).mkdir(parents=True)
            Image.new("RGB", (12, 12), (20 * name, 0, 0)).save(root / str(name) / "a.png")
        return root

    def test_are_those_that_the_data_set_numbers(self, record: Any, tmp_path: Path) -> None:
        class ByNumber(ImageFolder):
            def find_classes(self, directory: str) -> tuple[list[str], dict[str, int]]:
                names = sorted(entry.name for entry in Path(directory).iterdir())
                return names, {name: int(name) for name in names}

        samples = record(Net(), ByNumber(self.folder(tmp_path / "images"), ToTensor()), layers="conv").samples
        assert samples["class_name"].tolist() == [path.split("/")[-2] for path in samples["path"]]
        assert samples["class_name"].tolist() == samples["label"].astype(str).tolist()

    def test_are_not_known_behind_a_transform_which_labels_pass_probe_or_live(
        self, record: Any, tmp_path: Path
    ) -> None:
        folder = ImageFolder(
            self.folder(tmp_path / "images"), ToTensor(), target_transform=lambda label: int(label > 5)
        )
        samples = record(Net(), folder, layers="conv").samples
        assert samples["label"].tolist() == [0] * 6 + [1] * 6
        assert set(samples["class_name"]) == {""}
        model = Net()
        recorder = fm.BatchRecorder(model, tmp_path / "live.zarr", layers="conv", dataset=folder)
        with recorder, recorder.epoch(0):
            for indices, images, _ in DataLoader(fm.with_index(folder), batch_size=6):
                with recorder.batch(indices):
                    model(images)
        assert fm.open_run(tmp_path / "live.zarr").samples["label"].tolist() == [0] * 6 + [1] * 6

    @pytest.mark.parametrize(
        ("classes", "expected"),
        [
            ({"c": 2, "a": 0, "b": 1}, ["a", "b", "c"]),
            (["x", "y", "z"], ["x", "y", "z"]),
            (None, []),
            (3, []),
            ("abc", []),
            (dict.fromkeys(["x", "y", "z"]).keys(), ["x", "y", "z"]),  # which have an order
            (iter(["x", "y", "z"]), []),  # which is the caller's to go through
            ({"0": "x", "1": "y", "2": "z"}, ["x", "y", "z"]),  # as JSON has them
            ([b"x", b"caf\xe9", b"z"], ["x", "caf\\xe9", "z"]),
            (Enum("Kind", ["x", "y", "z"]), ["x", "y", "z"]),
        ],
    )
    def test_are_taken_from_what_lists_them(self, classes: Any, expected: list[str], record: Any) -> None:
        run = record(Net(), Items(classes=classes), layers="conv")
        assert list(run.classes) == expected

    @pytest.mark.parametrize("numbered", [{}, {"x": None}, {"x": 0.0, "y": 1.0, "z": 2.0}])
    def test_are_those_listed_where_nothing_numbers_them(self, numbered: Any, record: Any) -> None:
        run = record(Net(), Items(classes=["x", "y", "z"], class_to_idx=numbered), layers="conv")
        assert list(run.classes) == ["x", "y", "z"]

    @pytest.mark.parametrize("live", [False, True])
    def test_are_not_those_of_the_labels_before(self, live: bool, record: Any, tmp_path: Path) -> None:
        data = Items(classes=["x", "y", "z"], targets=[1, 2, 3] * 2, label=lambda i: 1 + i % 3)
        with pytest.warns(UserWarning, match="labels are from 1 to 3, and the data set names 3 classes"):
            run = live_run(Net(), tmp_path / "live.zarr", data) if live else record(Net(), data, layers="conv")
        assert run.samples["label"].tolist() == [1, 2, 3, 1, 2, 3]
        assert set(run.samples["class_name"]) == {""}


class TestLabels:
    @pytest.mark.parametrize(
        "label",
        [
            lambda i: i % 3,
            lambda i: torch.tensor([i % 3]),
            lambda i: float(i % 3),
            lambda i: nn.functional.one_hot(torch.tensor(i % 3), 3),
            lambda i: np.int64(i % 3),
            lambda i: torch.tensor(i % 3, dtype=torch.bfloat16),
            lambda i: {"label": i % 3},
            lambda i: {"labels": torch.tensor([i % 3])},
        ],
        ids=["int", "column", "float", "one-hot", "numpy", "bfloat16", "mapping", "mapping of columns"],
    )
    def test_of_any_form_are_kept(self, label: Any, record: Any) -> None:
        assert record(Net(), Items(label=label), layers="conv").samples["label"].tolist() == [0, 1, 2, 0, 1, 2]

    @pytest.mark.parametrize("label", [lambda i: i / 7, lambda i: torch.rand(4)])
    def test_that_are_none_are_left_out(self, label: Any, record: Any) -> None:
        with pytest.warns(UserWarning, match="not one class for each sample"):
            run = record(Net(), Items(label=label), layers="conv")
        assert run.samples["label"].tolist() == [-1] * 6

    def test_that_are_pictures_are_left_out_without_a_word(self, record: Any) -> None:
        run = record(Net(), Items(label=lambda i: torch.rand(4, 4)), layers="conv")
        assert run.samples["label"].tolist() == [-1] * 6

    def test_of_objects_in_a_picture_are_none_of_the_picture(self, record: Any) -> None:
        boxes = {"boxes": torch.rand(2, 4), "labels": torch.tensor([0, 1])}
        run = record(Net(), Items(label=lambda i: boxes), layers="conv")
        assert run.samples["label"].tolist() == [-1] * 6

    @pytest.mark.parametrize(
        "listed",
        [
            {"_labels": [0, 1, 2] * 2},  # as torchvision's Flowers102 and Food101 name them
            {"samples": [(f"{i}.png", i % 3) for i in range(6)]},
            {"_samples": [(f"{i}.png", i % 3) for i in range(6)]},  # and StanfordCars
        ],
    )
    def test_that_torchvisions_data_sets_keep_are_live_labels(self, listed: Any, tmp_path: Path) -> None:
        run = live_run(Net(), tmp_path / "live.zarr", Items(**listed))
        assert run.samples["label"].tolist() == [0, 1, 2, 0, 1, 2]

    @pytest.mark.parametrize(
        "listed",
        [
            {"samples": [("a.png", "mask.png")] * 6},
            {"samples": [("a.avi", 0)] * 4},
            {"column_names": ["label"]},  # of no Hugging Face data set
        ],
    )
    def test_that_are_none_are_none(self, listed: Any, tmp_path: Path) -> None:
        run = live_run(Net(), tmp_path / "live.zarr", Items(**listed))
        assert run.samples["label"].tolist() == [-1] * 6

    def test_of_several_data_sets_and_parts_of_them(self, tmp_path: Path) -> None:
        whole = ConcatDataset(
            [TensorDataset(pictures(4), torch.tensor([0, 1, 2, 0])), Subset(Items(targets=[5] * 6), [1])]
        )
        model = Net()
        recorder = fm.BatchRecorder(model, tmp_path / "live.zarr", layers="conv", dataset=whole)
        with recorder, recorder.epoch(0), recorder.batch(range(5)):
            model(pictures(5))
        assert fm.open_run(tmp_path / "live.zarr").samples["label"].tolist() == [0, 1, 2, 0, 5]


class TestProbes:
    def test_with_an_index_or_as_mappings_are_what_they_are_without(self, record: Any) -> None:
        model = Net()
        expected = record(model, Items())
        mapped = [{"pixel_values": image, "labels": label} for image, label in (Items()[i] for i in range(6))]
        for probe in (fm.with_index(Items()), mapped):
            found = record(model, probe)
            np.testing.assert_array_equal(found["conv"].read(epoch=0), expected["conv"].read(epoch=0))
            assert found.samples["label"].tolist() == expected.samples["label"].tolist()

    def test_of_pil_images_or_of_different_sizes_are_said_to_be_so(self, record: Any) -> None:
        with pytest.raises(ValueError, match=r"PIL images; expected tensors.*ToTensor"):
            record(Net(), [(Image.new("RGB", (12, 12)), 0)] * 3)
        with pytest.raises(ValueError, match=r"different shapes, .*resize or crop"):
            record(Net(), [(torch.rand(3, 12, 12 + i), 0) for i in range(3)])
        with pytest.raises(ValueError, match=r"the keys audio; expected a tensor under one of pixel_values"):
            record(Net(), [{"audio": torch.rand(3)}] * 3)

    def test_attributes_of_another_length_are_no_paths(self, record: Any) -> None:
        run = record(Net(), Items(samples=[(f"video{i}.avi", 0) for i in range(4)]), layers="conv")
        assert "path" not in run.samples
        assert len(run.samples) == 6

    @pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such names")
    def test_a_file_name_that_is_not_utf8_is_stored_with_escapes(self, record: Any, tmp_path: Path) -> None:
        (tmp_path / "images" / "ant").mkdir(parents=True)
        Image.new("RGB", (12, 12)).save(tmp_path / "images" / "ant" / "a.png")
        folder = tmp_path / "images" / "ant"
        (folder / "a.png").rename(folder / os.fsdecode(b"caf\xe9.png"))
        samples = record(Net(), ImageFolder(tmp_path / "images", ToTensor()), layers="conv").samples
        assert samples["path"].iloc[0].endswith("/caf\\xe9.png")

    def test_pictures_normalized_in_pixel_values_are_shown_as_they_were(self, record: Any) -> None:
        class Caffe(Items):
            transform = Normalize([123.7, 116.3, 103.5], [58.4, 57.1, 57.4])

            def __getitem__(self, index: int) -> tuple[torch.Tensor, Any]:
                image, label = super().__getitem__(index)
                return self.transform(image * 255), label

        shown = record(Net(), Caffe(), layers="conv")["conv"].display(0)
        np.testing.assert_allclose(shown, pictures()[0].permute(1, 2, 0).numpy() * 255, atol=1)


class TestRandomNumbers:
    def test_a_generator_that_training_shares_is_left_alone(self, tmp_path: Path) -> None:
        def orders(*, recorded: bool) -> list[list[int]]:
            generator = torch.Generator().manual_seed(7)
            train = DataLoader(TensorDataset(torch.arange(8)), batch_size=4, shuffle=True, generator=generator)
            probe = DataLoader(Items(), batch_size=3, generator=generator)
            seen = []
            with fm.Recorder(Net(), tmp_path / f"{recorded}.zarr", probe=probe) as recorder:
                for epoch in range(2):
                    if recorded:
                        recorder.snapshot(epoch=epoch)
                    seen.append(torch.cat([batch for (batch,) in train]).tolist())
            return seen

        assert orders(recorded=True) == orders(recorded=False)

    @pytest.mark.parametrize("workers", [0, 1])
    def test_a_snapshot_inside_an_epoch_of_the_same_loader_does_not_end_it(self, workers: int, tmp_path: Path) -> None:
        loader = DataLoader(
            TensorDataset(pictures(), torch.arange(6)),
            batch_size=2,
            num_workers=workers,
            persistent_workers=workers > 0,
        )
        seen = []
        with fm.Recorder(Net(), tmp_path / "run.zarr", probe=loader) as recorder:
            for epoch in range(2):
                for number, (_, labels) in enumerate(loader):
                    seen.append(labels.tolist())
                    if number == 0:
                        recorder.snapshot(epoch=epoch)
        assert seen == 2 * [[0, 1], [2, 3], [4, 5]]
        assert fm.open_run(tmp_path / "run.zarr").samples["label"].tolist() == list(range(6))

    def test_generators_of_data_sets_and_modules_are_put_back(self, record: Any) -> None:
        class Noisy(Items):
            def __init__(self) -> None:
                super().__init__()
                self.rng = np.random.default_rng(3)

            def __getitem__(self, index: int) -> tuple[torch.Tensor, Any]:
                return self.x[index] + 0 * self.rng.random(), 0

        class Masks(Net):
            def __init__(self) -> None:
                super().__init__()
                self.generator = torch.Generator().manual_seed(5)

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                return super().forward(x) * torch.rand(3, generator=self.generator)

        data, model = Noisy(), Masks()
        before = data.rng.bit_generator.state, model.generator.get_state()
        run = record(model, data, n_snapshots=2)
        assert data.rng.bit_generator.state == before[0]
        assert torch.equal(model.generator.get_state(), before[1])
        np.testing.assert_array_equal(run["fc"].read(epoch=0), run["fc"].read(epoch=1))

    def test_a_model_that_is_random_in_evaluation_mode_draws_the_same_numbers_each_time(self, record: Any) -> None:
        class Forgetful(Net):
            def forward(self, x: torch.Tensor) -> torch.Tensor:
                return self.fc(nn.functional.dropout(self.conv(x).mean((2, 3)), 0.5))

        run = record(Forgetful(), Items(12), n_snapshots=3)
        for epoch in (1, 2):
            np.testing.assert_array_equal(run["fc"].read(epoch=epoch), run["fc"].read(epoch=0))

    def test_modules_of_ones_own_do_not_count_what_a_snapshot_shows_them(self, record: Any) -> None:
        class Alternates(Net):
            def __init__(self) -> None:
                super().__init__()
                self.calls, self.noted, self.sums = 0, [0.0], np.zeros(1)

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                self.calls += 1
                self.noted[0] = float(x.sum())
                self.sums += 1
                return super().forward(x) * (1 + self.calls % 2)

        model = Alternates()
        model(pictures())
        before = model.calls, model.noted[0], model.sums.item()
        run = record(model, Items(), n_snapshots=2)
        assert (model.calls, model.noted[0], model.sums.item()) == before
        np.testing.assert_array_equal(run["fc"].read(epoch=0), run["fc"].read(epoch=1))

    def test_what_modules_of_ones_own_set_up_stays(self, record: Any) -> None:
        class Caches(Net):
            table: Any = None

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                self.calls = getattr(self, "calls", 0) + 1
                if self.table is None:
                    self.table = torch.ones(3)
                return super().forward(x) * self.table

        model = Caches()
        record(model, Items())
        assert model.table is not None


class TestModels:
    def test_what_is_no_batch_is_found_out_with_a_real_one(self, record: Any) -> None:
        class Recurrent(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.rnn, self.fc = nn.LSTM(5, 4, batch_first=True), nn.Linear(4, 3)

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                return self.fc(self.rnn(x)[0][:, -1])

        class Squeezing(Net):
            def forward(self, x: torch.Tensor) -> torch.Tensor:
                return self.fc(nn.functional.adaptive_avg_pool2d(self.conv(x), 1).squeeze())

        words = torch.randn(6, 7, 5)
        model = Recurrent().eval()
        run = record(model, TensorDataset(words), dtype="float32")
        assert run.layers == ["rnn[0]", "fc"]
        np.testing.assert_array_equal(run["rnn[0]"].read(epoch=0), model.rnn(words)[0].detach().numpy())
        assert record(Squeezing(), TensorDataset(pictures())).layers == ["conv", "fc"]

    @pytest.mark.slow
    def test_default_layers_leave_out_what_never_fires(self, record: Any) -> None:
        class Lists(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.downs = nn.ModuleList([nn.Conv2d(3, 4, 3), nn.Conv2d(4, 6, 3)])
                self.fc, self.unused = nn.Linear(6, 3), nn.Linear(2, 2)

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                for down in self.downs:
                    x = down(x)
                return self.fc(x.mean((2, 3)))

        assert record(Lists(), Items()).layers == ["fc"]
        assert record(Lists(), Items(), layers="leaves").layers == ["downs.0", "downs.1", "fc"]
        with pytest.raises(fm.CaptureError, match="'unused' did not fire"):
            record(Lists(), Items(), layers=["fc", "unused"])
        assert record(Lists(), Items(), layers=["*", "downs.?", "!unused", "!downs"]).layers == [
            "downs.0",
            "downs.1",
            "fc",
        ]

    def test_a_parametrized_convolution_is_a_leaf(self, record: Any) -> None:
        model = Net()
        model.conv = nn.utils.parametrizations.weight_norm(model.conv)
        assert record(model, Items(), layers="leaves").layers == ["conv", "fc"]

    def test_lazy_modules_are_refused_before_a_weight_is_drawn(self, record: Any) -> None:
        model = nn.Sequential(nn.LazyConv2d(4, 3), nn.LazyBatchNorm2d(), nn.Flatten(), nn.LazyLinear(3))
        before = torch.get_rng_state()
        with pytest.raises(
            ValueError, match="module '0' is lazy and has no weights yet; show the model a batch before"
        ):
            record(model, Items())
        assert torch.equal(torch.get_rng_state(), before)
        assert isinstance(model[0], nn.LazyConv2d)

    def test_scripted_modules_are_refused_and_nothing_is_changed(self, record: Any) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model, before = torch.jit.script(Net()), torch.get_rng_state()
        with pytest.raises(TypeError, match=r"TorchScript .*pass the module that it was scripted from"):
            record(model, Items())
        assert torch.equal(torch.get_rng_state(), before)

    def test_transformations_of_functions_are_refused(self, tmp_path: Path) -> None:
        model, images, labels = Net(), pictures(), torch.arange(6) % 3

        def loss(weights: dict[str, torch.Tensor], image: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
            return nn.functional.cross_entropy(functional_call(model, weights, (image[None],)), label[None])

        with (
            pytest.raises(fm.CaptureError, match=r"inside a transformation of torch\.func"),
            fm.BatchRecorder(model, tmp_path / "run.zarr", n_samples=6) as recorder,
            recorder.epoch(0),
            recorder.batch(range(6)),
        ):
            vmap(grad(loss), (None, 0, 0))(dict(model.named_parameters()), images, labels)


class TestCheckpoints:
    @pytest.mark.slow
    def test_a_models_own_state_dict_always_fits(self, tmp_path: Path) -> None:
        model = Net()
        compiled, averaged = torch.compile(model), AveragedModel(model)
        cases = {
            "plain": (model, model.state_dict(), "conv"),
            "compiled": (compiled, compiled.state_dict(), "conv"),
            "compiled into plain": (model, compiled.state_dict(), "conv"),
            "averaged": (averaged, averaged.state_dict(), "module.conv"),
            "averaged into plain": (model, averaged.state_dict(), "conv"),
            "parallel": (model, {f"module.{name}": value for name, value in model.state_dict().items()}, "conv"),
        }
        for name, (shown, state, layer) in cases.items():
            path = tmp_path / f"{name}.zarr"
            fm.replay(shown, path, layers=layer, checkpoints={0: state}, probe=Items())
            assert fm.open_run(path).layers == [layer], name

    def test_another_models_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match="does not hold this model's weights"):
            fm.replay(Net(), tmp_path / "run.zarr", checkpoints={0: nn.Linear(2, 2).state_dict()}, probe=Items())

    @pytest.mark.parametrize(
        "change",
        [
            lambda state: {name: value.numpy() for name, value in state.items()},
            lambda state: {"params": {name: value.numpy() for name, value in state.items()}},
            lambda state: {name: np.float64(value) if value.ndim == 0 else value for name, value in state.items()},
        ],
        ids=["arrays", "arrays under a key", "numbers"],
    )
    def test_of_arrays_are_weights_too(self, change: Any, tmp_path: Path) -> None:
        trained = Net()
        fm.replay(Net(), tmp_path / "run.zarr", checkpoints={0: change(trained.state_dict())}, probe=Items())
        own = fm.open_run(tmp_path / "run.zarr")["conv"].read(epoch=0)
        np.testing.assert_allclose(own, trained.conv(pictures()).detach(), atol=2e-3)

    @pytest.mark.filterwarnings("ignore:`torch.nn.utils.weight_norm`", "ignore::FutureWarning")
    def test_whose_names_the_modules_take_for_their_own(self, tmp_path: Path) -> None:
        old, new = Net(), Net()
        nn.utils.weight_norm(old.conv)
        new.conv = nn.utils.parametrizations.weight_norm(new.conv)
        fm.replay(new, tmp_path / "run.zarr", checkpoints={0: old.state_dict()}, probe=Items())
        own = fm.open_run(tmp_path / "run.zarr")["conv"].read(epoch=0)
        np.testing.assert_allclose(own, old.conv(pictures()).detach(), atol=2e-3)

    def test_of_nothing_and_of_a_lazy_model_are_refused_in_a_sentence(self, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match="does not hold this model's weights: it is empty"):
            fm.replay(Net(), tmp_path / "run.zarr", checkpoints={0: {}}, probe=Items())
        lazy = nn.Sequential(nn.Conv2d(3, 4, 3), nn.LazyBatchNorm2d())
        with pytest.raises(ValueError, match="module '1' is lazy and has no weights yet"):
            fm.replay(lazy, tmp_path / "lazy.zarr", checkpoints={0: {}}, probe=Items())
        assert not (tmp_path / "lazy.zarr").exists()


class Squeezes(nn.Module):
    """Loses the axis of samples, where there is one."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.fc = nn.Conv2d(3, 6, 3), nn.Linear(6, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(nn.functional.adaptive_avg_pool2d(self.conv(x), 1).squeeze())


@pytest.mark.parametrize("live", [False, True])
@pytest.mark.parametrize("batches", [[2, 2], [2, 2, 1], [3, 1]], ids=str)
def test_a_batch_of_one_may_lose_its_axis(batches: list[int], live: bool, tmp_path: Path) -> None:
    model, n = Squeezes(), sum(batches)
    images = pictures(n)
    if live:
        recorder = fm.BatchRecorder(
            model, tmp_path / "run.zarr", n_samples=n, record=("activation", "gradient"), dtype="float32"
        )
        with recorder, recorder.epoch(0):
            for part in torch.arange(n).split(batches):
                with recorder.batch(part):
                    model(images[part]).square().sum().backward()
    else:
        probe = TensorDataset(images)
        with fm.Recorder(model, tmp_path / "run.zarr", probe=probe, batch_size=batches[0], dtype="float32") as recorder:
            recorder.snapshot(epoch=0)
    run = fm.open_run(tmp_path / "run.zarr")
    wanted = model.fc(model.conv(images).mean((2, 3))).detach()
    np.testing.assert_allclose(run["fc"].read(epoch=0), wanted, atol=1e-5)
    if live:
        np.testing.assert_allclose(run["fc"].gradient.read(epoch=0), 2 * wanted, atol=1e-5)


class Positions(nn.Module):
    """A table of positions, made by a layer of its own, beside a layer that sees images."""

    def __init__(self, n: int, *, through_linear: bool) -> None:
        super().__init__()
        self.fc, self.pos, self.n = nn.Linear(432, 8), nn.Linear(8, 8) if through_linear else nn.Embedding(n, 8), n
        self.head = nn.Linear(8, 2)
        self.table = nn.Parameter(torch.rand(n, 8))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        table = self.pos(self.table if isinstance(self.pos, nn.Linear) else torch.arange(self.n))
        return self.head(self.fc(x.flatten(1)) + table.mean(0))


@pytest.mark.parametrize("n", [5, 6])
@pytest.mark.parametrize("through_linear", [False, True])
def test_a_table_of_positions_is_no_batch_however_long_it_is(n: int, through_linear: bool, tmp_path: Path) -> None:
    model = Positions(n, through_linear=through_linear)
    with fm.BatchRecorder(model, tmp_path / "live.zarr", n_samples=10) as recorder, recorder.epoch(0):
        for size in (6, 4):
            with recorder.batch(range(size)):
                model(torch.zeros(size, 3, 12, 12))  # made inside, and shown to the model all the same
    run = fm.open_run(tmp_path / "live.zarr")
    assert run.layers == ["fc", "head"]
    assert "the same whatever the model is shown" in run.provenance[-1]["left_out"]["pos"]
    with fm.Recorder(Positions(1, through_linear=through_linear), tmp_path / "one.zarr", probe=Items(1)) as recorder:
        recorder.snapshot(epoch=0)
    assert fm.open_run(tmp_path / "one.zarr").layers == ["fc", "head"]


def test_of_default_layers_what_returns_other_rows_live_is_left_out(tmp_path: Path) -> None:
    class Pairs(Net):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(6, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.conv(x).mean((2, 3))
            self.inner(x[::2])
            return self.fc(x)

    model = Pairs()
    recorder = fm.BatchRecorder(model, tmp_path / "live.zarr", n_samples=6)
    with recorder, recorder.epoch(0), recorder.batch(range(6)):
        model(pictures())
    run = fm.open_run(tmp_path / "live.zarr")
    assert run.layers == ["conv", "fc"]
    assert run.provenance[-1]["left_out"]["inner"] == "its rows are not the 6 samples of the batch"


@pytest.mark.parametrize("make", [fm.Recorder, fm.BatchRecorder])
def test_a_url_of_no_object_store_is_refused_before_anything_is_made(
    make: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    options = {"probe": Items()} if make is fm.Recorder else {"n_samples": 6}
    for path in ("https://host/run.zarr", Path("https://host/run.zarr")):
        with pytest.raises(
            ValueError, match=r"path is the URL https://host/run\.zarr; expected a folder of this machine"
        ):
            make(Net(), path, **options)
    assert list(tmp_path.iterdir()) == []


def test_a_run_goes_through_its_layers(record: Any) -> None:
    assert list(record(Net(), Items())) == ["conv", "fc"]


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "getuid") or os.getuid() != 0, reason="only root can become somebody else")
def test_without_a_folder_for_compiled_code_it_is_compiled_each_time(tmp_path: Path) -> None:
    script = (
        "import numba, numba.core.caching as caching\n"
        "caching.CacheImpl._locator_classes = []\n"
        "from fmcluster.capture.transfer import _cast_and_sum; import numpy as np\n"
        "planes, sums = np.ones((2, 8), np.float32), np.zeros((8, 2))\n"
        "_cast_and_sum.cast_and_sum(planes, None, sums=sums, converts=False); print(sums[1].tolist())"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "[8.0, 8.0]", done.stderr
