"""Tables of results as files: a folder of CSV, in which nobody finds half of a result."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd


def write_tables(
    folder: Path, tables: "Mapping[str, pd.DataFrame]", *, parameters: Mapping[str, Any] | None = None
) -> None:
    """Write tables beside a folder, then put them into it: whatever ends this, a file in it is the old or the new one.

    Parameters
    ----------
    folder : Path
        Made where it is not there; other files in it stay.
    tables : mapping of str to DataFrame
        By name, without ``.csv``.
    parameters : mapping, optional
        What made them; goes to ``parameters.json``.

    Raises
    ------
    OSError
        Where they cannot be written.
    """
    try:
        _write(folder, tables, parameters=parameters)
    except OSError as error:
        why = error.strerror or str(error) or type(error).__name__
        raise OSError(f"the tables cannot be written to {folder}: {why}; choose another folder with -o") from error


def _write(folder: Path, tables: "Mapping[str, pd.DataFrame]", *, parameters: Mapping[str, Any] | None) -> None:
    from ..store import stage

    folder.parent.mkdir(parents=True, exist_ok=True)
    with stage(folder) as beside:
        for name, table in tables.items():
            table.to_csv(beside / f"{name}.csv", index=False)
        if parameters is not None:
            (beside / "parameters.json").write_text(json.dumps(parameters, indent=1))
        if folder.exists():
            for file in beside.iterdir():
                file.replace(folder / file.name)
        else:
            beside.replace(folder)
