"""What is said while something takes long: in lines where no terminal draws it, and only by commands that want it."""

from threading import Event
from threading import enumerate as threads
from typing import Any

import pytest

from fmcluster.cli import _app
from fmcluster.cli._app import bars, step_progress


class Said(list[str]):
    """Lines, of which one can wait for the next."""

    def __init__(self) -> None:
        super().__init__()
        self.more = Event()

    def __call__(self, text: str, **_: Any) -> None:
        self.append(text)
        self.more.set()


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> Said:
    lines = Said()
    monkeypatch.setattr(_app, "_SECONDS_BETWEEN_LINES", 0.001)
    monkeypatch.setattr(_app, "say_line", lines)
    return lines


def wait_for(said: Said) -> str:
    said.clear()
    for _ in range(2):  # the first may have been begun before
        said.more.clear()
        assert said.more.wait(30)
    return said[-1]


def test_how_far_it_is_comes_in_lines_where_there_is_no_terminal(said: Said) -> None:
    with step_progress("report", in_lines=True) as on_stage:
        assert wait_for(said) == "  report"
        on_stage("layer1: embed", 3, 20)
        assert wait_for(said) == "  layer1: embed: 3 of 20"
    assert "fmcluster-progress" not in [thread.name for thread in threads()]


def test_the_task_that_was_begun_last_is_told(said: Said) -> None:
    with bars(in_lines=True) as progress:
        progress.add_task("pretraining", total=58, completed=58)
        progress.add_task("fine-tuning", total=78)
        assert wait_for(said) == "  fine-tuning: 0 of 78"


def test_other_commands_say_nothing_in_between(said: Said) -> None:
    with step_progress("report") as on_stage:
        on_stage("layer1: embed", 3, 20)
        assert "fmcluster-progress" not in [thread.name for thread in threads()]
    assert said == []


def test_a_terminal_draws_it(said: Said, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_app.console, "_force_terminal", True)
    with bars(in_lines=True):
        assert "fmcluster-progress" not in [thread.name for thread in threads()]
