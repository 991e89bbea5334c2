"""Tables of results: new or old, never half."""

import json
from pathlib import Path

import pandas as pd
import pytest

from fmcluster.cli._write_tables import write_tables
from tests.store.killed import kill_inside

OLD, NEW = pd.DataFrame({"a": [1, 2]}), pd.DataFrame({"a": [3, 4]})


def test_a_new_folder_and_one_that_is_there(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "out"
    write_tables(folder, {"rows": OLD}, parameters={"view": "channel"})
    (folder / "mine.txt").write_text("stays")
    write_tables(folder, {"rows": NEW, "steps": OLD})
    pd.testing.assert_frame_equal(pd.read_csv(folder / "rows.csv"), NEW)
    assert sorted(file.name for file in folder.iterdir()) == ["mine.txt", "parameters.json", "rows.csv", "steps.csv"]
    assert json.loads((folder / "parameters.json").read_text()) == {"view": "channel"}
    assert [each.name for each in folder.parent.iterdir()] == ["out"]


def test_what_a_killed_process_left_is_removed_and_nothing_of_it_is_taken_over(tmp_path: Path) -> None:
    kill_inside(tmp_path / "out", write="steps.csv")
    assert len(list(tmp_path.iterdir())) == 1
    write_tables(tmp_path / "out", {"rows": NEW})
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["rows.csv"]
    assert [each.name for each in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("exists", [False, True])
def test_a_write_that_fails_leaves_what_was_there(
    exists: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "out"
    if exists:
        write_tables(folder, {"rows": OLD, "steps": OLD})
    original, calls = pd.DataFrame.to_csv, []

    def fail(frame: pd.DataFrame, path: Path, **options: object) -> None:
        calls.append(path)
        if len(calls) == 2:
            Path(path).write_text("a\n3")
            raise OSError(28, "No space left on device")
        original(frame, path, **options)

    monkeypatch.setattr(pd.DataFrame, "to_csv", fail)
    with pytest.raises(OSError, match="No space left"):
        write_tables(folder, {"rows": NEW, "steps": NEW})
    monkeypatch.undo()
    assert folder.exists() == exists
    assert [each.name for each in tmp_path.iterdir()] == ["out"] * exists
    for name in ("rows", "steps") if exists else ():
        pd.testing.assert_frame_equal(pd.read_csv(folder / f"{name}.csv"), OLD)


def test_where_they_cannot_be_written_it_is_said_how_to_choose_another_folder(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match=r"the tables cannot be written to .*file/out: .*; .* with -o"):
        write_tables(tmp_path / "file" / "out", {"rows": OLD})
