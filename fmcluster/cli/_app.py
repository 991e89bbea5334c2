"""Application and console: progress bars, tables, and texts that all commands use."""

import re
import unicodedata
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from threading import Event, Thread
from typing import TYPE_CHECKING

import typer
from rich.console import Console
from rich.text import Text

if TYPE_CHECKING:
    import pandas as pd
    from rich.progress import Progress
    from rich.status import Status
    from rich.table import Table

app = typer.Typer(
    help="See what a ResNet learns while it is fine-tuned.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,  # plain help breaks no names at 80 columns
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _console(*, stderr: bool) -> Console:
    console = Console(stderr=stderr, markup=False)  # brackets in names are no styles
    if not console.is_terminal:
        console.width = 120  # a pipe has no width; tables should not be cut to fit one
    return console


_SECONDS_BETWEEN_LINES = 2.0
_STEERING, _KEPT = ("Cc", "Cf", "Cs", "Zl", "Zp"), "\n\t\u200c\u200d"  # Persian and emoji need the joiners

console = _console(stderr=False)
errors = _console(stderr=True)


def printable(text: str) -> str:
    r"""Return text in which no name of a run's can steer the terminal, or turn around what is read.

    Control characters, those that set the direction of writing, and halves of characters are shown as escapes.

    Examples
    --------
    >>> printable("conv\x1b[31m")
    'conv\\x1b[31m'
    """
    return "".join(
        each.encode("unicode_escape").decode()
        if unicodedata.category(each) in _STEERING and each not in _KEPT
        else each
        for each in text
    )


def say(text: str, *, style: str | None = None, to: Console | None = None) -> None:
    """Print prose, broken by the terminal alone."""
    (to or console).print(printable(text), style=style, markup=False, highlight=False, soft_wrap=True)


def say_line(text: str, *, style: str | None = None) -> None:
    """Print one line of prose: a name of a run's with a line break in it makes no second one."""
    say(text.replace("\n", "\\n"), style=style)


def say_left_out(lines: Iterable[str]) -> None:
    """Say on the error stream what is left out, as values are not finite: the lines of a `NotFinite`."""
    for line in lines:
        say(line.replace("\n", "\\n"), to=errors)


@contextmanager
def warnings_in_words() -> Iterator[None]:
    """Within the block, say each warning once, in a line on the error stream, without the code that warns."""
    said = set()

    def show(message: Warning | str, *_: object) -> None:
        text = " ".join(str(message).split())
        if text not in said:
            said.add(text)
            say(f"warning: {text}", to=errors)

    with warnings.catch_warnings():
        warnings.showwarning = show  # type: ignore[assignment]
        yield


def status(text: str) -> "Status":
    """Show what is being done, for the length of a block."""
    return console.status(Text(printable(text)))


def add_row(table: "Table", *cells: str) -> None:
    """Add a row of plain text to a table: names of a run's are no markup."""
    table.add_row(*(Text(printable(each.replace("\n", "\\n"))) for each in cells))


@contextmanager
def bars(*, in_lines: bool = False) -> Iterator["Progress"]:
    """Progress bars, for the length of a block; `in_lines`, every few seconds one, where no terminal shows bars."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        if not in_lines or console.is_terminal:
            yield progress
            return
        with _telling(progress):
            yield progress


@contextmanager
def _telling(progress: "Progress") -> Iterator[None]:
    """Say every few seconds how far the task has come that was begun last."""
    done = Event()

    def tell() -> None:
        while not done.wait(_SECONDS_BETWEEN_LINES):
            if progress.tasks:
                task = progress.tasks[-1]
                far = "" if task.total is None else f": {task.completed:.0f} of {task.total:.0f}"
                say_line(f"  {task.description}{far}")

    thread = Thread(target=tell, name="fmcluster-progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def number_of_bytes(text: str) -> int:
    """Read a number of bytes, such as 500MB.

    Examples
    --------
    >>> number_of_bytes("1.5 GB")
    1500000000
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kMGT]?)B?\s*", text)
    if match is None:
        raise typer.BadParameter(f"{text!r} is not a number of bytes; expected one such as 500MB or 20GB")
    return int(float(match[1]) * {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}[match[2]])


def cell(value: object) -> str:
    """Write a value for a table."""
    if isinstance(value, float):
        return "–" if value != value else f"{value:.4g}"
    return str(value)


def when(epoch: int, step: int) -> str:
    """Name a snapshot for people."""
    return f"epoch {epoch}, step {step}"


@contextmanager
def step_progress(what: str, *, in_lines: bool = False) -> Iterator[Callable[[str, int, int], None]]:
    """Draw how far something has come, as it tells with its step, how many are done and how many there are."""
    with bars(in_lines=in_lines) as progress:
        task = progress.add_task(what, total=None)
        yield lambda what, done, total: progress.update(task, description=printable(what), completed=done, total=total)


def new_table(title: str) -> "Table":
    """Return a table that has a title and nothing else yet."""
    from rich.table import Table

    return Table(title=title, title_justify="left")


def frame_table(title: str, frame: "pd.DataFrame") -> "Table":
    """Return a table of text with the rows and columns of a data frame."""
    table = new_table(title)
    for name in frame.columns:
        table.add_column(Text(printable(str(name))), justify="right", no_wrap=True)
    for row in frame.itertuples(index=False):
        add_row(table, *map(cell, row))
    return table
