"""Data sets: classes, labels and paths of their items, and a data set whose items begin with their index."""

from collections.abc import Iterator, Mapping, Sequence, Sized
from typing import Any

import numpy as np
import numpy.typing as npt
from torch.utils.data import Dataset, IterableDataset, Subset


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
        ``index``.

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
    return Indexed(dataset)


def check_numbered(dataset: object, *, what: str) -> None:
    """Raise `TypeError` where a data set has no length or no numbered items."""
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


def classes(dataset: Any) -> tuple[str, ...]:
    """Return class names by label, where a data set has them."""
    return tuple(str(name) for name in getattr(base(dataset)[0], "classes", ()))


def paths(dataset: Any) -> list[str] | None:
    """Return the file of each item's image, where a data set is made of files."""
    whole, positions = base(dataset)
    samples = getattr(whole, "samples", None)
    if not isinstance(samples, list) or not all(isinstance(s, tuple) and isinstance(s[0], str) for s in samples):
        return None
    return [samples[i][0] for i in (range(len(samples)) if positions is None else positions)]


def labels(dataset: Any) -> npt.NDArray[np.int64]:
    """Return each item's label, ndarray of shape (n_items,); -1 where a data set does not list them.

    They are listed as ``targets`` or ``labels``, or are the second tensor of a `TensorDataset`; no item is loaded.
    """
    whole, positions = base(dataset)
    for listed in _listed(whole):
        try:
            found = np.asarray(listed)
        except (TypeError, ValueError):  # of what is no list of numbers
            continue
        if found.shape == (len(whole),) and found.dtype.kind in "iu":
            return found[slice(None) if positions is None else positions].astype(np.int64)
    return np.full(len(dataset), -1, np.int64)


def _listed(whole: Any) -> Iterator[Any]:
    yield from (getattr(whole, name) for name in ("targets", "labels") if hasattr(whole, name))
    tensors: Sequence[Any] = getattr(whole, "tensors", ())
    if len(tensors) > 1:
        yield tensors[1]


def normalization(dataset: Any) -> tuple[Any, Any] | None:
    """Find mean and standard deviation of a ``Normalize`` among a data set's transforms."""
    stages: list[Any] = [getattr(base(dataset)[0], "transform", None)]
    while stages:
        stage = stages.pop()
        if type(stage).__name__ == "Normalize" and hasattr(stage, "mean") and hasattr(stage, "std"):
            return stage.mean, stage.std
        stages.extend(getattr(stage, "transforms", None) or ())
    return None
