"""Files that are written beside: the old one or the new one, whatever happens."""

from pathlib import Path

import pytest

from fmcluster.store import write_beside


def test_the_new_file_takes_the_place_of_the_old_once_it_is_whole(tmp_path: Path) -> None:
    target = tmp_path / "table.csv"
    target.write_text("old")
    with write_beside(target) as beside:
        beside.write_text("new")
        assert beside.suffix == ".csv"
        assert target.read_text() == "old"
    assert target.read_text() == "new"
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, OSError])
def test_the_old_file_stays_where_something_fails(error: type[BaseException], tmp_path: Path) -> None:
    target = tmp_path / "table.csv"
    target.write_text("old")
    with pytest.raises(error), write_beside(target) as beside:
        beside.write_text("half of what")
        raise error
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_what_a_link_leads_to_is_replaced_and_the_link_stays(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    real, link = tmp_path / "there/table.csv", tmp_path / "link.csv"
    real.write_text("old")
    link.symlink_to(real)
    with write_beside(link) as beside:
        beside.write_text("new")
    assert link.is_symlink()
    assert real.read_text() == "new"


def test_a_name_as_long_as_the_system_takes_can_be_written(tmp_path: Path) -> None:
    target = tmp_path / ("ü" * 125 + ".txt")
    with write_beside(target) as beside:
        beside.write_text("new")
    assert target.read_text() == "new"
