"""Small runs to be harmed, how many rounds of harm there are, and the table of what was tried."""

import os
import platform
import shutil
from collections import Counter
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import torch

from . import small_runs

Tally = Counter[tuple[str, str, str]]  # a kind of fault, what met it, and what came of it
OUTCOMES = ("found", "harmless", "wrong")
COUNTS = pytest.StashKey[Tally]()

PAGE = """# Reliability

After reading this page you know what was done to runs, and what came of it. `make soak` gives each kind of fault
1,000 rounds (`ROUNDS=100` for fewer), spread over what it can meet, and writes this page; a few rounds of each are part
of the tests. A seed decides which damage is done in a round. What needs no chance is done once, however many rounds
there are: all commands, each at a run whose metadata is false, that is damaged, or that holds unusual content; and of a
run in a bucket, each kind of file harmed in each way.

- *Found* means: `fmcluster verify` lists it, or the run is refused with an error that says what is damaged. Every
  reading function is then called; each returns what was recorded, or raises `StoreError`. None returned a wrong number.
- *Harmless* means: what was changed has no meaning (the spelling of JSON, two files with the same content), and all
  that can be read is what was recorded.
- *A command is given a run ...*: all commands of the command line, each at a run whose metadata is false, that is
  damaged, or that holds unusual content. *Found* means here: it gives its result, or refuses in one sentence with exit
  code 2 and no file; there is no traceback, the run is as it was, and no name controls the terminal or runs in a page.
- *Survived* means: all snapshots that were whole are read as they were recorded, and the run that was resumed is
  equal, file by file, to one that nothing happened to.

A command that is killed while it writes may leave a hidden folder, `.NAME.xxxxxxxx.fmcluster`, beside what it wrote:
never half a file under its name. The next command that writes the same removes that folder. It is known by its name,
its owner, what is in it, and a lock in it, which the system takes from a process that ends: what a living one holds
stays, and on a disk without locks (some network file systems) all of them do. A copy into a bucket leaves nothing
hidden; what lies there of a copy that was killed is used by the next.

Written by the tests on {day} ({machine}, Python {python}, torch {torch}): {n_rounds:,} rounds of
{n_kinds} kinds of fault.

{kinds}

What met them:

{all}
"""


def rounds(few: int, *, among: int = 1) -> int:
    """Return how often to try a kind of fault at one of the `among` targets over which its rounds are spread.

    In the tests that is `few`; in a soak the targets together have as many as ``FMCLUSTER_SOAK`` says.
    """
    soak = os.environ.get("FMCLUSTER_SOAK")
    return few if soak is None else -(-int(soak) // among)


def pytest_configure(config: pytest.Config) -> None:
    """Begin to count."""
    config.stash[COUNTS] = Counter()


@pytest.fixture(scope="session")
def tally(pytestconfig: pytest.Config) -> Tally:
    """Counts what was done and what came of it; written down where ``FMCLUSTER_SOAK_TABLE`` names a file."""
    return pytestconfig.stash[COUNTS]


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any, error: object) -> None:
    """Add up what a process of several has counted."""
    for *key, count in getattr(node, "workeroutput", {}).get("tally", []):
        node.config.stash[COUNTS][tuple(key)] += count


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Hand over what this process has counted, or write the page; of a soak that was broken off there is none."""
    config, counts = session.config, session.config.stash[COUNTS]
    if hasattr(config, "workeroutput"):
        config.workeroutput["tally"] = [[*key, count] for key, count in counts.items()]
    elif (file := os.environ.get("FMCLUSTER_SOAK_TABLE")) and exitstatus in (
        pytest.ExitCode.OK,
        pytest.ExitCode.TESTS_FAILED,
    ):
        Path(file).write_text(page_of(counts))


def page_of(counts: Tally) -> str:
    """Return the page of what was tried."""
    kinds: Tally = Counter()
    for (kind, _, outcome), count in counts.items():
        kinds[kind, "", outcome] += count
    return PAGE.format(
        day=date.today().isoformat(),
        machine=f"{platform.system()}, {os.cpu_count()} cores",
        python=platform.python_version(),
        torch=torch.__version__,
        n_rounds=counts.total(),
        n_kinds=len({kind for kind, _, _ in kinds}),
        kinds=table_of(kinds, ["kind of fault"]),
        all=table_of(counts, ["kind of fault", "what met it"]),
    )


def table_of(counts: Tally, columns: list[str]) -> str:
    """Return a table of the rounds and their outcomes, a line for each kind of fault and each that met it."""
    heads = [*columns, "rounds", "found or survived", "harmless", "wrong or lost"]
    rows = [heads, ["---"] * len(columns) + ["---:"] * 4]
    for key in sorted({key[:2] for key in counts}):
        of = [counts[*key, outcome] for outcome in OUTCOMES]
        rows.append([*key[: len(columns)], *(f"{number:,}" for number in (sum(of), *of))])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


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
