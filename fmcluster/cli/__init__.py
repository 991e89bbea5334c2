"""Command line: `fmcluster COMMAND --help` says what each command takes."""

import sys
from typing import Annotated

import typer

from ..errors import INTERRUPTED
from ._analyze import analyze
from ._app import app, console, errors, say, warnings_in_words
from ._compare import compare
from ._copy import copy
from ._demo import demo
from ._diagnose import diagnose
from ._estimate import estimate
from ._explore import explore
from ._export import export
from ._info import info
from ._plan import plan
from ._plot import plot
from ._report import report
from ._train import train
from ._verify import verify

for command in (
    demo,
    train,
    estimate,
    info,
    verify,
    copy,
    analyze,
    diagnose,
    plan,
    plot,
    compare,
    report,
    explore,
    export,
):
    app.command()(command)


@app.callback(invoke_without_command=True)
def _options(
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    if version:
        from importlib.metadata import version as installed_version

        typer.echo(f"fmcluster {installed_version('fmcluster')}")
        raise typer.Exit


def main() -> None:
    """Run the command line; a mistake of the caller's is one line on standard error, and exit code 2."""
    try:
        with warnings_in_words():
            app()
    except KeyboardInterrupt:
        errors.print(INTERRUPTED, style="red")
        sys.exit(130)
    except SystemExit as ended:
        if ended.code == 130 and _was_interrupted(ended):  # typer makes an exit code of it, and says nothing
            errors.print(INTERRUPTED, style="red")
        raise
    except Exception as error:
        if _was_interrupted(error):  # and what tidied up failed, for want of what was not there yet
            errors.print(INTERRUPTED, style="red")
            sys.exit(130)
        if not is_expected(error):
            raise
        say(f"error: {one_line(error)}", style="red", to=errors)
        sys.exit(2)


def _was_interrupted(error: BaseException) -> bool:
    """Whether an error came of Ctrl-C."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, KeyboardInterrupt):
        cause = cause.__cause__ or cause.__context__
    return cause is not None


def is_expected(error: Exception) -> bool:
    """Whether an error tells the caller of a mistake, rather than us of ours: the package's own modules raised it."""
    from ..errors import CALLED_WITH, CaptureError, StoreError

    if isinstance(error, CaptureError | StoreError | OSError | MemoryError | ImportError):
        return True
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    raised_here = trace is not None and str(trace.tb_frame.f_globals.get("__name__", "")).startswith("fmcluster.")
    if any(CALLED_WITH in note for note in getattr(error, "__notes__", [])):
        return True
    return raised_here and isinstance(error, ValueError | TypeError | KeyError | ImportError)


def one_line(error: Exception) -> str:
    """Return an error's message and notes without line breaks, and without the quotes that KeyError puts around it."""
    message = error.args[0] if isinstance(error, KeyError) and error.args else error
    if isinstance(error, OSError) and error.strerror and error.filename is not None:
        message = f"{error.filename2 or error.filename}: {error.strerror.lower()}"  # of a copy, where it should go
    said = [str(message) or type(error).__name__, *getattr(error, "__notes__", [])]
    return " ".join(" ".join(said).split())


__all__ = ["app", "console", "main"]
