"""New folders: gone again where what is written into them fails, but for what was there."""

from pathlib import Path

import pytest

from fmcluster.export._new_folder import new_folder


def test_what_was_made_goes_where_the_block_fails_and_stays_where_it_does_not(tmp_path: Path) -> None:
    folder = tmp_path / "logs" / "run"
    with pytest.raises(ZeroDivisionError), new_folder(folder):
        assert folder.is_dir()
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []
    with new_folder(folder):
        pass
    assert folder.is_dir()
    with pytest.raises(ZeroDivisionError), new_folder(folder / "deeper"):
        (folder / "deeper" / "of another").touch()
        raise ZeroDivisionError
    assert [each.name for each in folder.rglob("*")] == ["deeper", "of another"]
