"""The probe is the same at every snapshot; what is kept of it; what is refused."""

import io
import math
from collections.abc import Callable, Iterator
from hashlib import sha256
from importlib import import_module
from importlib.util import find_spec
from itertools import count, islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.utils.data import BatchSampler, DataLoader, Dataset, IterableDataset, Subset, TensorDataset
from torchvision import transforms
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

import fmcluster as fm
from fmcluster.capture.inputs._probe_set import Probe
from fmcluster.store import Run

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3, stride=2), nn.ReLU(inplace=True))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Six PNG images of 30 x 20 pixels in two classes."""
    rng = np.random.default_rng(0)
    for kind in ("ants", "bees"):
        (tmp_path / "images" / kind).mkdir(parents=True)
        for i in range(3):
            pixels = rng.integers(0, 256, (20, 30, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "images" / kind / f"{kind}{i}.png")
    return tmp_path / "images"


def normalized(*more: object) -> transforms.Compose:
    return transforms.Compose([*more, transforms.ToTensor(), transforms.Normalize(MEAN, STD)])


@pytest.mark.parametrize(
    "transform",
    [
        normalized(),
        transforms.Compose([transforms.Compose([transforms.ToTensor()]), transforms.Normalize(MEAN, STD)]),
        v2.Compose([v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD)]),
        transforms.ToTensor(),
    ],
    ids=["normalize", "nested", "v2", "plain"],
)
@pytest.mark.parametrize("subset", [None, [5, 1, 2]])
def test_image_folder(transform: Callable, subset: list[int] | None, folder: Path, take: Callable) -> None:
    whole = ImageFolder(folder, transform)
    data = whole if subset is None else Subset(Subset(whole, [0, 5, 1, 4, 2]), [1, 2, 4])
    order = subset or list(range(6))
    run = take(network(), data)
    table = run.samples
    assert run.classes == ("ants", "bees")
    assert table["label"].tolist() == [i // 3 for i in order]
    assert table["class_name"].tolist() == [("ants", "bees")[i // 3] for i in order]
    assert table["path"].tolist() == [whole.samples[i][0] for i in order]
    for sample, i in enumerate(order):
        picture = run.display(sample)
        assert picture.dtype == np.uint8
        with Image.open(whole.samples[i][0]) as image:
            pixels = np.asarray(image.convert("RGB")).astype(int)
        assert np.abs(picture - pixels).max() <= 1
        tensor = whole[i][0]
        expected = sha256(f"float32{tuple(tensor.shape)}".encode() + tensor.numpy().tobytes()).hexdigest()
        assert table["digest"][sample] == expected


@pytest.mark.parametrize(
    ("size", "expected"), [((300, 448), (150, 224)), ((1000, 10), (224, 2)), ((224, 224), (224, 224)), ((8, 8), (8, 8))]
)
def test_pictures_have_at_most_224_pixels_a_side(size: tuple, expected: tuple) -> None:
    probe = Probe([torch.rand(3, 4, 4)], batch_size=1)
    pictures = probe.display(torch.rand(2, 3, *size))
    assert pictures.shape == (2, *expected, 3)


def test_pictures_of_other_inputs() -> None:
    probe = Probe([torch.rand(3, 4, 4)], batch_size=1)
    gray = torch.linspace(0, 1, 256).view(1, 1, 16, 16)
    picture = probe.display(gray)
    assert (picture[..., 0] == picture[..., 2]).all()
    assert picture[0, :, :, 1].ravel().tolist() == list(range(256))
    assert probe.display((gray * 255).round().to(torch.uint8))[0, :, :, 0].ravel().tolist() == list(range(256))
    stretched = probe.display(gray * 7 - 3)
    assert (stretched.min(), stretched.max()) == (0, 255)
    assert probe.display(torch.full((1, 3, 4, 4), -5.0)).max() == 0
    assert probe.display(torch.rand(1, 5, 4, 4)) is None
    assert probe.display(torch.rand(4, 10)) is None


def test_a_run_of_what_are_no_pictures(take: Callable) -> None:
    model = nn.Sequential(nn.Linear(10, 4), nn.Tanh())
    run = take(model, TensorDataset(torch.rand(5, 10)))
    assert run.display(0) is None
    assert run.samples["label"].tolist() == [-1] * 5
    assert "class_name" not in run.samples
    assert "path" not in run.samples
    assert run["0"].dimensions == ("snapshot", "sample", "channel")


def test_black_images_without_labels(take: Callable) -> None:
    run = take(network(), [torch.zeros(3, 8, 8) for _ in range(5)])
    assert run.display(4).max() == 0
    assert run.samples["label"].tolist() == [-1] * 5


class Random(Dataset):
    """From the third item on it is another one every time."""

    def __len__(self) -> int:
        return 6

    def __getitem__(self, i: int) -> tuple[torch.Tensor, int]:
        return torch.full((3, 8, 8), float(i)) + (next(COUNT) if i >= 3 else 0), i


COUNT = count(1)


def test_random_transforms_are_refused_by_the_name_of_the_sample(tmp_path: Path) -> None:
    with fm.Recorder(network(), tmp_path / "run.zarr", probe=Random(), batch_size=2) as recorder:
        recorder.snapshot(epoch=0)
        with pytest.raises(fm.CaptureError, match=r"probe sample 3 is not what it was.*evaluation transforms"):
            recorder.snapshot(epoch=1)
    assert fm.open_run(tmp_path / "run.zarr").epochs == [0]


def one_bit(image: torch.Tensor) -> torch.Tensor:
    return torch.cat([image.reshape(-1)[:-1], -image.reshape(-1)[-1:]]).reshape(image.shape)


@pytest.mark.parametrize(
    "change",
    [one_bit, lambda image: image.flip(2), lambda image: image.transpose(1, 2), lambda image: image.half()],
    ids=["one bit", "flipped", "transposed", "another dtype"],
)
@pytest.mark.parametrize("resumed", [False, True])
def test_a_sample_that_changes_later_on_is_refused_by_its_name(change, resumed, tmp_path: Path) -> None:
    """Also where it was the same at the snapshot before."""
    images = [torch.rand(3, 8, 8) for _ in range(3)]
    model = nn.Sequential(Cast(), nn.Flatten(), nn.Linear(192, 2))
    with fm.Recorder(model, tmp_path / "run.zarr", probe=images, batch_size=1) as recorder:
        recorder.snapshot(epoch=0)
        recorder.snapshot(epoch=1)
        if not resumed:
            images[2] = change(images[2])
            with pytest.raises(fm.CaptureError, match="probe sample 2 is not what it was"):
                recorder.snapshot(epoch=2)
    if resumed:
        images[2] = change(images[2])
        with (
            fm.Recorder(model, tmp_path / "run.zarr", probe=images, batch_size=1, mode="a") as recorder,
            pytest.raises(fm.CaptureError, match="probe sample 2 is not what it was"),
        ):
            recorder.snapshot(epoch=2)
    assert fm.open_run(tmp_path / "run.zarr").epochs == [0, 1]


class Cast(nn.Module):
    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return image.float()


def test_random_transforms_that_use_the_global_generators_are_refused_too(folder: Path, tmp_path: Path) -> None:
    data = ImageFolder(folder, normalized(transforms.RandomCrop(10)))
    with fm.Recorder(network(), tmp_path / "run.zarr", probe=data) as recorder:
        recorder.snapshot(epoch=0)
        torch.rand(1)  # training goes on
        with pytest.raises(fm.CaptureError, match=r"probe sample \d \(.*png\) is not what it was"):
            recorder.snapshot(epoch=1)


@pytest.mark.parametrize("change", ["value", "order", "dtype", "sign of zero"])
def test_a_changed_probe_is_refused_on_resuming(change: str, tmp_path: Path) -> None:
    images = [torch.full((3, 8, 8), float(i)) for i in range(6)]
    with fm.Recorder(network(), tmp_path / "run.zarr", probe=images) as recorder:
        recorder.snapshot(epoch=0)
    model = network()
    if change == "value":
        images[4] = images[4].clone()
        images[4][2, 7, 7] += 1e-6
    elif change == "order":
        images[4], images[5] = images[5], images[4]
    elif change == "dtype":
        images = [image.double() for image in images]
        model.double()
    else:
        images[0] = -images[0]
    first = {"value": 4, "order": 4, "dtype": 0, "sign of zero": 0}[change]
    with fm.Recorder(model, tmp_path / "run.zarr", probe=images, mode="a") as recorder:
        with pytest.raises(fm.CaptureError, match=f"probe sample {first} is not what it was"):
            recorder.snapshot(epoch=1)
        assert fm.open_run(tmp_path / "run.zarr").epochs == [0]


class Endless(IterableDataset):
    def __iter__(self) -> object:
        return iter([torch.rand(3, 8, 8)])


DATA = TensorDataset(torch.rand(6, 3, 8, 8), torch.arange(6))


@pytest.mark.parametrize(
    ("probe", "message"),
    [
        (DataLoader(DATA, batch_size=2, shuffle=True), "RandomSampler.*shuffle=False"),
        (DataLoader(DATA, batch_size=4, drop_last=True), "drop_last=False"),
        (DataLoader(DATA, batch_sampler=[[1, 0], [2, 3]]), "no batch_size"),
        (DataLoader(DATA, batch_size=2, sampler=[0, 1, 2]), "order of a list"),
        (DataLoader(DATA, batch_size=None), "batch_size"),
        (TensorDataset(torch.rand(0, 3, 8, 8)), "probe is empty"),
        ([], "probe is empty"),
        (DataLoader(TensorDataset(torch.rand(0, 3, 8, 8))), "probe is empty"),
    ],
)
def test_a_probe_without_fixed_samples_is_refused(probe: object, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        fm.Recorder(network(), tmp_path / "run.zarr", probe=probe)
    assert not list(tmp_path.iterdir())


class Lengthless(Dataset):
    def __getitem__(self, i: int) -> torch.Tensor:
        return torch.rand(3, 8, 8)


@pytest.mark.parametrize(
    ("probe", "name"),
    [
        (DataLoader(Endless(), batch_size=2), "probe's data set is a Endless"),
        (Endless(), "probe is a Endless"),
        (Lengthless(), "probe is a Lengthless"),
        (iter([torch.rand(3, 8, 8)]), "probe is a list_iterator"),
    ],
)
def test_a_probe_without_numbered_items_is_refused(probe: object, name: str, tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=f"{name} without a length and numbered items; expected a map-style data set"):
        fm.Recorder(network(), tmp_path / "run.zarr", probe=probe)
    assert not list(tmp_path.iterdir())


def test_items_that_are_no_tensors_are_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises((ValueError, TypeError), match=r"image|Image"):
        fm.Recorder(network(), tmp_path / "run.zarr", probe=ImageFolder(folder)).__enter__()
    with pytest.raises(ValueError, match="ToTensor"):
        fm.Recorder(network(), tmp_path / "run.zarr", probe=["a", "b"]).__enter__()


def test_a_loader_in_order_is_the_data_set(take: Callable, tmp_path: Path) -> None:
    loader = DataLoader(DATA, batch_size=4)
    one, other = take(network(), loader, name="one.zarr"), take(network(), DATA, name="other.zarr", batch_size=4)
    assert files(one) == files(other)


@pytest.mark.slow
def test_a_loader_with_workers_is_the_data_set(take: Callable) -> None:
    loader = DataLoader(DATA, batch_size=4, num_workers=1)
    one, other = take(network(), loader, name="one.zarr"), take(network(), DATA, name="other.zarr", batch_size=4)
    assert files(one) == files(other)


def files(run: Run) -> dict[str, bytes]:
    path = Path(run.path)
    return {str(file.relative_to(path)): file.read_bytes() for file in path.rglob("*") if file.is_file()}


@pytest.mark.parametrize(
    ("kept", "message"),
    [
        (slice(-1), "gave 1 samples from sample 0 on, where 2 are due"),
        (slice(1, None), "gave 1 samples from sample 0 on, where 2 are due"),
        ([0, 1, 1], "gave 3 samples from sample 0 on, where 2 are due"),
    ],
    ids=["last", "first", "doubled"],
)
@pytest.mark.parametrize("batch_size", [2, 4])
def test_a_sample_that_goes_missing(kept: slice | list, message: str, batch_size: int, tmp_path: Path) -> None:
    """Nothing is written of a batch that is not whole; whatever the writer is at."""

    def skip(batch: list) -> torch.Tensor:
        return torch.stack(batch)[kept] if len(batch) == 2 else torch.stack(batch)

    loader = DataLoader(list(torch.rand(6, 3, 8, 8)), batch_size=batch_size, collate_fn=skip)
    expected = message if batch_size == 2 else message.replace("sample 0", "sample 4")
    with (
        fm.Recorder(network(), tmp_path / "run.zarr", probe=loader) as recorder,
        pytest.raises(fm.CaptureError, match=f"the probe {expected}.*items are all there"),
    ):
        recorder.snapshot(epoch=0)
    assert len(fm.open_run(tmp_path / "run.zarr")) == 0


@pytest.mark.parametrize(
    ("now", "message"), [(4, "gave 4 samples, but its data set has 6"), (8, "gave 2 samples from sample 6 on, where 0")]
)
def test_a_data_set_that_changes_its_length(now: int, message: str, tmp_path: Path) -> None:
    items = list(torch.rand(8, 3, 8, 8))
    data = items[:6]
    with fm.Recorder(network(), tmp_path / "run.zarr", probe=data, batch_size=2) as recorder:
        data[:] = items[:now]
        with pytest.raises(fm.CaptureError, match=message):
            recorder.snapshot(epoch=0)
        data[:] = items[:6]
        recorder.snapshot(epoch=0)
        data[:] = items[:now]
        with pytest.raises(fm.CaptureError, match=message):
            recorder.snapshot(epoch=1)
    assert fm.open_run(tmp_path / "run.zarr").epochs == [0]


def test_nothing_of_the_probe_is_pickled(take: Callable, folder: Path) -> None:
    run = take(network(), ImageFolder(folder, normalized()))
    stored = b"".join(content for name, content in files(run).items() if not name.startswith("layers"))
    assert b"sklearn" not in stored
    assert not stored.startswith(b"\x80")
    assert io.BytesIO(stored).read(1) != b"\x80"
    assert run.samples["path"].dtype.kind in "OT" or str(run.samples["path"].dtype) == "str"


@pytest.mark.parametrize(
    ("transform", "scale"),
    [
        (transforms.Normalize([0.0, 0.0, 0.0], [255.0, 255.0, 255.0]), 255),  # to 0 to 1, as many write it
        (transforms.Normalize([0.0], [1.0]), 255),
        (
            transforms.Compose(
                [transforms.Normalize([0.4] * 3, [0.2] * 3), transforms.Normalize([0.1] * 3, [2.0] * 3)]
            ),
            1,
        ),
        (torch.nn.Sequential(transforms.Normalize([0.4] * 3, [0.2] * 3)), 1),
    ],
)
def test_pictures_are_what_was_normalized_however_that_was_done(transform: Any, scale: int) -> None:
    images = torch.rand(3, 3, 8, 8, generator=torch.Generator().manual_seed(0))

    class Normalized(list[Any]):
        pass

    items = Normalized([(transform(image * scale), 0) for image in images])
    items.transform = transform  # type: ignore[attr-defined]
    probe = Probe(items, batch_size=3)
    shown = probe.display(torch.stack([image for image, _ in items]))
    assert shown is not None
    expected = (images * 255).permute(0, 2, 3, 1).numpy()
    assert np.abs(shown - expected).max() <= 1


def test_pictures_of_values_that_are_not_finite_show_the_others() -> None:
    image = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(0)) * 4
    image[0, 0, 0, :3] = torch.tensor([torch.inf, -torch.inf, torch.nan])
    shown = Probe([(image[0], 0)], batch_size=1).display(image)
    assert shown is not None
    assert 100 < shown.mean() < 155


def test_pictures_of_shares_stay_as_they_are_beside_values_that_are_not_finite() -> None:
    image = torch.linspace(0, 0.5, 192).reshape(1, 3, 8, 8)
    image[0, 0, 0, 0] = torch.nan
    shown = Probe([(image[0], 0)], batch_size=1).display(image)
    assert shown is not None
    assert np.abs(shown.transpose(0, 3, 1, 2).ravel()[1:] - 255 * image.numpy().ravel()[1:]).max() <= 0.5


@pytest.mark.parametrize(
    ("label", "expected"),
    [
        (lambda number: [number % 3], [0, 1, 2]),
        (lambda number: (number % 3,), [0, 1, 2]),
        (lambda number: [int(number % 3 == k) for k in range(3)], [0, 1, 2]),
        (lambda number: ["abc"[number % 3]], ["a", "b", "c"]),
    ],
)
def test_labels_in_lists_are_those_of_the_samples(label: Any, expected: list[Any]) -> None:
    """A loader puts lists together column by column; of as many samples as classes, too."""
    items = [(torch.rand(3, 4, 4), label(number)) for number in range(6)]
    for batch in Probe(items, batch_size=3):
        found = list(batch.texts) if batch.texts else batch.labels.tolist()
        assert found == expected


def test_the_transforms_that_come_with_weights_are_undone() -> None:
    from torchvision.models import ResNet18_Weights

    gray = np.tile(np.linspace(0, 255, 32).astype(np.uint8), (32, 1))
    image = Image.fromarray(np.stack([gray] * 3, axis=-1))

    class Prepared(Dataset[Any]):
        transform = ResNet18_Weights.IMAGENET1K_V1.transforms(crop_size=32, resize_size=32)

        def __len__(self) -> int:
            return 2

        def __getitem__(self, number: int) -> Any:
            return self.transform(image)

    probe = Probe(Prepared(), batch_size=2)
    shown = probe.display(probe.batch().images)
    assert np.abs(shown[0].astype(int) - gray[..., None]).max() <= 1


class Counted(BatchSampler):
    """As torchdata's, which count how far they are."""

    taken = 0

    def __iter__(self) -> Iterator[list[int]]:
        self.taken = 0
        for batch in super().__iter__():
            self.taken += 1
            yield batch


Counted.__module__ = "torchdata.stateful_dataloader.sampler"


class Stateful(DataLoader):
    """As torchdata's `StatefulDataLoader`: it keeps its iterator, says how far it is, and can be set to go on."""

    def __init__(self, data: Any, size: int, **options: Any) -> None:
        self._iterator = None
        self.next_iter_state: int | None = None
        super().__init__(data, size, **options)
        vars(self)["batch_sampler"] = Counted(self.sampler, size, drop_last=False)

    def state_dict(self) -> dict[str, int]:
        return {"taken": self.batch_sampler.taken}

    def __iter__(self) -> Any:
        skipped, self.next_iter_state = self.next_iter_state or 0, None
        self._iterator = islice(super().__iter__(), skipped, None)
        return self._iterator


def test_items_without_values_are_refused_in_words(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="tensors on the device 'meta', without values"):
        fm.Recorder(network(), tmp_path / "run.zarr", probe=list(torch.empty(4, 3, 8, 8, device="meta"))).__enter__()
    assert not (tmp_path / "run.zarr").exists()


@pytest.mark.filterwarnings("ignore::UserWarning:torch")  # of torchdata's import
@pytest.mark.parametrize("real", [False, *([True] if find_spec("torchdata") else [])])  # no extra of this package
def test_a_loader_that_knows_how_far_it_is_goes_on_from_there(real: bool, tmp_path: Path) -> None:
    make: Any = Stateful
    if real:
        make = import_module("torchdata.stateful_dataloader").StatefulDataLoader
    loader, alone = make(DATA, 2), make(DATA, 2)
    model, seen = network(), []
    with fm.Recorder(model, tmp_path / "run.zarr", probe=loader) as recorder:
        for number, ((batch, *_), (other, *_)) in enumerate(zip(loader, alone, strict=True)):
            seen.append(torch.equal(batch, other))
            if number == 0:
                recorder.snapshot(epoch=0)
            assert loader.state_dict() == alone.state_dict()
    assert all(seen)
    assert len(seen) == math.ceil(len(DATA) / 2)
    assert fm.open_run(tmp_path / "run.zarr").n_samples == len(DATA)
