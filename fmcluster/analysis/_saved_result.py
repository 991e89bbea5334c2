"""Saved result: a file of arrays and JSON, of which nothing is believed but what fits the class that it is read as."""

import json
import re
import zipfile
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from hashlib import sha256
from pathlib import Path
from types import UnionType
from typing import IO, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import numpy as np
import numpy.typing as npt
import pandas as pd

from ..store import write_beside
from ._results import MAX_BYTES

Result = TypeVar("Result")
Arrays = dict[str, npt.NDArray[Any]]

_NUMBERS = re.compile(r"bool|u?int(8|16|32|64)|float(16|32|64)")
_TEXT = ("object", "str", "string")  # what pandas calls a column of words, by its version


def write_result(path: Path, result: object, *, key: Mapping[str, Any]) -> None:
    """Write a dataclass of arrays, tables, numbers, words, and of such dataclasses or tuples of them, whole.

    Raises
    ------
    OSError
        Where it cannot be written.
    ValueError
        Where it takes more memory than is read back.
    """
    arrays, about = _take_apart(result)
    about["key"] = key
    about["digest"] = digest_of(arrays, about)
    if (size := sum(values.nbytes for values in arrays.values())) > MAX_BYTES:
        raise ValueError(f"it takes {size >> 20:,} MiB, and at most {MAX_BYTES >> 20:,} are read back")
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_symlink():  # which write_beside would follow
        path.unlink()
    with write_beside(path) as beside, beside.open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, about=np.array(json.dumps(about)), **arrays)


def read_result(file: Path | IO[bytes], kind: type[Result], *, key: Mapping[str, Any]) -> Result | None:
    """Return what was written, by its class; None where it was written under another key.

    Raises
    ------
    Exception
        Of any kind, where the file is not whole, or does not hold the fields of the class in their types.
    """
    arrays = _read_arrays(file)
    about = json.loads(str(arrays.pop("about")))
    if about["key"] != json.loads(json.dumps(key)):
        return None
    if about.pop("digest") != digest_of(arrays, about):
        raise ValueError("it is not what was written: its SHA-256 differs")
    found = _put_together(kind, arrays, about)
    if arrays:
        raise ValueError(f"it holds {min(arrays)!r}, which is nothing of {kind.__name__}")
    return found


def _read_arrays(file: Path | IO[bytes]) -> Arrays:
    """Return the arrays of a file; it is known before how much memory they take, and no pickle is read."""
    with zipfile.ZipFile(file) as archive:
        members = archive.infolist()
        if (size := sum(member.file_size for member in members)) > MAX_BYTES:
            raise ValueError(f"it says that it takes {size >> 20:,} MiB")
        arrays: Arrays = {}
        for member in members:
            with archive.open(member) as array:
                arrays[member.filename.removesuffix(".npy")] = np.lib.format.read_array(array, allow_pickle=False)
    if len(arrays) < len(members):
        raise ValueError("it holds two arrays of one name")
    return arrays


def digest_of(arrays: Arrays, about: Mapping[str, Any]) -> str:
    """Return the SHA-256 of a result: a file that was changed and not sealed again is not believed."""
    found = sha256(json.dumps(about, sort_keys=True).encode())
    for name, values in sorted(arrays.items()):
        found.update(f"{name} {values.dtype.str} {values.shape}".encode())
        found.update(np.ascontiguousarray(values).tobytes())
    return found.hexdigest()


def _take_apart(result: object) -> tuple[Arrays, dict[str, Any]]:
    """Return a dataclass as arrays, and as JSON the rest of it."""
    assert is_dataclass(result)
    arrays: Arrays = {}
    about: dict[str, Any] = {"tables": {}, "inner": {}, "several": {}, "plain": {}}
    for field in fields(result):
        value = getattr(result, field.name)
        if isinstance(value, np.ndarray):
            arrays[field.name] = value
        elif isinstance(value, pd.DataFrame):
            about["tables"][field.name] = [[str(name), str(column.dtype)] for name, column in value.items()]
            for number, (_, column) in enumerate(value.items()):
                arrays[f"{field.name}.{number}"] = _plain_column(column)
        elif isinstance(value, tuple) and all(map(is_dataclass, value)):
            about["several"][field.name] = []
            for number, each in enumerate(value):
                inside, described = _take_apart(each)
                arrays |= {f"{field.name}/{number}/{name}": values for name, values in inside.items()}
                about["several"][field.name].append(described)
        elif is_dataclass(value):
            inside, about["inner"][field.name] = _take_apart(value)
            arrays |= {f"{field.name}/{name}": values for name, values in inside.items()}
        else:
            about["plain"][field.name] = value
    return arrays, about


def _put_together(kind: type[Result], arrays: Arrays, about: Mapping[str, Any], *, within: str = "") -> Result:
    """Return a dataclass, whose arrays are taken out of `arrays`; each field has to be of its type."""
    assert is_dataclass(kind)
    hints = get_type_hints(kind)
    names = [field.name for field in fields(kind)]
    parts = [about[part] for part in ("tables", "inner", "several", "plain")]
    said = [name for part in parts for name in part]
    _require(all(isinstance(part, dict) for part in parts), "it does not say what its fields are")
    _require(set(said) <= set(names) and len(set(said)) == len(said), f"it says what {', '.join(said)} are")
    values: dict[str, Any] = {}
    for name in names:
        hint = hints[name]
        if name in about["tables"] and hint is pd.DataFrame:
            values[name] = _table(about["tables"][name], arrays, name=f"{within}{name}")
        elif name in about["several"] and get_origin(hint) is tuple:
            values[name] = tuple(
                _put_together(get_args(hint)[0], arrays, described, within=f"{within}{name}/{number}/")
                for number, described in enumerate(about["several"][name])
            )
        elif name in about["inner"] and (inner := _dataclass_in(hint)):
            values[name] = _put_together(inner, arrays, about["inner"][name], within=f"{within}{name}/")
        elif name in about["plain"]:
            values[name] = about["plain"][name]
            _require(_is_a(values[name], hint), f"{within}{name} is {values[name]!r}")
        else:
            values[name] = arrays.pop(f"{within}{name}")
            expected = next(each for each in _alternatives(hint) if get_origin(each) is np.ndarray)
            dtype = np.dtype(get_args(get_args(expected)[1])[0])
            _require(values[name].dtype == dtype, f"{within}{name} is of {values[name].dtype}, not {dtype}")
    return kind(**values)


def _table(described: list[list[str]], arrays: Arrays, *, name: str) -> pd.DataFrame:
    columns = {
        column: _column(arrays.pop(f"{name}.{number}"), dtype) for number, (column, dtype) in enumerate(described)
    }
    _require(len(columns) == len(described), f"{name} has two columns of one name")
    _require(len({len(column) for column in columns.values()}) <= 1, f"{name} has columns of several lengths")
    return pd.DataFrame(columns)


def _column(values: npt.NDArray[Any], dtype: str) -> "pd.Series[Any]":
    """Return a column of a table as what it is said to be, if that is what was stored of it."""
    _require(values.ndim == 1, f"a column has {values.ndim} axes")
    if dtype in _TEXT:
        _require(values.dtype.kind == "U", f"a column of words is of {values.dtype}")
    elif dtype == "Int64":
        _require(values.dtype == np.float64, f"a column of numbers, some of which are missing, is of {values.dtype}")
    else:
        _require(_NUMBERS.fullmatch(dtype) is not None and values.dtype == np.dtype(dtype), f"a column is of {dtype}")
    return pd.Series(values).astype(dtype)  # type: ignore[call-overload, no-any-return]


def _is_a(value: object, hint: Any) -> bool:
    """Whether a value from JSON is of a type: of those that JSON has, Literals, and alternatives of them."""
    for each in _alternatives(hint):
        if get_origin(each) is Literal:
            if isinstance(value, str) and value in get_args(each):
                return True
        elif type(value) is each or (each is float and type(value) is int):
            return True
    return False


def _dataclass_in(hint: Any) -> type | None:
    """Return the dataclass that a value of this type is, where it may be one."""
    return next((each for each in _alternatives(hint) if isinstance(each, type) and is_dataclass(each)), None)


def _alternatives(hint: Any) -> tuple[Any, ...]:
    return get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)


def _plain_column(column: "pd.Series[Any]") -> npt.NDArray[Any]:
    """Return a column as numbers or as text, which are no pickle."""
    if column.dtype.name.startswith("Int"):  # where nothing is missing, too: so it is read
        return column.to_numpy(dtype=np.float64, na_value=np.nan)
    values = column.to_numpy()
    if values.dtype.kind in "biuf":
        return values
    return np.array([str(value) for value in values], dtype=str)


def _require(fits: bool, otherwise: str) -> None:
    if not fits:
        raise ValueError(otherwise)
