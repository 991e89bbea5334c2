"""Labels that are names of classes, of a probe and of training batches; labels that are no classes are warned of."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import ConcatDataset, Dataset, Subset

import fmcluster as fm
from fmcluster.capture.inputs._text_labels import as_texts, numbered

NAMES = ["wasp", "ant", "bee", "ant", "wasp", "ant"]
IMAGES = torch.rand(6, 1, 4, 4, generator=torch.Generator().manual_seed(0))


class Listed(Dataset[Any]):
    """Lists its labels, and gives them with its images."""

    def __init__(self, targets: list[Any]) -> None:
        self.targets = targets

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> Any:
        return IMAGES[index], self.targets[index]


class Table:
    """A table as Hugging Face has them."""

    column_names = ("image", "label")

    def __init__(self, labels: list[Any]) -> None:
        self.labels, self.column_names = labels, ["image", "label"]

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, key: Any) -> Any:
        return self.labels if key == "label" else {"image": IMAGES[key], "label": self.labels[key]}


DATASETS: dict[str, Any] = {
    "data set": Listed(NAMES),
    "list": list(zip(IMAGES, NAMES, strict=True)),
    "parts": ConcatDataset([Listed(NAMES[:2]), Subset(Listed(["", *NAMES[2:]]), [1, 2, 3, 4])]),
    "table": Table(NAMES),
}


def record(dataset: Any, path: Path, *, live: bool) -> Any:
    model = nn.Sequential(nn.Conv2d(1, 2, 3))
    if live:
        with fm.BatchRecorder(model, path, dataset=dataset) as recorder, recorder.epoch(0), recorder.batch(range(6)):
            model(IMAGES)
    else:
        with fm.Recorder(model, path, probe=dataset, batch_size=4) as recorder:
            recorder.snapshot(epoch=0)
    return fm.open_run(path).samples


@pytest.mark.parametrize("live", [False, True], ids=["probe", "live"])
@pytest.mark.parametrize("kind", DATASETS)
def test_text_is_numbered_in_its_order(kind: str, live: bool, tmp_path: Path) -> None:
    samples = record(DATASETS[kind], tmp_path / "run.zarr", live=live)
    assert samples["class_name"].tolist() == NAMES
    assert samples["label"].tolist() == [2, 0, 1, 0, 2, 0]


def test_a_data_set_that_names_its_classes_numbers_them(tmp_path: Path) -> None:
    dataset = Listed(NAMES)
    dataset.classes = ["bee", "wasp", "ant", "hornet"]
    for live in (False, True):
        samples = record(dataset, tmp_path / f"{live}.zarr", live=live)
        assert samples["label"].tolist() == [1, 2, 0, 2, 1, 2]
        assert samples["class_name"].tolist() == NAMES


@pytest.mark.parametrize("live", [False, True], ids=["probe", "live"])
@pytest.mark.parametrize(
    ("targets", "told"),
    [
        (list(torch.tensor([[1.0, 1.0, 0.0]] * 6)), r"float32 of shape \(\d, 3\)|\[float32 of shape \(3,\)"),
        ([0.5, 1.25, 2.0, 3.0, 4.0, 5.0], r"float64 of shape|\[float, float"),
    ],
)
def test_labels_that_are_no_classes_are_warned_of_once(targets: Any, told: str, live: bool, tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match=f"(?s)are .*({told}).*not one class for each") as seen:
        samples = record(Listed(targets), tmp_path / "run.zarr", live=live)
    assert len(seen) == 1
    assert samples["label"].tolist() == [-1] * 6


def test_a_subset_of_text_is_numbered_as_the_whole(tmp_path: Path) -> None:
    samples = record(Subset(Listed(NAMES), [0, 2]), tmp_path / "run.zarr", live=False)
    assert samples["label"].tolist() == [2, 1]


def test_numbers_and_other_lists_are_no_text() -> None:
    assert as_texts(np.array(["bee"]), count=1) == ("bee",)
    assert as_texts(["bee", 1], count=2) is None
    assert as_texts("be", count=2) is None
    assert as_texts(["bee"], count=2) is None
    assert numbered(["b", "a"], classes=["a"])[1] == ("a", "b"), "of classes that lack one"


def test_a_column_of_pandas_is_text_too() -> None:
    import pandas as pd

    column = pd.Series(["bee", "ant"], dtype="category", index=[7, 9])
    assert as_texts(column, count=2) == ("bee", "ant")
    assert as_texts(column.astype("category").cat.codes, count=2) is None


def test_columns_of_their_own_kind_are_read() -> None:
    """As Hugging Face's, since version 4 of its datasets."""
    from collections import UserList

    assert as_texts(UserList(["bee", "ant"]), count=2) == ("bee", "ant")
    assert as_texts("be", count=2) is None
