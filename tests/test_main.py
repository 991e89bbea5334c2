"""The command as a module, and interrupted while it loads."""

import subprocess
import sys

import pytest

SAID = "interrupted; whole snapshots and earlier files are kept"

INTERRUPTED = """
import sys
from importlib.abc import MetaPathFinder


class Interrupt(MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == "fmcluster.cli":
            raise KeyboardInterrupt


sys.meta_path.insert(0, Interrupt())
from fmcluster.__main__ import main

main()
"""


def test_it_runs_as_a_module() -> None:
    found = subprocess.run([sys.executable, "-m", "fmcluster", "--version"], capture_output=True, text=True, check=True)
    assert found.stdout.startswith("fmcluster ")


def test_interrupted_while_it_loads_it_ends_with_130_and_says_so() -> None:
    found = subprocess.run([sys.executable, "-c", INTERRUPTED], capture_output=True, text=True, check=False)
    assert (found.returncode, found.stdout, found.stderr) == (130, "", f"{SAID}\n")


IN_TEXT = """
import sys
import typer
import fmcluster.cli


def interrupted():
    try:
        exec("raise KeyboardInterrupt")
    except KeyboardInterrupt:
        print("caught", flush=True)
        raise


fmcluster.cli.app = typer.Typer()
fmcluster.cli.app.command()(interrupted)
sys.argv = ["fmcluster"]
from fmcluster.__main__ import main

main()
"""


def test_interrupted_while_text_is_run_it_ends_with_130_and_not_by_the_signal() -> None:
    """Python remembers an interrupt that passed through `exec`, and ends by the signal whatever the exit code is."""
    found = subprocess.run([sys.executable, "-c", IN_TEXT], capture_output=True, text=True, check=False)
    assert found.stdout == "caught\n"
    assert found.stderr == f"{SAID}\n"
    assert found.returncode == 130


# a job in the background of a shell without job control is started to ignore Ctrl-C; this one is not
LISTENS = """
import signal

signal.signal(signal.SIGINT, signal.default_int_handler)
"""

AT_THE_END = """
import atexit
import os
import sys
import typer
import fmcluster.cli


def done():
    atexit.register(os.kill, os.getpid(), signal.SIGINT)
    print("done")


fmcluster.cli.app = typer.Typer()
fmcluster.cli.app.command()(done)
sys.argv = ["fmcluster"]
from fmcluster.__main__ import main

main()
"""


def test_interrupted_when_all_is_done_it_ends_with_130_and_says_so() -> None:
    found = subprocess.run([sys.executable, "-c", LISTENS + AT_THE_END], capture_output=True, text=True, check=False)
    assert (found.returncode, found.stdout, found.stderr) == (130, "done\n", f"{SAID}\n")


@pytest.mark.parametrize(
    ("ends", "code"),
    [("raise typer.Exit(2)", 2), ("return", 0), ("raise SystemExit('why')", 1), ("raise RuntimeError", 1)],
)
def test_it_ends_with_the_code_of_the_command_and_all_that_it_said(ends: str, code: int) -> None:
    script = AT_THE_END.replace(
        "atexit.register(os.kill, os.getpid(), signal.SIGINT)", "atexit.register(print, 'at the end')"
    )
    script = script.replace('print("done")', f"print('done', end=''); {ends}")
    found = subprocess.run([sys.executable, "-c", LISTENS + script], capture_output=True, text=True, check=False)
    assert (found.returncode, found.stdout) == (code, "doneat the end\n")


LOST = """
import sys
import time
import typer
import fmcluster.cli


def interrupted(ends: str):
    try:
        signal.raise_signal(signal.SIGINT)
    except KeyboardInterrupt:
        pass
    if ends == "in an error":
        raise RuntimeError
    while ends == "never":
        pass
    if ends == "in order":
        print("done", flush=True)


fmcluster.cli.app = typer.Typer()
fmcluster.cli.app.command()(interrupted)
sys.argv = ["fmcluster", sys.argv[1]]
from fmcluster.__main__ import main

main()
"""


@pytest.mark.slow
@pytest.mark.parametrize("ends", ["in an error", "never", "in order"])
def test_an_interrupt_that_others_drop_ends_it_all_the_same(ends: str) -> None:
    """As what loads a compiled module does, and finalizers."""
    found = subprocess.run(
        [sys.executable, "-c", LISTENS + LOST, ends], capture_output=True, text=True, check=False, timeout=60
    )
    assert (found.returncode, found.stderr) == (130, f"{SAID}\n")


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such children")
def test_what_was_started_to_go_on_in_spite_of_interrupts_does() -> None:
    """As `nohup` and a shell's background jobs do."""
    ignore = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)"
    raised = INTERRUPTED.replace("raise KeyboardInterrupt", "signal.raise_signal(signal.SIGINT)")
    ignored = f"{ignore}\n{raised}".replace("main()", "sys.argv = ['', '--version']; main()")
    found = subprocess.run([sys.executable, "-c", ignored], capture_output=True, text=True, check=False)
    assert found.returncode == 0
    assert found.stdout.startswith("fmcluster ")
