"""What `write_report` returns: a path in every respect, and in a notebook the page."""

import html
import os
import re
from pathlib import Path

from fmcluster.report._written_page import WrittenPage
from tests.report.small_report import Written


def test_it_is_a_path_in_every_respect(written: Written) -> None:
    assert isinstance(written.path, Path)
    assert os.fspath(written.path) == str(Path(str(written.path)))
    assert written.path == Path(str(written.path))
    assert written.path.parent.is_dir()
    assert written.path.read_bytes()[:15] == b"<!DOCTYPE html>"


def test_a_notebook_shows_the_page_itself(written: Written) -> None:
    shown = written.path._repr_html_()
    inside = re.fullmatch(r'<iframe [^>]*?srcdoc="([^"]*)"[^>]*></iframe>', shown)
    assert html.unescape(inside[1]) == written.path.read_text(encoding="utf-8")


def test_what_is_no_page_shows_itself_as_a_path(written: Written, tmp_path: Path) -> None:
    assert written.path.parent._repr_html_() is None
    assert WrittenPage(tmp_path / "none.html")._repr_html_() is None
