"""Processes killed at the k-th flush, rename, removal or write, or whose disk takes no more: nothing whole is lost."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fmcluster import StoreError
from fmcluster.store import open_run, verify

from .conftest import Tally, rounds
from .small_runs import parts_of

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not hasattr(os, "fork"), reason="signals that kill and limits of files' sizes are POSIX's"),
]

TABLES = ("snapshots", "metrics", "samples", "statistics")
Child = Callable[..., dict[str, int]]


@pytest.fixture(scope="module")
def child() -> Iterator[Child]:
    """A function that does something in a process of its own, and says how that ended."""
    command = [sys.executable, "-m", "tests.faults.child_process"]
    root = Path(__file__).parents[2]
    with subprocess.Popen(command, stdin=-1, stdout=-1, stderr=subprocess.DEVNULL, text=True, cwd=root) as process:
        assert process.stdin is not None
        assert process.stdout is not None

        def run(what: str, path: Path, **how: Any) -> dict[str, int]:
            process.stdin.write(json.dumps({"what": what, "path": str(path), **how}) + "\n")
            process.stdin.flush()
            return json.loads(process.stdout.readline())

        yield run
        process.stdin.close()


def tree(path: Path) -> dict[str, bytes]:
    """Return the content of each file but metadata, with which `verify` compares what the root says.

    The root of a run that was resumed tells of more sessions; a node's own may be behind where nothing was left to do.
    """
    files = (file for file in path.rglob("*") if file.is_file() and file.name != "zarr.json")
    return {str(file.relative_to(path)): file.read_bytes() for file in files}


def wrong_parts(path: Path, truth: dict[str, bytes]) -> list[str]:
    """Return what is read otherwise than it was recorded, of the snapshots that are there."""
    found = dict(parts_of(path))
    wrong = [name for name, value in found.items() if not name.endswith(TABLES) and truth[name] != value]
    return wrong + [name for name in TABLES[:2] if not truth[name].startswith(found[name])]


@pytest.mark.parametrize("what", ["probe", "live", "replay"])
def test_a_recorder_that_is_killed_loses_nothing_that_was_whole(
    what: str, child: Child, tmp_path: Path, tally: Tally
) -> None:
    whole, path = tmp_path / "whole.zarr", tmp_path / "run.zarr"
    count = child(what, whole)["changes"]
    truth, files = dict(parts_of(whole)), tree(whole)
    assert count > 50
    for seed in range(rounds(5)):
        shutil.rmtree(path, ignore_errors=True)
        k = random.Random(f"{what} {seed}").randrange(count)
        ended = child(what, path, k=k)["status"]
        assert ended in (0, -signal.SIGKILL)  # threads write files in an order of their own
        wrong: list[str] = []
        try:
            run = open_run(path)
        except (FileNotFoundError, StoreError) as error:
            if "no run at" not in str(error) and "Record it again" not in str(error):  # it was laid out already
                wrong = [str(error)]
        else:
            wrong = verify(run) + (wrong_parts(path, truth) if len(run) else [])
        assert child(what, path)["status"] == 0
        lost = sorted(set(tree(path).items()) ^ set(files.items()))
        tally[f"killed: {what}", "before a change of a file", "wrong" if wrong or lost else "found"] += 1
        assert not wrong, f"{what}, killed before change {k}"
        assert not lost, f"{what}, killed before change {k}: {[name for name, _ in lost]}"


def test_a_report_that_is_killed_leaves_the_page_and_the_run_as_they_were(
    child: Child, originals: Callable[[str, int], Path], tmp_path: Path, tally: Tally
) -> None:
    run = Path(shutil.copytree(originals("probe", 0), tmp_path / "run.zarr"))
    page, before = tmp_path / "report.html", tree(run)
    page.write_text("an earlier page")
    answer = child("report", run)
    assert answer["status"] == 0
    for seed in range(rounds(2)):
        shutil.rmtree(tmp_path / "run.zarr.results", ignore_errors=True)
        page.write_text("an earlier page")
        k = random.Random(seed).randrange(answer["changes"])
        ended = child("report", run, k=k)["status"]
        kept = page.read_text()
        whole = kept.rstrip().endswith("</html>")
        good = (whole or (ended != 0 and kept == "an earlier page")) and tree(run) == before
        good = good and child("report", run)["status"] == 0 and "</html>" in page.read_text()
        tally["killed: a report", "before a change of a file", "found" if good else "wrong"] += 1
        assert good, f"killed before change {k}"


@pytest.mark.parametrize("what", ["probe", "live", "replay"])
def test_files_that_cannot_grow_lose_nothing_that_was_whole(
    what: str, child: Child, tmp_path: Path, tally: Tally
) -> None:
    whole, path = tmp_path / "whole.zarr", tmp_path / "run.zarr"
    child(what, whole)
    truth, files = dict(parts_of(whole)), tree(whole)
    largest = max(len(content) for content in files.values())
    for seed in range(rounds(2)):
        shutil.rmtree(path, ignore_errors=True)
        limit = random.Random(f"{what} {seed}").randrange(64, largest)
        ended = child(what, path, limit=limit)["status"]
        try:
            run = open_run(path)
        except (FileNotFoundError, StoreError):
            wrong = []
        else:
            wrong = verify(run) + (wrong_parts(path, truth) if len(run) else [])
        assert child(what, path)["status"] == 0
        lost = sorted(set(tree(path).items()) ^ set(files.items()))
        good = ended in (0, 3) and not (wrong or lost)
        tally[f"{what}, a disk that is full", "files may not grow beyond a limit", "found" if good else "wrong"] += 1
        assert good, f"limit {limit}: exit {ended}, {wrong}, {[name for name, _ in lost]}"
