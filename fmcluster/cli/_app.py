"""The application and its console: progress bars, tables, and words that all commands use."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

if TYPE_CHECKING:
    import pandas as pd

app = typer.Typer(
    help="See what a ResNet learns while it is fine-tuned.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,  # plain help breaks no names at 80 columns
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _console(*, stderr: bool) -> Console:
    console = Console(stderr=stderr)
    if not console.is_terminal:
        console.width = 120  # a pipe has no width; tables should not be cut to fit one
    return console


console = _console(stderr=False)
errors = _console(stderr=True)


def say(text: str, *, style: str | None = None) -> None:
    """Print prose: as it is, broken by the terminal alone."""
    console.print(text, style=style, markup=False, highlight=False, soft_wrap=True)


@contextmanager
def bars() -> Iterator[Progress]:
    """Progress bars, for the length of a block."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        yield progress


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
def report_progress() -> Iterator[Callable[[str, int, int], None]]:
    """Draw how far a report has come."""
    with bars() as progress:
        task = progress.add_task("report")
        yield lambda what, done, total: progress.update(task, description=what, completed=done, total=total)


def frame_table(title: str, frame: "pd.DataFrame") -> Table:
    """Return a table of text with the rows and columns of a data frame."""
    table = Table(title=title, title_justify="left")
    for name in frame.columns:
        table.add_column(str(name), justify="right", no_wrap=True)
    for row in frame.itertuples(index=False):
        table.add_row(*map(cell, row))
    return table
