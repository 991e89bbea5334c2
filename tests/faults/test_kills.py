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

from ..store.bucket import environment_of, s3_server
from .conftest import Tally, rounds
from .small_runs import parts_of

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not hasattr(os, "fork"), reason="signals that kill and limits of files' sizes are POSIX's"),
]

COMMANDS = {
    "plot": (["plot", "RUN", "statistics", "--layer", "conv", "-o", "OUT.png"], b"IEND\xaeB`\x82"),
    "compare": (["compare", "RUN", "OTHER", "-o", "OUT.html"], b"</html>"),
    "diagnose": (["diagnose", "RUN", "-o", "OUT"], b"\n"),
}
READERS = ["report", "analyze"]
RECORDERS = ["probe", "live", "replay"]
KILLED = [*RECORDERS, *READERS, *COMMANDS, "copy"]
ENDS = "a process is killed before a change of a file"
CANNOT_GROW, SMALL_DISK = "files cannot grow beyond a limit", "a small disk fills up"
DISK = 24 << 20  # bytes; a report has 5 MB
GROWING = ("snapshots", "metrics", "norms")  # tables with rows for each snapshot, one after the other
TABLES = (*GROWING, "samples", "statistics")
Child = Callable[..., dict[str, int]]
Originals = Callable[[str, int], Path]


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


def wrong_parts(path: Path | str, truth: dict[str, bytes]) -> list[str]:
    """Return what is read otherwise than it was recorded, of the snapshots that are there."""
    found = dict(parts_of(path))
    wrong = [name for name, value in found.items() if not name.endswith(TABLES) and truth[name] != value]
    return wrong + [name for name in GROWING if name in found and not truth[name].startswith(found[name])]


@pytest.mark.parametrize("what", RECORDERS)
def test_a_recorder_that_is_killed_loses_nothing_that_was_whole(
    what: str, child: Child, tmp_path: Path, tally: Tally
) -> None:
    whole, path = tmp_path / "whole.zarr", tmp_path / "run.zarr"
    count = child(what, whole)["changes"]
    truth, files = dict(parts_of(whole)), tree(whole)
    assert count > 50
    for seed in range(rounds(3, among=len(KILLED))):
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
        tally[ENDS, what, "wrong" if wrong or lost else "found"] += 1
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
    for seed in range(rounds(2, among=len(KILLED))):
        shutil.rmtree(tmp_path / "run.zarr.results", ignore_errors=True)
        page.write_text("an earlier page")
        k = random.Random(seed).randrange(answer["changes"])
        ended = child("report", run, k=k)["status"]
        kept = page.read_text()
        whole = kept.rstrip().endswith("</html>")
        good = (whole or (ended != 0 and kept == "an earlier page")) and tree(run) == before
        good = good and child("report", run)["status"] == 0 and "</html>" in page.read_text()
        tally[ENDS, "report", "found" if good else "wrong"] += 1
        assert good, f"killed before change {k}"


def test_an_analysis_that_is_killed_leaves_no_half_of_a_table_and_the_run_as_it_was(
    child: Child, originals: Callable[[str, int], Path], tmp_path: Path, tally: Tally
) -> None:
    run = Path(shutil.copytree(originals("probe", 0), tmp_path / "run.zarr"))
    tables, results, before = tmp_path / "tables", tmp_path / "run.zarr.results", tree(run)
    answer = child("analyze", run)
    assert answer["status"] == 0
    truth = tree(tables)
    assert {"rows.csv", "flow.csv", "parameters.json"} <= truth.keys()
    for seed in range(rounds(2, among=len(KILLED))):
        shutil.rmtree(results, ignore_errors=True)
        shutil.rmtree(tables)
        if there := seed % 2:
            tables.mkdir()
            for name in truth:
                (tables / name).write_text("an earlier table")
        k = random.Random(seed).randrange(answer["changes"])
        ended = child("analyze", run, k=k)["status"]
        kept = tree(tables)
        good = kept.keys() == truth.keys() if there else not kept or kept == truth
        good = good and all(content in (truth[name], b"an earlier table") for name, content in kept.items())
        good = good and (ended == -signal.SIGKILL or kept == truth) and tree(run) == before
        good = good and child("analyze", run)["status"] == 0 and tree(tables) == truth
        tally[ENDS, "analyze", "found" if good else "wrong"] += 1
        assert good, f"killed before change {k}"


@pytest.mark.parametrize("what", COMMANDS)
def test_a_command_that_is_killed_leaves_no_half_of_what_it_writes(
    what: str, child: Child, originals: Originals, tmp_path: Path, tally: Tally
) -> None:
    run = Path(shutil.copytree(originals("probe", 0), tmp_path / "run.zarr"))
    folder, before = tmp_path / "out", tree(run)
    words = {"RUN": str(run), "OTHER": str(originals("probe", 0))}
    command, ending = COMMANDS[what]
    arguments = [words.get(each, each.replace("OUT", str(folder / "made"))) for each in command]
    folder.mkdir()
    answer = child("command", folder / "x", arguments=arguments)
    names = tree(folder).keys()
    assert answer["status"] == 0
    assert names
    for seed in range(rounds(2, among=len(KILLED))):
        shutil.rmtree(folder)
        folder.mkdir()
        if there := seed % 2:
            for name in names:
                (folder / name).parent.mkdir(exist_ok=True)
                (folder / name).write_text("an earlier one")
        ended = child("command", folder / "x", arguments=arguments, k=random.Random(seed).randrange(answer["changes"]))
        kept = {name: content for name, content in tree(folder).items() if not name.startswith(".")}
        wrong = [name for name, content in kept.items() if not content.endswith((ending, b"an earlier one"))]
        wrong += [] if kept.keys() == names or not (kept or there) else [f"only {sorted(kept)} is there"]
        wrong += [] if ended["status"] in (0, -signal.SIGKILL) and tree(run) == before else ["the run"]
        again = child("command", folder / "x", arguments=arguments)
        wrong += [] if again["status"] == 0 and tree(folder).keys() == names else [f"{sorted(tree(folder))} is left"]
        tally[ENDS, what, "wrong" if wrong else "found"] += 1
        assert not wrong, f"{what}, seed {seed}"


def test_a_copy_that_is_killed_is_none_or_whole_and_goes_on(
    child: Child, originals: Originals, tally: Tally, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between two files, of which each comes to lie there at once."""
    run = originals("probe", 0)
    truth = dict(parts_of(run))
    with s3_server() as server:
        environment = environment_of(server)
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        for seed in range(rounds(2, among=8 * len(KILLED))):  # thousand requests each
            url = f"s3://bucket/{seed}.zarr"
            how = {"arguments": [url], "environment": environment}
            k, wrong = random.Random(f"copy {seed}").randrange(100), []
            ended = child("copy", run, k=k, **how)["status"]
            try:
                wrong = verify(open_run(url))
            except (FileNotFoundError, StoreError) as error:
                told = any(said in str(error) for said in ("no run at", "a copy that was interrupted"))
                wrong = [] if ended == -signal.SIGKILL and told else [str(error)]
            wrong += [] if child("copy", run, **how)["status"] == 0 else ["it does not go on"]
            wrong += [] if dict(parts_of(url)) == truth else ["it is not whole"]
            tally[ENDS, "copy", "wrong" if wrong else "found"] += 1
            assert not wrong, f"killed after {k} files"


@pytest.mark.parametrize("what", RECORDERS)
def test_files_that_cannot_grow_lose_nothing_that_was_whole(
    what: str, child: Child, tmp_path: Path, tally: Tally
) -> None:
    whole, path = tmp_path / "whole.zarr", tmp_path / "run.zarr"
    child(what, whole)
    truth, files = dict(parts_of(whole)), tree(whole)
    largest = max(len(content) for content in files.values())
    for seed in range(rounds(2, among=len(RECORDERS))):
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
        tally[CANNOT_GROW, what, "found" if good else "wrong"] += 1
        assert good, f"limit {limit}: exit {ended}, {wrong}, {[name for name, _ in lost]}"


@pytest.fixture(scope="module")
def small_disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path | None]:
    """A file system of its own, of some MB, where this process may mount one."""
    folder = tmp_path_factory.mktemp("disk")
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", str(folder)]
    allowed = shutil.which("mount") and subprocess.run(mount, capture_output=True, check=False).returncode == 0
    yield folder if allowed else None
    if allowed:
        subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.parametrize("what", [*RECORDERS, *READERS])
def test_a_disk_that_fills_up_loses_nothing_that_was_whole(
    what: str,
    child: Child,
    originals: Callable[[str, int], Path],
    small_disk: Path | None,
    tmp_path: Path,
    tally: Tally,
) -> None:
    """On a disk of its own, of which all is taken, or all but some; where none may be mounted, files may not grow."""
    disk = tmp_path if small_disk is None else small_disk
    path, ballast, reads = disk / "run.zarr", disk / "ballast", what in ("report", "analyze")
    clear(disk)
    if reads:
        shutil.copytree(originals("probe", 0), path)
    free = 0 if small_disk is None else shutil.disk_usage(disk).free
    assert child(what, path)["status"] == 0
    taken = free and free - shutil.disk_usage(disk).free
    truth, files = dict(parts_of(path)), tree(path)
    made = {name: content for name, content in tree(disk).items() if not name.startswith("run.zarr")}
    largest = max(len(content) for content in tree(disk).values())
    for seed in range(rounds(2, among=len([*RECORDERS, *READERS]))):
        draw = random.Random(f"{what} {seed}")
        clear(disk)
        if reads:
            shutil.copytree(originals("probe", 0), path)
        if small_disk is None:
            limit = {"limit": draw.randrange(64, largest) if seed else 64}
        else:
            limit, room = {}, draw.randrange(0, taken) if seed else 0
            ballast.write_bytes(bytes(free - room))
        ended = child(what, path, **limit)["status"]
        wrong = [] if ended == 3 or (ended == 0 and seed) else [f"it ended with {ended}"]
        try:
            run = open_run(path)
        except (FileNotFoundError, StoreError):
            wrong += ["the run cannot be opened"] * reads
        else:
            wrong += verify(run) + (wrong_parts(path, truth) if len(run) else [])
        ballast.unlink(missing_ok=True)
        found = {name: content for name, content in tree(disk).items() if not name.startswith("run.zarr")}
        wrong += [f"{name} is not whole" for name, content in found.items() if content != made.get(name)]
        assert child(what, path)["status"] == 0
        lost = sorted(set(tree(path).items()) ^ set(files.items()))
        after = {name: content for name, content in tree(disk).items() if not name.startswith("run.zarr")}
        wrong += [] if after.keys() == made.keys() else [f"{sorted(after)} is there"]
        tally[SMALL_DISK if small_disk else CANNOT_GROW, what, "wrong" if wrong or lost else "found"] += 1
        assert not wrong, f"{what}, {limit or room}"
        assert not lost, f"{what}, {limit or room}: {[name for name, _ in lost]}"


def clear(folder: Path) -> None:
    """Remove all that a folder holds."""
    for each in folder.iterdir():
        if each.is_dir():
            shutil.rmtree(each)
        else:
            each.unlink()
