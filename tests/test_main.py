"""The command as a module, and interrupted while it loads."""

import subprocess
import sys

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
