"""Results beside a run, used again where what made them is the same."""

import json
import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

import numpy as np
import numpy.typing as npt
import pandas as pd

from ..store import Layer, Run, escape
from ..vectors import Vectors

Result = TypeVar("Result")

# What computes results: another version of these may give other numbers.
_VERSIONS = ("fmcluster", "numpy", "scipy", "scikit-learn", "openTSNE", "umap-learn")


@dataclass(frozen=True)
class ResultCache:
    """The results saved in a folder.

    Attributes
    ----------
    folder : Path
        ``<run>.results``, beside the run; a result is a file in it.
    """

    folder: Path

    @classmethod
    def beside(cls, run: Run) -> "ResultCache | None":
        """Return the results of a run; None where there can be none, because it is not on this machine's disk."""
        return None if "://" in run.path else cls(Path(f"{run.path.rstrip('/')}.results"))

    def use(
        self,
        make: Callable[[], Result],
        kind: type[Result],
        *,
        verb: str,
        vectors: Vectors | Sequence[Vectors],
        parameters: Mapping[str, Any],
    ) -> Result:
        """Return a result that was saved, or make it and save it.

        Parameters
        ----------
        make : callable
            Computes it.
        kind : type
            Its class: a dataclass of arrays, tables, numbers, words, and tuples of such dataclasses.
        verb : str
            What makes it, such as ``"pca"``.
        vectors : Vectors, or a sequence of them
            Of what; of several layers where there are several. The layer's statistics, the snapshots, the samples and
            the rows drawn are part of the key, and so are the versions of what computes.
        parameters : mapping
            Everything else that it depends on; values that JSON can hold.

        Returns
        -------
        object
            A result that was saved whole, under the same key. A folder that cannot be written is a warning.
        """
        if isinstance(vectors, Vectors):
            name, of = f"{escape(vectors.layer)}-{escape(vectors.view)}", [describe(vectors)]
        else:
            name, of = f"{len(vectors)}-layers", [describe(each) for each in vectors]
        key = {"verb": verb, "parameters": dict(parameters), "of": of}
        digest = sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]
        path = self.folder / f"{name}-{verb}-{digest}.npz"
        found = _load(path, kind, key)
        if found is None:
            found = make()
            _save(path, found, key)
        return found


def describe(vectors: Vectors) -> dict[str, Any]:
    """Return what identifies vectors: JSON, with digests of what is long.

    The activations themselves are known by the layer's statistics, six numbers a snapshot and channel.
    """
    source = vectors.source
    table = source.statistics if isinstance(source, Layer) else None
    return {
        "layer": vectors.layer,
        "view": vectors.view,
        "shape": list(vectors.shape),
        "snapshots": source.snapshots.set_index("snapshot").loc[list(vectors.snapshots)].reset_index().to_dict("list"),
        "samples": _digest(vectors.samples),
        "drawn": None if vectors.drawn is None else _digest(vectors.drawn),
        "scaling": vectors.scaling,
        "statistics": None if table is None else _digest(table.to_numpy(np.float64)),
        "versions": {name: version(name) for name in _VERSIONS},
    }


def _digest(values: npt.NDArray[Any]) -> str:
    return sha256(np.ascontiguousarray(values).tobytes()).hexdigest()


def _save(path: Path, result: object, key: Mapping[str, Any]) -> None:
    arrays, about = _take_apart(result)
    about["key"] = key
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with beside.open("wb") as file:
                np.savez_compressed(file, allow_pickle=False, about=np.array(json.dumps(about)), **arrays)
            beside.replace(path)
        finally:
            beside.unlink(missing_ok=True)
    except OSError as error:
        warnings.warn(f"the result is not saved in {path.parent}: {error}", stacklevel=3)


def _load(path: Path, kind: type[Result], key: Mapping[str, Any]) -> Result | None:
    """Return the result; None where there is none, or where the file is damaged and has to be made again."""
    if not path.is_file():
        return None
    try:
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        about = json.loads(str(arrays.pop("about")))
        return _put_together(kind, arrays, about) if about["key"] == json.loads(json.dumps(key)) else None
    except Exception as error:  # of a damaged file, zipfile, zlib and numpy raise whatever they like
        warnings.warn(f"{path} cannot be read ({error}); the result is computed again", stacklevel=4)
        return None


def _take_apart(result: object) -> tuple[dict[str, npt.NDArray[Any]], dict[str, Any]]:
    """Return a dataclass as arrays, and as JSON the rest of it."""
    assert is_dataclass(result)
    arrays: dict[str, npt.NDArray[Any]] = {}
    about: dict[str, Any] = {"tables": {}, "inner": {}, "several": {}, "plain": {}}
    for field in fields(result):
        value = getattr(result, field.name)
        if isinstance(value, np.ndarray):
            arrays[field.name] = value
        elif isinstance(value, pd.DataFrame):
            about["tables"][field.name] = [[str(name), str(column.dtype)] for name, column in value.items()]
            for number, (_, column) in enumerate(value.items()):
                arrays[f"{field.name}.{number}"] = _plain_column(column)
        elif isinstance(value, tuple) and value and all(map(is_dataclass, value)):
            about["several"][field.name] = []
            for number, each in enumerate(value):
                inside, described = _take_apart(each)
                arrays |= {f"{field.name}/{number}/{name}": values for name, values in inside.items()}
                about["several"][field.name].append(described)
        elif is_dataclass(value):
            about["inner"][field.name] = {inner.name: getattr(value, inner.name) for inner in fields(value)}
        else:
            about["plain"][field.name] = value
    return arrays, about


def _put_together(kind: type[Result], arrays: Mapping[str, npt.NDArray[Any]], about: Mapping[str, Any]) -> Result:
    values: dict[str, Any] = dict(about["plain"])
    hints = get_type_hints(kind)
    for name in hints:
        if name in arrays:
            values[name] = arrays[name]
        elif name in about["tables"]:
            values[name] = pd.DataFrame(
                {
                    column: pd.Series(arrays[f"{name}.{number}"]).astype(dtype)
                    for number, (column, dtype) in enumerate(about["tables"][name])
                }
            )
        elif name in about["several"]:
            item = get_args(hints[name])[0]
            values[name] = tuple(
                _put_together(item, _within(arrays, f"{name}/{number}/"), described)
                for number, described in enumerate(about["several"][name])
            )
        elif name in about["inner"]:
            values[name] = hints[name](**about["inner"][name])
        elif get_origin(hints[name]) is tuple:  # JSON knows lists only
            values[name] = tuple(values[name])
    return kind(**values)


def _within(arrays: Mapping[str, npt.NDArray[Any]], prefix: str) -> dict[str, npt.NDArray[Any]]:
    return {name.removeprefix(prefix): values for name, values in arrays.items() if name.startswith(prefix)}


def _plain_column(column: "pd.Series[Any]") -> npt.NDArray[Any]:
    """Return a column as numbers or as text, which are no pickle."""
    values = column.to_numpy()
    if values.dtype.kind in "biuf":
        return values
    if column.dtype.name.startswith("Int"):
        return column.to_numpy(dtype=np.float64, na_value=np.nan)
    return np.array([str(value) for value in values], dtype=str)
