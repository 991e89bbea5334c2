"""Whatever kills the writer, at whatever moment: readers see whole snapshots, and the run can be resumed."""

import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import xarray as xr
import zarr

from fmcluster import StoreError
from fmcluster.store import open_run, verify

Writer = Callable[..., dict[str, Any]]
Event = tuple[str, str]


def files_of(path: Path) -> dict[str, bytes]:
    return {str(file.relative_to(path)): file.read_bytes() for file in path.rglob("*") if file.is_file()}


def roots_replaced(events: list[Event], path: Path) -> int:
    return sum(kind == "rename" and what == str(path / "zarr.json") for kind, what in events)


def check_reader(path: Path, n_snapshots: int, contents: ModuleType) -> None:
    run = open_run(path)
    assert run.snapshots["step"].tolist() == list(contents.STEPS[:n_snapshots])
    assert run.snapshots["epoch"].tolist() == list(contents.EPOCHS[:n_snapshots])
    assert verify(run) == []
    for spec in contents.SPECS:
        for snapshot in range(n_snapshots):
            np.testing.assert_array_equal(run[spec.name].read(snapshot=snapshot), contents.activation(spec, snapshot))
            if spec.gradient:
                found = run[spec.name].gradient.read(snapshot=snapshot)
                np.testing.assert_array_equal(found, contents.gradient(spec, snapshot))
        assert run[spec.name].shape[0] == n_snapshots
    group = zarr.open_group(path, mode="r")
    for name, node in group.members(max_depth=None):
        if isinstance(node, zarr.Array) and node.metadata.dimension_names[0] == "snapshot":
            assert node.shape[0] == n_snapshots, name
            assert zarr.open_array(path / name, mode="r").shape[0] <= n_snapshots, name
    with xr.open_datatree(path, engine="zarr") as tree:
        assert tree.sizes["snapshot"] == n_snapshots
        assert tree["layers/conv1"].sizes["snapshot"] == n_snapshots


def kill_and_go_on(path: Path, moment: Event, *, writer: Writer, contents: ModuleType, whole: dict[str, bytes]) -> None:
    answer = writer(path, mode="x", kill_at=moment)
    seen = roots_replaced(answer["events"], path)
    if answer["signal"] == 0:  # zarr makes folders as it goes, from several threads: not always as often
        assert moment[0] == "mkdir"
    if seen == 0:
        with pytest.raises(FileNotFoundError):
            open_run(path)
    elif seen == 1:
        with pytest.raises(StoreError, match="Record it again"):
            open_run(path)
    else:
        check_reader(path, seen - 2, contents)
    contents.record(path, mode="a")
    assert files_of(path) == whole, moment


@pytest.fixture(scope="module")
def moments(killed_writer: Writer, tmp_path_factory: pytest.TempPathFactory) -> list[tuple[int, str, int]]:
    """All that an uninterrupted writer does to the disk: roots replaced so far, kind of event, number of its kind."""
    path = tmp_path_factory.mktemp("moments") / "run.zarr"
    answer = killed_writer(path, mode="x")
    assert answer["signal"] == 0
    counts: Counter[str] = Counter()
    out = []
    for number, (kind, _) in enumerate(answer["events"]):
        out.append((roots_replaced(answer["events"][:number], path), kind, counts[kind]))
        counts[kind] += 1
    return out


def test_the_uninterrupted_writer_does_everything_that_can_be_interrupted(moments: list[tuple[int, str, int]]) -> None:
    assert {kind for _, kind, _ in moments} >= {"open", "rename", "mkdir", "fsync", "chunk", "torn chunk"}
    assert {kind for _, kind, _ in moments} >= {"shard", "truncate", "torn shard"}
    assert max(roots for roots, _, _ in moments) == 5


@pytest.mark.slow
def test_killed_at_moments_of_each_kind(
    moments: list[tuple[int, str, int]], killed_writer: Writer, contents: ModuleType, reference: Path, tmp_path: Path
) -> None:
    """One of each kind while nothing is there, while it is laid out, in its first snapshot and in its second."""
    chosen: dict[tuple[int, str], list[int]] = {}
    for roots, kind, number in moments:
        chosen.setdefault((roots, kind), []).append(number)
    path, whole = tmp_path / "run.zarr", files_of(reference)
    for (roots, kind), numbers in chosen.items():
        if roots < 4:
            moment = (kind, numbers[-1] if kind == "rename" else numbers[len(numbers) // 2])
            kill_and_go_on(path, moment, writer=killed_writer, contents=contents, whole=whole)
            shutil.rmtree(path)


@pytest.mark.slow
def test_killed_at_many_moments(
    moments: list[tuple[int, str, int]], killed_writer: Writer, contents: ModuleType, reference: Path, tmp_path: Path
) -> None:
    path, whole = tmp_path / "run.zarr", files_of(reference)
    for _, kind, number in moments[::24]:
        kill_and_go_on(path, (kind, number), writer=killed_writer, contents=contents, whole=whole)
        shutil.rmtree(path)


@pytest.mark.slow
def test_killed_twice(
    moments: list[tuple[int, str, int]], killed_writer: Writer, contents: ModuleType, reference: Path, tmp_path: Path
) -> None:
    path = tmp_path / "run.zarr"
    killed_writer(
        path, mode="x", kill_at=("rename", max(n for roots, kind, n in moments if kind == "rename" and roots < 5))
    )
    check_reader(path, 2, contents)
    flush = "syncfs" if any(kind == "syncfs" for _, kind, _ in moments) else "fsync"
    for kill_at in (("rename", 1), (flush, 0), ("torn shard", 2), ("truncate", 3), ("torn chunk", 4)):
        assert killed_writer(path, mode="a", kill_at=kill_at)["signal"] == -9
        check_reader(path, 2, contents)
    contents.record(path, mode="a")
    assert files_of(path) == files_of(reference)


@pytest.mark.slow
def test_killed_while_an_old_run_is_replaced(
    killed_writer: Writer, contents: ModuleType, reference: Path, tmp_path: Path
) -> None:
    path, whole = tmp_path / "run.zarr", files_of(reference)
    shutil.copytree(reference, path)
    events = killed_writer(path, mode="w")["events"]
    assert files_of(path) == whole
    n_removed = sum(kind == "remove" for kind, _ in events)
    assert n_removed >= len(whole)
    for kill_at in [("rename", 0), ("rename", 1), ("rmdir", 0), ("rmdir", 9)] + [
        ("remove", n) for n in (0, 1, n_removed // 2, len(whole) - 2, len(whole) - 1)
    ]:
        answer = killed_writer(path, mode="w", kill_at=kill_at)
        assert answer["signal"] == -9
        try:
            run = open_run(path)
        except (FileNotFoundError, StoreError):
            pass  # nothing there, or known to hold nothing
        else:
            check_reader(path, len(run), contents)
        contents.record(path, mode="a")
        assert files_of(path) == whole


def test_the_root_is_torn_while_it_is_replaced(contents: ModuleType, stored: Path, reference: Path) -> None:
    root = (stored / "zarr.json").read_bytes()
    (stored / "zarr.json.partial").write_bytes(root[: len(root) // 2])
    check_reader(stored, 3, contents)
    contents.record(stored, mode="a")
    assert len(open_run(stored)) == 3


def test_files_of_a_snapshot_that_was_never_committed_are_removed(
    contents: ModuleType, stored: Path, reference: Path
) -> None:
    for name in ("epoch/c.3", "step/c.9", "epoch/c.0123456789abcdef.partial", "layers/conv1/activation/c.3.0.0.0.0"):
        (stored / name).write_bytes(b"torn")
    check_reader(stored, 3, contents)
    contents.record(stored, mode="a")
    assert files_of(stored) == files_of(reference)
