"""What lies where a run is to be written, and what the modes do to it."""

import json
import shutil
from pathlib import Path
from typing import Any, Literal

from ..errors import StoreError
from ._disk import replace_file
from ._format import KEY, VERSION
from ._metadata import root_metadata

Mode = Literal["x", "a", "w"]

UNFINISHED = root_metadata({"format": VERSION, "unfinished": True}, {})


def make_room(path: Path, *, mode: Mode) -> bool:
    """Prepare a folder for a run; return whether there is a run in it to go on with.

    Raises
    ------
    FileExistsError
        With "x", where something exists at `path`; with "w", where it is not a run.
    StoreError
        Where what is there is damaged.
    """
    if mode not in ("x", "a", "w"):
        raise ValueError(f'mode is {mode!r}; expected "x" (new), "a" (go on) or "w" (replace)')
    found = _what_is_there(path)
    if found == "other":
        raise FileExistsError(
            f"{path} exists and is not a run of this package; it is left as it is. Pass another path."
        )
    if found == "run" and mode == "x":
        raise FileExistsError(
            f'{path} already holds a run. Pass mode="a" to go on with it, mode="w" to replace it, or another path.'
        )
    if found == "unfinished" or (found == "run" and mode == "w"):
        _remove(path)
    return found == "run" and mode == "a"


def read_root(path: Path) -> dict[str, Any]:
    """Return the content of a run's `zarr.json`."""
    try:
        root: dict[str, Any] = dict(json.loads((path / "zarr.json").read_bytes()))
    except (ValueError, TypeError) as error:
        raise StoreError(
            f"{path} cannot be written: its zarr.json is damaged ({error}). Nothing was changed; "
            f"record into another path, or remove the folder."
        ) from error
    return root


def _what_is_there(path: Path) -> Literal["nothing", "unfinished", "run", "other"]:
    if not path.exists():
        return "nothing"
    if not path.is_dir():
        return "other"
    names = {child.name for child in path.iterdir()}
    if "zarr.json" not in names:
        return "unfinished" if names <= {"zarr.json.partial"} else "other"
    attributes = read_root(path).get("attributes", {})
    if KEY not in attributes:
        return "other"
    return "unfinished" if attributes[KEY].get("unfinished") else "run"


def _remove(path: Path) -> None:
    """Remove a run; if this is interrupted, what is left is still known for a run that holds nothing."""
    if (path / "zarr.json").exists():
        replace_file(path / "zarr.json", UNFINISHED)
    for child in path.iterdir():
        if child.is_dir():
            shutil.rmtree(child)
    shutil.rmtree(path)
