"""How long do commands take to start, beside the libraries that they cannot do without?

    python benchmarks/startup.py RUN [--quick]

Each command is a process of its own, and so are the imports that it needs; the two take turns, and the ratio is that
of a pair. Seconds are of the processor, user's and system's together, so that other work on the machine counts little.
Files lie in the system's cache: the first start after a boot waits for the disk, too. `--help` needs numpy as little
as any library of its own; numpy's start is what people know. RUN is copied, as results are saved beside it.

Writes results/startup.json.
"""

import argparse
import resource
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from results import FOLDER, machine, spread, write

START = "from fmcluster.__main__ import main; main()"


@dataclass(frozen=True)
class Command:
    """What is started: what comes after `fmcluster`, the imports it needs, and how many times those it may take."""

    name: str
    arguments: str
    needs: str
    goal: float | None = None


PICTURES = "zarr, pandas, seaborn"
COMMANDS = (
    Command("--help", "--help", "numpy", 1),
    Command("--version", "--version", "numpy"),
    Command("info", "info {run}", "zarr, pandas", 2),
    Command("verify", "verify {run}", "zarr, pandas"),
    Command("plot grid", "plot {run} grid --layer {layer} -o {folder}/grid.png", PICTURES, 4),
    Command("plot metrics", "plot {run} metrics -o {folder}/metrics.png", PICTURES),
    Command("report, from saved results", "report {run} -o {folder}/report.html", f"{PICTURES}, sklearn.neighbors"),
)


def processor_seconds(code: str, *arguments: str) -> float:
    """Run Python in a process of its own; return the seconds of the processor that it took."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(arguments) or code} ended with exit code {done.returncode}: {done.stderr}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def measure(command: Command, *, rounds: int, **names: str) -> dict[str, Any]:
    arguments = [each.format(**names) for each in command.arguments.split()]
    needs = f"import {command.needs}"
    processor_seconds(START, *arguments)  # compiles what was not, and a report's results are saved
    pairs = [(processor_seconds(needs), processor_seconds(START, *arguments)) for _ in range(rounds)]
    row = {
        "command": command.name,
        "needs": command.needs,
        "goal": command.goal,
        "seconds": [own for _, own in pairs],
        "needs_seconds": [bare for bare, _ in pairs],
        "times": [own / bare for bare, own in pairs],
    }
    print(f"{command.name:26s} {spread(row['seconds'])} s, {spread(row['times'])} times {command.needs}", flush=True)
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="a run, such as the demo's")
    parser.add_argument("--layer", default="layer2", help="of the grid")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="1 round, of three commands: to try it out")
    parser.add_argument("--output", type=Path, default=FOLDER)
    arguments = parser.parse_args()
    rounds = 1 if arguments.quick else arguments.rounds
    with TemporaryDirectory() as folder:
        run = shutil.copytree(arguments.run, Path(folder) / "run.zarr")
        names = {"run": str(run), "folder": folder, "layer": arguments.layer}
        chosen = [each for each in COMMANDS if each.goal or not arguments.quick]
        rows = [measure(each, rounds=rounds, **names) for each in chosen]
    write("startup", {"machine": machine(), "rows": rows}, folder=arguments.output)


if __name__ == "__main__":
    main()
