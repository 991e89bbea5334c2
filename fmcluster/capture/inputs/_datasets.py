"""Data sets: classes, labels and paths of their items, and a data set whose items begin with their index."""

import warnings
from collections.abc import Iterable, Iterator, Mapping, Sized
from contextlib import suppress
from enum import Enum
from operator import index
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.utils.data import ConcatDataset, Dataset, IterableDataset, StackDataset, Subset

from ._text_labels import as_texts, numbered

INPUTS = ("pixel_values", "image", "images", "img", "input", "inputs", "x")  # keys of an item that is a mapping
_MOST_CLASSES = 1_000_000  # labels beyond are numbers of something else
LABELS = ("label", "labels", "fine_label", "target", "targets", "y")


class Indexed(Dataset[Any]):
    """A data set whose items begin with their index. Made by `with_index`."""

    def __init__(self, dataset: Dataset[Any]) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)  # type: ignore[arg-type]

    def __getitem__(self, index: int) -> Any:
        item = self.dataset[index]
        if isinstance(item, Mapping):
            if "index" in item:
                raise ValueError(
                    f"item {index} has a key 'index' already, which is where its index in the data set goes; "
                    f"rename that column"
                )
            return {"index": index, **item}
        return (index, *item) if isinstance(item, tuple | list) else (index, item)


def with_index(dataset: Dataset[Any]) -> Indexed:
    """Let a data set's items begin with their index, for `BatchRecorder.batch`.

    Parameters
    ----------
    dataset : Dataset
        Any with a length and numbered items.

    Returns
    -------
    Dataset
        Its items are (index, image, label) where those of `dataset` are (image, label); a mapping gets the key
        ``index``. A data set that `with_index` made is returned as it is.

    Raises
    ------
    TypeError
        For a data set without length or numbered items.

    Examples
    --------
    >>> with_index([("ant", 0), ("bee", 1)])[1]
    (1, 'bee', 1)
    """
    check_numbered(dataset, what="the data set")
    return dataset if isinstance(dataset, Indexed) else Indexed(dataset)


def check_numbered(dataset: object, *, what: str) -> None:
    """Raise `TypeError` where a data set has no length or no numbered items."""
    if isinstance(dataset, str | bytes):
        raise TypeError(
            f"{what} is the text {dataset!r}; expected a data set, such as torchvision's ImageFolder(path, transform) "
            f"makes of a folder"
        )
    if isinstance(dataset, Mapping) and dataset and 0 not in dataset:
        raise TypeError(
            f"{what} is a {type(dataset).__name__} with the keys {', '.join(map(str, list(dataset)[:5]))}; expected a "
            f"data set with numbered items, such as one of its values"
        )
    if isinstance(dataset, IterableDataset) or not isinstance(dataset, Sized) or not hasattr(dataset, "__getitem__"):
        raise TypeError(
            f"{what} is a {type(dataset).__name__} without a length and numbered items; expected a map-style data set, "
            f"so that its items can be told apart"
        )


def base(dataset: Any) -> tuple[Any, list[int] | None]:
    """Look through `Subset`s and `Indexed`: the data set under them, and which of its items are meant."""
    positions: list[int] | None = None
    while isinstance(dataset, Subset | Indexed):
        if isinstance(dataset, Subset):
            indices = [int(i) for i in dataset.indices]
            positions = indices if positions is None else [indices[i] for i in positions]
        dataset = dataset.dataset
    return dataset, positions


def n_indices(dataset: Any) -> int:
    """Return how many indices a data set's items begin with, also under `Subset`s."""
    count = 0
    while isinstance(dataset, Subset | Indexed | ConcatDataset):
        count += isinstance(dataset, Indexed)
        dataset = dataset.datasets[0] if isinstance(dataset, ConcatDataset) else dataset.dataset
    return count


def classes(dataset: Any) -> tuple[str, ...]:
    """Return class names by label, where a data set has them.

    A data set that numbers its classes itself (``class_to_idx``, or ``classes`` that maps names to labels) is believed;
    what it does not name is ``""``. Where labels pass a ``target_transform``, their names are not known: all are
    ``""``.
    """
    whole, _ = base(dataset)
    if isinstance(whole, ConcatDataset):
        named = {classes(part) for part in whole.datasets}
        return named.pop() if len(named) == 1 else ()
    if _attribute(whole, "target_transform") is not None:
        return ("",)
    listed = _attribute(whole, "classes")
    numbered = _attribute(whole, "class_to_idx")
    if isinstance(numbered, Mapping) and any(_as_label(label) is not None for label in numbered.values()):
        return _by_label((label, name) for name, label in numbered.items())
    if isinstance(listed, Mapping):  # of names to labels, or of labels to names
        listed = {int(key) if isinstance(key, str) and key.isdecimal() else key: name for key, name in listed.items()}
        by_label = all(_as_label(key) is not None for key in listed)
        return _by_label(listed.items() if by_label else ((label, name) for name, label in listed.items()))
    features = _attribute(whole, "features")  # of a Hugging Face data set
    if listed is None and isinstance(features, Mapping):
        listed = next((features[key].names for key in LABELS if hasattr(features.get(key), "names")), None)
    if isinstance(listed, str | set | frozenset | Iterator) or not isinstance(listed, Iterable):  # a set has no order
        return ()
    return tuple(_class_name(name) for name in listed)


def listed_classes(dataset: Any) -> tuple[str, ...]:
    """Return class names by what `labels` returns: where these are text, it numbers them."""
    whole, _ = base(dataset)
    texts = _texts(whole)
    if texts is None:
        return fitting_names(classes(whole), labels(dataset))
    return numbered(texts, classes=classes(whole))[1]


def fitting_names(names: tuple[str, ...], labels: npt.NDArray[np.int64]) -> tuple[str, ...]:
    """Return names of classes; none, with a warning, where labels count from 1 and there is no telling of which.

    Examples
    --------
    >>> fitting_names(("ant", "bee"), np.array([1, 0, -1]))
    ('ant', 'bee')
    """
    known = labels[labels >= 0]
    if not (names and known.size and known.min() > 0 and known.max() == len(names)):
        return names
    warnings.warn(
        f"the labels are from {known.min()} to {known.max()}, and the data set names {len(names)} classes, which would "
        f"be those of 0 to {len(names) - 1}: no names are stored. Say which label each has by the data set's "
        f"class_to_idx, a mapping of names to labels",
        stacklevel=4,
    )
    return ("",)


def _by_label(pairs: Iterable[tuple[Any, Any]]) -> tuple[str, ...]:
    """Return names by label; those of two names joined; of labels below 0 and beyond `_MOST_CLASSES` none."""
    named: dict[int, str] = {}
    for label, name in pairs:
        number = _as_label(label)
        if number is not None and 0 <= number < _MOST_CLASSES:
            named[number] = f"{named[number]}, {_class_name(name)}" if number in named else _class_name(name)
    return tuple(named.get(label, "") for label in range(max(named, default=-1) + 1))


def _as_label(value: Any) -> int | None:
    if isinstance(value, float) and value.is_integer():
        return int(value)
    try:
        return None if isinstance(value, bool) else index(value)
    except TypeError:
        return None


def _class_name(name: Any) -> str:
    """Return a class's name; of several synonyms, as ImageNet has them, all."""
    if name is None:
        return ""
    if isinstance(name, bytes):
        return name.decode(errors="backslashreplace")
    if isinstance(name, Enum):
        return name.name
    return _readable(", ".join(map(str, name)) if isinstance(name, tuple | list) else str(name))


def _attribute(dataset: Any, name: str) -> Any:
    """Return an attribute; None where there is none, or where it is a property that has nothing to say yet."""
    try:
        return getattr(dataset, name, None)
    except Exception:  # a property of somebody else's raises whatever it likes, such as before a download
        return None


def paths(dataset: Any) -> list[str] | None:
    """Return the file of each item's image, where a data set is made of files, one an item.

    Bytes of a name that are not UTF-8 are written as escapes, such as ``\\xe9``.
    """
    whole, positions = base(dataset)
    if isinstance(whole, ConcatDataset):
        parts = [paths(part) for part in whole.datasets]
        if any(part is None for part in parts):
            return None
        files = [file for part in parts if part is not None for file in part]
        return files if positions is None else [files[i] for i in positions]
    samples = _attribute(whole, "samples")
    if not isinstance(samples, list) or len(samples) != len(whole):
        return None
    if not all(isinstance(s, tuple) and s and isinstance(s[0], str) for s in samples):
        return None
    return [_readable(samples[i][0]) for i in (range(len(samples)) if positions is None else positions)]


def labels(dataset: Any) -> npt.NDArray[np.int64]:
    """Return each item's label, ndarray of shape (n_items,); -1 where a data set does not list them.

    They are listed as ``targets`` or ``labels`` (and pass the data set's ``target_transform``, where it has one), are
    the second tensor of a `TensorDataset`, the column ``label`` or ``labels`` of a table, or the second entries of a
    list; no item is loaded. Of text, each is the number of its class.
    """
    whole, positions = base(dataset)
    part = slice(None) if positions is None else positions
    if (texts := _texts(whole)) is not None:
        return numbered(texts, classes=classes(whole))[0][part]
    if isinstance(whole, ConcatDataset):
        return np.concatenate([labels(each) for each in whole.datasets])[part]
    for listed in _listed(whole):
        found = as_labels(listed, count=len(whole))
        if found is not None:
            return found[part]
    return np.full(len(dataset), -1, np.int64)


def sample_tables(dataset: Any) -> dict[str, npt.NDArray[Any]]:
    """Return what a run keeps of a data set: arrays of a row per item, by name."""
    tables: dict[str, npt.NDArray[Any]] = {"sample": np.arange(len(dataset)), "label": labels(dataset)}
    if (found := paths(dataset)) is not None:
        tables["path"] = np.array(found)
    return tables


def as_labels(listed: Any, *, count: int) -> npt.NDArray[np.int64] | None:
    """Return labels of so many samples as integers, ndarray of shape (count,); None where they are none.

    Columns of shape (count, 1) or (count, 1, 1), whole numbers in floating point, and one-hot rows are labels, too.

    Examples
    --------
    >>> as_labels([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0]], count=2)
    array([1, 0])
    """
    try:
        if isinstance(listed, torch.Tensor):  # NumPy has no bfloat16
            listed = listed.detach().cpu()
            listed = listed.double() if listed.is_floating_point() else listed
        found = np.asarray(listed)
    except (TypeError, ValueError):  # of what is no list of numbers
        return None
    if found.shape[:1] == (count,) and found.size == count:
        found = found.reshape(count)
    if found.ndim == 2 and len(found) == count and found.dtype.kind in "iufb":
        one_hot = ((found == 0) | (found == 1)).all() and (found.sum(axis=1) == 1).all()
        return found.argmax(axis=1).astype(np.int64) if one_hot else None
    if found.shape != (count,) or found.dtype.kind not in "iufb":
        return None
    if found.dtype.kind == "f" and not (np.isfinite(found).all() and (found == np.round(found)).all()):
        return None
    return found.astype(np.int64)


def of_each_sample(targets: Any, *, count: int) -> Any:
    """Return a batch's targets sample by sample, where a loader put lists together: it gives a list of columns.

    Of targets that are a mapping, those under ``label``, or a name like it; a detector's are none.

    Examples
    --------
    >>> of_each_sample([torch.tensor([1, 0]), torch.tensor([0, 1])], count=2).tolist()
    [[1, 0], [0, 1]]
    >>> of_each_sample([("ant", "bee")], count=2)
    ('ant', 'bee')
    """
    if isinstance(targets, Mapping):
        return None if "boxes" in targets else next((targets[key] for key in LABELS if key in targets), None)
    if not isinstance(targets, list | tuple) or not targets:
        return targets
    if all(isinstance(each, torch.Tensor) and each.shape == (count,) for each in targets):
        return torch.stack(list(targets), dim=1)
    one = targets[0]
    is_text = isinstance(one, list | tuple) and len(one) == count and all(isinstance(each, str) for each in one)
    return one if len(targets) == 1 and is_text else targets


def unusable_labels(dataset: Any) -> Any:
    """Return what a data set lists for labels where nothing that it lists is one class for each; else None."""
    whole, _ = base(dataset)
    if isinstance(whole, ConcatDataset):
        return next((found for part in whole.datasets if (found := unusable_labels(part)) is not None), None)
    listed = list(_listed(whole)) if _texts(whole) is None else []
    if any(as_labels(each, count=len(whole)) is not None for each in listed):
        return None
    return next(iter(listed), None)


def _texts(whole: Any) -> tuple[str, ...] | None:
    """Return the labels of all items, where a data set lists them, and they are text."""
    if isinstance(whole, ConcatDataset):
        of_all: list[str] = []
        for part in whole.datasets:
            under, positions = base(part)
            if (of_part := _texts(under)) is None:
                return None
            of_all += of_part if positions is None else [of_part[i] for i in positions]
        return tuple(of_all)
    found = (as_texts(listed, count=len(whole)) for listed in _listed(whole))
    return next((texts for texts in found if texts), None)


def _readable(path: str) -> str:
    """Return a path as text that every program can store: bytes that are not UTF-8 as escapes."""
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _listed(whole: Any) -> Iterator[Any]:
    change = _attribute(whole, "target_transform")
    for name in ("targets", "labels", "_labels"):  # the last of torchvision's, such as Flowers102
        listed = _attribute(whole, name)
        if listed is not None and not callable(listed):
            yield listed if change is None else [change(label) for label in listed]
    parts = whole.datasets if isinstance(whole, StackDataset) else _attribute(whole, "tensors")
    if isinstance(parts, Mapping):
        yield from (parts[key] for key in LABELS if key in parts)
    elif isinstance(parts, tuple | list) and len(parts) > 1:
        yield parts[1]
    columns = _attribute(whole, "column_names")  # of a Hugging Face data set
    if isinstance(columns, list):
        for key in LABELS:
            with suppress(LookupError, TypeError, ValueError):  # of a data set with other columns than one may ask for
                if key in columns:
                    yield whole[key]
    for name in ("samples", "_samples", "imgs"):  # of files and their labels, as torchvision's folders have them
        pairs = _attribute(whole, name)
        if isinstance(pairs, list) and len(pairs) == len(whole) and all(map(_is_labeled, pairs)):
            yield [label if change is None else change(label) for _, label in pairs]
    if isinstance(whole, list) and all(isinstance(item, tuple | list) and len(item) > 1 for item in whole):
        yield [item[1] for item in whole]


def _is_labeled(pair: Any) -> bool:
    return isinstance(pair, tuple) and len(pair) == 2 and _as_label(pair[1]) is not None


def normalizations(dataset: Any) -> list[tuple[Any, Any]]:
    """Find mean and standard deviation of each ``Normalize`` among a data set's transforms, the last first."""
    whole, _ = base(dataset)
    while isinstance(whole, ConcatDataset):
        whole, _ = base(whole.datasets[0])
    found = []
    stages: list[Any] = [_attribute(whole, "transform")]
    seen: list[Any] = []  # one may hold itself
    while stages:
        stage = stages.pop()
        if any(stage is each for each in seen):
            continue
        seen.append(stage)
        kind = type(stage)  # torchvision's weights come with transforms that normalize at their end
        is_one = kind.__name__ == "Normalize" or kind.__module__ == "torchvision.transforms._presets"
        if is_one and hasattr(stage, "mean") and hasattr(stage, "std"):
            found.append((stage.mean, stage.std))
        inner = stage if isinstance(stage, nn.Sequential | list | tuple) else _attribute(stage, "transforms")
        stages.extend(inner if isinstance(inner, Iterable) and not isinstance(inner, str) else ())
    return found
