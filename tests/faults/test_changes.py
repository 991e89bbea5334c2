"""Runs that change while they are read: what is read is what was there when the run was opened, or an error says so."""

import os
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fmcluster import StoreError
from fmcluster.store import Run, open_run

from .conftest import Tally, rounds
from .small_runs import EPOCHS, record_live

KIND = "a run changes while it is read"


def reads(run: Run) -> Iterator[tuple[str, Callable[[], bytes]]]:
    """Return how to read each part of a live run that has been opened."""
    for name in run.layers:
        for layer in (run[name], run[name].gradient):
            for k in range(len(run)):
                yield f"{layer.label} {k}", lambda layer=layer, k=k: layer.read(snapshot=k).tobytes()
                yield f"{layer.label} {k}, part", lambda layer=layer, k=k: layer.read(snapshot=k, samples=[2]).tobytes()
            yield f"{layer.label} statistics", lambda layer=layer: layer.statistics.to_csv().encode()
    for k in range(len(run)):
        yield f"index {k}", lambda k=k: run.sample_ids(k).tobytes()
        yield f"weights {k}", lambda k=k: b"".join(v.tobytes() for v in run.read_weights(snapshot=k).values())
    for what in ("samples", "metrics", "snapshots", "weights"):
        yield what, lambda what=what: getattr(run, what).to_csv().encode()
    yield "a tree", lambda: run.to_xarray()["layers/conv/activation"].values.tobytes()
    yield "a name", lambda: run.to_xarray()["samples/path"].values.tolist().__repr__().encode()


def become(run: Path, other: Path, file: Path) -> None:
    """Remove the run, and put another in its place."""
    shutil.rmtree(run)
    shutil.copytree(other, run)


def exchange(run: Path, other: Path, file: Path) -> None:
    """Do so at once, as one who renames folders."""
    shutil.copytree(other, run.with_name("aside"))
    run.rename(run.with_name("gone"))
    run.with_name("aside").rename(run)


def record_anew(run: Path, other: Path, file: Path) -> None:
    """Record the run anew, of fewer snapshots."""
    record_live(run, seed=3, mode="w", epochs=range(2))


def go_on(run: Path, other: Path, file: Path) -> None:
    """Record another snapshot, which a reader does not see."""
    record_live(run, seed=0, mode="a", epochs=range(EPOCHS, EPOCHS + 1))


def change_root(run: Path, other: Path, file: Path) -> None:
    """Put the root of another run of the same layout in the place of the run's."""
    shutil.copyfile(other / "zarr.json", run / "zarr.json")


def change_file(run: Path, other: Path, file: Path) -> None:
    """Put the file of another run in the place of the one that is about to be read."""
    shutil.copyfile(other / file.relative_to(run), run / "partial")
    (run / "partial").replace(file)


def write_into(run: Path, other: Path, file: Path) -> None:
    """Overwrite what is being read, in place."""
    content = (other / file.relative_to(run)).read_bytes()
    with file.open("r+b") as opened:
        opened.write(content[: len(content) // 2])


def cut(run: Path, other: Path, file: Path) -> None:
    """Take the second half away."""
    os.truncate(file, file.stat().st_size // 2)


def grow(run: Path, other: Path, file: Path) -> None:
    """Let the file be long, and hold nothing more."""
    os.truncate(file, 1 << 40)


def fifo(run: Path, other: Path, file: Path) -> None:
    """Put a FIFO there, at which a reader would wait for ever."""
    file.unlink()
    os.mkfifo(file)


def link(run: Path, other: Path, file: Path) -> None:
    """Put a link there, to the file of another run."""
    file.unlink()
    file.symlink_to(other / file.relative_to(run))


def remove(run: Path, other: Path, file: Path) -> None:
    """Remove the run."""
    shutil.rmtree(run)


CHANGES = [become, exchange, record_anew, go_on, change_root, change_file, write_into, cut, grow, fifo, link, remove]


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="Windows does not let go of files that are open")
@pytest.mark.parametrize("when", ["before it is opened", "before it is read"])
@pytest.mark.parametrize("change", CHANGES)
def test_what_is_read_is_of_one_state(
    change: Callable[[Path, Path, Path], None],
    when: str,
    originals: Callable[[str, int], Path],
    copy_of: Callable[[Path], Path],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    tally: Tally,
) -> None:
    """A file changes after its size was asked for, or after it was opened; the rest is read then."""
    other = Path(shutil.copytree(originals("live", 1), tmp_path / "other.zarr"))
    truth = {name: read() for name, read in reads(open_run(originals("live", 0)))}
    opening = os.open

    for seed in range(rounds(2, among=2 * len(CHANGES))):
        run = copy_of(originals("live", 0))
        for name in ("gone", "aside"):
            shutil.rmtree(run.with_name(name), ignore_errors=True)
        changed: list[Any] = []
        count, at = [0], random.Random(f"{change.__name__} {when} {seed}").randrange(60)

        def watched(
            path: Any,
            flags: int,
            *rest: Any,
            count: Any = count,
            at: int = at,
            run: Path = run,
            changed: Any = changed,
            **more: Any,
        ) -> int:
            if count[0] >= 10**6 or not str(path).startswith(f"{run}/") or flags & (os.O_WRONLY | os.O_RDWR):
                return opening(path, flags, *rest, **more)
            count[0] += 1
            if now := count[0] == at + 1:
                count[0] = 10**6  # what the change opens itself is not counted
            if now and when == "before it is opened":
                change(run, other, Path(path))
                changed.append(path)
            handle = opening(path, flags, *rest)
            if now and when != "before it is opened":
                change(run, other, Path(path))
                changed.append(path)
            return handle

        wrong: list[str] = []
        refused: list[str] = []
        opened = open_run(run)
        monkeypatch.setattr(os, "open", watched)
        for name, read in reads(opened):
            try:
                if read() != truth[name]:
                    wrong.append(name)
            except StoreError as error:
                refused.append(str(error))
        monkeypatch.setattr(os, "open", opening)
        assert changed, "nothing was changed"
        tally[KIND, when, "wrong" if wrong else "found" if refused else "harmless"] += 1
        assert not wrong, f"{change.__name__} {when}, file {at}"
        assert not any("\n" in each for each in refused)
        if change is go_on:
            assert not refused
