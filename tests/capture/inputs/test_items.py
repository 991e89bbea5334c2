"""Items of every kind: recorded, or one sentence that says what was received, what was expected, and what to do."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.utils.data import ConcatDataset, DataLoader, Dataset, Subset, TensorDataset

import fmcluster as fm
from fmcluster.capture.inputs._items import describe
from fmcluster.cli import is_expected, one_line

X = torch.rand(6, 3, 8, 8, generator=torch.Generator().manual_seed(2))
PIL = Image.new("RGB", (8, 8))


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.fc = nn.Conv2d(3, 4, 3), nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.conv(x).mean((2, 3)))


def record(probe: Any, path: Path, **options: Any) -> fm.store.Run:
    torch.manual_seed(0)
    with fm.Recorder(Net(), path, probe=probe, **{"batch_size": 4, **options}) as recorder:
        recorder.snapshot(epoch=0)
    return fm.open_run(path)


def collated(make: Any) -> DataLoader[Any]:
    return DataLoader(list(X), batch_size=2, collate_fn=make)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("probe", "message"),
    [
        (["a", "b"], "items start with str; expected an image tensor"),
        ([("a", 0), ("b", 1)], "items start with str; expected an image tensor"),
        ([(np.array([None, 1], dtype=object), 0)] * 2, r"the first is \(ndarray of object and shape \(2,\), int\)"),
        ([None, None], "items hold None"),
        ([PIL, PIL], "items are PIL images"),
        ([{"image": PIL, "label": 0}] * 2, "items are PIL images"),
        ([[1, 2], [3]], r"make no batch: the first is \[int, int\], and the second \[int\]"),
        ([{"image": X[0]}, {"img": X[1]}], r"the first is {'image': float32 of shape \(3, 8, 8\)}, and the second"),
        ([(X[0].to_sparse(), 0)] * 2, r"the first is \(sparse_coo float32"),
        ([(x, torch.ones(1 + i)) for i, x in enumerate(X)], "have different shapes"),
        (DataLoader([PIL, PIL], batch_size=2, num_workers=1), "items are PIL images"),  # type: ignore[arg-type]
        (collated(lambda batch: batch), r"are lists of 2 items, the first float32 of shape \(3, 8, 8\).*to_inputs"),
        (collated(lambda batch: None), "items start with NoneType"),
    ],
)
def test_what_is_no_batch_is_said_to_be_so(probe: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        record(probe, tmp_path / "run.zarr")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("probe", "message"),
    [
        ("images/", "is the text 'images/'; expected a data set, such as torchvision's ImageFolder"),
        ({"train": X, "test": X}, "is a dict with the keys train, test; expected a data set with numbered items"),
        ((x for x in X), "is a generator without a length"),
        ({1, 2}, "is a set without a length and numbered items"),
    ],
)
def test_what_is_no_data_set_is_said_to_be_so(probe: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=message):
        record(probe, tmp_path / "run.zarr")
    with pytest.raises(TypeError, match=message.replace("the probe", "the data set")):
        fm.with_index(probe)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("probe", "shown"),
    [
        ([((x * 255).byte(), 0) for x in X], r"whose weights are float32, .* uint8 of shape \(4, 3, 8, 8\)"),
        ([(x.double(), 0) for x in X], r"whose weights are float32, .* float64 of shape \(4, 3, 8, 8\)"),
        ([(x.permute(1, 2, 0).numpy(), 0) for x in X], r"Net was called with .* float32 of shape \(4, 8, 8, 3\)"),
        ([1, 2, 3], r"int64 of shape \(3,\)"),
        ([(x[:, :2, :2], 0) for x in X], r"float32 of shape \(4, 3, 2, 2\)"),
    ],
    ids=["uint8", "float64", "channels last", "numbers", "too small"],
)
def test_what_the_model_raises_has_a_note_that_says_what_it_was_shown(probe: Any, shown: str, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError) as caught:
        record(probe, tmp_path / "run.zarr")
    (note,) = caught.value.__notes__
    assert note.endswith("or pass to_inputs, a function from a batch to (args, kwargs).")
    assert re.search(shown, note)
    assert is_expected(caught.value)
    assert one_line(caught.value).endswith(note)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_items_may_begin_with_several_indices_or_be_behind_subsets(tmp_path: Path) -> None:
    data = TensorDataset(X, torch.arange(6))
    indexed = fm.with_index(data)
    assert fm.with_index(indexed) is indexed
    expected = record(data, tmp_path / "plain.zarr")
    probes: list[Dataset[Any]] = [
        Subset(indexed, range(6)),
        fm.with_index(Subset(indexed, range(6))),
        ConcatDataset([Subset(indexed, range(3)), Subset(indexed, range(3, 6))]),
    ]
    for number, probe in enumerate(probes):
        run = record(probe, tmp_path / f"{number}.zarr")
        np.testing.assert_array_equal(run["fc"].read(epoch=0), expected["fc"].read(epoch=0))
        assert run.samples["label"].tolist() == list(range(6))
    both = record(probes[1], tmp_path / "made.zarr", to_inputs=lambda batch: ((batch[0],), {}))
    np.testing.assert_array_equal(both["fc"].read(epoch=0), expected["fc"].read(epoch=0))


def test_an_error_of_the_data_sets_own_is_left_alone(tmp_path: Path) -> None:
    class Raises(Dataset[Any]):
        def __len__(self) -> int:
            return 3

        def __getitem__(self, index: int) -> Any:
            raise RuntimeError("the disk is gone")

    with pytest.raises(RuntimeError, match=r"^the disk is gone$"):
        record(Raises(), tmp_path / "run.zarr")


def test_values_are_described() -> None:
    assert describe({"a": [1, X], "b": None}) == "{'a': [int, float32 of shape (6, 3, 8, 8)], 'b': NoneType}"
    assert describe(tuple(range(9))) == "(int, int, int, int, ...)"
