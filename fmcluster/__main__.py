"""Command `fmcluster`: where it starts, with exit code 130 wherever it is interrupted, also while it loads."""

import atexit
import os
import signal
import sys
from contextlib import suppress
from typing import NoReturn

from .errors import INTERRUPTED

_CODE = 130


def main() -> None:
    """Load the command line, and run it."""
    try:
        from .cli import main as run

        run()
    except KeyboardInterrupt:  # it was loading still, so that nobody has said anything
        _leave(INTERRUPTED)
    except SystemExit as ended:
        if ended.code != _CODE:
            raise
        _leave()


def _leave(said: str = "") -> NoReturn:
    """End here, after what is to be done at the end of every process; say so on standard error, where nothing has.

    Python itself ends by the signal, and not with the exit code, where Ctrl-C came while it ran the text of a class, as
    that of every dataclass; and taking apart all modules would take a second or two.
    """
    with suppress(ValueError):  # of a thread that is not the main one
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    if said:
        with suppress(OSError, ValueError):  # closed, or nobody reads it
            sys.stderr.write(f"{said}\n")
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(_CODE)


if __name__ == "__main__":
    main()
