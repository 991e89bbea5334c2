"""Small runs to be harmed, how many rounds of harm there are, and the table of what was tried."""

import os
import platform
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path

import pytest
import torch

from . import small_runs

Tally = Counter[tuple[str, str, str]]

PAGE = """# Reliability

After reading this page you know what was done to runs, and what came of it. `make soak` repeats all of it with many
rounds and writes this page; a few rounds of each are part of the tests. Every round draws its harm from a seed.

- *Found* means: `fmcluster verify` lists it, or the run is refused with an error that says what is damaged. Every
  reading function is then called; each returns what was recorded, or raises `StoreError`. None returned a wrong number.
- *Harmless* means: what was changed says nothing (the spelling of JSON, two files with the same content), and all that
  can be read is what was recorded.
- *Commands at a run ...* are all commands of the command line, each at a run that lies, is damaged, or holds what is
  seldom. *Found* means here: it answers, or refuses in one sentence with exit code 2 and no file; there is no
  traceback, the run is as it was, and nothing that a name holds steers the terminal or runs in a page.
- *Survived* means: all snapshots that were whole are read as they were recorded, and the run that was resumed is
  equal, file by file, to one that nothing happened to.

A command that is killed while it writes may leave a hidden folder, `.NAME.xxxxxxxx.fmcluster`, beside what it wrote:
never half a file under its name. The next command that writes the same removes that folder. It is known by its name,
its owner, what is in it, and a lock in it, which the system takes from a process that ends: what a living one holds
stays, and on a disk without locks (some network file systems) all of them do. A copy into a bucket leaves nothing
hidden; what lies there of a copy that was killed is used by the next.

Written by the tests on {day} ({machine}, Python {python}, torch {torch}).

| what | harm | rounds | found or survived | harmless | wrong or lost |
| --- | --- | ---: | ---: | ---: | ---: |
{rows}
"""


def rounds(few: int) -> int:
    """Return how often to try something: `few` times in the tests, as often as ``FMCLUSTER_SOAK`` says in a soak."""
    return int(os.environ.get("FMCLUSTER_SOAK", few))


@pytest.fixture(scope="session")
def tally() -> Iterator[Tally]:
    """Counts what was done and what came of it; written down where ``FMCLUSTER_SOAK_TABLE`` names a file."""
    counts: Tally = Counter()
    yield counts
    if file := os.environ.get("FMCLUSTER_SOAK_TABLE"):
        rows = []
        for what, harm in sorted({(what, harm) for what, harm, _ in counts}):
            of = {outcome: counts[what, harm, outcome] for outcome in ("found", "harmless", "wrong")}
            cells = [what, harm, *(f"{number:,}" for number in (sum(of.values()), *of.values()))]
            rows.append(f"| {' | '.join(cells)} |")
        about = {"day": date.today().isoformat(), "machine": f"{platform.system()}, {os.cpu_count()} cores"}
        page = PAGE.format(rows="\n".join(rows), python=platform.python_version(), torch=torch.__version__, **about)
        Path(file).write_text(page)


@pytest.fixture(scope="session")
def originals(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, int], Path]:
    """A function that returns a run of a kind and a seed, not to be changed."""
    folder, made = tmp_path_factory.mktemp("originals"), {}

    def original(kind: str, seed: int) -> Path:
        if (kind, seed) not in made:
            made[kind, seed] = folder / f"{kind}-{seed}.zarr"
            small_runs.RECORD[kind](made[kind, seed], seed=seed)
        return made[kind, seed]

    return original


@pytest.fixture
def copy_of(tmp_path: Path) -> Callable[[Path], Path]:
    """A function that returns a fresh copy of a run."""

    def copy(run: Path) -> Path:
        target = tmp_path / "run.zarr"
        shutil.rmtree(target, ignore_errors=True)
        return Path(shutil.copytree(run, target))

    return copy
