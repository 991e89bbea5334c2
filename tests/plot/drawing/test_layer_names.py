"""Layers of any name in pictures: one short line, and nothing that is cut off."""

import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text

from fmcluster.plot.drawing import layer_rows, layer_text, new_figure
from fmcluster.plot.drawing._layer_names import LONGEST

NAMES = ["conv1", "a" * 300, "backbone." + "stage_with_a_long_name." * 9 + "conv", "two\nlines\u202e", "層" * 90]


@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_one_short_line(name: str) -> None:
    text = layer_text(name)
    assert text.isprintable()
    assert len(text) <= LONGEST
    assert text[0] == name[0]
    assert layer_text(text) == text


def test_layers_that_differ_at_an_end_are_told_apart() -> None:
    middle = ".block" * 40
    assert len({layer_text(f"{first}{middle}{last}") for first in "ab" for last in "cd"}) == 4


def outside(figure: Figure) -> list[str]:
    """Return the texts that are not wholly on a figure."""
    figure.draw_without_rendering()
    box = figure.bbox
    texts = [text for text in figure.findobj(Text) if text.get_text() and text.get_visible()]
    drawn = [(text.get_text(), text.get_window_extent()) for text in texts]
    return [text for text, at in drawn if at.x0 < box.x0 or at.x1 > box.x1 or at.y0 < box.y0 or at.y1 > box.y1]


def test_names_beside_rows_are_on_the_figure() -> None:
    names = [f"{'stage_with_a_long_name.' * 9}{number}" for number in range(5)]
    figure = new_figure(width=8, height=4)
    figure.set_layout_engine("constrained")
    layer_rows(figure.subplots(), names, width=4, foot=1)
    assert outside(figure) == []
