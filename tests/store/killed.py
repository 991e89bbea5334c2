"""A process that is killed while it writes into a stage."""

import signal
import subprocess
import sys
from pathlib import Path

_WRITES = """
import os, signal, sys
from fmcluster.store import stage
with stage(sys.argv[1]) as folder:
    (folder / sys.argv[2]).write_text("half of what")
    os.kill(os.getpid(), getattr(signal, sys.argv[3]))
"""


def kill_inside(target: Path, *, write: str, how: str = "SIGKILL") -> None:
    """Let a process write a file into the stage of a target, and be killed there."""
    command = [sys.executable, "-c", _WRITES, str(target), write, how]
    assert subprocess.run(command, check=False).returncode == -getattr(signal, how)
