"""What a data set says of its items, looked through subsets and indices."""

from collections import namedtuple
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset, IterableDataset, StackDataset, Subset, TensorDataset
from torchvision import transforms
from torchvision.datasets import ImageFolder

import fmcluster as fm
from fmcluster.capture.inputs._datasets import as_labels, base, check_numbered, classes, labels, normalizations, paths


class Endless(IterableDataset):
    def __iter__(self) -> Iterator[int]:
        return iter(range(3))


class Lengthless(Dataset):
    def __getitem__(self, index: int) -> int:
        return index


class Unloadable(Dataset):
    """Tells its labels; loading an item would take a day."""

    classes = ("ant", "bee")

    def __init__(self, **listed: Any) -> None:
        vars(self).update(listed)

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> Any:
        raise AssertionError("an item was loaded")


Item = namedtuple("Item", "image label")


@pytest.mark.parametrize(
    ("item", "expected"),
    [
        (("ant", 0), (2, "ant", 0)),
        (["ant", 0], (2, "ant", 0)),
        (Item("ant", 0), (2, "ant", 0)),
        (("ant",), (2, "ant")),
        ("ant", (2, "ant")),
        ({"image": "ant", "label": 0}, {"index": 2, "image": "ant", "label": 0}),
    ],
)
def test_items_begin_with_their_index(item: Any, expected: Any) -> None:
    indexed = fm.with_index([None, None, item])
    assert len(indexed) == 3
    assert indexed[2] == expected
    assert type(indexed[2]) is type(expected)


def test_an_item_with_an_index_of_its_own_is_not_mistaken() -> None:
    indexed = fm.with_index([{"index": 17, "image": "ant"}])
    with pytest.raises(ValueError, match=r"item 0 has a key 'index' already.*rename"):
        indexed[0]


@pytest.mark.parametrize("workers", [0, 1])
def test_a_shuffling_loader_tells_which_items_it_took(workers: int) -> None:
    images = torch.arange(10.0).view(10, 1, 1, 1)
    indexed = fm.with_index(TensorDataset(images, torch.arange(10) % 3))
    seen = []
    for indices, shown, targets in DataLoader(indexed, batch_size=4, shuffle=True, num_workers=workers):
        assert torch.equal(shown, images[indices])
        assert torch.equal(targets, indices % 3)
        seen += indices.tolist()
    assert sorted(seen) == list(range(10))


def test_a_loader_of_mappings_tells_it_too() -> None:
    data = [{"image": torch.tensor(float(i))} for i in range(6)]
    for batch in DataLoader(fm.with_index(data), batch_size=4, shuffle=True):
        assert torch.equal(batch["index"], batch["image"].long())


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (Endless(), "Endless"),
        (Lengthless(), "Lengthless"),
        (iter([1]), "list_iterator"),
        ({1, 2}, "set"),
        (DataLoader([1, 2]), "DataLoader"),
        (None, "NoneType"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_data_set_without_numbered_items_is_refused(data: Any, name: str) -> None:
    with pytest.raises(TypeError, match=f"the data set is a {name} without a length and numbered items.*map-style"):
        fm.with_index(data)
    with pytest.raises(TypeError, match=f"the probe is a {name} without"):
        check_numbered(data, what="the probe")


def test_a_data_set_with_numbered_items_is_not() -> None:
    for data in ([1, 2], (1, 2), TensorDataset(torch.rand(2)), Subset([1, 2], [0]), torch.rand(2, 3)):
        check_numbered(data, what="it")


def test_what_lies_under_subsets_and_indices() -> None:
    whole = list("abcdefgh")
    assert base(whole) == (whole, None)
    assert base(fm.with_index(whole)) == (whole, None)
    outer = Subset(Subset(whole, [7, 5, 3, 1]), [2, 0])
    for data in (outer, fm.with_index(outer), Subset(fm.with_index(Subset(whole, np.array([7, 5, 3, 1]))), [2, 0])):
        found, positions = base(data)
        assert found is whole
        assert positions == [3, 7]
        assert all(type(i) is int for i in positions)
    assert base(Subset(whole, torch.tensor([1, 0])))[1] == [1, 0]


@pytest.mark.parametrize(
    ("listed", "expected"),
    [
        ({"targets": [1, 0, 1, 1]}, [1, 0, 1, 1]),
        ({"targets": torch.tensor([1, 0, 1, 1])}, [1, 0, 1, 1]),
        ({"targets": torch.tensor([1, 0, 1, 1], dtype=torch.uint8)}, [1, 0, 1, 1]),
        ({"labels": np.array([3, 2, 1, 0], np.int32)}, [3, 2, 1, 0]),
        ({"labels": (3, 2, 1, 0)}, [3, 2, 1, 0]),
        ({"targets": "unknown", "labels": [3, 2, 1, 0]}, [3, 2, 1, 0]),
        ({"tensors": (torch.rand(4, 3), torch.tensor([5, 6, 7, 8]))}, [5, 6, 7, 8]),
        ({"tensors": (torch.tensor([5, 6, 7, 8]),)}, None),
        ({"tensors": (torch.rand(4, 3), torch.rand(4))}, None),
        ({"targets": [1, 0, 1]}, None),
        ({"targets": [[0, 1]] * 4}, [1, 1, 1, 1]),
        ({"targets": [[0, 2]] * 4}, None),
        ({"targets": [[1, 1]] * 4}, None),
        ({"targets": [[0], [1, 2], [], [3]]}, None),
        ({"targets": [0.5, 1.5, 0.0, 1.0]}, None),
        ({"targets": [True, False, True, True]}, [1, 0, 1, 1]),
        ({"targets": ["ant", "bee", "ant", "bee"]}, [0, 1, 0, 1]),
        ({"targets": ["ant", 2, "ant", "bee"]}, None),
        ({"targets": lambda: [1, 0, 1, 1]}, None),
        ({"targets": None}, None),
        ({}, None),
    ],
)
def test_labels_where_a_data_set_lists_whole_numbers(listed: dict, expected: list[int] | None) -> None:
    found = labels(Unloadable(**listed))
    assert found.dtype == np.int64
    assert found.tolist() == (expected or [-1] * 4)


def test_labels_of_a_subset_are_those_of_its_items() -> None:
    whole = Unloadable(targets=[10, 11, 12, 13])
    assert labels(Subset(whole, [3, 1])).tolist() == [13, 11]
    assert labels(fm.with_index(Subset(Subset(whole, [3, 1, 0]), [2, 2, 0]))).tolist() == [10, 10, 13]
    assert labels(Subset(Unloadable(), [3, 1])).tolist() == [-1, -1]
    assert labels(Subset(whole, [-1])).tolist() == [13]


def test_labels_are_a_copy() -> None:
    targets = np.arange(4)
    labels(Unloadable(targets=targets))[:] = 9
    assert targets.tolist() == [0, 1, 2, 3]


def test_class_names() -> None:
    assert classes(Subset(fm.with_index(Unloadable()), [1])) == ("ant", "bee")
    assert classes([1, 2]) == ()


def test_where_images_lie(tmp_path: Path) -> None:
    for kind in ("ants", "bees"):
        (tmp_path / kind).mkdir()
        for number in range(2):
            Image.new("RGB", (4, 4)).save(tmp_path / kind / f"{number}.png")
    folder = ImageFolder(tmp_path, transforms.ToTensor())
    expected = [str(tmp_path / kind / f"{number}.png") for kind in ("ants", "bees") for number in range(2)]
    assert paths(folder) == expected
    assert paths(fm.with_index(Subset(folder, [3, 0]))) == [expected[3], expected[0]]
    assert labels(Subset(folder, [3, 0])).tolist() == [1, 0]
    assert classes(Subset(folder, [3, 0])) == ("ants", "bees")
    assert paths([1, 2]) is None
    assert paths(Unloadable(samples=[(torch.rand(1), 0)])) is None
    assert paths(Unloadable(samples=np.zeros((4, 2)))) is None


def test_a_normalization_wherever_it_stands() -> None:
    normalize = transforms.Normalize([0.5], [0.25])
    for transform in (
        normalize,
        transforms.Compose([transforms.ToTensor(), normalize]),
        transforms.Compose([transforms.Compose([normalize]), transforms.ToTensor()]),
    ):
        assert normalizations(Subset(Unloadable(transform=transform), [0])) == [([0.5], [0.25])]
    for transform in (None, transforms.ToTensor(), transforms.Compose([])):
        assert normalizations(Unloadable(transform=transform)) == []
    assert normalizations([1, 2]) == []


class Named:
    """A data set of six items that says what its classes are."""

    def __init__(self, **attributes: Any) -> None:
        self.__dict__.update(attributes)

    def __len__(self) -> int:
        return 6


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ({"class_to_idx": {"a": np.int64(2), "b": np.int64(0)}, "classes": ["a", "b"]}, ("b", "", "a")),
        ({"class_to_idx": {"a": -1, "b": 0, "c": 1}, "classes": ["a", "b", "c"]}, ("b", "c")),
        ({"class_to_idx": {"a": 10**9, "b": 0}, "classes": ["a", "b"]}, ("b",)),
        ({"class_to_idx": {"cat": 0, "kitten": 0, "dog": 1}}, ("cat, kitten", "dog")),
        ({"classes": {0: "a", 2: "c"}}, ("a", "", "c")),
        ({"classes": {"a": 2, "b": 0}}, ("b", "", "a")),
        ({"classes": {"a", "b", "c"}}, ()),  # in no order
        ({"classes": [("tench", "Tinca tinca"), ("goldfish",)]}, ("tench, Tinca tinca", "goldfish")),
        ({"classes": [None, "b"]}, ("", "b")),
    ],
)
def test_names_go_to_the_labels_that_the_data_set_gives_them(attributes: Any, expected: tuple[str, ...]) -> None:
    assert classes(Named(**attributes)) == expected


class Odd(Dataset):
    """Its properties raise, as before a download; its transform holds itself, and what is no transform."""

    def __init__(self) -> None:
        self.transform = type("Stage", (), {})()
        self.transform.transforms = [
            self.transform,
            [transforms.Normalize([0.5], [0.25])],
            type("S", (), {"transforms": 3})(),
        ]

    @property
    def classes(self) -> list[str]:
        raise KeyError("not downloaded")

    targets = class_to_idx = samples = features = target_transform = classes

    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return torch.ones(3, 8, 8) * index, index


def test_what_a_data_set_cannot_say_is_not_known_and_no_error() -> None:
    data = Odd()
    assert classes(data) == ()
    assert paths(data) is None
    assert labels(data).tolist() == [-1, -1]
    assert normalizations(data) == [([0.5], [0.25])]


def test_labels_of_stacked_data_sets() -> None:
    images, numbers = torch.zeros(3, 1, 2, 2), [2, 0, 1]
    assert labels(StackDataset(images, numbers)).tolist() == numbers
    assert labels(Subset(StackDataset(image=images, label=numbers), [2, 0])).tolist() == [1, 2]


def test_names_of_classes_that_are_not_utf8_can_be_printed() -> None:
    named = Unloadable()
    named.classes = ("caf\udce9", "bee")
    assert classes(named) == ("caf\\xe9", "bee")


@pytest.mark.parametrize("shape", [(4,), (4, 1), (4, 1, 1)])
def test_labels_in_rows_of_one_are_labels(shape: tuple[int, ...]) -> None:
    found = as_labels(torch.arange(4).reshape(shape), count=4)
    assert found is not None
    assert found.tolist() == [0, 1, 2, 3]
