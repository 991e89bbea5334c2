"""Class names as they are shown: one short line, whatever a data set calls its classes."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fmcluster.plot.drawing import class_title, list_classes


@pytest.mark.slow
@given(st.text(max_size=400) | st.text(st.characters(categories=["Cc", "Cf", "Zl", "Zp", "Cs"]), max_size=60))
def test_any_name_is_one_line_of_forty_characters_that_runs_on_as_it_is_written(name: str) -> None:
    shown = class_title(name)
    assert len(shown) <= 40
    assert shown == shown.strip()
    shown.encode("utf-8")
    for each in shown:
        assert unicodedata.category(each) not in ("Cc", "Zl", "Zp", "Cs")
        assert unicodedata.bidirectional(each) not in ("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI")


@pytest.mark.parametrize("name", ["bees", "Größe 3", "犬", "n01440764", "a-b_c (d)", "👩\u200d🔬"])
def test_a_usual_name_stays_as_it_is(name: str) -> None:
    assert class_title(name) == name


def test_a_name_that_looks_like_another_is_shown_as_it_was_written() -> None:
    assert class_title("cat \u202egnp.exe") == "cat gnp.exe"


def test_of_many_classes_the_first_are_listed() -> None:
    assert list_classes([]) == ""
    assert list_classes(["a", "b\nc"]) == "a, b c"
    assert list_classes(["x" * 300] * 30).count("…") == 24
    assert list_classes(["x"] * 30).endswith("x and 6 more")
    assert list_classes(["x"] * 24).endswith("x, x")
