"""What a model is called with by default: several tensors, arguments by name, and lists of images of any size."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset
from torchvision.models.detection.transform import GeneralizedRCNNTransform

import fmcluster as fm
from fmcluster.capture import forward_arguments
from fmcluster.capture.inputs._split_batch import split_batch
from fmcluster.store import Run

LEFT = torch.rand(5, 3, 8, 8, generator=torch.Generator().manual_seed(0))
RIGHT = torch.rand(5, 3, 8, 8, generator=torch.Generator().manual_seed(1))
LABELS = torch.tensor([2, 0, 1, 1, 0])


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 4, 3)


class Two(Net):
    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        return self.conv(left - 2 * right)


class OneByName(Net):
    def forward(self, *, image: Tensor) -> Tensor:
        return self.conv(image)


class TwoByName(Net):
    def forward(self, *, left: Tensor, right: Tensor) -> Tensor:
        return self.conv(left - 2 * right)


class Detector(Net):
    """As those of torchvision: a list of images, which it resizes and pads to one batch."""

    def __init__(self) -> None:
        super().__init__()
        self.transform = GeneralizedRCNNTransform(16, 24, [0.5] * 3, [0.2] * 3, size_divisible=8)

    def forward(self, images: list[Tensor], targets: list[dict[str, Tensor]] | None = None) -> list[Tensor]:
        assert targets is None
        batch, _ = self.transform(list(images), None)
        return list(self.conv(batch.tensors))


def record(model: nn.Module, path: Path, **more: Any) -> Run:
    with fm.Recorder(model, path, layers=["conv"], dtype="float32", **more) as recorder:
        recorder.snapshot(epoch=0)
        recorder.snapshot(epoch=1)
    return fm.open_run(path)


def test_a_model_of_two_inputs_is_given_two_and_the_third_is_the_label(tmp_path: Path) -> None:
    model = Two()
    run = record(model, tmp_path / "run.zarr", probe=TensorDataset(LEFT, RIGHT, LABELS))
    with torch.no_grad():
        np.testing.assert_array_equal(run["conv"].read(epoch=0), model(LEFT, RIGHT).numpy())
    assert run.samples["label"].tolist() == LABELS.tolist()


def test_an_image_goes_to_the_one_argument_by_name(tmp_path: Path) -> None:
    model = OneByName()
    run = record(model, tmp_path / "run.zarr", probe=TensorDataset(LEFT, LABELS))
    with torch.no_grad():
        np.testing.assert_array_equal(run["conv"].read(epoch=0), model(image=LEFT).numpy())
    assert run.samples["label"].tolist() == LABELS.tolist()


def test_of_several_by_name_it_is_said_what_to_write(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="takes left, right by name only, and the probe's items are no map") as caught:
        record(TwoByName(), tmp_path / "run.zarr", probe=TensorDataset(LEFT, RIGHT, LABELS))
    assert not list(tmp_path.iterdir())
    to_inputs = eval(str(caught.value).partition("to_inputs=")[2])
    model = TwoByName()
    run = record(model, tmp_path / "run.zarr", probe=TensorDataset(LEFT, RIGHT, LABELS), to_inputs=to_inputs)
    with torch.no_grad():
        np.testing.assert_array_equal(run["conv"].read(epoch=0), model(left=LEFT, right=RIGHT).numpy())
    items = [{"left": left, "right": right} for left, right in zip(LEFT, RIGHT, strict=True)]
    again = record(model, tmp_path / "again.zarr", probe=items)
    np.testing.assert_array_equal(again["conv"].read(epoch=0), run["conv"].read(epoch=0))


def sized(*sizes: tuple[int, int]) -> list[tuple[Tensor, dict[str, Tensor]]]:
    generator = torch.Generator().manual_seed(0)
    boxes = {"boxes": torch.tensor([[0.0, 0.0, 2.0, 2.0]]), "labels": torch.tensor([1])}
    return [(torch.rand(3, *size, generator=generator), boxes) for size in sizes]


def columns(items: list[Any]) -> tuple[Any, ...]:
    return tuple(zip(*items, strict=True))


@pytest.mark.parametrize("n", [2, 3])  # as many as an image has channels, too
@pytest.mark.parametrize(
    "made",
    [
        lambda items: {"probe": items},
        lambda items: {"probe": [image for image, _ in items]},
        lambda items: {"probe": fm.with_index(items)},
        lambda items: {"probe": DataLoader(items, batch_size=4, collate_fn=columns)},
        lambda items: {"probe": DataLoader(items, batch_size=4, collate_fn=list)},
        lambda items: {
            "probe": DataLoader(items, batch_size=4, collate_fn=columns),
            "to_inputs": lambda batch: ((list(batch[0]),), {}),
        },
    ],
    ids=["items", "images", "indexed", "columns", "rows", "to_inputs"],
)
def test_a_detector_is_given_lists_of_images_of_any_size(made: Any, n: int, tmp_path: Path) -> None:
    items = sized((20, 30), (18, 16), (33, 20))[:n]
    model = Detector()
    run = record(model, tmp_path / "run.zarr", **made(items))
    with torch.no_grad():
        expected = torch.stack(model.eval()([image for image, _ in items])).numpy()
    for epoch in (0, 1):
        np.testing.assert_array_equal(run["conv"].read(epoch=epoch), expected)
    assert run.samples["label"].tolist() == [-1] * n
    picture = run.display(1)
    assert picture is not None
    assert picture.shape == (224, 224, 3)
    assert (picture[:, 200:] == 0).all()  # 18 by 16, from the upper left
    assert abs(picture[:, :199].mean() / 255 - items[1][0].mean().item()) < 0.01


def test_a_changed_image_of_a_list_is_found(tmp_path: Path) -> None:
    items = sized((20, 30), (18, 16), (33, 20))
    with fm.Recorder(Detector(), tmp_path / "run.zarr", layers=["conv"], probe=items) as recorder:
        recorder.snapshot(epoch=0)
        items[2][0][0, 0, 0] += 1
        with pytest.raises(fm.CaptureError, match="probe sample 2 is not what it was"):
            recorder.snapshot(epoch=1)


def test_batches_that_are_padded_to_other_sizes_are_refused_with_the_reason(tmp_path: Path) -> None:
    items = sized((20, 30), (18, 16), (40, 20))
    with (
        pytest.raises(fm.CaptureError, match="follows from the images' sizes, resize them to one size"),
        fm.Recorder(Detector(), tmp_path / "run.zarr", layers=["conv"], probe=items, batch_size=2) as recorder,
    ):
        recorder.snapshot(epoch=0)


def test_gradients_come_back_to_layers_behind_a_list(tmp_path: Path) -> None:
    items = [(image, number) for number, (image, _) in enumerate(sized((16, 16), (16, 16)))]
    model = Detector()
    with fm.Recorder(
        model, tmp_path / "run.zarr", layers=["conv"], probe=items, record=("activation", "gradient")
    ) as recorder:
        recorder.snapshot(epoch=0, loss=lambda outputs, labels: sum(o.sum() * (1 + i) for i, o in enumerate(outputs)))
    gradient = fm.open_run(tmp_path / "run.zarr")["conv"].gradient.read(epoch=0)
    assert (gradient == np.array([1, 2]).reshape(2, 1, 1, 1)).all()


def test_two_views_in_a_list_are_batches(tmp_path: Path) -> None:
    class Views(Net):
        def forward(self, views: list[Tensor]) -> Tensor:
            return self.conv(views[0] + views[1])

    model = Views()
    run = record(
        model, tmp_path / "run.zarr", probe=TensorDataset(LEFT[:2], RIGHT[:2]), to_inputs=lambda batch: ((batch,), {})
    )
    with torch.no_grad():
        np.testing.assert_array_equal(run["conv"].read(epoch=0), model.conv(LEFT[:2] + RIGHT[:2]).numpy())


@pytest.mark.parametrize("key", ["img", "scan"])
def test_the_one_image_of_a_mapping_is_shown_whatever_its_name(key: str, tmp_path: Path) -> None:
    items = [
        {key: image, "fine_label": label, "age": torch.tensor(3.0)}
        for image, label in zip(LEFT, [2, 0, 1, 1, 0], strict=True)
    ]
    model = nn.Sequential()
    model.conv = nn.Conv2d(3, 4, 3)
    run = record(model, tmp_path / "run.zarr", probe=items)
    with torch.no_grad():
        np.testing.assert_array_equal(run["conv"].read(epoch=0), model(LEFT).numpy())
    assert run.samples["label"].tolist() == LABELS.tolist()


class Pair(Net):
    """What it is given comes as a pair, in one argument."""

    def forward(self, pair: tuple[Tensor, Tensor]) -> Tensor:
        left, right = pair
        return self.conv(left - 2 * right)


class Optional(Net):
    def forward(self, left: Tensor, right: Tensor | None = None, *, scale: float = 1) -> Tensor:
        return self.conv(left if right is None else left - 2 * scale * right)


class Switched(Net):
    """One argument, and a switch, which is none of the inputs."""

    def forward(self, pair: tuple[Tensor, Tensor], halved: bool = False) -> Tensor:
        left, right = pair
        return self.conv(left - (1 if halved else 2) * right)


class Several(Net):
    def forward(self, *images: Tensor) -> Tensor:
        left, right = images
        return self.conv(left - 2 * right)


class Swapped(Net):
    """Its second argument has a name that labels often have."""

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return self.conv(x - 2 * y)


class Nested(torch.utils.data.Dataset[Any]):
    """Items are ((left, right), label), or ({"left": left, "right": right}, label)."""

    def __init__(self, names: tuple[str, ...] = ()) -> None:
        self.names = names

    def __len__(self) -> int:
        return len(LEFT)

    def __getitem__(self, index: int) -> Any:
        both = (LEFT[index], RIGHT[index])
        return dict(zip(self.names, both, strict=True)) if self.names else both, int(LABELS[index])


@pytest.mark.parametrize("indexed", [False, True])
@pytest.mark.parametrize(
    ("kind", "names"),
    [
        (Swapped, ("x", "y")),
        (Two, ()),
        (Pair, ()),
        (Optional, ()),
        (Switched, ()),
        (Several, ()),
        (TwoByName, ()),
        (Two, ("left", "right")),
        (TwoByName, ("left", "right")),
    ],
)
def test_inputs_in_a_tuple_of_their_own_come_before_the_label(
    kind: type[Net], names: tuple[str, ...], indexed: bool, tmp_path: Path
) -> None:
    model, probe = kind(), Nested(names)
    run = record(model, tmp_path / "run.zarr", probe=fm.with_index(probe) if indexed else probe)
    with torch.no_grad():
        np.testing.assert_array_equal(run["conv"].read(epoch=0), model.conv(LEFT - 2 * RIGHT).numpy())
    assert run.samples["label"].tolist() == LABELS.tolist()
    np.testing.assert_array_equal(run.display(0), record_of_left(tmp_path).display(0))


def record_of_left(folder: Path) -> Run:
    return record(OneByName(), folder / "left.zarr", probe=TensorDataset(LEFT, LABELS))


def test_two_sequences_in_a_batch_of_two_are_no_two_images() -> None:
    batch = [[torch.rand(2, 4, 3), torch.rand(2, 4, 3)], torch.tensor([0, 1])]
    inputs, labels = split_batch(batch, n_indices=0, takes=forward_arguments(Two()), due=2)
    assert [each.shape for each in inputs.args] == [(2, 4, 3), (2, 4, 3)]
    assert not inputs.is_list
    assert labels.tolist() == [0, 1]


@pytest.mark.parametrize("kind", [Two, Pair])
def test_ablation_and_replay_are_given_such_items(kind: type[Net], tmp_path: Path) -> None:
    class Classifier(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.head = kind(), nn.Linear(4, 3)

        def forward(self, *given: Any) -> Tensor:
            return self.head(self.body(*given).relu().mean((2, 3)))

    class Needs(Classifier):
        if kind is Two:

            def forward(self, left: Tensor, right: Tensor) -> Tensor:
                return super().forward(left, right)
        else:

            def forward(self, pair: Any) -> Tensor:
                return super().forward(pair)

    model = Needs()
    damage = fm.ablate(model, Nested(), interventions=[fm.decide.Width(shares=(0.5,))], layers=["body.conv"])
    assert len(damage.frame)
    states = {0: model.state_dict()}
    fm.replay(model, tmp_path / "run.zarr", checkpoints=states, layers=["body.conv"], probe=Nested(), dtype="float32")
    with torch.no_grad():
        expected = model.body.conv(LEFT - 2 * RIGHT).numpy()
    np.testing.assert_array_equal(fm.open_run(tmp_path / "run.zarr")["body.conv"].read(epoch=0), expected)
