"""Worker of the explorer: answers questions in the background, one at a time, and keeps the answers for a while."""

from collections import OrderedDict
from threading import Condition, Thread
from typing import Any

import pandas as pd

from ..report.content import part_to_show
from ..store import Run, open_run
from ._questions import Question

KEPT = 12


class Worker:
    """Answers questions on a run in a thread of its own.

    Of questions that wait while another is being answered, only the newest of each kind is kept: nobody looks at the
    others any more.

    Parameters
    ----------
    run : Run
        Made by `open_run`.

    Attributes
    ----------
    run : Run
        The run, as it was when it was last opened.
    shown : DataFrame
        Its snapshots at which all layers are finite: ``snapshot, epoch, step``.

    Raises
    ------
    ValueError
        Where there is none.
    """

    def __init__(self, run: Run) -> None:
        self.run = run
        self.shown = _finite(run)
        self._answers: OrderedDict[tuple[int, Question], Any] = OrderedDict()
        self._refusals: dict[tuple[int, Question], str] = {}
        self._waiting: OrderedDict[type, Question] = OrderedDict()
        self._busy: Question | None = None
        self._doing = ""
        self._changed = Condition()
        self._thread: Thread | None = None

    def ask(self, question: Question) -> None:
        """Have a question answered, unless it is already."""
        with self._changed:
            key = (len(self.run), question)
            if key in self._answers or self._busy == question:
                return
            self._refusals.pop(key, None)
            self._waiting[type(question)] = question
            if self._thread is None:
                self._thread = Thread(target=self._work, name="fmcluster explore", daemon=True)
                self._thread.start()
            self._changed.notify_all()

    def answer(self, question: Question) -> Any | None:
        """Return the answer, or None while there is none."""
        with self._changed:
            key = (len(self.run), question)
            if key in self._answers:
                self._answers.move_to_end(key)
            return self._answers.get(key)

    def refusal(self, question: Question) -> str:
        """Return why a question cannot be answered, or nothing."""
        with self._changed:
            return self._refusals.get((len(self.run), question), "")

    def doing(self) -> str:
        """Return in words what is being done, or nothing."""
        with self._changed:
            return self._doing if self._busy or self._waiting else ""

    def wait(self, question: Question, *, seconds: float) -> Any | None:
        """Return the answer once it is there; None where it takes longer, or is refused."""
        with self._changed:
            key = (len(self.run), question)
            self._changed.wait_for(lambda: key in self._answers or key in self._refusals, timeout=seconds)
            return self._answers.get(key)

    def newer(self) -> int:
        """Return how many snapshots were committed since the run was opened."""
        return len(open_run(self.run.path)) - len(self.run)

    def reopen(self) -> None:
        """Go on with all snapshots that are committed by now."""
        fresh = open_run(self.run.path)
        shown = _finite(fresh)
        with self._changed:
            self.run, self.shown = fresh, shown

    def _work(self) -> None:
        while True:
            with self._changed:
                self._busy, self._doing = None, ""
                self._changed.notify_all()
                self._changed.wait_for(lambda: self._waiting)
                _, self._busy = self._waiting.popitem()
                question, run = self._busy, self.run
                self._doing = "starting"
            key = (len(run), question)
            try:
                answer = question.answer(run, self._announce)
            except Exception as error:  # whatever it is, the page has to say it, and to go on
                with self._changed:
                    self._refusals[key] = f"{type(error).__name__}: {error}"
                continue
            with self._changed:
                self._answers[key] = answer
                while len(self._answers) > KEPT:
                    self._answers.popitem(last=False)

    def _announce(self, what: str) -> None:
        with self._changed:
            self._doing = what


def _finite(run: Run) -> pd.DataFrame:
    return run.snapshots.set_index("snapshot", drop=False).loc[part_to_show(run).snapshots].reset_index(drop=True)
